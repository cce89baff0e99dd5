"""Train stage 3 on labelled data sets and calibrate its score and its errors on held-out systems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.arcs.calibration import Rows, calibrate, directions, has_arc, scores_of, tensors, true_mask
from stages.arcs.model import FRAME, ArcOutput, ArcsConfig, build, pixel_arcsec, resolution_pix
from stages.augment import drop, patches, photometric, refill
from stages.cache import Cached, cached
from stages.config import to_mapping
from stages.dataset import DatasetError, fingerprint, unclear_lenses
from stages.mining import Negatives
from stages.polar import N_RADII
from stages.scaling import N_SLOTS
from stages.training import answer, begun_with, blend, dihedral, dihedral_positions, fit
from stages.weights import Card, go_on, learned, load, save

_RADIUS_SOFTNESS_PIX = 0.7  # of the target, so that neighbouring bins are not opposites
_CHECKED = 600  # held-out systems that a check looks at
_RADIUS_WEIGHTS = (0.3, 3.0)  # limits of what a lens counts for the radius, rarer ones more


def train(config: ArcsConfig, data_dir: Path, out_dir: Path, device: str = "cpu") -> Path:
    """Train on every data set below `data_dir`; returns the weights file `out_dir/arcs.safetensors`."""
    data = cached(data_dir, FRAME, out_dir / "cache", config.workers)
    arcs, others, scored = usable(data, config)
    validation = held_out(data, "validation")
    require_both(data, np.concatenate([arcs[scored[arcs]], others]), config, f"{data_dir}: training")
    require_both(data, validation, config, f"{data_dir}: validation")
    torch.manual_seed(config.seed)
    fresh = build(config)
    state = load(Path(config.start))[0] if config.start else {}
    state.pop("calibration", None)
    if config.start:
        state = added(fresh) | state
        go_on(fresh, state, Path(config.start))
    weight = radius_weights(data, arcs)
    negatives = Negatives(
        data, others, config.hard_share, config.hard_part, config.schedule.check_steps, out_dir / "arcs"
    )
    net = fit(
        fresh.to(memory_format=torch.channels_last).to(device),
        lambda n, rng, step: _loss(n, rng, step, data, arcs, negatives, weight, scored, config),
        lambda n, step: _check(n, step, data, validation, negatives, config), config.schedule, out_dir, "arcs",
        config.seed, begun_with(config, data_dir),
    )  # fmt: skip
    if config.start:
        blend(net, state, config.keep_start)
    calibration, figures = calibrate(net, data, validation, config)
    trained = dict(net.state_dict()) | {"calibration": calibration.tensor()}
    resolution = 0.3 * 10 ** data.conditions[:, 0].astype(float)
    card = Card(
        "arcs", "2", to_mapping(config) | {"start": Path(config.start).name},
        {"resolution_arcsec": [round(float(resolution.min()), 3), round(float(resolution.max()), 3)], "bands": [1, 3]},
        learned(fingerprint(data_dir), config.start), {"validation": figures},
        "Scores and errors are calibrated on held-out simulations.",
    )  # fmt: skip
    path = out_dir / "arcs.safetensors"
    save(path, trained, card)
    return path


def added(fresh: nn.Module) -> dict[str, Tensor]:
    """The part of a fresh network that a shallower one, or one on circles alone, lacks: it says nothing as yet."""
    return {k: v for k, v in fresh.state_dict().items() if k.startswith(("deeper_", "context.", "beside.", "join."))}


def require_both(data: Cached, rows: Rows, config: ArcsConfig, what: str) -> None:
    """Raise DatasetError where rows hold no arcs, or nothing else."""
    if len(rows) < 4 or len(np.unique(has_arc(data, rows, config))) < 2:
        raise DatasetError(f"{what}: too few lenses or non-lenses. Simulate more with sim/generate.py.")


def usable(data: Cached, config: ArcsConfig) -> tuple[Rows, Rows, npt.NDArray[np.bool_]]:
    """Training rows of visible arcs, and of everything that is no lens or has no extended source.

    Arcs too faint to be seen are left out. Also of every row whether the score learns from it: not from a lens that
    looks like a lone object, whose light and radius are learned all the same.
    """
    arc = has_arc(data, np.arange(len(data.truth)), config)
    truth = data.truth
    faint = (truth["label"] == 1).to_numpy() & ~arc & (truth["kind"] == "lens_galaxy").to_numpy()
    unclear = unclear_lenses(
        truth, max_arc_contrast=config.max_arc_contrast, min_theta_e_seeing=config.min_theta_e_seeing
    )
    train_part = (truth["part"] == "train").to_numpy()
    return np.flatnonzero(train_part & arc), np.flatnonzero(train_part & ~arc & ~faint), ~(arc & unclear)


def held_out(data: Cached, part: str) -> Rows:
    """Rows of one part."""
    return np.flatnonzero((data.truth["part"] == part).to_numpy())


def radius_weights(data: Cached, lenses: Rows) -> npt.NDArray[np.float32]:
    """What each row counts for the Einstein radius (0 where there is none), so that no radius is preferred.

    Simulated radii pile up at the small end; a network that learns this pulls all others towards it.
    """
    pixel = pixel_arcsec(torch.from_numpy(np.asarray(data.conditions))).numpy()
    log_theta = np.log(data.truth["theta_e_arcsec"].to_numpy(float) / pixel)
    edges = np.arange(np.log(1.0), np.log(N_RADII) + 0.2, 0.2)
    bins = np.clip(np.digitize(log_theta[lenses], edges), 0, len(edges))
    count = np.bincount(bins, minlength=len(edges) + 1)
    out = np.zeros(len(log_theta), np.float32)
    out[lenses] = np.clip(count[count > 0].mean() / count[bins], *_RADIUS_WEIGHTS)
    return out


def _loss(
    net: nn.Module, rng: np.random.Generator, step: int, data: Cached, lenses: Rows, others: Negatives,
    weight: npt.NDArray[np.float32], scored: npt.NDArray[np.bool_], config: ArcsConfig,
) -> Tensor:  # fmt: skip
    n = config.schedule.batch_size
    chosen = np.concatenate([rng.choice(lenses, n // 2), others.draw(rng, n - n // 2, step)])
    pixels, conditions, centre = tensors(data, chosen)
    mask = true_mask(data, chosen)
    turn = int(rng.integers(8))
    centre = dihedral_positions(centre, turn, FRAME.size_pix)
    pixels, mask = dihedral(pixels, turn), dihedral(mask, turn)
    hits = directions(mask, centre)
    jitter = config.centre_jitter_fwhm * resolution_pix(conditions).numpy()[:, None] * rng.normal(size=(n, 2))
    centre = centre + torch.from_numpy(jitter.astype(np.float32))
    flux = photometric(pixels[:, :N_SLOTS], config.augmentation, rng)
    valid = patches(pixels[:, N_SLOTS:], config.augmentation.patch_chance, rng)
    valid, conditions = drop(valid, conditions, config.augmentation, rng)
    pixels = torch.cat([refill(flux, valid), valid], 1).contiguous(memory_format=torch.channels_last)
    out: ArcOutput = answer(net, pixels, conditions, centre).cpu()
    truth = data.truth.iloc[chosen]
    arc = torch.zeros(n)
    arc[: n // 2] = 1
    theta = truth["theta_e_arcsec"].fillna(1.0).to_numpy(np.float32) / pixel_arcsec(conditions).numpy()
    pixel = F.binary_cross_entropy_with_logits(out.mask, mask, pos_weight=torch.tensor(2.0))
    probability = out.mask.sigmoid()
    overlap = 1 - (2 * (probability * mask).sum((1, 2)) + 1) / (probability.sum((1, 2)) + mask.sum((1, 2)) + 1)
    angles = F.binary_cross_entropy_with_logits(out.angles, hits)
    counts = torch.from_numpy(weight[chosen])
    ring = F.cross_entropy(out.radius, _soft(torch.from_numpy(theta)), reduction="none")
    score = F.binary_cross_entropy_with_logits(
        out.score, arc * 0.95 + 0.025, weight=torch.from_numpy(scored[chosen]).float()
    )
    return (
        3 * pixel + overlap[: n // 2].mean() + score + angles
        + 0.5 * (ring * counts).sum() / counts.sum().clamp(min=1)
    )  # fmt: skip


def _soft(theta_pix: Tensor) -> Tensor:
    """Target shares (N, R) of radii (N,)."""
    middle = torch.arange(N_RADII) + 0.5
    inside = theta_pix.clamp(0.5, N_RADII - 0.5)[:, None]
    return torch.softmax(-0.5 * ((middle - inside) / _RADIUS_SOFTNESS_PIX) ** 2, 1)


def _check(
    net: nn.Module, step: int, data: Cached, rows: Rows, others: Negatives, config: ArcsConfig
) -> dict[str, float]:
    mined = others.mine(lambda chosen: scores_of(net, data, chosen), step)
    return calibrate(net, data, rows[:: max(1, len(rows) // _CHECKED)], config)[1] | mined
