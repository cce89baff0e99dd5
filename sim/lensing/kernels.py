"""Deflection, second derivatives and potential of the mass models, compiled; `sim.lensing.lens` packs what they read.

Outside of its core an elliptical power law (Tessore & Metcalf 2015, A&A 580, A79) loses the mass that a uniform core
lacks (broken power law with inner slope 0: O'Riordan, Warren & Mortlock 2020, MNRAS 496, 3424). That correction is
holomorphic there, alpha* = 2 / q int_0^rc dkappa R dR / sqrt(z^2 - zeta R^2) with zeta = (1 - q^2) / q^2. A quadratic
transformation of its 2F1(1/2, 1 - t/2; 2 - t/2) gives the very series of the power law, 2F1(1, t/2; 2 - t/2; -f v),
now with |v| < 1 outside of the core: one routine does both, and it converges for every q > 0.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, hypot, log, sin, sqrt
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_Function = TypeVar("_Function", bound=Callable[..., object])

POWER_LAW, SUBHALO = 0.0, 1.0
# columns of a packed part: kind, x, y, then
# power law: q, t, b^t, cos pa, sin pa, rc, kappa_c, b^t rc^(2-t) / q, potential at the join, number of terms for
#            |v| <= 1, 0.1, 0.01, bound of the third derivatives
# subhalo:   b, core, truncation
COLUMNS, MAX_TERMS = 16, 200
# a packed frame: x0, y0, gamma1, gamma2, foreground1, foreground2
FLOOR = 1e-12  # elliptical radius below which a singular power law is cut off, arcsec


def compiled(function: _Function) -> _Function:
    """Compile to machine code, cached on disk.

    The cache of a caller in another file does not notice a change here: remove `__pycache__` after editing a kernel.
    """
    machine_code: _Function = numba.njit(cache=True, error_model="numpy")(function)
    return machine_code


@compiled
def fill_power_law(row: Array, terms: Array, theta_e: float, slope: float, q: float, pa: float, core: float) -> None:
    """Constants of one power law; the mean convergence inside of the theta_E ellipse is 1, with a core or without."""
    t = slope - 1.0
    einstein, rc, f = theta_e * sqrt(q), core * sqrt(q), (1.0 - q) / (1.0 + q)
    bt = einstein**t / (1.0 - 0.5 * t * (core / theta_e) ** (2.0 - t))
    row[0], row[3], row[4], row[5], row[6], row[7] = POWER_LAW, q, t, bt, cos(pa), sin(pa)
    row[8] = rc
    row[9] = 0.5 * (2.0 - t) * bt * rc**-t if rc > 0.0 else np.inf
    row[10] = bt * rc ** (2.0 - t) / q
    row[15] = bt * (0.62 + 0.7 * t) * max(1.0, q ** (1.0 - t))
    terms[0], small = 1.0, 1.0
    for n in range(1, MAX_TERMS):  # eq. 23 of Tessore & Metcalf with (-f)^n in the coefficient
        terms[n] = -f * terms[n - 1] * (2.0 * n - (2.0 - t)) / (2.0 * n + (2.0 - t))
    for column, v in ((12, 1.0), (13, 0.1), (14, 0.01)):
        n, small = 1, f * v
        while small > 1e-17 and n < MAX_TERMS - 1:
            small *= f * v
            n += 1
        row[column] = n
    if rc > 0.0:  # the potential is continuous where the major axis leaves the core
        edge = rc / q
        row[11] = row[9] * q * edge * edge / (1.0 + q)
        row[11] -= _power_law_potential(row, terms, edge * (1.0 + 1e-15), 0.0)


@compiled
def _series(terms: Array, n: int, re: float, im: float) -> tuple[float, float]:
    """Sum of terms[k] v^k for k <= n at complex v, by a real recurrence (Clenshaw)."""
    twice, square, b1, b2 = 2.0 * re, re * re + im * im, 0.0, 0.0
    for k in range(n, 0, -1):
        b1, b2 = terms[k] - square * b2 + twice * b1, b1
    return terms[0] + re * b1 - square * b2, im * b1


@compiled
def root(re: float, im: float) -> tuple[float, float]:
    """Principal square root of a complex number that is not 0, without a branch."""
    larger = sqrt(0.5 * (sqrt(re * re + im * im) + abs(re)))
    smaller = 0.5 * abs(im) / larger
    real, imaginary = (larger, smaller) if re >= 0.0 else (smaller, larger)
    return real, imaginary if im >= 0.0 else -imaginary


@compiled
def _core(row: Array, terms: Array, u: float, v: float) -> tuple[float, float, float, float, float, float]:
    """Outside of the core at z = u + iv: deflections* of the uniform and the removed mass, z (1 + s).

    s = sqrt(1 - zeta rc^2 / z^2); complex numbers as pairs.
    """
    q, t, rc = row[3], row[4], row[8]
    square = u * u + v * v
    ir, ii = u / square, -v / square  # 1 / z
    c2 = (1.0 - q * q) / (q * q) * rc * rc
    wr, wi = 1.0 - c2 * (ir * ir - ii * ii), -2.0 * c2 * ir * ii
    sr, si = root(wr, wi)
    pr, pi = u * (1.0 + sr) - v * si, u * si + v * (1.0 + sr)  # p = z (1 + s)
    norm = pr * pr + pi * pi
    jr, ji = pr / norm, -pi / norm
    g = ((1.0 + q) * rc / q) ** 2
    vr, vi = g * (jr * jr - ji * ji), 2.0 * g * jr * ji
    small = vr * vr + vi * vi
    n = int(row[14]) if small < 1e-4 else (int(row[13]) if small < 1e-2 else int(row[12]))
    fr, fi = _series(terms, n, vr, vi)
    k = row[10]
    uniform, removed = (2.0 - t) * k, 2.0 * k
    mr, mi = removed * (jr * fr - ji * fi), removed * (jr * fi + ji * fr)
    return uniform * jr, uniform * ji, mr, mi, pr, pi


@compiled
def _power_law(row: Array, terms: Array, u: float, v: float, second: bool) -> tuple[float, float, float, float, float]:
    """Deflection and second derivatives (uu, uv, vv) in the frame of the major axis; the latter 0 unless `second`."""
    q, t, bt, rc = row[3], row[4], row[5], row[8]
    ex, ey = q * u, v
    r2 = ex * ex + ey * ey
    if r2 < rc * rc:
        k = 2.0 * row[9] / (1.0 + q)
        return k * q * u, k * v, k * q, 0.0, k
    r2 = max(r2, FLOOR * FLOOR)
    profile = bt / sqrt(r2) if t == 1.0 else bt * r2 ** (-0.5 * t)
    fr, fi = _series(terms, int(row[12]), (ex * ex - ey * ey) / r2, 2.0 * ex * ey / r2)
    k = 2.0 / (1.0 + q) * profile
    au, av = k * (ex * fr - ey * fi), k * (ex * fi + ey * fr)
    ur, ui, mr, mi = 0.0, 0.0, 0.0, 0.0
    if rc > 0.0:
        ur, ui, mr, mi, _, _ = _core(row, terms, u, v)
    gr, gi = (1.0 - t) * (au - mr) + ur, ui - (1.0 - t) * (av + mi)
    au, av = au + ur - mr, av - ui + mi
    if not second:
        return au, av, 0.0, 0.0, 0.0
    # gamma* = d alpha* / dz = [(1 - t) alpha* - conj(z) kappa] / z (eq. 17), the core's by the same homogeneity
    kappa = 0.5 * (2.0 - t) * profile
    gr, gi = gr - kappa * u, gi + kappa * v
    square = max(u * u + v * v, FLOOR * FLOOR)
    gr, gi = (gr * u + gi * v) / square, (gi * u - gr * v) / square
    return au, av, kappa + gr, -gi, kappa - gr


@compiled
def _power_law_potential(row: Array, terms: Array, u: float, v: float) -> float:
    """Potential in the frame of the major axis, 0 at the centre of a cored power law."""
    q, t, bt, rc = row[3], row[4], row[5], row[8]
    ex, ey = q * u, v
    r2 = ex * ex + ey * ey
    if r2 < rc * rc:
        return float(row[9] * (q * u * u + v * v) / (1.0 + q))
    r2 = max(r2, FLOOR * FLOOR)
    profile = bt * r2 ** (-0.5 * t)
    fr, fi = _series(terms, int(row[12]), (ex * ex - ey * ey) / r2, 2.0 * ex * ey / r2)
    k = 2.0 / (1.0 + q) * profile
    psi = (u * k * (ex * fr - ey * fi) + v * k * (ex * fi + ey * fr)) / (2.0 - t)
    if rc > 0.0:
        ur, ui, mr, mi, pr, pi = _core(row, terms, u, v)
        k = (2.0 - t) * row[10]
        psi += 0.5 * (u * ur - v * ui) - (u * mr - v * mi) / (2.0 - t)
        psi += k * (0.5 - 1.0 / (2.0 - t)) * log(hypot(pr, pi)) + row[11]
    return float(psi)


@compiled
def part_map(row: Array, terms: Array, x: float, y: float, second: bool) -> tuple[float, float, float, float, float]:
    """Deflection and second derivatives (xx, xy, yy) of one part, position from the origin of the frame."""
    x, y = x - row[1], y - row[2]
    if row[0] == SUBHALO:
        b, s, a = row[3], row[4], row[5]
        r2 = x * x + y * y
        cored, cut = sqrt(s * s + r2), sqrt(a * a + r2)
        ns, na = s + cored, a + cut
        k = b * (1.0 / max(ns, FLOOR) - 1.0 / na)  # alpha / R
        if not second:
            return k * x, k * y, 0.0, 0.0, 0.0
        cored, ns = max(cored, FLOOR), max(ns, FLOOR)
        d = b * (1.0 / (cut * na * na) - 1.0 / (cored * ns * ns))  # (d k / d R) / R
        return k * x, k * y, k + d * x * x, d * x * y, k + d * y * y
    c, n = row[6], row[7]
    au, av, uu, uv, vv = _power_law(row, terms, c * x + n * y, c * y - n * x, second)
    ax, ay = c * au - n * av, n * au + c * av
    if not second:
        return ax, ay, 0.0, 0.0, 0.0
    xx = c * c * uu - 2.0 * c * n * uv + n * n * vv
    yy = n * n * uu + 2.0 * c * n * uv + c * c * vv
    return ax, ay, xx, c * n * (uu - vv) + (c * c - n * n) * uv, yy


@compiled
def lens_map(
    frame: Array, parts: Array, terms: Array, x: float, y: float, second: bool
) -> tuple[float, float, float, float, float]:
    """Deflection and second derivatives of the whole lens at (x, y); the latter are 0 unless `second`."""
    x, y = x - frame[0], y - frame[1]
    f1, f2 = frame[4], frame[5]
    u, v = (1.0 - f1) * x - f2 * y, (1.0 + f1) * y - f2 * x
    ax, ay, xx, xy, yy = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(parts)):
        px, py, pxx, pxy, pyy = part_map(parts[i], terms[i], u, v, second)
        ax, ay, xx, xy, yy = ax + px, ay + py, xx + pxx, xy + pxy, yy + pyy
    if f1 != 0.0 or f2 != 0.0:  # alpha -> M alpha, H -> M H M with M = 1 - Gamma_od
        a, d, k = 1.0 - f1, 1.0 + f1, -f2
        ax, ay = a * ax + k * ay, k * ax + d * ay
        rxx, rxy, ryx, ryy = a * xx + k * xy, a * xy + k * yy, k * xx + d * xy, k * xy + d * yy
        xx, xy, yy = rxx * a + rxy * k, rxx * k + rxy * d, ryx * k + ryy * d
    g1, g2 = frame[2], frame[3]
    return ax + g1 * x + g2 * y, ay + g2 * x - g1 * y, xx + g1, xy + g2, yy - g1


@compiled
def potential(frame: Array, parts: Array, terms: Array, x: float, y: float) -> float:
    """Lensing potential of the whole lens at (x, y), arcsec^2, up to a constant."""
    x, y = x - frame[0], y - frame[1]
    f1, f2 = frame[4], frame[5]
    u, v = (1.0 - f1) * x - f2 * y, (1.0 + f1) * y - f2 * x
    psi = 0.5 * frame[2] * (x * x - y * y) + frame[3] * x * y
    for i in range(len(parts)):
        row, px, py = parts[i], u - parts[i, 1], v - parts[i, 2]
        if row[0] == SUBHALO:
            b, s, a = row[3], row[4], row[5]
            r2 = px * px + py * py
            cored, cut = sqrt(s * s + r2), sqrt(a * a + r2)
            psi += b * (cored - s * log(max(s + cored, FLOOR)) - cut + a * log(a + cut))
        else:
            c, n = row[6], row[7]
            psi += _power_law_potential(row, terms[i], c * px + n * py, c * py - n * px)
    return float(psi)


@compiled
def hessian_many(frame: Array, parts: Array, terms: Array, x: Any, y: Any, out: Array) -> None:
    """Second derivatives (n, 3) of the potential: xx, xy, yy."""
    for i in range(len(x)):
        _, _, out[i, 0], out[i, 1], out[i, 2] = lens_map(frame, parts, terms, x[i], y[i], True)


@compiled
def potential_many(frame: Array, parts: Array, terms: Array, x: Any, y: Any, out: Array) -> None:
    """Potential (n,)."""
    for i in range(len(x)):
        out[i] = potential(frame, parts, terms, x[i], y[i])


@compiled
def bend(frame: Array, parts: Array, x: float, y: float, reach: float) -> float:
    """Bound of the third derivatives of the potential within `reach` of (x, y): |A(a) - A(b)| <= bound |a - b|.

    A power law's are at most c b^t R^(-t - 1) at elliptical radius R and none inside of its core; c(t, q) bounds the
    largest found on a grid of angles, radii, slopes 1.4-2.6 and axis ratios 0.1-1 (`tests/sim/test_lens.py`).
    """
    x, y = x - frame[0], y - frame[1]
    f1, f2, total = frame[4], frame[5], 0.0
    x, y = (1.0 - f1) * x - f2 * y, (1.0 + f1) * y - f2 * x
    grown = 1.0 + hypot(f1, f2)
    reach = reach * grown
    for i in range(len(parts)):
        row, px, py = parts[i], x - parts[i, 1], y - parts[i, 2]
        if row[0] == SUBHALO:
            b, s2 = row[3], row[4] * row[4]
            near = max(hypot(px, py) - reach, 0.0)
            total += min(1.1 * b / (s2 + near * near), 0.28 * b / s2)
        else:
            c, n, rc = row[6], row[7], row[8]
            radius = hypot(row[3] * (c * px + n * py), c * py - n * px)
            if radius + reach >= rc:  # the gradient of R is at most 1
                near = max(radius - reach, rc)
                total += row[15] * near ** (-row[4] - 1.0) if near > 0.0 else np.inf
    return total * grown * grown * grown
