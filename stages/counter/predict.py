"""Apply stage 2: cutouts to counted images with their theorem certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from stages import config as configuration
from stages import weights
from stages.counter.centroid import refine
from stages.counter.detector import CLASSES, CounterConfig, Detections, build, detect
from stages.counter.theorem import certificate
from stages.counter.train import logit
from stages.records import Cutout, FloatArray, ImageCount
from stages.scaling import resolution_arcsec

_MIN_CONFIDENCE = 0.5
_SAME_FWHM = 0.35  # after refinement, detections this near are one
_IMAGE, _DEFLECTOR = CLASSES.index("image"), CLASSES.index("deflector")


@dataclass(frozen=True, eq=False)
class Predictor:
    """Trained stage 2 on a device; `calibration` (2, 2) is slope and offset by class."""

    net: nn.Module
    calibration: FloatArray
    device: str

    def predict(self, cutouts: Sequence[Cutout]) -> list[ImageCount]:
        """Count the point-like images of N cutouts and ask whether a lens makes them."""
        found = detect(self.net, cutouts, self.device) if len(cutouts) else []
        return [self._count(cutout, detections) for cutout, detections in zip(cutouts, found, strict=True)]

    def _count(self, cutout: Cutout, found: Detections) -> ImageCount:
        slope, offset = self.calibration[found.kind].T
        confidence = 1 / (1 + np.exp(-(slope * logit(found.confidence) + offset)))
        image = (found.kind == _IMAGE) & (confidence >= _MIN_CONFIDENCE)
        xy, flux, limit = refine(cutout, found.xy_pix[image])
        fwhm = resolution_arcsec(cutout)
        keep = distinct(xy, confidence[image], _SAME_FWHM * fwhm / cutout.pixel_scale_arcsec)
        xy, flux, sure = xy[keep], flux[keep], confidence[image][keep]
        deflector, trust = _deflector(found, confidence, cutout)
        known_scale = "assumed_pixel_scale" not in cutout.reasons
        verdict = certificate(
            xy, flux, sure, deflector, trust, cutout.pixel_scale_arcsec if known_scale else float("nan"),
            fwhm if known_scale else float("nan"), limit,
        )  # fmt: skip
        return ImageCount(cutout.id, xy, flux, sure, deflector, trust, verdict)


def load(path: Path, device: str = "cpu") -> Predictor:
    """Read weights onto a device."""
    state, card = weights.load(path)
    config = configuration.from_mapping(CounterConfig, card.config, str(path))
    calibration = state.pop("calibration").numpy().astype(float)
    net = build(config.width)
    net.load_state_dict(state)
    return Predictor(net.fuse().eval().to(device), calibration, device)  # type: ignore[operator]


def distinct(xy: FloatArray, confidence: FloatArray, radius: float) -> npt.NDArray[np.intp]:
    """Row numbers, most confident first, of positions (n, 2) of which none lies within a radius of a surer one."""
    kept: list[int] = []
    for k in np.argsort(-confidence, kind="stable"):
        if all(np.hypot(*(xy[k] - xy[j])) > radius for j in kept):
            kept.append(int(k))
    return np.array(kept, dtype=np.intp)


def _deflector(found: Detections, confidence: FloatArray, cutout: Cutout) -> tuple[FloatArray, float]:
    """Position and confidence of the likeliest deflector, NaN where there is none."""
    rows = np.flatnonzero((found.kind == _DEFLECTOR) & (confidence >= _MIN_CONFIDENCE / 2))
    if not len(rows):
        return np.full(2, np.nan), float("nan")
    away = np.hypot(*(found.xy_pix[rows] - cutout.xy_pix).T) * cutout.pixel_scale_arcsec
    best = rows[int(np.argmax(confidence[rows] * np.exp(-0.5 * (away / 2.0) ** 2)))]
    return found.xy_pix[best], float(confidence[best])
