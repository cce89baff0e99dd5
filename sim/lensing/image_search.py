"""All solutions of the lens equation: squares are split until a bound says that they hold no image, or at most one.

In a square about c with half-diagonal rho the ray-shooting map differs from its linear part by less than T rho^2 / 2,
T the bound of the potential's third derivatives (`lens_kernels.bend`). So the square holds no image if the source lies
farther than that from the parallelogram to which the linear part maps it; and at most one if the smaller singular
value of the Jacobian exceeds 2 T rho (Newton-Kantorovich): then Newton's method finds it. A source off the caustics
needs squares of finite size only; nothing is left to chance or to the shape of the caustics.
"""

from __future__ import annotations

from math import hypot, sqrt

import numpy as np

from sim.lensing.kernels import SUBHALO, Array, bend, compiled, lens_map

MAX_IMAGES = 64
MAX_SQUARES = 1_000_000  # a point source needs some hundreds; a ring as its image is never decided
_ROUNDING = 4e-16  # of a source position, relative to the size of the terms that cancel in it
_PINHOLE = 1e-7  # a singular centre's neighbourhood that is not searched, in units of the largest deflection


@compiled
def largest_deflection(parts: Array, terms: Array, r: float) -> float:
    """A bound of the parts' deflection at `r` arcsec from the origin, outside of all of them."""
    total = 0.0
    for i in range(len(parts)):
        row, offset = parts[i], hypot(parts[i, 1], parts[i, 2])
        if row[0] == SUBHALO:
            total += row[3]
            continue
        q, t, series = row[3], row[4], 0.0
        for k in range(int(row[12]) + 1):
            series += abs(terms[i, k])
        near, far = max(q * (r - offset), row[8] + 0.1 * row[5] ** (1.0 / t)), r + offset
        total += 2.0 / (1.0 + q) * row[5] * series * max(near ** (1.0 - t), far ** (1.0 - t))
    return total


@compiled
def window(frame: Array, parts: Array, terms: Array, sx: float, sy: float) -> float:
    """Distance from the main centre within which all images of the source lie, arcsec."""
    source, weak = hypot(sx - frame[0], sy - frame[1]), 1.0 - hypot(frame[2], frame[3])
    grown = 1.0 + hypot(frame[4], frame[5])
    reach = source
    for i in range(len(parts)):
        reach = max(reach, hypot(parts[i, 1], parts[i, 2]))
    for _ in range(60):
        wider = (source + grown * largest_deflection(parts, terms, reach * grown)) / weak
        if wider <= reach:
            break
        reach = 1.05 * wider
    return 1.05 * reach


@compiled
def _newton(
    frame: Array, parts: Array, terms: Array, sx: float, sy: float, x: float, y: float, reach: float, rounding: float
) -> tuple[float, float, float, float, bool]:
    """Newton's method from (x, y), which may go `reach` far: image, det A, trace A, and whether it converged."""
    x0, y0, best, least = x, y, np.inf, 0.0
    bx, by, b_det, b_trace = x, y, 0.0, 0.0
    for _ in range(50):
        ax, ay, xx, xy, yy = lens_map(frame, parts, terms, x, y, True)
        rx, ry, det, trace = sx - x + ax, sy - y + ay, (1.0 - xx) * (1.0 - yy) - xy * xy, 2.0 - xx - yy
        error = hypot(rx, ry)
        stuck = error >= 0.5 * best
        if error < best:
            best, bx, by, b_det, b_trace = error, x, y, det, trace
            least = rounding * (1.0 + 0.5 * abs(trace) + hypot(0.5 * (xx - yy), xy))
        if best <= least or (stuck and best < 64.0 * least):
            return bx, by, b_det, b_trace, True
        if det == 0.0 or hypot(x - x0, y - y0) > reach:
            break
        x, y = x + ((1.0 - yy) * rx + xy * ry) / det, y + (xy * rx + (1.0 - xx) * ry) / det
    return bx, by, b_det, b_trace, False


@compiled
def _keep(out: Array, n: int, x: float, y: float, det: float, trace: float, rounding: float) -> int:
    """Add an image unless it is already there, seen from a neighbouring square; the new number of images."""
    smaller = abs(det) / (0.5 * abs(trace) + sqrt(max(0.25 * trace * trace - det, 0.0)) + 1e-300)
    same = 1e5 * rounding + 30.0 * rounding / (smaller + 1e-300)
    for i in range(n):
        if det * out[i, 2] > 0.0 and hypot(x - out[i, 0], y - out[i, 1]) < same:
            return n
    if n < len(out):
        out[n, 0], out[n, 1], out[n, 2], out[n, 3] = x, y, det, trace
        n += 1
    return n


@compiled
def search(
    frame: Array, parts: Array, terms: Array, sx: float, sy: float, half: float, caution: float, out: Array
) -> tuple[int, int, int]:
    """Images in the square of half-width `half` about the main centre, rows x, y, det A, trace A of `out`.

    Returns their number, the number of squares that rounding leaves undecided, and of squares looked at.
    `caution` >= 1 widens the bounds.
    """
    relative = _ROUNDING * (half + hypot(sx, sy))
    stack, top, n, undecided, looked = np.empty((400, 3)), 1, 0, 0, 0
    stack[0, 0], stack[0, 1], stack[0, 2] = frame[0], frame[1], half
    while top > 0 and looked < MAX_SQUARES:
        top -= 1
        looked += 1
        x, y, h = stack[top, 0], stack[top, 1], stack[top, 2]
        rho = sqrt(2.0) * h
        curve = caution * bend(frame, parts, x, y, rho)
        ax, ay, xx, xy, yy = lens_map(frame, parts, terms, x, y, True)
        a, d, k = 1.0 - xx, 1.0 - yy, -xy
        dx, dy = sx - x + ax, sy - y + ay
        det = a * d - k * k
        larger = 0.5 * abs(a + d) + sqrt(0.25 * (a - d) ** 2 + k * k)
        rounding = relative * (1.0 + larger)  # of the position, too, which a small core magnifies
        rest = 0.5 * curve * rho * rho + rounding
        flat = h * abs(det)
        if abs(a * dy - k * dx) > flat + rest * hypot(a, k) or abs(d * dx - k * dy) > flat + rest * hypot(d, k):
            continue
        smaller = abs(det) / larger if larger > 0.0 else 0.0
        if smaller > 2.0 * curve * rho and smaller > 0.0:
            px, py, slack = (d * dx - k * dy) / det, (a * dy - k * dx) / det, rest / smaller
            if max(abs(px), abs(py)) > h + slack:
                continue
            ix, iy, det, trace, good = _newton(frame, parts, terms, sx, sy, x + px, y + py, 2.0 * rho, relative)
            if good:
                slack = 1e-3 * h + 64.0 * rounding / smaller
                if max(abs(ix - x), abs(iy - y)) <= h + slack:
                    n = _keep(out, n, ix, iy, det, trace, rounding)
                continue
        pinhole = curve == np.inf and h < _PINHOLE * half
        if pinhole or rest < 2.0 * rounding or top + 4 > len(stack):
            if not pinhole:  # on a caustic to rounding
                undecided += 1
                ix, iy, det, trace, good = _newton(frame, parts, terms, sx, sy, x, y, 1e4 * rho, relative)
                if good and undecided < 1000:
                    n = _keep(out, n, ix, iy, det, trace, rounding)
            continue
        h *= 0.5
        for i in range(4):
            stack[top, 0], stack[top, 1], stack[top, 2] = x + h * (2 * (i // 2) - 1), y + h * (2 * (i % 2) - 1), h
            top += 1
    return n, undecided, looked
