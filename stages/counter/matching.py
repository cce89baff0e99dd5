"""Which detections are true points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.records import Cutout, FloatArray
from stages.scaling import resolution_arcsec

MATCH_FWHM = 0.5  # how near a detection must be to a true position to be it


def match_radius_pix(cutout: Cutout) -> float:
    """How near a detection must be to a true position to be it."""
    return MATCH_FWHM * resolution_arcsec(cutout) / cutout.pixel_scale_arcsec


def matched(found: FloatArray, true: FloatArray, radius: float) -> npt.NDArray[np.bool_]:
    """Which of the found positions (n, 2), in order, are true ones (m, 2); each true one counts once."""
    free = np.ones(len(true), bool)
    out = np.zeros(len(found), bool)
    for k, position in enumerate(found):
        distance = np.where(free, np.hypot(*(true - position).T), np.inf) if len(true) else np.empty(0)
        if len(distance) and distance.min() <= radius:
            out[k], free[int(np.argmin(distance))] = True, False
    return out
