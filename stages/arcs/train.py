"""Train stage 3 on labelled data sets and calibrate its score and its errors on held-out systems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages import metrics
from stages.arcs.measure import coverage_deg
from stages.arcs.model import FRAME, ArcNet, ArcOutput, ArcsConfig, pixel_arcsec
from stages.augment import drop, patches, photometric, refill
from stages.cache import Cached, batches, cached
from stages.config import to_mapping
from stages.dataset import DatasetError, fingerprint
from stages.records import FloatArray
from stages.scaling import N_SLOTS
from stages.training import dihedral, fit, platt, undihedral
from stages.weights import Card, go_on, load, save

Rows = npt.NDArray[np.intp]
_MASK_SHARE = 0.3  # a grid pixel is lensed where this share of it is
_N_TURNS = 2


@dataclass(frozen=True, eq=False)
class Turned:
    """The network's answers averaged over rotations, as arrays of N cutouts.

    mask (N, S, S) probability; score logit; log_theta; its predicted variance and its variance between rotations.
    """

    mask: npt.NDArray[np.float32]
    score: FloatArray
    log_theta: FloatArray
    variance: FloatArray
    scatter: FloatArray


def train(config: ArcsConfig, data_dir: Path, out_dir: Path) -> Path:
    """Train on every data set below `data_dir`; returns the weights file `out_dir/arcs.safetensors`."""
    data = cached(data_dir, FRAME, out_dir / "cache", config.workers)
    rows = usable(data, config)
    validation = held_out(data, "validation")
    for name, sample in (("training", np.concatenate(rows)), ("validation", validation)):
        if len(sample) < 4 or len(np.unique(has_arc(data, sample, config))) < 2:
            raise DatasetError(
                f"{data_dir}: too few lenses or non-lenses for {name}. Simulate more with sim/generate.py."
            )
    torch.manual_seed(config.seed)
    fresh = ArcNet(config.width)
    if config.start:
        state, _ = load(Path(config.start))
        go_on(fresh, {key: value for key, value in state.items() if key != "calibration"}, Path(config.start))
    net = fit(
        fresh.to(memory_format=torch.channels_last),
        lambda n, rng, _: _loss(n, rng, data, rows, config), lambda n, _: _figures(n, data, validation, config),
        config.schedule, out_dir, "arcs", config.seed,
    )  # fmt: skip
    calibration, figures = calibrate(net, data, validation, config)
    trained = dict(net.state_dict()) | {"calibration": torch.tensor(calibration, dtype=torch.float64)}
    resolution = 0.3 * 10 ** data.conditions[:, 0].astype(float)
    card = Card(
        "arcs", "1", to_mapping(config),
        {"resolution_arcsec": [round(float(resolution.min()), 3), round(float(resolution.max()), 3)], "bands": [1, 3]},
        fingerprint(data_dir), {"validation": figures},
        "Scores and errors are calibrated on held-out simulations.",
    )  # fmt: skip
    path = out_dir / "arcs.safetensors"
    save(path, trained, card)
    return path


def usable(data: Cached, config: ArcsConfig) -> tuple[Rows, Rows]:
    """Training rows of visible arcs, and of everything else but arcs too faint to be seen."""
    arc = has_arc(data, np.arange(len(data.truth)), config)
    truth = data.truth
    faint = (truth["label"] == 1).to_numpy() & ~arc & (truth["kind"] == "lens_galaxy").to_numpy()
    train_part = (truth["part"] == "train").to_numpy()
    return np.flatnonzero(train_part & arc), np.flatnonzero(train_part & ~arc & ~faint)


def held_out(data: Cached, part: str) -> Rows:
    """Rows of one part."""
    return np.flatnonzero((data.truth["part"] == part).to_numpy())


def has_arc(data: Cached, rows: Rows, config: ArcsConfig) -> npt.NDArray[np.bool_]:
    """Which rows have lensed extended light that can be seen."""
    truth = data.truth.iloc[rows]
    return np.asarray((truth["label"] == 1) & (truth["arc_snr"] >= config.min_arc_snr))


def turned(net: nn.Module, pixels: Tensor, conditions: Tensor, centre: Tensor) -> Turned:
    """Apply a network to N cutouts in two rotations; centres (N, 2) on the grid."""
    size = pixels.shape[-1]
    outputs: list[ArcOutput] = []
    with torch.inference_mode():
        for k in range(_N_TURNS):
            turned_pixels = dihedral(pixels, k).contiguous(memory_format=torch.channels_last)
            outputs.append(net(turned_pixels, conditions, dihedral_centre(centre, k, size)))
        mask = torch.stack([undihedral(o.mask.sigmoid(), k) for k, o in enumerate(outputs)]).mean(0)
    theta = torch.stack([o.log_theta for o in outputs]).double().cpu().numpy()
    variance = torch.stack([o.log_variance for o in outputs]).double().exp().cpu().numpy()
    score = torch.stack([o.score for o in outputs]).double().cpu().numpy()
    return Turned(mask.cpu().numpy(), score.mean(0), theta.mean(0), variance.mean(0), theta.var(0, ddof=1))


def dihedral_centre(centre: Tensor, k: int, size: int) -> Tensor:
    """Where `training.dihedral` moves positions (N, 2) = (x, y) of a plane of side `size`."""
    x, y = centre[:, 0], centre[:, 1]
    for _ in range(k % 4):
        x, y = y, size - 1 - x
    return torch.stack([size - 1 - x if k >= 4 else x, y], 1)


def calibrate(net: nn.Module, data: Cached, rows: Rows, config: ArcsConfig) -> tuple[list[float], dict[str, float]]:
    """Slope and offset of the score, factor of the radius' error, floor in degrees of the coverage's; and figures."""
    score, theta_pull, coverage = [], [], []
    arc = has_arc(data, rows, config)
    for part in batches(rows, 128):
        tensors = _tensors(data, part)
        got, pixel = turned(net, *tensors), pixel_arcsec(tensors[1]).numpy()
        score.append(got.score)
        truth = data.truth.iloc[part]
        centre = truth[["deflector_x", "deflector_y"]].to_numpy(float)
        for k in np.flatnonzero(has_arc(data, part, config)):
            error = np.log(truth["theta_e_arcsec"].iloc[k]) - got.log_theta[k]
            theta_pull.append((error, np.sqrt(got.variance[k] + got.scatter[k])))
            low, middle, high = (coverage_deg(got.mask[k], centre[k], pixel[k], t) for t in (0.65, 0.5, 0.35))
            coverage.append((middle - truth["coverage_deg"].iloc[k], 0.5 * (high - low)))
    slope, offset = platt(np.concatenate(score), arc.astype(int))
    error, sigma = np.array(theta_pull).T
    factor = float(np.quantile(np.abs(error) / sigma, 0.683))
    wrong, spread = np.array(coverage).T
    floor = float(np.sqrt(max(np.quantile(wrong**2 - spread**2, 0.683), 1.0)))
    figures = {
        "theta_e_median_error": round(float(np.median(np.abs(np.expm1(-error)))), 4),
        "coverage_rms_deg": round(float(np.sqrt(np.mean(wrong**2))), 1),
        "auroc": round(metrics.auroc(np.concatenate(score)[arc], np.concatenate(score)[~arc]), 4),
    }
    return [slope, offset, factor, floor], figures


def _tensors(data: Cached, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    pixels = torch.from_numpy(np.asarray(data.pixels[rows], np.float32))
    return pixels, torch.from_numpy(data.conditions[rows]), torch.from_numpy(_centres(data, rows))


def _centres(data: Cached, rows: Rows) -> npt.NDArray[np.float32]:
    """Deflector positions on the grid, the frame's middle where there is none."""
    centre = data.truth[["deflector_x", "deflector_y"]].iloc[rows].to_numpy(np.float32)
    return np.where(np.isfinite(centre), centre, np.float32((FRAME.size_pix - 1) / 2))


def _loss(
    net: nn.Module, rng: np.random.Generator, data: Cached, rows: tuple[Rows, Rows], config: ArcsConfig
) -> Tensor:
    n = config.schedule.batch_size
    chosen = np.concatenate([rng.choice(rows[0], n // 2), rng.choice(rows[1], n - n // 2)])
    pixels, conditions, centre = _tensors(data, chosen)
    jitter = config.centre_jitter_arcsec / pixel_arcsec(conditions).numpy()[:, None] * rng.normal(size=(n, 2))
    mask = torch.from_numpy(np.asarray(data.mask[chosen], np.float32) > _MASK_SHARE).float()
    turn = int(rng.integers(8))
    centre = dihedral_centre(centre + torch.from_numpy(jitter.astype(np.float32)), turn, FRAME.size_pix)
    pixels, mask = dihedral(pixels, turn), dihedral(mask, turn)
    flux = photometric(pixels[:, :N_SLOTS], config.augmentation, rng)
    valid = patches(pixels[:, N_SLOTS:], config.augmentation.patch_chance, rng)
    valid, conditions = drop(valid, conditions, config.augmentation, rng)
    pixels = torch.cat([refill(flux, valid), valid], 1).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out: ArcOutput = net(pixels, conditions, centre)
    truth = data.truth.iloc[chosen]
    arc = torch.zeros(n)
    arc[: n // 2] = 1
    known = torch.tensor((truth["label"] == 1).tolist())
    log_theta = torch.from_numpy(np.log(truth["theta_e_arcsec"].fillna(1.0).to_numpy(np.float32)))
    pixel = F.binary_cross_entropy_with_logits(out.mask, mask, pos_weight=torch.tensor(2.0))
    probability = out.mask.sigmoid()
    overlap = 1 - (2 * (probability * mask).sum((1, 2)) + 1) / (probability.sum((1, 2)) + mask.sum((1, 2)) + 1)
    nll = 0.5 * (torch.exp(-out.log_variance) * (out.log_theta - log_theta) ** 2 + out.log_variance)
    ring = (nll * known).sum() / known.sum().clamp(min=1)
    score = F.binary_cross_entropy_with_logits(out.score, arc * 0.95 + 0.025)
    return 3 * pixel + overlap[: n // 2].mean() + score + 0.5 * ring


def _figures(net: nn.Module, data: Cached, rows: Rows, config: ArcsConfig) -> dict[str, float]:
    return calibrate(net, data, rows[:: max(1, len(rows) // 600)], config)[1]
