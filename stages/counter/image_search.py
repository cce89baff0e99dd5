"""Searches for the images of a point source: Newton's method from the triangles of meshes and from near-by folds."""

from __future__ import annotations

from math import atan, atanh, ceil, cos, hypot, log, pi, sin, sqrt

import numpy as np

from stages.counter.compiling import compiled
from stages.counter.lens_model import ISOTHERMAL, Array, Frame, deflect, determinant, hessian

MAX_IMAGES = 32
_SAME = 1e-6  # images of one parity closer than this, in Einstein radii, are one
_RINGS_PER_RAY = 0.04  # of a mesh, for each unit of ln r; another lies between any two


@compiled
def newton(f: Frame, sx: float, sy: float, x: float, y: float) -> tuple[float, float, bool]:
    """Damped Newton from (x, y) to an image of the source; all about the deflector's centre."""
    scale = f[0]
    ax, ay = deflect(f, x, y)
    rx, ry = sx - x + ax, sy - y + ay
    error = hypot(rx, ry)
    for _ in range(60):
        if error < 3e-15 * scale:
            break
        xx, xy, yy = hessian(f, x, y)
        det = (1.0 - xx) * (1.0 - yy) - xy * xy
        dx, dy = ((1.0 - yy) * rx + xy * ry) / det, (xy * rx + (1.0 - xx) * ry) / det
        length = hypot(dx, dy)
        t = min(1.0, 0.2 * (hypot(x, y) + 0.1 * scale) / length)
        improved = False
        for _ in range(12):
            nx, ny = x + t * dx, y + t * dy
            ax, ay = deflect(f, nx, ny)
            nrx, nry = sx - nx + ax, sy - ny + ay
            if hypot(nrx, nry) < error:
                x, y, rx, ry, error, improved = nx, ny, nrx, nry, hypot(nrx, nry), True
                break
            t *= 0.5
        if not improved:
            break
    return x, y, error < 1e-12 * scale


@compiled
def _keep(f: Frame, sx: float, sy: float, x: float, y: float, xy: Array, detail: Array, n: int) -> int:
    """Polish a seed and add it to the images unless it is one of them; the new number of images."""
    x, y, good = newton(f, sx, sy, x, y)
    if not good or n >= MAX_IMAGES:
        return n
    xx, pxy, yy = hessian(f, x, y)
    det = (1.0 - xx) * (1.0 - yy) - pxy * pxy
    for i in range(n):
        if hypot(x - xy[i, 0], y - xy[i, 1]) < _SAME * f[0] and det * detail[i, 0] > 0.0:
            return n
    xy[n, 0], xy[n, 1], detail[n, 0], detail[n, 1] = x, y, det, 2.0 - xx - yy
    return n + 1


@compiled
def _holds(xa: float, ya: float, xb: float, yb: float, xc: float, yc: float, slack: float) -> bool:
    """Whether the triangle, widened by a fraction `slack`, holds the origin."""
    a, b, c = xb * yc - yb * xc, xc * ya - yc * xa, xa * yb - ya * xb
    area = a + b + c
    if area == 0.0:
        return False
    return a / area > -slack and b / area > -slack and c / area > -slack


@compiled
def outer_radius(f: Frame, sx: float, sy: float) -> float:
    """A radius outside of which no image can be and det A > 0."""
    b, q, eps = f[0], f[1], f[2]
    largest, theta_e = b / eps * hypot(atan(eps / q), atanh(eps)), b / sqrt(q)
    free = max(1.0 - hypot(f[6], f[7]), 0.05)
    r = 1.1 * (hypot(sx, sy) + largest + f[9]) / free
    for _ in range(60 if f[8] != ISOTHERMAL else 0):  # a shallower mass deflects more the farther out
        r = 1.1 * (hypot(sx, sy) + 1.3 * largest * (r / theta_e) ** (ISOTHERMAL - f[8]) + f[9]) / free
    return max(r, 1.5 * (hypot(f[10], f[11]) + f[9]))


@compiled
def _ray(f: Frame, c: float, s: float, nodes: Array) -> None:
    """Fill the nodes (x, y, beta - source, det A) of a ray (c, s): the first is given, the radii of every other as x.

    Those between are in the middle. beta is the integral of the Jacobian along the ray (Simpson's rule and, for the
    middle, its parabola), which takes less time than the deflection.
    """
    x0, y0, last = nodes[0, 0], nodes[0, 1], 0.0
    fx, fy, nodes[0, 4] = _along(f, x0, y0, c, s)
    for k in range(2, len(nodes), 2):
        r, a, m, b = nodes[k, 0], nodes[k - 2], nodes[k - 1], nodes[k]
        middle, step = 0.5 * (last + r), (r - last) / 24.0
        m[0], m[1], b[0], b[1] = x0 + middle * c, y0 + middle * s, x0 + r * c, y0 + r * s
        mx, my, m[4] = _along(f, m[0], m[1], c, s)
        gx, gy, b[4] = _along(f, b[0], b[1], c, s)
        m[2], m[3] = a[2] + step * (5.0 * fx + 8.0 * mx - gx), a[3] + step * (5.0 * fy + 8.0 * my - gy)
        b[2], b[3] = a[2] + 4.0 * step * (fx + 4.0 * mx + gx), a[3] + 4.0 * step * (fy + 4.0 * my + gy)
        fx, fy, last = gx, gy, r


@compiled
def _along(f: Frame, x: float, y: float, c: float, s: float) -> tuple[float, float, float]:
    """Derivative of the source position along (c, s), and det A."""
    xx, xy, yy = hessian(f, x, y)
    return c - xx * c - xy * s, s - xy * c - yy * s, (1.0 - xx) * (1.0 - yy) - xy * xy


@compiled
def _mirror(nodes: Array, sx: float, sy: float) -> None:
    """Fill the second half of the rays, for a lens that is symmetric under reflection at its centre."""
    half = len(nodes) // 2
    for i in range(half):
        for k in range(nodes.shape[1]):
            a, b = nodes[i, k], nodes[i + half, k]
            b[0], b[1], b[2], b[3], b[4] = -a[0], -a[1], -a[2] - 2.0 * sx, -a[3] - 2.0 * sy, a[4]


@compiled
def polar_mesh(f: Frame, sx: float, sy: float, cx: float, cy: float, core: float, r_max: float, n_rays: int) -> Array:
    """(n_rays, rings, 5) nodes x, y, beta - source, det A about a centre, rings spaced as the logarithm."""
    low = 0.1 * core
    n_rings = ceil(_RINGS_PER_RAY * n_rays * log(r_max / low)) + 1
    nodes, growth = np.empty((n_rays, 2 * n_rings + 1, 5)), (r_max / low) ** (1.0 / (n_rings - 1))
    ax, ay = deflect(f, cx, cy)
    for i in range(n_rays if f[9] > 0.0 else n_rays // 2):
        nodes[i, 0, 0], nodes[i, 0, 1], nodes[i, 0, 2], nodes[i, 0, 3] = cx, cy, cx - ax - sx, cy - ay - sy
        r = low
        for k in range(1, n_rings + 1):
            nodes[i, 2 * k, 0] = r
            r *= growth
        _ray(f, cos(2 * pi * i / n_rays), sin(2 * pi * i / n_rays), nodes[i])
    if not f[9] > 0.0:
        _mirror(nodes, sx, sy)
    return nodes


@compiled
def mesh_search(f: Frame, sx: float, sy: float, nodes: Array, xy: Array, detail: Array, n: int) -> int:
    """Images from the triangles of a mesh whose image holds the source."""
    n_rays, n_rings = nodes.shape[0], nodes.shape[1]
    for i in range(n_rays):
        for k in range(n_rings - 1):
            a, b, c4, d = nodes[i, k], nodes[i, k + 1], nodes[(i + 1) % n_rays, k + 1], nodes[(i + 1) % n_rays, k]
            if _holds(a[2], a[3], b[2], b[3], c4[2], c4[3], 0.1):
                n = _keep(f, sx, sy, (a[0] + b[0] + c4[0]) / 3, (a[1] + b[1] + c4[1]) / 3, xy, detail, n)
            if k > 0 and _holds(a[2], a[3], c4[2], c4[3], d[2], d[3], 0.1):
                n = _keep(f, sx, sy, (a[0] + c4[0] + d[0]) / 3, (a[1] + c4[1] + d[1]) / 3, xy, detail, n)
    return n


@compiled
def fold_search(f: Frame, sx: float, sy: float, near: Array, n_near: int, xy: Array, detail: Array, n: int) -> int:
    """Images near critical points: a fold makes two, at +- sqrt along the null direction of the Jacobian."""
    for i in range(n_near):
        x, y = near[i, 1] * cos(near[i, 0]), near[i, 1] * sin(near[i, 0])
        xx, pxy, yy = hessian(f, x, y)
        a, d, k = 1.0 - xx, 1.0 - yy, -pxy
        slope = a + d  # the eigenvalue that is not zero; (mx, my) is its eigenvector, the null direction is across
        mx, my = (a, k) if abs(a) > abs(d) else (k, d)
        norm = hypot(mx, my)
        if norm == 0.0:
            continue
        mx, my = mx / norm, my / norm
        nx, ny = -my, mx
        ax, ay = deflect(f, x, y)
        dx, dy = sx - x + ax, sy - y + ay
        x, y = x + mx * (dx * mx + dy * my) / slope, y + my * (dx * mx + dy * my) / slope
        h = 1e-4 * f[0]
        bx, by = deflect(f, x + h * nx, y + h * ny)
        cx, cy = deflect(f, x - h * nx, y - h * ny)
        ax, ay = deflect(f, x, y)
        bend = -((bx + cx - 2 * ax) * nx + (by + cy - 2 * ay) * ny) / (h * h)
        reach = 2.0 * (dx * nx + dy * ny) / bend
        t = sqrt(abs(reach)) + 1e-9 * f[0]
        for factor in (0.3, 1.0, 3.0, 10.0):
            n = _keep(f, sx, sy, x + factor * t * nx, y + factor * t * ny, xy, detail, n)
            n = _keep(f, sx, sy, x - factor * t * nx, y - factor * t * ny, xy, detail, n)
    return n


@compiled
def adaptive_search(f: Frame, sx: float, sy: float, nodes: Array, xy: Array, detail: Array, n: int) -> int:
    """As `mesh_search`, with triangles that change parity near the source split."""
    stack, n_rays = np.empty((128, 7)), len(nodes)
    for i in range(n_rays):
        for k in range(nodes.shape[1] - 1):
            a, b, c4, d = nodes[i, k], nodes[i, k + 1], nodes[(i + 1) % n_rays, k + 1], nodes[(i + 1) % n_rays, k]
            if _promising(a, b, c4):
                _put(stack[0], a[0], a[1], b[0], b[1], c4[0], c4[1], 0.0)
                n = _split_triangles(f, sx, sy, stack, xy, detail, n)
            if k > 0 and _promising(a, c4, d):
                _put(stack[0], a[0], a[1], c4[0], c4[1], d[0], d[1], 0.0)
                n = _split_triangles(f, sx, sy, stack, xy, detail, n)
    return n


@compiled
def _promising(a: Array, b: Array, c: Array) -> bool:
    """Whether the image of a triangle of nodes (x, y, beta - source, det A) holds the source, or may if split."""
    if _holds(a[2], a[3], b[2], b[3], c[2], c[3], 0.2):
        return True
    if a[4] * b[4] > 0.0 and a[4] * c[4] > 0.0:
        return False
    return hypot(a[2], a[3]) < 3.0 * max(hypot(a[2] - b[2], a[3] - b[3]), hypot(a[2] - c[2], a[3] - c[3]))


@compiled
def _put(row: Array, a: float, b: float, c: float, d: float, e: float, f: float, g: float) -> None:
    row[0], row[1], row[2], row[3], row[4], row[5], row[6] = a, b, c, d, e, f, g


@compiled
def _split_triangles(f: Frame, sx: float, sy: float, stack: Array, xy: Array, detail: Array, n: int) -> int:
    """Images in the triangle stack[0] = (x, y) of three corners and a depth; splits where the parity changes."""
    b, signs, top = np.empty((3, 2)), np.empty(3), 1
    while top > 0:
        top -= 1
        t = stack[top]
        x0, y0, x1, y1, x2, y2, depth = t[0], t[1], t[2], t[3], t[4], t[5], t[6]
        for m in range(3):
            x, y = stack[top, 2 * m], stack[top, 2 * m + 1]
            ax, ay = deflect(f, x, y)
            b[m, 0], b[m, 1], signs[m] = x - ax - sx, y - ay - sy, determinant(f, x, y)
        side = max(hypot(b[0, 0] - b[1, 0], b[0, 1] - b[1, 1]), hypot(b[0, 0] - b[2, 0], b[0, 1] - b[2, 1]))
        near = hypot(b[0, 0], b[0, 1]) < 3.0 * side
        if (
            near
            and depth < 10
            and min(signs[0], min(signs[1], signs[2])) < 0.0 < max(signs[0], max(signs[1], signs[2]))
        ):
            xa, ya, xb, yb, xc, yc = (
                (x0 + x1) / 2,
                (y0 + y1) / 2,
                (x1 + x2) / 2,
                (y1 + y2) / 2,
                (x2 + x0) / 2,
                (y2 + y0) / 2,
            )
            _put(stack[top], x0, y0, xa, ya, xc, yc, depth + 1)
            _put(stack[top + 1], xa, ya, x1, y1, xb, yb, depth + 1)
            _put(stack[top + 2], xc, yc, xb, yb, x2, y2, depth + 1)
            _put(stack[top + 3], xa, ya, xb, yb, xc, yc, depth + 1)
            top += 4
        if _holds(b[0, 0], b[0, 1], b[1, 0], b[1, 1], b[2, 0], b[2, 1], 0.2):
            n = _keep(f, sx, sy, (x0 + x1 + x2) / 3, (y0 + y1 + y2) / 3, xy, detail, n)
    return n
