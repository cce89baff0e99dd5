"""Apply stage 3: cutouts and the places of their deflectors to arc scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stages import config as configuration
from stages import weights
from stages.arcs.measure import coverage_deg
from stages.arcs.model import FRAME, ArcNet, ArcsConfig
from stages.arcs.train import turned
from stages.records import ArcScore, Cutout, FloatArray
from stages.scaling import network_inputs

_FARTHEST_ARCSEC = 1.5  # a deflector further from the object's position is another galaxy


@dataclass(frozen=True, eq=False)
class Predictor:
    """Trained stage 3 on a device; `calibration` as `train.calibrate` gives it."""

    net: nn.Module
    calibration: tuple[float, float, float, float]
    device: str

    def predict(
        self, cutouts: Sequence[Cutout], centres_xy_pix: Sequence[FloatArray], chunk: int = 16
    ) -> list[ArcScore]:
        """Measure the arcs of N cutouts about N deflectors (2,) in cutout pixels; NaN: about the object's position."""
        out: list[ArcScore] = []
        for start in range(0, len(cutouts), chunk):
            part = slice(start, start + chunk)
            out += self._measure(cutouts[part], centres_xy_pix[part])
        return out

    def _measure(self, cutouts: Sequence[Cutout], centres: Sequence[FloatArray]) -> list[ArcScore]:
        seen = network_inputs(cutouts, FRAME)
        xy = np.array([_centre(c, centre) for c, centre in zip(cutouts, centres, strict=True)])
        on_grid = (xy - seen.origin_xy_pix) / seen.step_pix[:, None]
        got = turned(
            self.net,
            torch.from_numpy(seen.pixels).to(self.device),
            torch.from_numpy(seen.conditions).to(self.device),
            torch.from_numpy(on_grid.astype(np.float32)).to(self.device),
        )
        slope, offset, factor, floor = self.calibration
        theta = np.exp(got.log_theta)
        theta_err = theta * factor * np.sqrt(got.variance + got.scatter)
        score = 1 / (1 + np.exp(-(slope * got.score + offset)))
        out = []
        for k, cutout in enumerate(cutouts):
            low, middle, high = (
                coverage_deg(got.mask[k], on_grid[k], seen.step_pix[k] * cutout.pixel_scale_arcsec, threshold)
                for threshold in (0.65, 0.5, 0.35)
            )
            out.append(
                ArcScore(
                    cutout.id, float(score[k]), middle, float(np.hypot(floor, 0.5 * (high - low))), float(theta[k]),
                    float(theta_err[k]), xy[k], got.mask[k].astype(np.float16), seen.origin_xy_pix[k],
                    float(seen.step_pix[k]),
                )
            )  # fmt: skip
        return out


def load(path: Path, device: str = "cpu") -> Predictor:
    """Read weights onto a device."""
    state, card = weights.load(path)
    config = configuration.from_mapping(ArcsConfig, card.config, str(path))
    slope, offset, factor, floor = (float(v) for v in state.pop("calibration"))
    net = ArcNet(config.width)
    net.load_state_dict(state)
    net.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Predictor(net, (slope, offset, factor, floor), device)


def _centre(cutout: Cutout, given: FloatArray) -> FloatArray:
    """The deflector's position if it is known and near, else the object's."""
    near = np.hypot(*(given - cutout.xy_pix)) * cutout.pixel_scale_arcsec <= _FARTHEST_ARCSEC
    return np.asarray(given if near else cutout.xy_pix, float)
