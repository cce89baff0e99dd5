"""Caustics of a lens as polygons: what part of the source plane makes four images, two, or one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numba import njit

from sim.lens import Lens, PowerLaw
from stages.records import BoolArray, FloatArray

_N_RAYS = 40
_RADII = np.geomspace(2e-3, 3.0, 28)  # Einstein radii at which det A is looked at along each ray
_COS, _SIN = np.cos(np.arange(_N_RAYS) * 2 * np.pi / _N_RAYS), np.sin(np.arange(_N_RAYS) * 2 * np.pi / _N_RAYS)


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
    x, y = radii[:, None] * _COS, radii[:, None] * _SIN
    a11, a12, a22 = lens.jacobian(x, y)
    det = a11 * a22 - a12**2
    change = np.signbit(det[1:]) != np.signbit(det[:-1])
    last = len(radii) - 2 - np.argmax(change[::-1], axis=0)
    first = np.argmax(change, axis=0)
    rays = np.arange(_N_RAYS)
    outer = _crossing(radii, det, last, rays)
    single = ~change.any(axis=0)
    outer[single] = lens.theta_e
    # with one change only, the core is smaller than the innermost sample, which then lies on the cut
    inner = np.where((first == last) | single, radii[0], _crossing(radii, det, first, rays))
    points_x, points_y = np.stack([outer, inner]) * _COS, np.stack([outer, inner]) * _SIN
    bx, by = lens.source_position(points_x, points_y)
    curves = np.stack([bx, by], axis=-1)
    return Caustics(curves[0], curves[1])


def _crossing(radii: FloatArray, det: FloatArray, k: npt.NDArray[np.intp], rays: npt.NDArray[np.intp]) -> FloatArray:
    """Where det A is zero between samples k and k + 1, linear in log radius."""
    low, high = det[k, rays], det[k + 1, rays]
    part = np.clip(low / np.where(low == high, 1.0, low - high), 0.0, 1.0)
    return np.asarray(radii[k] * (radii[k + 1] / radii[k]) ** part)


@njit(cache=True)  # type: ignore[untyped-decorator]
def inside(polygon: FloatArray, x: FloatArray, y: FloatArray) -> BoolArray:
    """Which points (n,) lie in a polygon (m, 2): its winding number is not zero, so crossed curves count as filled."""
    out = np.zeros(len(x), np.bool_)
    for k in range(len(x)):
        turns = 0
        for i in range(len(polygon)):
            x0, y0 = polygon[i - 1]
            x1, y1 = polygon[i]
            if (y0 <= y[k]) != (y1 <= y[k]):
                left = (x1 - x0) * (y[k] - y0) - (x[k] - x0) * (y1 - y0)
                if y1 > y0 and left > 0:
                    turns += 1
                elif y1 < y0 and left < 0:
                    turns -= 1
        out[k] = turns != 0
    return out
