"""A piece of sky as a file holds it, before objects are cut from it; and the checks that all formats share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS
from scipy.ndimage import zoom

from stages.records import BoolArray, FloatArray

MIN_SIDE_PIX = 8
ASSUMED_FIELD_ARCSEC, ASSUMED_GROUND_SCALE_ARCSEC = 10.0, 0.2
ASSUMED_BANDS = {1: ("",), 2: ("g", "i"), 3: ("g", "r", "i"), 4: ("g", "r", "i", "z"), 5: ("g", "r", "i", "z", "y")}
_FINER = 5  # pixels per PSF pixel where its width is measured
_ZERO_SHARE = 0.5  # more exact zeros than this: the image's sky is zero, not absent
_ROWS_ASKED = 16  # of a plane, or a few more, whether its noise map can be one
_NOISE_FACTOR = 4.0  # a variance that is further from the pixels' own scatter is not one


class ReadError(ValueError):
    """One file that gives no object; `reason` is a code, the message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Field:
    """Planes of one file or one group of files; see `records.Cutout` for the arrays.

    wcs : celestial, or None; name : what the file calls its object, "" if nothing.
    """

    flux: FloatArray
    variance: FloatArray
    valid: BoolArray
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: FloatArray
    psf: FloatArray
    wcs: WCS | None = None
    survey: str = ""
    unit: str = ""
    reasons: tuple[str, ...] = ()

    def because(self, *reasons: str) -> Field:
        """The same with more reasons, each once."""
        return replace(self, reasons=tuple(dict.fromkeys((*self.reasons, *reasons))))


def checked(field: Field, zeros_are_data: bool) -> Field:
    """Mark what cannot be used as invalid and drop noise maps that are none; raises ReadError where nothing is left.

    Exact zeros among noise are absent pixels, unless `zeros_are_data` (integer images and pictures).
    """
    if not field.flux.size:
        raise ReadError("zero_size", "The image has no pixels. Make the file anew.")
    if min(field.flux.shape[1:]) < MIN_SIDE_PIX:
        raise ReadError("too_small", f"The image is smaller than {MIN_SIDE_PIX} pixels. Cut a larger one.")
    finite = np.isfinite(field.flux)
    valid = field.valid & finite
    if not zeros_are_data:
        zeros = ((field.flux == 0) & finite).sum(axis=(1, 2))
        share = (zeros / np.maximum(finite.sum(axis=(1, 2)), 1))[:, None, None]
        valid &= (field.flux != 0) | ((share > _ZERO_SHARE) & (share < 1))
    if not valid.any():
        raise ReadError("no_valid_pixels", "Every pixel is masked, zero or not finite. Check the file.")
    lost = ~valid.any(axis=(1, 2))
    if lost.any():
        field = field.because("missing_band")
    usable = field.flux[valid]
    if usable.min() == usable.max():
        raise ReadError("constant_image", "Every valid pixel has the same value. Check the file.")
    variance = np.where(field.variance > 0, field.variance, np.nan).astype(np.float32)
    ignored = [k for k in range(len(valid)) if not _plausible(field.flux[k], variance[k], valid[k])]
    if ignored:
        variance[ignored] = np.nan
        field = field.because("noise_map_ignored")
    return replace(field, flux=field.flux.astype(np.float32, copy=False), variance=variance, valid=valid)


def _plausible(flux: FloatArray, variance: FloatArray, valid: BoolArray) -> bool:
    """Whether a variance is near the scatter of the pixels; an absent one is left alone."""
    rows = slice(None, None, max(1, len(flux) // _ROWS_ASKED))
    flux, variance, valid = flux[rows], variance[rows], valid[rows]
    pair = valid[:, 1:] & valid[:, :-1]
    known = variance[valid & np.isfinite(variance)]
    steps = np.abs(flux[:, 1:] - flux[:, :-1])[pair]
    if not known.size or steps.size < 50:
        return True
    scatter = 1.4826 * _middle(steps) / np.sqrt(2)
    given = np.sqrt(_middle(known))
    # Correlated noise scatters less between neighbours than its variance says: twice the room on that side.
    return bool(scatter == 0 or 1 / _NOISE_FACTOR < given / scatter < 2 * _NOISE_FACTOR)


def _middle(sample: FloatArray) -> float:
    """The median, or the upper of its two values, in a third of `np.median`'s time."""
    return float(np.partition(sample, len(sample) // 2)[len(sample) // 2])


def psf_fwhm_pix(psf: FloatArray) -> float:
    """Full width at half maximum of a kernel from the area above half its peak; NaN for an empty one."""
    if not psf.size or not np.isfinite(psf).any() or np.nanmax(psf) <= 0:
        return float("nan")
    finer = zoom(np.nan_to_num(psf), _FINER, order=3, mode="grid-constant", grid_mode=True)
    return 2 / _FINER * float(np.sqrt((finer > 0.5 * finer.max()).sum() / np.pi))


def sharpest_fwhm_pix(flux: FloatArray, valid: BoolArray) -> float:
    """FWHM of the sharpest of a plane's brightest peaks, from the curvature of its logarithm; NaN if none."""
    sky = float(np.median(flux[valid])) if valid.any() else 0.0
    pair = valid[:, 1:] & valid[:, :-1]
    noise = 1.4826 * float(np.median(np.abs(np.diff(flux, axis=1)[pair]))) / np.sqrt(2) if pair.any() else np.inf
    plane = np.where(valid, flux - sky, np.nan)
    middle = plane[1:-1, 1:-1]
    around = [plane[1:-1, :-2], plane[1:-1, 2:], plane[:-2, 1:-1], plane[2:, 1:-1]]
    with np.errstate(invalid="ignore"):
        peak = (middle > 20 * noise) & np.logical_and.reduce([(n < middle) & (n > 3 * noise) for n in around])
    if not peak.any():
        return float("nan")
    brightest = np.argsort(-middle[peak])[:8]
    curvature = sum(np.log(middle[peak] / n[peak]) for n in around)[brightest] / 2  # 1 / sigma^2 per axis
    return float(2.3548 / np.sqrt(curvature.max()))


def stacked(kernels: list[FloatArray | None]) -> npt.NDArray[np.float32]:
    """Kernels of any sizes, centred in planes of one size and normalised; shape (0, 0, 0) if one is absent."""
    if not kernels or any(k is None or not np.nansum(k) > 0 for k in kernels):
        return np.zeros((0, 0, 0), np.float32)
    known = [np.nan_to_num(np.asarray(k, np.float32)) for k in kernels if k is not None]
    side = max(max(k.shape) for k in known) | 1
    out = np.zeros((len(known), side, side), np.float32)
    for plane, kernel in zip(out, known, strict=True):
        y, x = (side - kernel.shape[0]) // 2, (side - kernel.shape[1]) // 2
        plane[y : y + kernel.shape[0], x : x + kernel.shape[1]] = kernel / kernel.sum()
    return out
