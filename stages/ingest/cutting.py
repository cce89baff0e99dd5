"""Cut an object from a field: pixels beyond the edge are invalid, never sky."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from stages.ingest.field import Field
from stages.records import BoolArray, Cutout, FloatArray

_CORE_ARCSEC = 3.0
_MASKED_CORE, _MASKED_FRAME = 0.002, 0.03  # shares of masked pixels that are worth saying


def cut(field: Field, id: str, source: str, xy_pix: FloatArray, side_arcsec: float, pad: bool) -> Cutout:
    """The part of a field around a position (x, y), 0-based pixels of the field.

    With `pad` the cutout has `side_arcsec` whatever the field's edges (tiles); without, only what is further than
    `side_arcsec` from the object in x or y is left away (large cutouts).
    """
    height, width = field.flux.shape[1:]
    half = int(np.ceil((0.5 if pad else 1.0) * side_arcsec / field.pixel_scale_arcsec))
    x, y = (int(np.floor(v + 0.5)) for v in xy_pix)
    x0, x1, y0, y1 = x - half, x + half + 1, y - half, y + half + 1
    if not pad:
        x0, x1, y0, y1 = max(x0, 0), min(x1, width), max(y0, 0), min(y1, height)
    inside = (slice(None), slice(max(y0, 0), min(y1, height)), slice(max(x0, 0), min(x1, width)))
    margin = ((0, 0), (max(-y0, 0), max(y1 - height, 0)), (max(-x0, 0), max(x1 - width, 0)))
    flux, variance = (_padded(plane[inside], margin, np.nan) for plane in (field.flux, field.variance))
    valid = _padded(field.valid[inside], margin, False)
    ra, dec = position(field, xy_pix)
    reasons = field.reasons
    if masked(valid, xy_pix - (x0, y0), field.pixel_scale_arcsec):
        reasons = tuple(dict.fromkeys((*reasons, "masked_pixels")))
    return Cutout(
        id, source, np.where(valid, flux, np.nan).astype(np.float32, copy=False),
        variance, valid, field.bands, field.pixel_scale_arcsec,
        field.psf_fwhm_arcsec, field.psf, np.asarray(xy_pix, float) - (x0, y0), np.array([x0, y0], float), ra, dec,
        field.survey, field.unit, reasons,
    )  # fmt: skip


def _padded(planes: Any, margin: tuple[tuple[int, int], ...], value: float) -> Any:
    """A copy with a margin of one value; `np.pad` takes as long where there is none."""
    return np.pad(planes, margin, constant_values=value) if np.any(margin) else planes.copy()


def centre(field: Field) -> FloatArray:
    """The middle of a field, where a cutout's object is."""
    height, width = field.flux.shape[1:]
    return np.array([(width - 1) / 2, (height - 1) / 2])


def position(field: Field, xy_pix: FloatArray) -> tuple[float, float]:
    """Right ascension and declination in degrees of a pixel position, NaN without a WCS."""
    if field.wcs is None:
        return float("nan"), float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ra, dec = field.wcs.pixel_to_world_values(*xy_pix)
        except Exception:  # a WCS that reads but cannot be evaluated
            return float("nan"), float("nan")
    return float(ra), float(dec)


def masked(valid: BoolArray, xy_pix: FloatArray, pixel_scale_arcsec: float) -> bool:
    """Whether so many pixels are invalid in some band, near the object or in all, that the result may suffer."""
    if valid.all():
        return False
    y, x = np.ogrid[: valid.shape[1], : valid.shape[2]]
    core = np.hypot(x - xy_pix[0], y - xy_pix[1]) * pixel_scale_arcsec <= _CORE_ARCSEC
    present = valid.any(axis=(1, 2))
    lost = ~valid[present]
    return bool(lost.mean() > _MASKED_FRAME or (core.any() and lost[:, core].mean() > _MASKED_CORE))
