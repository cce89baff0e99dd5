"""Critical curves of any shape, followed along det A = 0, and how many images the caustics demand of a source.

With the places where det A < 0 on the left of every curve, all caustics together wind -N_saddle times round the source
(degree of the lens map on these places); those where an eigenvalue of A is negative, which bound the places of maxima,
wind -N_max times. The rest follows from the parity sum: N_min = 1 + N_saddle - N_max (Burke 1981; Schneider, Ehlers &
Falco 1992, sect. 5.4).
"""

from __future__ import annotations

from math import atan2, hypot, pi, sqrt

import numpy as np

from stages.counter.compiling import compiled
from stages.counter.lens_model import Array, Frame, deflect, determinant, hessian

_MOST = 40000  # points of all curves
_STEP = 0.06  # between points, of the distance to the nearest centre of mass, its core added


@compiled
def scale_at(f: Frame, x: float, y: float) -> float:
    """Length over which the lens changes at a place."""
    near = hypot(x, y) + f[3]
    return min(near, hypot(x - f[10], y - f[11]) + f[12]) if f[9] > 0.0 else near


@compiled
def _onto(f: Frame, x: float, y: float, reach: float) -> tuple[float, float, float, float, bool]:
    """The critical point within `reach` along the gradient of det A, that gradient, and whether there is one."""
    scale, d = scale_at(f, x, y), determinant(f, x, y)
    h = max(1e-4 * reach, 1e-8 * scale)  # small where steps are, as curves that nearly touch need
    gx, gy = (determinant(f, x + h, y) - d) / h, (determinant(f, x, y + h) - d) / h
    steep = gx * gx + gy * gy
    if not steep > 0.0:
        return x, y, gx, gy, False
    t, step = 0.0, -d / steep
    for _ in range(12):  # the secant method
        t += step
        if not abs(t) * sqrt(steep) < reach:
            break
        if abs(step) * sqrt(steep) < 1e-8 * scale:
            return x + t * gx, y + t * gy, gx, gy, True
        last, d = d, determinant(f, x + t * gx, y + t * gy)
        step = -d * step / (d - last) if d != last else 0.0
    return x, y, gx, gy, False


@compiled
def _caustic(f: Frame, sx: float, sy: float, x: float, y: float, row: Array) -> None:
    """Write a critical point, its caustic point about the source, and the Jacobian there."""
    ax, ay = deflect(f, x, y)
    xx, xy, yy = hessian(f, x, y)
    row[0], row[1], row[2], row[3], row[4], row[5], row[6] = x, y, x - ax - sx, y - ay - sy, 1.0 - xx, -xy, 1.0 - yy


@compiled
def _turn(f: Frame, sx: float, sy: float, a: Array, stack: Array) -> tuple[float, float, float, float]:
    """Angle that the caustic turns round the source from point a to stack[0]; the nearest critical point, how near.

    An arc is split until the source is farther from it than twice its length, which the Jacobian at its ends tells
    too, as both branches of a cusp may end at one place. Afterwards a is stack[0].
    """
    total, best, best_x, best_y, top = 0.0, hypot(a[2], a[3]), a[0], a[1], 0
    while top >= 0:
        b = stack[top]
        dx, dy = b[0] - a[0], b[1] - a[1]
        speed = hypot(a[4] * dx + a[5] * dy, a[5] * dx + a[6] * dy)
        speed += hypot(b[4] * dx + b[5] * dy, b[5] * dx + b[6] * dy)
        length, far = max(0.5 * speed, hypot(b[2] - a[2], b[3] - a[3])), hypot(b[2], b[3])
        if min(hypot(a[2], a[3]), far) < 2.0 * length and length > 1e-13 * f[0] and top < len(stack) - 1:
            xm, ym, _, _, good = _onto(f, 0.5 * (a[0] + b[0]), 0.5 * (a[1] + b[1]), 0.5 * hypot(dx, dy))
            if good:
                top += 1
                _caustic(f, sx, sy, xm, ym, stack[top])
                continue
        if far < best:
            best, best_x, best_y = far, b[0], b[1]
        total += atan2(a[2] * b[3] - a[3] * b[2], a[2] * b[2] + a[3] * b[3])
        a[:] = b
        top -= 1
    return total, best_x, best_y, best


@compiled
def _follow(
    f: Frame, sx: float, sy: float, start: Array, step: float, points: Array, n: int, near: Array, n_near: int
) -> tuple[float, int, int, bool]:
    """Follow a curve from (x, y, gradient) until it closes, adding its points: angle turned, n, n_near, if closed."""
    total, begun, size, stack, here = 0.0, n, step, np.empty((64, 7)), np.empty(7)
    x0, y0, gx, gy = start[0], start[1], start[2], start[3]
    _caustic(f, sx, sy, x0, y0, here)
    while n < len(points):
        x, y = here[0], here[1]
        scale, hx, hy, good = scale_at(f, x, y), gx, gy, False
        points[n, 0], points[n, 1], points[n, 2], points[n, 3], points[n, 4] = x, y, gx, gy, size * scale
        n += 1
        for _ in range(12):
            steep = hypot(gx, gy)
            far = size * scale / steep  # det A < 0 lies on the left
            xn, yn, hx, hy, good = _onto(f, x - far * gy, y + far * gx, 0.5 * size * scale)
            good = good and hx * gx + hy * gy > 0.97 * hypot(hx, hy) * steep
            if good:
                break
            size *= 0.5
            _, _, gx, gy, _ = _onto(f, x, y, 0.5 * size * scale)  # here, not where the last search began
        if not good:
            return total, n, n_near, False
        left = hypot(x0 - x, y0 - y)
        closing = n - begun > 3 and left < 1.5 * size * scale and (x0 - x) * (xn - x) + (y0 - y) * (yn - y) > 0.0
        if closing:
            xn, yn = x0, y0
        _caustic(f, sx, sy, xn, yn, stack[0])
        angle, xc, yc, distance = _turn(f, sx, sy, here, stack)
        total += angle
        if distance < 0.02 * f[0] and n_near < len(near):
            near[n_near, 0], near[n_near, 1] = atan2(yc, xc), hypot(xc, yc)
            n_near += 1
        if closing:
            return total, n, n_near, True
        gx, gy, size = hx, hy, min(1.5 * size, step)
    return total, n, n_near, False


@compiled
def _known(points: Array, n: int, last: int, x: float, y: float, gx: float, gy: float) -> int:
    """Which followed point is at (x, y) with det A rising along (gx, gy), sought from `last` both ways; -1 for none."""
    for i in range(n):
        k = (last + (i + 1) // 2 if i % 2 else last - i // 2 + n) % n
        dx, dy, near = points[k, 0] - x, points[k, 1] - y, 1.2 * points[k, 4]
        if dx * dx + dy * dy < near * near and points[k, 2] * gx + points[k, 3] * gy > 0.0:
            return k
    return -1


@compiled
def _on_edge(f: Frame, a: Array, b: Array) -> tuple[float, float, float, float, bool]:
    """A critical point on a mesh's edge between nodes of unlike parity, as `_onto` gives it."""
    low, high, dx, dy = 0.0, 1.0, b[0] - a[0], b[1] - a[1]
    for _ in range(40):
        t = 0.5 * (low + high)
        if determinant(f, a[0] + t * dx, a[1] + t * dy) * b[4] > 0.0:
            high = t
        else:
            low = t
    return _onto(f, a[0] + low * dx, a[1] + low * dy, hypot(dx, dy))


@compiled
def demanded(
    f: Frame, sx: float, sy: float, meshes: tuple[Array, Array], finer: int, near: Array
) -> tuple[int, int, int]:
    """Numbers of saddles and maxima that the caustics demand, -1 where a curve could not be followed, and of `near`.

    Curves are sought on all edges of the meshes (`image_search.polar_mesh`) on which det A changes sign; near (n, 2)
    takes critical points (phi, r) close to the source. finer : 1, 2, ... for smaller steps.
    """
    points, n, n_near, all_turns, radial_turns = np.empty((_MOST, 5)), 0, 0, 0.0, 0.0
    start = np.empty(4)
    for mesh in meshes:
        n_rays, n_rings = mesh.shape[0], mesh.shape[1]
        hits = np.zeros(n_rings, dtype=np.int64)  # what was known on each ring last: near what is known there next
        for i in range(n_rays):
            for k in range(n_rings):
                for along in range(2):
                    if along and k == n_rings - 1:
                        continue
                    a, b = mesh[i, k], mesh[i, k + 1] if along else mesh[(i + 1) % n_rays, k]
                    if not a[4] * b[4] < 0.0:
                        continue
                    t, sign = a[4] / (a[4] - b[4]), 1.0 if b[4] > 0.0 else -1.0
                    dx, dy = b[0] - a[0], b[1] - a[1]
                    hit = _known(points, n, hits[k], a[0] + t * dx, a[1] + t * dy, sign * dx, sign * dy)
                    if hit < 0:
                        x, y, gx, gy, good = _on_edge(f, a, b)
                        if not good:
                            return -1, -1, n_near
                        hit = _known(points, n, hits[k], x, y, gx, gy)
                    if hit >= 0:
                        hits[k] = hit
                        continue
                    hits[k] = n
                    start[0], start[1], start[2], start[3] = x, y, gx, gy
                    turned, n, n_near, closed = _follow(f, sx, sy, start, _STEP / finer, points, n, near, n_near)
                    if not closed:
                        return -1, -1, n_near
                    all_turns += turned
                    xx, _, yy = hessian(f, x, y)
                    radial_turns += turned if 2.0 - xx - yy < 0.0 else 0.0
    saddles, maxima = -all_turns / (2 * pi), -radial_turns / (2 * pi)
    if abs(saddles - round(saddles)) > 0.01 or abs(maxima - round(maxima)) > 0.01:
        return -1, -1, n_near
    return round(saddles), round(maxima), n_near
