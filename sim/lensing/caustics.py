"""Caustics of a lens as polygons: what part of the source plane makes four images, two, or one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from sim.lensing.lens import Lens, PowerLaw
from stages.records import BoolArray, FloatArray

_N_RAYS = 36
# Einstein radii at which det A is looked at along each ray: dense where tangential curves lie
_RADII = np.concatenate([np.geomspace(2e-3, 0.4, 5), np.linspace(0.6, 1.6, 6), [2.0, 3.0]])
_HALVINGS = 6
_ANGLE = np.arange(_N_RAYS) * 2 * np.pi / _N_RAYS
_FINE = np.arange(4 * _N_RAYS) * 2 * np.pi / (4 * _N_RAYS)  # critical radii are smooth, caustics have cusps


@dataclass(frozen=True, eq=False)
class Caustics:
    """Polygons (n, 2) in arcsec: tangential, and radial (for tiny cores the cut, within which a second image forms)."""

    tangential: FloatArray
    radial: FloatArray

    @property
    def reach(self) -> float:
        """No caustic is further from the deflector, arcsec."""
        return float(max(np.hypot(*self.tangential.T).max(), np.hypot(*self.radial.T).max()))


def caustics(lens: Lens) -> Caustics:
    """Caustics about the main galaxy: the first and last change of sign of det A along rays from its centre.

    Subhaloes are left out: they move caustics by less than the linear interpolation does, and take most of the time.
    """
    smooth = tuple(part for part in lens.parts if isinstance(part, PowerLaw))
    lens = replace(lens, parts=smooth)
    radii = lens.theta_e * _RADII
    negative = _det_is_negative(lens, radii[:, None] * np.ones(_N_RAYS))
    change = negative[1:] != negative[:-1]
    bracket = np.stack([len(radii) - 2 - np.argmax(change[::-1], axis=0), np.argmax(change, axis=0)])
    low, high = radii[bracket], radii[bracket + 1]
    at_low = negative[bracket, np.arange(_N_RAYS)]
    for _ in range(_HALVINGS):  # no interpolation: det A jumps at the edge of a core
        middle = np.sqrt(low * high)
        same = _det_is_negative(lens, middle) == at_low
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    outer, inner = np.sqrt(low * high)
    never = ~change.any(axis=0)
    outer[never] = lens.theta_e
    # with one change only, the core is smaller than the innermost sample, which then lies on the cut
    inner[(bracket[0] == bracket[1]) | never] = radii[0]
    fine = np.stack([_smooth(outer), _smooth(inner)])
    bx, by = lens.source_position(fine * np.cos(_FINE), fine * np.sin(_FINE))
    curves = np.stack([bx, by], axis=-1)
    return Caustics(curves[0], curves[1])


def _smooth(radius: FloatArray) -> FloatArray:
    """A closed curve's radii at four times as many angles: cubic convolution (Keys 1981)."""
    before, after, beyond = np.roll(radius, 1), np.roll(radius, -1), np.roll(radius, -2)
    t = np.arange(4)[:, None] / 4
    out = radius + 0.5 * t * (after - before + t * (2 * before - 5 * radius + 4 * after - beyond
                              + t * (3 * (radius - after) + beyond - before)))  # fmt: skip
    return np.asarray(out.T.ravel())


def _det_is_negative(lens: Lens, radius: FloatArray) -> BoolArray:
    """Sign of det A at radii (..., rays) along each ray."""
    a11, a12, a22 = lens.jacobian(radius * np.cos(_ANGLE), radius * np.sin(_ANGLE))
    return np.asarray(a11 * a22 < a12**2)


@njit(cache=True)  # type: ignore[untyped-decorator]
def inside(polygon: FloatArray, x: FloatArray, y: FloatArray) -> BoolArray:
    """Which points (n,) lie in a polygon (m, 2): its winding number is not zero, so crossed curves count as filled."""
    out = np.zeros(len(x), np.bool_)
    for k in range(len(x)):
        turns = 0
        for i in range(len(polygon)):
            x0, y0, x1, y1 = polygon[i - 1, 0], polygon[i - 1, 1], polygon[i, 0], polygon[i, 1]
            if (y0 <= y[k]) != (y1 <= y[k]):
                left = (x1 - x0) * (y[k] - y0) - (x[k] - x0) * (y1 - y0)
                if y1 > y0 and left > 0:
                    turns += 1
                elif y1 < y0 and left < 0:
                    turns -= 1
        out[k] = turns != 0
    return out
