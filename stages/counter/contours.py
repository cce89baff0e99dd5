"""Critical curves of any shape, followed along det A = 0, and how many images the caustics demand of a source.

With the places where det A < 0 on the left of every curve, all caustics together wind -N_saddle times round the source
(degree of the lens map on these places); those where an eigenvalue of A is negative, which bound the places of maxima,
wind -N_max times. The rest follows from the parity sum: N_min = 1 + N_saddle - N_max (Burke 1981; Schneider, Ehlers &
Falco 1992, sect. 5.4).
"""

from __future__ import annotations

from math import atan2, cos, hypot, pi, sin

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
def _slope(f: Frame, x: float, y: float) -> tuple[float, float]:
    """Gradient of det A."""
    h = 1e-5 * scale_at(f, x, y)
    gx = (determinant(f, x + h, y) - determinant(f, x - h, y)) / (2 * h)
    gy = (determinant(f, x, y + h) - determinant(f, x, y - h)) / (2 * h)
    return gx, gy


@compiled
def _onto(f: Frame, x: float, y: float) -> tuple[float, float, bool]:
    """The nearest critical point, by Newton's method along the gradient."""
    reach = 0.5 * _STEP * scale_at(f, x, y)
    x0, y0 = x, y
    for _ in range(12):
        d = determinant(f, x, y)
        gx, gy = _slope(f, x, y)
        steep = gx * gx + gy * gy
        if steep == 0.0:
            return x, y, False
        x, y = x - d * gx / steep, y - d * gy / steep
        if hypot(x - x0, y - y0) > reach:
            return x, y, False
        if abs(d) < 1e-12:
            return x, y, True
    return x, y, abs(determinant(f, x, y)) < 1e-9


@compiled
def _turn(
    f: Frame, sx: float, sy: float, xa: float, ya: float, xb: float, yb: float, stack: Array
) -> tuple[float, float, float, float]:
    """Angle that the caustic turns round the source from one critical point to the next; the nearest point between.

    An arc is split until the source is farther from it than its own length. Returns angle, x, y and distance.
    """
    total, best, best_x, best_y = 0.0, 1e300, xa, ya
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = xa, ya, xb, yb
    size = 1
    while size > 0:
        size -= 1
        x0, y0, x1, y1 = stack[size, 0], stack[size, 1], stack[size, 2], stack[size, 3]
        ax, ay = deflect(f, x0, y0)
        u0, v0 = x0 - ax - sx, y0 - ay - sy
        ax, ay = deflect(f, x1, y1)
        u1, v1 = x1 - ax - sx, y1 - ay - sy
        length, distance = hypot(u1 - u0, v1 - v0), min(hypot(u0, v0), hypot(u1, v1))
        xm, ym, good = 0.5 * (x0 + x1), 0.5 * (y0 + y1), False
        if distance < 4.0 * length and length > 1e-13 and size < len(stack) - 2:
            xm, ym, good = _onto(f, xm, ym)
        if distance < best:
            best, best_x, best_y = distance, x0, y0
        if not good:
            total += atan2(u0 * v1 - v0 * u1, u0 * u1 + v0 * v1)
            continue
        for k, (xp, yp, xq, yq) in enumerate(((x0, y0, xm, ym), (xm, ym, x1, y1))):
            stack[size + k, 0], stack[size + k, 1], stack[size + k, 2], stack[size + k, 3] = xp, yp, xq, yq
        size += 2
    return total, best_x, best_y, best


@compiled
def _follow(
    f: Frame, sx: float, sy: float, x: float, y: float, step: float, points: Array, n: int, near: Array, n_near: int
) -> tuple[float, int, int, bool]:
    """Follow a curve from one of its points until it closes, adding its points: angle turned, n, n_near, if closed."""
    total, begun, stack = 0.0, n, np.empty((64, 4))
    x0, y0, size = x, y, step
    while n < len(points):
        here = scale_at(f, x, y)
        points[n, 0], points[n, 1], points[n, 2] = x, y, size * here
        n += 1
        gx, gy = _slope(f, x, y)
        steep = hypot(gx, gy)
        good = False
        for _ in range(8):
            tx, ty = -gy / steep, gx / steep  # where det A < 0 lies on the left
            xn, yn, good = _onto(f, x + size * here * tx, y + size * here * ty)
            if good:
                hx, hy = _slope(f, xn, yn)
                good = (hx * gx + hy * gy) > 0.97 * hypot(hx, hy) * steep
            if good:
                break
            size *= 0.5
        if not good:
            return total, n, n_near, False
        left = hypot(x0 - x, y0 - y)
        closing = n - begun > 3 and left < 1.5 * size * here and (x0 - x) * (xn - x) + (y0 - y) * (yn - y) > 0.0
        if closing:
            xn, yn = x0, y0
        angle, xc, yc, distance = _turn(f, sx, sy, x, y, xn, yn, stack)
        total += angle
        if distance < 0.02 * f[0] and n_near < len(near):
            near[n_near, 0], near[n_near, 1] = atan2(yc, xc), hypot(xc, yc)
            n_near += 1
        if closing:
            return total, n, n_near, True
        x, y, size = xn, yn, min(1.5 * size, step)
    return total, n, n_near, False


@compiled
def _known(points: Array, n: int, x: float, y: float) -> bool:
    found = False
    for i in range(n):
        found = found or hypot(points[i, 0] - x, points[i, 1] - y) < 1.2 * points[i, 2]
    return found


@compiled
def demanded(f: Frame, sx: float, sy: float, r_max: float, finer: int, near: Array) -> tuple[int, int, int]:
    """Numbers of saddles and maxima that the caustics demand, -1 where a curve could not be followed, and of `near`.

    Curves are sought on rays from the centre of the mass and from the satellite's; near (n, 2) takes critical points
    (phi, r) close to the source. finer : 1, 2, ... for more rays and smaller steps.
    """
    points, n, n_near, all_turns, radial_turns = np.empty((_MOST, 3)), 0, 0, 0.0, 0.0
    n_rays, n_radii = 24 * finer, 60 * finer
    for centre in range(2 if f[9] > 0.0 else 1):
        cx, cy, core = (f[10], f[11], f[12]) if centre else (0.0, 0.0, f[3])
        low = 0.05 * max(core, 1e-6 * f[0])
        growth = (r_max / low) ** (1.0 / n_radii)
        for i in range(n_rays):
            c, s = cos(2 * pi * (i + 0.37) / n_rays), sin(2 * pi * (i + 0.37) / n_rays)
            inner = 0.0
            d_inner = determinant(f, cx, cy)
            for k in range(n_radii + 1):
                outer = low * growth**k
                d_outer = determinant(f, cx + outer * c, cy + outer * s)
                if d_inner * d_outer < 0.0:
                    a, b, sign = inner, outer, d_inner
                    for _ in range(60):
                        middle = 0.5 * (a + b)
                        if determinant(f, cx + middle * c, cy + middle * s) * sign > 0.0:
                            a = middle
                        else:
                            b = middle
                    x, y = cx + a * c, cy + a * s
                    if not _known(points, n, x, y):
                        turned, n, n_near, closed = _follow(f, sx, sy, x, y, _STEP / finer, points, n, near, n_near)
                        if not closed:
                            return -1, -1, n_near
                        all_turns += turned
                        xx, _, yy = hessian(f, x, y)
                        radial_turns += turned if 2.0 - xx - yy < 0.0 else 0.0
                inner, d_inner = outer, d_outer
    saddles, maxima = -all_turns / (2 * pi), -radial_turns / (2 * pi)
    if abs(saddles - round(saddles)) > 0.01 or abs(maxima - round(maxima)) > 0.01:
        return -1, -1, n_near
    return round(saddles), round(maxima), n_near
