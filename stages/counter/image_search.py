"""Searches for the images of a point source: Newton's method from the triangles of meshes and from near-by folds."""

from __future__ import annotations

from math import atan, atanh, cos, hypot, pi, sin, sqrt

import numpy as np

from stages.counter.compiling import compiled
from stages.counter.lens_model import ISOTHERMAL, Array, Frame, deflect, determinant, hessian

MAX_IMAGES = 32
_SAME = 1e-6  # images of one parity closer than this, in Einstein radii, are one
# nodes along each ray as (region, fraction): 0 inside the radial curve, 1 between the curves, 2 outside
_RINGS = np.array(
    [(0, t) for t in (0.2, 0.4, 0.6, 0.8, 0.95, 1.0)]
    + [(1, t) for t in (0.03, 0.12, 0.3, 0.5, 0.7, 0.88, 0.97, 1.0)]
    + [(2, t) for t in (0.02, 0.08, 0.2, 0.4, 0.7, 1.0)]
)


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
def mesh_search(
    f: Frame, sx: float, sy: float, radii: Array, r_max: float, split: int, xy: Array, detail: Array, n: int
) -> int:
    """Images from a polar mesh that follows the critical curves, each ring interval in `split` parts."""
    n_rays, n_rings = len(radii), split * len(_RINGS) + 1
    nodes = np.zeros((n_rays, n_rings, 4))  # x, y, beta - source
    for i in range(n_rays):
        c, s = cos(2 * pi * i / n_rays), sin(2 * pi * i / n_rays)
        edges = (0.0, radii[i, 0], radii[i, 1], r_max)
        last, k = 0.0, 0
        for ring in range(len(_RINGS)):
            region = int(_RINGS[ring, 0])
            r = edges[region] + _RINGS[ring, 1] * (edges[region + 1] - edges[region])
            for part in range(split):
                k += 1
                here = last + (r - last) * (part + 1) / split
                nodes[i, k, 0], nodes[i, k, 1] = here * c, here * s
            last = r
        for k in range(n_rings):
            ax, ay = deflect(f, nodes[i, k, 0], nodes[i, k, 1])
            nodes[i, k, 2], nodes[i, k, 3] = nodes[i, k, 0] - ax - sx, nodes[i, k, 1] - ay - sy
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
def adaptive_search(
    f: Frame, sx: float, sy: float, cx: float, cy: float, core: float, r_max: float, size: int,
    xy: Array, detail: Array, n: int,
) -> int:  # fmt: skip
    """Images for critical curves of any shape: triangles of a mesh about a centre that change parity are split."""
    stack, n_rays = np.empty((128, 7)), 2 * size
    growth, nodes = (r_max / (0.05 * core)) ** (1.0 / size), np.empty((n_rays, size + 2, 5))
    for i in range(n_rays):
        c, s = cos(2 * pi * i / n_rays), sin(2 * pi * i / n_rays)
        for k in range(size + 2):
            r = 0.05 * core * growth ** (k - 1) if k else 0.0
            x, y = cx + r * c, cy + r * s
            ax, ay = deflect(f, x, y)
            node = nodes[i, k]
            node[0], node[1], node[2], node[3], node[4] = x, y, x - ax - sx, y - ay - sy, determinant(f, x, y)
    for i in range(n_rays):
        for k in range(size + 1):
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
