"""Apply stage 3: cutouts and the places of their deflectors to arc scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stages import config as configuration
from stages import weights
from stages.arcs.calibration import Calibration, coverage
from stages.arcs.measure import THRESHOLD, colour, find_arcs, fit_ring, signal
from stages.arcs.model import FRAME, ArcsConfig, build, measured
from stages.deflector import brightest_place, deflector_light
from stages.polar import to_polar
from stages.records import ArcScore, Cutout, FloatArray
from stages.scaling import N_SLOTS, SOFTENING_SIGMA, network_inputs
from stages.softening import linear

_FARTHEST_ARCSEC = 1.5  # a deflector further from the object's position is another galaxy
_CORE_PIX = 6.0  # within which the deflector's own colour is measured


@dataclass(frozen=True, eq=False)
class Predictor:
    """Trained stage 3 on a device."""

    net: nn.Module
    calibration: Calibration

    def predict(
        self, cutouts: Sequence[Cutout], centres_xy_pix: Sequence[FloatArray], chunk: int = 16
    ) -> list[ArcScore]:
        """Measure the arcs of N cutouts about N deflectors (2,) in cutout pixels; NaN: see `stages.deflector`."""
        out: list[ArcScore] = []
        for start in range(0, len(cutouts), chunk):
            part = slice(start, start + chunk)
            out += self._measure(cutouts[part], centres_xy_pix[part])
        return out

    def _measure(self, cutouts: Sequence[Cutout], centres: Sequence[FloatArray]) -> list[ArcScore]:
        seen, how = network_inputs(cutouts, FRAME), self.calibration
        xy = np.array([_centre(c, centre) for c, centre in zip(cutouts, centres, strict=True)])
        on_grid = torch.from_numpy(((xy - seen.origin_xy_pix) / seen.step_pix[:, None]).astype(np.float32))
        pixels = torch.from_numpy(seen.pixels)
        shown = pixels.contiguous(memory_format=torch.channels_last)
        got = measured(self.net, shown, torch.from_numpy(seen.conditions), on_grid)
        degrees, degrees_err = coverage(got.angles, how)
        score = 1 / (1 + np.exp(-(how.slope * got.score + how.offset)))
        polar = to_polar(torch.from_numpy(got.mask)[:, None], on_grid)[:, 0].double().numpy()
        light = _light(pixels, on_grid, got.mask, seen.step_pix)
        out = []
        for k, cutout in enumerate(cutouts):
            step = float(seen.step_pix[k])
            pixel = step * cutout.pixel_scale_arcsec
            ring = fit_ring(polar[k])
            out.append(
                ArcScore(
                    cutout.id, float(score[k]), float(degrees[k]), float(degrees_err[k]),
                    float(got.theta_pix[k]) * pixel, float(got.sigma_pix[k]) * how.radius_factor * pixel,
                    xy[k], got.mask[k].astype(np.float16), seen.origin_xy_pix[k], step,
                    tuple(find_arcs(polar[k], pixel)), how.length_rel, how.width_rel, *light[k],
                    xy[k] + step * np.array([ring.dx, ring.dy]), step * ring.err * how.ring_factor, ring.axis_ratio,
                    ring.axis_ratio_err * how.ratio_factor, ring.angle_deg, ring.radius * pixel,
                )
            )  # fmt: skip
        return out


def load(path: Path, device: str = "cpu") -> Predictor:
    """Read weights onto a device."""
    state, card = weights.load(path)
    config = configuration.from_mapping(ArcsConfig, card.config, str(path))
    calibration = Calibration(*(float(v) for v in state.pop("calibration")))
    net = build(config)
    net.load_state_dict(state)
    net.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Predictor(net, calibration)


def _light(pixels: Tensor, centre: Tensor, mask: FloatArray, step_pix: FloatArray) -> list[tuple[float, float, float]]:
    """Signal to noise of each mask's light, its colour against the deflector's, and the error of that."""
    out = [(0.0, float("nan"), float("nan"))] * len(pixels)
    some = np.flatnonzero((mask > THRESHOLD).any(axis=(1, 2)))
    if not len(some):
        return out
    flux, valid = linear(pixels[some, :N_SLOTS]), pixels[some, N_SLOTS:]
    galaxy = deflector_light(flux, valid, centre[some])
    radius = _distance(centre[some], mask.shape[-1])
    for k, row in enumerate(some):
        lensed, below = (SOFTENING_SIGMA * v.double().numpy() for v in (flux[k] - galaxy[k], galaxy[k]))
        good, inside, core = valid[k].numpy() > 0, mask[row] > THRESHOLD, radius[k] < _CORE_PIX
        independent = min(1.0, float(step_pix[row])) ** 2
        out[row] = (
            signal(lensed, good, inside, independent), *colour(lensed, below, good, inside, core, independent)
        )  # fmt: skip
    return out


def _distance(centre: Tensor, size: int) -> FloatArray:
    index = np.arange(size)
    x, y = centre.double().numpy().T
    return np.asarray(np.hypot(index - x[:, None, None], index[:, None] - y[:, None, None]))


def _centre(cutout: Cutout, given: FloatArray) -> FloatArray:
    """The deflector's position if it is known and near, else that of the brightest red light by the object's."""
    near = np.hypot(*(given - cutout.xy_pix)) * cutout.pixel_scale_arcsec <= _FARTHEST_ARCSEC
    return np.asarray(given if near else brightest_place(cutout), float)
