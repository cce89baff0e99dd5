"""Sersic profiles painted on a grid, each sample the mean over its area; compiled. See `sim.scene.paint`."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sim.sersic import BLOCK, exp2, fall_block, log2
from sim.sharing import compact, share

_STEPS_PER_SCALE = 2.0  # parts per scale length of the local profile: means over them err by 2e-4
_NARROW = 2.0  # samples per scale length of the local profile below which it begins to count as compact
_LAST_CUT = 6.0  # e-folds below the half-light radius beyond which a sample is not cut
_MAX_DEPTH = 6  # a sample is halved so often at most: 64 parts a side, only where a profile is steepest
_LEFT_WHOLE = 20.0  # floors of light in a part that need no cut: the PSF spreads them over a hundred samples
_LOG2_E = 1.4426950408889634
_COARSE = 4  # samples between the places at which a profile's far wings are evaluated; cubics go through these
# Samples per scale length of the local profile beyond which they are: within 1% of the wing's light, 0.1% in the mean.
_FAR = 8.0


@njit(cache=True, fastmath=True, error_model="numpy")
def paint_profiles(canvas, rows, flux, reach, strength, step):  # type: ignore[no-untyped-def]
    """Add profiles `rows` (n, 8) with half-light brightness `flux` (n, B), out to `reach` (n,) half-light radii.

    strength : (n,) the brightness at the half-light radius over the floor, of the band where that is largest.
    """
    size = canvas.shape[1]
    middle = (size - 1) / 2
    work = np.empty((6, BLOCK))
    cut = np.empty(BLOCK, np.bool_)
    stack = np.empty((3 * _MAX_DEPTH + 4, 3))  # parts still to do: x, y, side
    stamp = np.empty((7, 7))
    axes = np.empty((2, 6))
    mean = np.empty(BLOCK)
    for c in range(rows.shape[0]):
        x0, y0, radius, q, cos, sin, _, _ = rows[c]
        # the ellipse u^2 q + v^2 / q = reach^2 as a quadratic form: xx dx^2 + 2 xy dx dy + ..., of determinant 1
        xx, xy = q * cos * cos + sin * sin / q, (q - 1 / q) * sin * cos
        limit = (reach[c] * radius) ** 2
        tall = math.sqrt(limit * xx) + 2 * step
        for i in range(max(0, math.ceil((y0 - tall) / step + middle)), size):
            dy = (i - middle) * step - y0
            if dy > tall:
                break
            half = math.sqrt(max(limit * xx - dy * dy, 0.0)) / xx + 2 * step
            centre = x0 - xy / xx * dy
            first = max(0, math.ceil((centre - half) / step + middle))
            last = min(size - 1, math.floor((centre + half) / step + middle))
            for start in range(first, last + 1, BLOCK):
                n = min(BLOCK, last + 1 - start)
                left = (start - middle) * step - x0
                x, y, side = left / radius, dy / radius, step / radius
                if _is_far(x, y, n, side, xx, xy, rows[c]):
                    _paint_row(work, cut, (n + 3) // _COARSE + 3, x - _COARSE * side, y, _COARSE * side, side, rows[c])
                    _between(work[5], mean, n)
                elif _paint_row(work, cut, n, x, y, side, side, rows[c]):
                    for j in range(n):
                        if cut[j]:
                            _paint_sample(
                                canvas, rows[c], flux[c], strength[c], i, start + j, left + j * step, dy, step, stack,
                                stamp, axes,
                            )  # fmt: skip
                    mean[:n] = work[5, :n]
                else:
                    mean[:n] = work[5, :n]
                for band in range(canvas.shape[0]):
                    bright = flux[c, band] * step * step
                    for j in range(n):
                        canvas[band, i, start + j] += bright * mean[j]


@njit(cache=True, fastmath=True, error_model="numpy")
def _is_far(x, y, n, side, xx, xy, row):  # type: ignore[no-untyped-def]
    """Whether n samples in a row from (x, y) on lie where the profile changes little over several; half-light radii.

    xx, xy : of the quadratic form of the ellipse, see `paint_profiles`.
    """
    _, _, _, q, _, _, power, b = row
    end = x + (n - 1) * side
    nearest, middle = y * y / xx, -xy / xx * y  # of the whole row
    first, last = nearest + xx * (x - middle) ** 2, nearest + xx * (end - middle) ** 2
    if x > middle or end < middle:
        nearest = min(first, last)
    slope = 2 * power * b * exp2(power * log2(max(first, last, 1e-12)))
    return math.sqrt(nearest * q) > _FAR * side * (slope + 1.5)


@njit(cache=True, fastmath=True, error_model="numpy")
def _between(coarse, out, n):  # type: ignore[no-untyped-def]
    """Cubics through values at every fourth sample, the first of them before the first sample."""
    for k in range((n + 3) // _COARSE):
        before, left, right, after = coarse[k], coarse[k + 1], coarse[k + 2], coarse[k + 3]
        out[4 * k] = left
        out[4 * k + 1] = (-7 * before + 105 * left + 35 * right - 5 * after) / 128
        out[4 * k + 2] = (9 * (left + right) - before - after) / 16
        out[4 * k + 3] = (-5 * before + 35 * left + 105 * right - 7 * after) / 128


@njit(cache=True, fastmath=True, error_model="numpy")
def _paint_row(work, cut, n, x, y, spacing, side, row):  # type: ignore[no-untyped-def]
    """Means of n samples in a row from (x, y) on into work[5], 0 where they must be cut; whether any must.

    Lengths are in half-light radii. The mean over a sample is the value and the curvature at its middle.
    """
    _, _, _, q, cos, sin, power, b = row
    u, v, r2, t, value, mean = work
    count = min((n + 7) // 8 * 8, BLOCK)  # whole vector registers
    for j in range(count):
        dx = x + j * spacing
        u[j], v[j] = dx * cos + y * sin, y * cos - dx * sin
        r2[j] = max(q * u[j] * u[j] + v[j] * v[j] / q, 1e-12)
    fall_block(r2, t, value, power, b, count)
    fine, blur = _STEPS_PER_SCALE * side / math.sqrt(q), 0.7 * side / math.sqrt(q)
    cusp = min(power * power, 0.2)
    steepest = 0.0
    for j in range(count):
        fall = b * power * t[j] / r2[j]
        bend = fall * (fall - (power - 1) / r2[j])
        curvature = 4 * bend * (q * q * u[j] * u[j] + v[j] * v[j] / (q * q)) - 2 * fall * (q + 1 / q)
        near = max(math.sqrt(r2[j]) - blur, cusp)
        matters = (near < 4.0) | (b * (t[j] - 1) < _LAST_CUT)
        steep = fine * max(power * b * t[j], 1.0) / near if matters else 0.0
        cut[j] = steep > 1.0
        mean[j] = 0.0 if steep > 1.0 else value[j] * (1 + min(max(curvature * side * side / 24, -0.5), 0.5))
        steepest = max(steepest, steep)
    return steepest > 1.0


@njit(cache=True, fastmath=True, error_model="numpy")
def _paint_sample(canvas, row, flux, strength, i, j, left, top, step, stack, stamp, axes):  # type: ignore[no-untyped-def]
    """One sample, cut into quarters where the profile is steep and bright."""
    size = canvas.shape[1]
    _, _, radius, q, cos, sin, power, b = row
    scale2 = 1.0 / (radius * radius)
    fine = _STEPS_PER_SCALE / math.sqrt(q)
    cusp = min(power * power, 0.2) * radius
    smallest = step / 2**_MAX_DEPTH
    stack[0] = (left, top, step)
    depth, total = 1, 0.0
    stamp[:] = 0.0
    while depth:
        depth -= 1
        dx, dy, side = stack[depth]
        u, v = dx * cos + dy * sin, dy * cos - dx * sin
        r2 = max(q * u * u + v * v / q, 1e-12 / scale2)
        t = exp2(power * log2(r2 * scale2))
        nearest = max(math.sqrt(r2) - 0.7 * side / math.sqrt(q), 0.0)
        near = max(nearest, cusp)
        matters = near < 4 * radius or b * (t - 1) < _LAST_CUT
        steep = matters and fine * side * max(power * b * t, 1.0) > near and side > smallest
        if steep:
            brightest = exp2(b * _LOG2_E * (1.0 - exp2(power * log2(nearest * nearest * scale2))))
            steep = side * side * strength * brightest > _LEFT_WHOLE
        if steep:
            for k in range(4):
                stack[depth] = (dx + side / 4 * (2 * (k & 1) - 1), dy + side / 4 * ((k & 2) - 1), side / 2)
                depth += 1
            continue
        # mean over the part to fourth order: the middle and the curvature there
        fall = b * power * t / r2
        bend = fall * (fall - (power - 1) / r2)
        curvature = 4 * bend * (q * q * u * u + v * v / (q * q)) - 2 * fall * (q + 1 / q)
        more = min(max(curvature * side * side / 24, -0.5), 0.5)
        part = side * side * exp2(b * _LOG2_E * (1.0 - t)) * (1 + more)
        narrow = compact(_NARROW * step * max(power * b * t, 1.0) / (math.sqrt(q) * max(math.sqrt(r2), cusp))) * part
        if narrow > 0.0:
            share(stamp, (dx - left) / step, (dy - top) / step, narrow, axes[0], axes[1])
        total += part - narrow
    stamp[3, 3] += total
    for m in range(max(0, 3 - i), min(7, size + 3 - i)):
        for n in range(max(0, 3 - j), min(7, size + 3 - j)):
            for band in range(canvas.shape[0]):
                canvas[band, i + m - 3, j + n - 3] += flux[band] * stamp[m, n]
