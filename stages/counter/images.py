"""Every image of a point source behind a cored lens, checked against the winding numbers of the caustics.

The critical curves are found on rays from the deflector's centre, a polar mesh conforms to them, and every triangle
whose image holds the source seeds Newton's method. With w_r and w_t the winding numbers of the radial and tangential
caustic round the source, a complete set has N_max = w_r, N_saddle = w_r - w_t, N_min = 1 - w_t (degree of the lens
map on the regions between the curves; Burke 1981; Schneider, Ehlers & Falco 1992, sect. 5.4). Where the curves are not
two nested loops round the centre, or there is a satellite, they are followed instead (`stages.counter.contours`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.counter.caustics import critical_radii, winding
from stages.counter.compiling import compiled
from stages.counter.contours import demanded
from stages.counter.image_search import MAX_IMAGES, adaptive_search, fold_search, mesh_search, outer_radius
from stages.counter.lens_model import Array, LensModel, frame

KINDS = ("minimum", "saddle", "maximum")
RAYS = 48  # of which half are solved: the lens is symmetric under reflection at its centre


@dataclass(frozen=True, eq=False)
class Images:
    """All images of one source, in order of arrival.

    xy_arcsec : (n, 2) positions.
    magnification : (n,) signed; negative for saddles.
    kind : (n,) index into `KINDS`.
    expected : numbers of minima, saddles and maxima that the caustics demand; -1 where a critical curve could not be
        followed and only the parity sum is known.
    """

    xy_arcsec: Array
    magnification: Array
    kind: npt.NDArray[np.int64]
    expected: tuple[int, int, int]

    @property
    def parity_sum(self) -> int:
        """Number of images of positive less those of negative parity; +1 for a cored lens."""
        return int(np.where(self.kind == 1, -1, 1).sum())

    @property
    def complete(self) -> bool:
        """Whether parity sum and, where known, the caustics' counts agree with the images found."""
        found = tuple(int((self.kind == k).sum()) for k in range(3))
        return self.parity_sum == 1 and (self.expected[0] < 0 or found == self.expected)


def all_images(model: LensModel, source_xy_arcsec: npt.ArrayLike) -> Images:
    """Every image of a point source, the centre included.

    Parameters
    ----------
    model : the lens; a core of 0 is taken as 1e-10 arcsec and still has its maximum, of no brightness.
    source_xy_arcsec : (2,) source position.

    Raises
    ------
    ValueError : the source is not two finite numbers.
    """
    p, source = model.as_array(), np.asarray(source_xy_arcsec, dtype=np.float64)
    if source.shape != (2,) or not np.isfinite(source).all():
        raise ValueError(f"source {source}: expected two finite numbers (x, y) in arcsec. Check the source position")
    xy, detail, expected = _solve(p, source[0] - p[5], source[1] - p[6])
    kind = np.where(detail[:, 0] < 0, 1, np.where(detail[:, 1] > 0, 0, 2))
    xy = xy + p[5:7]
    order = np.argsort(model.arrival_time(xy, source))
    return Images(xy[order], 1.0 / detail[order, 0], kind[order], (expected[0], expected[1], expected[2]))


@compiled
def _matches(detail: Array, n: int, w_r: int, w_t: int) -> bool:
    """Whether the numbers of minima, saddles and maxima are those of the winding numbers."""
    found = [0, 0, 0]
    for i in range(n):
        found[1 if detail[i, 0] < 0.0 else (0 if detail[i, 1] > 0.0 else 2)] += 1
    return found[0] == 1 - w_t and found[1] == w_r - w_t and found[2] == w_r


@compiled
def _parity(detail: Array, n: int) -> int:
    total = 0
    for i in range(n):
        total += 1 if detail[i, 0] > 0.0 else -1
    return total


@compiled
def _solve(p: Array, sx: float, sy: float) -> tuple[Array, Array, tuple[int, int, int]]:
    """Positions about the centre (n, 2), (det A, trace A) of each, and the counts the caustics demand (-1: unknown)."""
    f = frame(p)
    xy, detail = np.empty((MAX_IMAGES, 2)), np.empty((MAX_IMAGES, 2))
    r_max, n, w_r, w_t = outer_radius(f, sx, sy), 0, -999, -999
    for attempt in range(3 if f[9] == 0.0 else 0):
        n_rays = RAYS * 3**attempt
        radii, nested = critical_radii(f, n_rays, r_max)
        if not nested:
            break
        near_r, near_t = np.empty((n_rays, 2)), np.empty((n_rays, 2))
        w_r, n_r = winding(f, radii, 0, sx, sy, r_max, near_r)
        w_t, n_t = winding(f, radii, 1, sx, sy, r_max, near_t)
        if w_r == -999 or w_t == -999:
            w_r, w_t = -999, -999
            break
        n = mesh_search(f, sx, sy, radii, r_max, attempt + 1, xy, detail, n)
        if not _matches(detail, n, w_r, w_t):
            n = fold_search(f, sx, sy, near_r, n_r, xy, detail, n)
            n = fold_search(f, sx, sy, near_t, n_t, xy, detail, n)
        if _matches(detail, n, w_r, w_t):
            return xy[:n], detail[:n], (1 - w_t, w_r - w_t, w_r)
    n, near = 0, np.empty((256, 2))
    for attempt in range(4):
        saddles, maxima, n_near = demanded(f, sx, sy, r_max, attempt + 1, near)
        w_r, w_t = (maxima, maxima - saddles) if saddles >= 0 else (-999, -999)
        size = 32 * 2**attempt
        n = adaptive_search(f, sx, sy, 0.0, 0.0, f[3], r_max, size, xy, detail, n)
        if f[9] > 0.0:
            n = adaptive_search(f, sx, sy, f[10], f[11], f[12], 4.0 * (f[9] + f[12]), size, xy, detail, n)
        if not _matches(detail, n, w_r, w_t):
            n = fold_search(f, sx, sy, near, n_near, xy, detail, n)
        if _matches(detail, n, w_r, w_t) or (w_r == -999 and _parity(detail, n) == 1 and attempt > 0):
            break
    if w_r == -999:
        return xy[:n], detail[:n], (-1, -1, -1)
    return xy[:n], detail[:n], (1 - w_t, w_r - w_t, w_r)
