"""What the detector's answers mean in one cutout: their confidences, the deflector among them, and no place twice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.counter.detector import CLASSES, Detections
from stages.records import Cutout, FloatArray
from stages.scaling import resolution_arcsec

_MIN_DEFLECTOR = 0.15
_SAME_FWHM = 0.35  # detections this near are one
_FAR_ARCSEC = 2.0  # from the object, over which a deflector becomes unlikely
_IMAGE, _DEFLECTOR = CLASSES.index("image"), CLASSES.index("deflector")


def logit(p: FloatArray) -> FloatArray:
    """Log odds, finite for every float32 probability."""
    q = np.clip(np.asarray(p, float), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(q / (1 - q)))


def calibrated(found: Detections, calibration: FloatArray) -> FloatArray:
    """Probabilities (n,) of being real, from raw confidences and (2, 2) slope and offset by class."""
    slope, offset = calibration[found.kind].T
    return np.asarray(1 / (1 + np.exp(-(slope * logit(found.confidence) + offset))))


def images_of(
    found: Detections, confidence: FloatArray, cutout: Cutout, least: float, most: int
) -> npt.NDArray[np.intp]:
    """Rows of what may be images, surest first: at least so confident, at most so many, none where a surer one is."""
    rows = np.flatnonzero((found.kind == _IMAGE) & (confidence >= least))
    return rows[distinct(found.xy_pix[rows], confidence[rows], same_pix(cutout))[:most]]


def deflector_of(found: Detections, confidence: FloatArray, cutout: Cutout) -> tuple[FloatArray, float]:
    """Position and confidence of the likeliest deflector, NaN where there is none."""
    images = np.flatnonzero(found.kind == _IMAGE)
    distance = np.hypot(*(found.xy_pix[:, None] - found.xy_pix[None, images]).transpose(2, 0, 1))
    is_image = ((distance < same_pix(cutout)) & (confidence[images] >= confidence[:, None])).any(axis=1)
    rows = np.flatnonzero((found.kind == _DEFLECTOR) & (confidence >= _MIN_DEFLECTOR) & ~is_image)
    if not len(rows):
        return np.full(2, np.nan), float("nan")
    away = np.hypot(*(found.xy_pix[rows] - cutout.xy_pix).T) * cutout.pixel_scale_arcsec
    best = rows[int(np.argmax(confidence[rows] * np.exp(-0.5 * (away / _FAR_ARCSEC) ** 2)))]
    return found.xy_pix[best], float(confidence[best])


def same_pix(cutout: Cutout) -> float:
    """Distance below which two detections in a cutout are one."""
    return _SAME_FWHM * resolution_arcsec(cutout) / cutout.pixel_scale_arcsec


def distinct(xy: FloatArray, confidence: FloatArray, radius: float) -> npt.NDArray[np.intp]:
    """Row numbers, most confident first, of positions (n, 2) of which none lies within a radius of a surer one."""
    kept: list[int] = []
    for k in np.argsort(-confidence, kind="stable"):
        if all(np.hypot(*(xy[k] - xy[j])) > radius for j in kept):
            kept.append(int(k))
    return np.array(kept, dtype=np.intp)
