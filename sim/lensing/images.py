"""All images of a point source, central ones included: positions, magnifications, kinds, order of arrival."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.lensing.image_search import MAX_IMAGES, MAX_SQUARES, search, window
from sim.lensing.lens import Lens

MINIMUM, SADDLE, MAXIMUM = 0, 1, 2
_MERGED = 1e-5  # smaller over larger singular value of the Jacobian at an image that may merge with another
Array = npt.NDArray[np.float64]


class ImageSearchError(RuntimeError):
    """The images are not points, or those found break the odd-number theorem."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images (n,) in order of arrival.

    `x`, `y` arcsec; `magnification` signed, the sign is the parity; `fermat` potential, arcsec^2, from an arbitrary
    zero; `kind` 0 minimum, 1 saddle, 2 maximum of the arrival time (Schneider, Ehlers & Falco 1992, section 5.2).
    """

    x: Array
    y: Array
    magnification: Array
    fermat: Array
    kind: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def parity_sum(self) -> int:
        """Images of positive less images of negative parity: +1 for every smooth lens."""
        return int(np.sign(self.magnification).sum())


def solve(lens: Lens, source_x: float, source_y: float) -> Images:
    """All images of a point source.

    A lens whose parts all have cores makes an odd number with parity sum +1 (Burke 1981); the image on a singular
    centre is left out. A source on a caustic to within rounding has its merging pair left out.

    Raises
    ------
    ImageSearchError
        If the image is a ring (source on the axis of a round lens), or the theorem does not hold for what was found.
    """
    sx, sy = float(source_x), float(source_y)
    if not np.isfinite([sx, sy]).all():
        raise ValueError(f"source position ({sx}, {sy}) is not finite. Give it in arcsec")
    frame, parts, terms = lens.packed
    half = window(frame, parts, terms, sx, sy)
    cored = all(part.core > 0 for part in lens.parts)
    out, total = np.empty((MAX_IMAGES, 4)), 0
    for caution in (1.0, 3.0):
        n, undecided, squares = search(frame, parts, terms, sx, sy, half * caution, caution, out)
        if squares >= MAX_SQUARES:
            where = (
                f"{lens}: the images of ({sx}, {sy}) are no points, the source lies behind the centre of a round lens"
            )
            raise ImageSearchError(f"{where}. Move the source by 1e-6 arcsec or give the lens q < 1 or a shear")
        rows = out[:n]
        if undecided and cored:
            rows = _without_merged(rows)
        total = int(np.sign(rows[:, 2]).sum())
        if total == 1 or not cored:
            return _ordered(lens, rows, sx, sy)
    raise ImageSearchError(f"{lens}: parity sum {total} for a source at ({sx}, {sy}). Report this lens as a bug")


def _without_merged(rows: Array) -> Array:
    """Images without those whose partner of the other parity coincides with them to rounding."""
    while len(rows):
        excess = np.sign(rows[:, 2]).sum() - 1
        if excess == 0:
            break
        bad = np.flatnonzero(
            (np.sign(rows[:, 2]) == np.sign(excess)) & (np.abs(rows[:, 2]) < _MERGED * rows[:, 3] ** 2)
        )
        if not len(bad):
            break
        rows = np.delete(rows, bad[np.argmin(np.abs(rows[bad, 2]))], axis=0)
    return rows


def _ordered(lens: Lens, rows: Array, sx: float, sy: float) -> Images:
    """Images of rows x, y, det A, trace A."""
    fermat = lens.fermat(rows[:, 0], rows[:, 1], sx, sy)
    order = np.argsort(fermat, kind="stable")
    x, y, det, trace = rows[order].T.copy()
    kind = np.where(det < 0, SADDLE, np.where(trace > 0, MINIMUM, MAXIMUM)).astype(np.int8)
    return Images(x, y, 1 / det, np.asarray(fermat[order], np.float64), kind)
