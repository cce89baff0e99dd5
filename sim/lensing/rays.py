"""Deflection of many rays at once: the formulae of `sim.lensing.kernels` with their loops turned inside out, for speed.

Blocks of positions go through each step together, so that the compiler puts neighbours into one vector register; the
series, which takes most of the time, then costs a quarter (a test holds the two equal).
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from sim.lensing.kernels import FLOOR, SUBHALO, Array, compiled, part_map, root

_BLOCK = 64


@compiled
def deflect_many(frame: Array, parts: Array, terms: Array, x: Any, y: Any, ax: Any, ay: Any) -> None:
    """Deflection at flat arrays of positions, written in their own float type."""
    f1, f2, g1, g2 = frame[4], frame[5], frame[2], frame[3]
    u, v, au, av = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    work = np.empty((6, _BLOCK))
    for start in range(0, len(x), _BLOCK):
        size = min(_BLOCK, len(x) - start)
        for j in range(_BLOCK):  # a last, short block repeats its last position
            i = start + min(j, size - 1)
            px, py = float(x[i]) - frame[0], float(y[i]) - frame[1]
            u[j], v[j] = (1.0 - f1) * px - f2 * py, (1.0 + f1) * py - f2 * px
            au[j], av[j] = 0.0, 0.0
        for k in range(len(parts)):
            if parts[k, 0] == SUBHALO:
                for j in range(_BLOCK):
                    px, py, _, _, _ = part_map(parts[k], terms[k], u[j], v[j], False)
                    au[j], av[j] = au[j] + px, av[j] + py
            else:
                _power_law_block(parts[k], terms[k], u, v, au, av, work)
        for j in range(size):
            px, py = float(x[start + j]) - frame[0], float(y[start + j]) - frame[1]
            ax[start + j] = (1.0 - f1) * au[j] - f2 * av[j] + g1 * px + g2 * py
            ay[start + j] = (1.0 + f1) * av[j] - f2 * au[j] + g2 * px - g1 * py


@compiled
def _power_law_block(row: Array, terms: Array, x: Array, y: Array, ax: Array, ay: Array, work: Array) -> None:
    """Add one power law's deflection of a block."""
    q, t, bt, rc, c, n = row[3], row[4], row[5], row[8], row[6], row[7]
    twice, b1, b2, r2 = work[0], work[1], work[2], work[3]
    for j in range(_BLOCK):
        px, py = x[j] - row[1], y[j] - row[2]
        ex, ey = q * (c * px + n * py), c * py - n * px
        r2[j] = max(ex * ex + ey * ey, FLOOR * FLOOR)
        twice[j] = 2.0 * (ex * ex - ey * ey) / r2[j]
        b1[j] = b2[j] = 0.0
    k = int(row[12])
    while k > 1:  # two steps at a time
        high, low = terms[k], terms[k - 1]
        for j in range(_BLOCK):
            b2[j] = high - b2[j] + twice[j] * b1[j]
            b1[j] = low - b1[j] + twice[j] * b2[j]
        k -= 2
    if k == 1:
        for j in range(_BLOCK):
            b1[j], b2[j] = terms[1] - b2[j] + twice[j] * b1[j], b1[j]
    for j in range(_BLOCK):
        px, py = x[j] - row[1], y[j] - row[2]
        u, v = c * px + n * py, c * py - n * px
        ex, ey = q * u, v
        if r2[j] < rc * rc:
            k0 = 2.0 * row[9] / (1.0 + q)
            au, av = k0 * q * u, k0 * v
        else:
            fr, fi = terms[0] + 0.5 * twice[j] * b1[j] - b2[j], 2.0 * ex * ey / r2[j] * b1[j]
            k1 = 2.0 / (1.0 + q) * (bt / sqrt(r2[j]) if t == 1.0 else bt * r2[j] ** (-0.5 * t))
            au, av = k1 * (ex * fr - ey * fi), k1 * (ex * fi + ey * fr)
        ax[j] += c * au - n * av
        ay[j] += n * au + c * av
    if rc > 0.0:
        _core_block(row, terms, x, y, ax, ay, work)


@compiled
def _core_block(row: Array, terms: Array, x: Array, y: Array, ax: Array, ay: Array, work: Array) -> None:
    """Add the deflection of the mass that the core lacks, where outside of it."""
    q, t, rc, c, n = row[3], row[4], row[8], row[6], row[7]
    twice, b1, b2, square, jr, ji = work[0], work[1], work[2], work[3], work[4], work[5]
    c2, g, largest = (1.0 - q * q) / (q * q) * rc * rc, ((1.0 + q) * rc / q) ** 2, 0.0
    for j in range(_BLOCK):
        px, py = x[j] - row[1], y[j] - row[2]
        u, v = c * px + n * py, c * py - n * px
        outside = 1.0 if q * q * u * u + v * v >= rc * rc else 0.0
        over = outside / max(u * u + v * v, 1e-9 * rc * rc)
        ir, ii = u * over, -v * over
        sr, si = root(1.0 - c2 * (ir * ir - ii * ii), -2.0 * c2 * ir * ii)
        pr, pi = u * (1.0 + sr) - v * si, u * si + v * (1.0 + sr)
        over = outside / max(pr * pr + pi * pi, 1e-9 * rc * rc)
        jr[j], ji[j] = pr * over, -pi * over  # 0 inside
        half = jr[j] * jr[j] - ji[j] * ji[j]
        size = jr[j] * jr[j] + ji[j] * ji[j]
        twice[j], square[j] = 2.0 * g * half, g * g * size * size
        b1[j] = b2[j] = 0.0
    for j in range(_BLOCK):
        largest = max(largest, square[j])
    for k in range(int(row[14]) if largest < 1e-4 else (int(row[13]) if largest < 1e-2 else int(row[12])), 0, -1):
        term = terms[k]
        for j in range(_BLOCK):
            b1[j], b2[j] = term - square[j] * b2[j] + twice[j] * b1[j], b1[j]
    for j in range(_BLOCK):
        imaginary = 2.0 * g * jr[j] * ji[j]
        fr = (2.0 - t) - 2.0 * (terms[0] + 0.5 * twice[j] * b1[j] - square[j] * b2[j])
        fi = -2.0 * imaginary * b1[j]
        au, av = row[10] * (jr[j] * fr - ji[j] * fi), -row[10] * (jr[j] * fi + ji[j] * fr)
        ax[j] += c * au - n * av
        ay[j] += n * au + c * av
