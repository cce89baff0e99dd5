"""Critical curves of a cored lens on rays from its centre, and how often each caustic winds round a source."""

from __future__ import annotations

from math import atan2, cos, hypot, pi, sin, sqrt

import numpy as np

from stages.counter.compiling import compiled
from stages.counter.lens_model import Array, Frame, deflect, determinant


@compiled
def _root(f: Frame, c: float, n: float, low: float, high: float) -> float:
    """Radius in [low, high] along (c, n) where det A = 0 (Illinois method); NaN without a change of sign."""
    d_low, d_high = determinant(f, low * c, low * n), determinant(f, high * c, high * n)
    if not d_low * d_high < 0.0:
        return np.nan
    side = 0
    for _ in range(80):
        r = (low * d_high - high * d_low) / (d_high - d_low)
        d = determinant(f, r * c, r * n)
        if d * d_high > 0.0:
            high, d_high = r, d
            d_low = 0.5 * d_low if side == 1 else d_low
            side = 1
        else:
            low, d_low = r, d
            d_high = 0.5 * d_high if side == -1 else d_high
            side = -1
        if abs(d) < 1e-13 or high - low < 1e-14 * high:
            break
    return (low * d_high - high * d_low) / (d_high - d_low) if d_high != d_low else low


@compiled
def critical_radii(f: Frame, n_rays: int, r_max: float) -> tuple[Array, bool]:
    """Radial and tangential critical radius on each ray, (n_rays, 2), and whether there are exactly two on all."""
    radii = np.empty((n_rays, 2))
    step = (r_max / (0.05 * f[3])) ** (1.0 / 40.0)
    for i in range(n_rays // 2):
        c, n = cos(2 * pi * i / n_rays), sin(2 * pi * i / n_rays)
        found, low, d_low = 0, 1e-6 * f[3], determinant(f, 1e-6 * f[3] * c, 1e-6 * f[3] * n)
        if d_low <= 0.0:
            return radii, False
        high = 0.05 * f[3]
        for _ in range(41):
            d_high = determinant(f, high * c, high * n)
            if d_low * d_high < 0.0:
                if found == 2:
                    return radii, False
                radii[i, found] = radii[i + n_rays // 2, found] = _root(f, c, n, low, high)
                found += 1
            low, d_low, high = high, d_high, high * step
        if found != 2:
            return radii, False
    return radii, True


@compiled
def _caustic_point(f: Frame, phi: float, guess: float, middle: float, r_max: float) -> tuple[float, float, float]:
    """(radius, beta_x, beta_y) of the critical curve on the ray phi; NaN if it is not where nesting says."""
    c, n = cos(phi), sin(phi)
    low, high = (0.0, middle) if guess < middle else (middle, r_max)
    a, z = max(0.98 * guess, low), min(1.02 * guess, high)
    r = _root(f, c, n, a, z)
    if not r > 0.0:
        r = _root(f, c, n, low, high)
    ax, ay = deflect(f, r * c, r * n)
    return r, r * c - ax, r * n - ay


@compiled
def _put(
    row: Array, a: float, b: float, c: float, d: float, e: float, f: float, g: float, h: float
) -> None:  # a tuple assigned to a slice takes seconds to compile
    row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7] = a, b, c, d, e, f, g, h


@compiled
def winding(f: Frame, radii: Array, curve: int, sx: float, sy: float, r_max: float, near: Array) -> tuple[int, int]:
    """Winding number of one caustic round the source, and the number of `near` critical points (phi, r) written.

    An arc is split until the source is farther from it than its own length, so a near miss is told from a hit.
    """
    n_rays, total, n_near = len(radii), 0.0, 0
    stack = np.empty((64, 8))  # phi, r, beta at both ends
    scale = hypot(radii[0, 1], radii[0, 0])
    for i in range(n_rays):
        j = (i + 1) % n_rays
        step = 2 * pi / n_rays
        for k, m in ((0, i), (4, j)):
            phi, r = m * step, radii[m, curve]
            ax, ay = deflect(f, r * cos(phi), r * sin(phi))
            stack[0, k], stack[0, k + 1] = phi, r
            stack[0, k + 2], stack[0, k + 3] = r * cos(phi) - ax - sx, r * sin(phi) - ay - sy
        stack[0, 4] = (i + 1) * step
        size, best, best_phi, best_r, deepest = 1, 1e300, 0.0, 0.0, 0.0
        while size > 0:
            size -= 1
            arc = stack[size]
            pa, ra, xa, ya, pb, rb, xb, yb = arc[0], arc[1], arc[2], arc[3], arc[4], arc[5], arc[6], arc[7]
            pm = 0.5 * (pa + pb)
            middle = sqrt(radii[i, 0] * radii[i, 1])
            rm, xm, ym = _caustic_point(f, pm, 0.5 * (ra + rb), middle, r_max)
            xm, ym = xm - sx, ym - sy
            if not rm > 0.0:
                return -999, 0
            length = hypot(xm - xa, ym - ya) + hypot(xb - xm, yb - ym)
            distance = min(hypot(xa, ya), min(hypot(xm, ym), hypot(xb, yb)))
            if hypot(xm, ym) < best:
                best, best_phi, best_r = hypot(xm, ym), pm, rm
            if distance > 1.5 * length or length < 1e-13 * scale or size > 60:
                total += atan2(xa * ym - ya * xm, xa * xm + ya * ym) + atan2(xm * yb - ym * xb, xm * xb + ym * yb)
            else:
                deepest = 1.0
                _put(stack[size], pa, ra, xa, ya, pm, rm, xm, ym)
                _put(stack[size + 1], pm, rm, xm, ym, pb, rb, xb, yb)
                size += 2
        if deepest > 0.0 and n_near < len(near):
            near[n_near, 0], near[n_near, 1] = best_phi, best_r
            n_near += 1
    return round(total / (2 * pi)), n_near
