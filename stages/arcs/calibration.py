"""What stage 3's numbers are worth: probabilities and errors calibrated on held-out systems, whose masks are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stages import metrics
from stages.arcs.measure import find_arcs, fit_ring
from stages.arcs.model import FRAME, ArcsConfig, measured, pixel_arcsec
from stages.cache import Cached, batches
from stages.polar import N_ANGLES, to_polar
from stages.records import FloatArray
from stages.training import platt

Rows = npt.NDArray[np.intp]
MASK_SHARE = 0.3  # a grid pixel is lensed where this share of it is
_HIT_SHARE = 0.5  # a direction has lensed light where its polar mask somewhere exceeds this
_INNER_ROWS = 1  # circles too small to have directions
_BATCH = 64
_INSIDE = 0.683


@dataclass(frozen=True)
class Calibration:
    """slope, offset : of the score's logit. radius_factor : of the Einstein radius' error. angle_slope, angle_offset :
    of the directions' logits; coverage_factor : by which the error of their sum exceeds that of independent ones.
    length_rel, width_rel : relative errors of the main arc. ring_factor, ratio_factor : of the errors of the ring's
    centre and axis ratio.
    """

    slope: float = 1.0
    offset: float = 0.0
    radius_factor: float = 1.0
    angle_slope: float = 1.0
    angle_offset: float = 0.0
    coverage_factor: float = 1.0
    length_rel: float = 1.0
    width_rel: float = 1.0
    ring_factor: float = 1.0
    ratio_factor: float = 1.0

    def tensor(self) -> Tensor:
        """For a weights file."""
        return torch.tensor(list(vars(self).values()), dtype=torch.float64)


def coverage(angles: FloatArray, calibration: Calibration) -> tuple[FloatArray, FloatArray]:
    """Degrees (N,) in which lensed light is seen, and their error, from the logits (N, T) of the directions."""
    p = 1 / (1 + np.exp(-(calibration.angle_slope * angles + calibration.angle_offset)))
    step = 360.0 / angles.shape[1]
    error = calibration.coverage_factor * np.sqrt((p * (1 - p)).sum(axis=1) + 1.0)
    return step * p.sum(axis=1), step * error


def calibrate(net: nn.Module, data: Cached, rows: Rows, config: ArcsConfig) -> tuple[Calibration, dict[str, float]]:
    """Calibration on held-out rows, and figures."""
    score, pull, relative, angles, hits = [], [], [], [], []
    shapes: list[tuple[float, float, float, float]] = []
    arc = has_arc(data, rows, config)
    for part in batches(rows, _BATCH):
        seen = tensors(data, part)
        got, pixel = measured(net, *seen), pixel_arcsec(seen[1]).numpy()
        score.append(got.score)
        here = np.flatnonzero(has_arc(data, part, config))
        theta = data.truth["theta_e_arcsec"].iloc[part[here]].to_numpy() / pixel[here]
        pull.append(np.abs(got.theta_pix[here] - theta) / got.sigma_pix[here])
        relative.append(np.abs(got.theta_pix[here] / theta - 1))
        angles.append(got.angles[here])
        mask, centre = true_mask(data, part[here]), seen[2][here]
        hits.append(directions(mask, centre).numpy())
        found = torch.from_numpy(got.mask[here])
        for said, true in zip(_polar(found, centre), _polar(mask, centre), strict=True):
            shapes += _compared(said, true)
    slope, offset = platt(np.concatenate(score), arc.astype(int))
    logits, hit = np.concatenate(angles), np.concatenate(hits)
    angle_slope, angle_offset = platt(logits.ravel(), hit.ravel().astype(int), balanced=False)
    first = Calibration(1.0, 0.0, 1.0, angle_slope, angle_offset)
    degrees, sigma = coverage(logits, first)
    wrong = degrees - 360.0 * hit.mean(axis=1)
    length, width, ring, ratio = (
        float(v) for v in (np.nanquantile(np.array(shapes), _INSIDE, axis=0) if shapes else np.ones(4))
    )
    calibration = Calibration(
        slope, offset, float(np.quantile(np.concatenate(pull), _INSIDE)), angle_slope, angle_offset,
        float(np.quantile(np.abs(wrong) / sigma, _INSIDE)), length, width, ring, ratio,
    )  # fmt: skip
    scores = np.concatenate(score)
    figures = {
        "auroc": round(metrics.auroc(scores[arc], scores[~arc]), 4),
        "theta_e_median_error": round(float(np.median(np.concatenate(relative))), 4),
        "coverage_median_error_deg": round(float(np.median(np.abs(wrong))), 1),
    }
    return calibration, figures


def has_arc(data: Cached, rows: Rows, config: ArcsConfig) -> npt.NDArray[np.bool_]:
    """Which rows have lensed extended light that can be seen."""
    truth = data.truth.iloc[rows]
    return np.asarray((truth["label"] == 1) & (truth["arc_snr"] >= config.min_arc_snr))


def scores_of(net: nn.Module, data: Cached, rows: Rows) -> FloatArray:
    """Logits (n,) of the score of some rows."""
    return np.concatenate([np.empty(0), *(measured(net, *tensors(data, part)).score for part in batches(rows, _BATCH))])


def tensors(data: Cached, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """What the network takes of some rows: pixels, conditions, and the deflector's place, the middle where none is."""
    pixels = torch.from_numpy(np.asarray(data.pixels[rows], np.float32))
    centre = data.truth[["deflector_x", "deflector_y"]].iloc[rows].to_numpy(np.float32)
    centre = np.where(np.isfinite(centre), centre, np.float32((FRAME.size_pix - 1) / 2))
    return pixels, torch.from_numpy(data.conditions[rows]), torch.from_numpy(centre)


def true_mask(data: Cached, rows: Rows) -> Tensor:
    """Where (n, S, S) lensed light is seen, 1 or 0."""
    return torch.from_numpy(np.asarray(data.mask[rows], np.float32) > MASK_SHARE).float()


def directions(mask: Tensor, centre: Tensor) -> Tensor:
    """In which directions (N, T) from centres (N, 2) a mask (N, S, S) has lensed light, 1 or 0."""
    if not len(mask):
        return torch.zeros(0, N_ANGLES)
    return (to_polar(mask[:, None], centre)[:, 0, _INNER_ROWS:].amax(1) > _HIT_SHARE).float()


def _polar(mask: Tensor, centre: Tensor) -> FloatArray:
    return to_polar(mask[:, None], centre)[:, 0].double().numpy() if len(mask) else np.empty((0, 1, N_ANGLES))


def _compared(said: FloatArray, true: FloatArray) -> list[tuple[float, float, float, float]]:
    """Of two polar masks: logarithms of the main arcs' length and width ratios, and pulls of the ring's centre and axis
    ratio, all without sign; nothing where either is empty."""
    found, real_arcs = find_arcs(said, 1.0), find_arcs(true, 1.0)
    if not found or not real_arcs:
        return []
    one, other = found[0], real_arcs[0]
    ring, real = fit_ring(said), fit_ring(true)
    return [(
        abs(np.log(one.length_arcsec / other.length_arcsec)), abs(np.log(one.width_arcsec / other.width_arcsec)),
        float(np.mean(np.abs([ring.dx - real.dx, ring.dy - real.dy])) / ring.err),
        abs(ring.axis_ratio - real.axis_ratio) / ring.axis_ratio_err,
    )]  # fmt: skip
