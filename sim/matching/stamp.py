"""The pixels of a star that a PSF kernel may be made of."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation

from sim.matching.kernel import reach_pix
from sim.matching.psf import MoffatFit
from stages.records import BoolArray, FloatArray

WELL_EXPOSED_SNR = 25.0  # peak over the sky's rms
_LEAST_OWN, _CORE_FWHM = 0.6, 1.5  # part of the pixels that must be the star's; all this near it must be
_MOST_ELLIPTICAL, _MOST_MISFIT = 0.25, 0.05


def stamp(plane: FloatArray, own: BoolArray, middle: tuple[int, int], fit: MoffatFit) -> FloatArray | None:
    """(n, n) float32 about the pixel `middle` (x, y) of an image without its sky; NaN where pixels are not the star's.

    own : pixels of the image that are valid and of no other object, whose neighbouring pixels are left out too. None
    where the star is too faint, too long, badly fitted, or has not enough pixels.
    """
    if fit.snr < WELL_EXPOSED_SNR or fit.misfit > _MOST_MISFIT or np.hypot(fit.e1, fit.e2) > _MOST_ELLIPTICAL:
        return None
    half = reach_pix(fit.fwhm) + 1
    x, y = middle
    rows, columns = np.arange(y - half, y + half + 1), np.arange(x - half, x + half + 1)
    inside = ((rows >= 0) & (rows < plane.shape[0]))[:, None] & ((columns >= 0) & (columns < plane.shape[1]))
    at = np.ix_(np.clip(rows, 0, plane.shape[0] - 1), np.clip(columns, 0, plane.shape[1] - 1))
    used = inside & ~binary_dilation(~own[at])
    near = np.hypot(*(np.indices(used.shape) - half)) < _CORE_FWHM * fit.fwhm
    if used.mean() < _LEAST_OWN or not used[near].all():
        return None
    return np.where(used, plane[at], np.nan).astype(np.float32)
