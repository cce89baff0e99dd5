"""Train stage 1 on labelled data sets: an ensemble, calibrated on held-out systems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages import metrics
from stages.augment import augment
from stages.cache import Cached, batches, cached
from stages.classifier.model import FRAME, N_VIEWS, Classifier, ClassifierConfig
from stages.config import to_mapping
from stages.dataset import DatasetError, fingerprint
from stages.training import dihedral, fit, platt
from stages.weights import Card, save

Rows = npt.NDArray[np.intp]


def train(config: ClassifierConfig, data_dir: Path, out_dir: Path) -> Path:
    """Train on every data set below `data_dir`; returns the weights file `out_dir/classifier.safetensors`."""
    data = cached(data_dir, FRAME, out_dir / "cache", config.workers)
    rows = usable(data, config)
    validation = np.flatnonzero((data.truth["part"] == "validation").to_numpy())
    for name, sample in (("training", np.concatenate(rows)), ("validation", validation)):
        if len(sample) < 4 or data.truth["label"].iloc[sample].nunique() < 2:
            raise DatasetError(
                f"{data_dir}: too few lenses or non-lenses for {name}. Simulate more with sim/generate.py."
            )
    state: dict[str, Tensor] = {}
    logits = []
    for member in range(config.members):
        torch.manual_seed(config.seed + member)
        fresh = Classifier(config.width, config.dropout).to(memory_format=torch.channels_last)
        net = fit(
            fresh, lambda n, rng: _loss(n, rng, data, rows, config), lambda n: _figures(n, data, validation),
            config.schedule, out_dir, f"classifier-{member}", config.seed + member,
        )  # fmt: skip
        state |= {f"member{member}.{key}": value for key, value in net.state_dict().items()}
        logits.append(logits_of(net, data, validation))
    label = data.truth["label"].to_numpy()[validation]
    slope, offset = platt(np.mean(logits, axis=0), label)
    state["calibration"] = torch.tensor([slope, offset], dtype=torch.float64)
    card = Card(
        "classifier", "1", to_mapping(config), domain_of(data), fingerprint(data_dir),
        {"validation": _scores(slope * np.mean(logits, axis=0) + offset, label)},
        "Probabilities are calibrated on held-out simulations at equal prior.",
    )  # fmt: skip
    path = out_dir / "classifier.safetensors"
    save(path, state, card)
    return path


def usable(data: Cached, config: ClassifierConfig) -> tuple[Rows, Rows]:
    """Rows of training lenses and non-lenses, without arcs too faint to be seen (which teach noise) and their twins."""
    truth = data.truth
    hidden = (truth["arc_snr"] < config.min_arc_snr) | (truth["arc_contrast"] < config.min_arc_contrast)
    faint = (truth["kind"] == "lens_galaxy") & hidden
    keep = (truth["part"] == "train") & ~truth["system"].isin(set(truth.loc[faint, "system"]))
    return (
        np.flatnonzero((keep & (truth["label"] == 1)).to_numpy()),
        np.flatnonzero((keep & (truth["label"] == 0)).to_numpy()),
    )


def logits_of(net: nn.Module, data: Cached, rows: Rows) -> npt.NDArray[np.float64]:
    """Logits (n,) of rows, averaged over rotations and reflections."""
    net.eval()
    out = []
    with torch.inference_mode():
        for part in batches(rows, 256):
            pixels = torch.from_numpy(np.asarray(data.pixels[part], np.float32))
            conditions = torch.from_numpy(data.conditions[part])
            out.append(sum(net(dihedral(pixels, k), conditions) for k in range(N_VIEWS)).numpy() / N_VIEWS)
    return np.concatenate(out).astype(np.float64)


def domain_of(data: Cached) -> dict[str, Any]:
    """The ranges that the training data span."""
    resolution = 0.3 * 10 ** data.conditions[:, 0].astype(float)
    return {
        "resolution_arcsec": [round(float(resolution.min()), 3), round(float(resolution.max()), 3)],
        "bands": [1, 3],
        "field_arcsec": FRAME.size_pix * FRAME.pixel_arcsec,
    }


def _loss(
    net: nn.Module, rng: np.random.Generator, data: Cached, rows: tuple[Rows, Rows], config: ClassifierConfig
) -> Tensor:
    n = config.schedule.batch_size
    n_lens = round(config.positive_share * n)
    chosen = np.concatenate([rng.choice(rows[0], n_lens), rng.choice(rows[1], n - n_lens)])
    pixels = torch.from_numpy(np.asarray(data.pixels[chosen], np.float32))
    conditions = torch.from_numpy(data.conditions[chosen])
    pixels, conditions, _ = augment(pixels, conditions, config.augmentation, rng)
    label = torch.zeros(n)
    label[:n_lens] = 1
    smooth = label * (1 - config.label_smoothing) + 0.5 * config.label_smoothing
    with torch.autocast("cpu", torch.bfloat16):
        logit = net(pixels.contiguous(memory_format=torch.channels_last), conditions)
    return F.binary_cross_entropy_with_logits(logit.float(), smooth)


def _figures(net: nn.Module, data: Cached, rows: Rows) -> dict[str, float]:
    return _scores(logits_of(net, data, rows), data.truth["label"].to_numpy()[rows])


def _scores(logit: npt.NDArray[np.float64], label: npt.NDArray[np.int64]) -> dict[str, float]:
    lens, other = logit[label == 1], logit[label == 0]
    return {
        "auroc": round(metrics.auroc(lens, other), 4),
        "tpr_at_fpr_1e-2": round(metrics.tpr_at_fpr(lens, other, 0.01), 4),
    }
