"""Every image of a point source behind a cored lens, checked against the winding numbers of the caustics.

A polar mesh about the deflector, and one about a satellite, finds the critical curves, which are followed
(`stages.counter.contours`): their caustics' winding numbers round the source say how many minima, saddles and maxima
there are (degree of the lens map on the regions between the curves; Burke 1981; Schneider, Ehlers & Falco 1992,
sect. 5.4). Triangles whose image holds the source seed Newton's method; where images are still missing, so do the
folds that the source is near, then triangles that are split, then finer meshes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.counter.compiling import compiled
from stages.counter.contours import demanded
from stages.counter.image_search import (
    MAX_IMAGES,
    adaptive_search,
    fold_search,
    mesh_search,
    outer_radius,
    polar_mesh,
)
from stages.counter.lens_model import Array, Frame, LensModel, frame, potential

KINDS = ("minimum", "saddle", "maximum")
_ATTEMPTS = 4  # each with meshes twice as fine


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
    xy, det, kind, expected = _solve(p, source[0] - p[5], source[1] - p[6])
    return Images(xy + p[5:7], 1.0 / det, kind, expected)


@compiled
def _kind(det: float, trace: float) -> int:
    return 1 if det < 0.0 else (0 if trace > 0.0 else 2)


@compiled
def _matches(detail: Array, n: int, saddles: int, maxima: int) -> bool:
    """Whether these are the numbers of saddles and maxima, and the parity sum is 1."""
    found = [0, 0, 0]
    for i in range(n):
        found[_kind(detail[i, 0], detail[i, 1])] += 1
    return found[0] + found[2] == found[1] + 1 and (saddles < 0 or (found[1] == saddles and found[2] == maxima))


@compiled
def meshes_about(f: Frame, sx: float, sy: float, finer: int) -> tuple[Array, Array]:
    """Meshes about the deflector and the satellite; the second is empty where there is none."""
    main = polar_mesh(f, sx, sy, 0.0, 0.0, f[3], outer_radius(f, sx, sy), 48 * finer)
    if not f[9] > 0.0:
        return main, main[:0]
    return main, polar_mesh(f, sx, sy, f[10], f[11], f[12], 4.0 * (f[9] + f[12]), 40 * finer)


@compiled
def _search(f: Frame, sx: float, sy: float, xy: Array, detail: Array) -> tuple[int, int, int]:
    """Write positions about the centre and (det A, trace A): their number and the saddles and maxima demanded or -1."""
    n, saddles, maxima, near = 0, -1, -1, np.empty((256, 2))
    for attempt in range(_ATTEMPTS):
        meshes = meshes_about(f, sx, sy, 2**attempt)
        saddles, maxima, n_near = demanded(f, sx, sy, meshes, 2**attempt, near)
        for mesh in meshes:
            n = mesh_search(f, sx, sy, mesh, xy, detail, n)
        if not _matches(detail, n, saddles, maxima):
            n = fold_search(f, sx, sy, near, n_near, xy, detail, n)
        for mesh in meshes:
            if not _matches(detail, n, saddles, maxima):
                n = adaptive_search(f, sx, sy, mesh, xy, detail, n)
        if _matches(detail, n, saddles, maxima) and (saddles >= 0 or attempt == _ATTEMPTS - 1):
            break
    return n, saddles, maxima


@compiled
def _solve(p: Array, sx: float, sy: float) -> tuple[Array, Array, npt.NDArray[np.int64], tuple[int, int, int]]:
    """Positions about the centre (n, 2), det A and kind (n,) in order of arrival, and the counts demanded (or -1)."""
    f, xy, detail = frame(p), np.empty((MAX_IMAGES, 2)), np.empty((MAX_IMAGES, 2))
    n, saddles, maxima = _search(f, sx, sy, xy, detail)
    time, kind = np.empty(n), np.empty(n, dtype=np.int64)
    for i in range(n):
        kind[i] = _kind(detail[i, 0], detail[i, 1])
        time[i] = 0.5 * ((xy[i, 0] - sx) ** 2 + (xy[i, 1] - sy) ** 2) - potential(f, xy[i, 0], xy[i, 1])
    order = np.argsort(time)
    expected = (1 + saddles - maxima, saddles, maxima) if saddles >= 0 else (-1, -1, -1)
    return xy[order], detail[order, 0], kind[order], expected
