"""Train stage 1 on labelled data sets: an ensemble, calibrated on held-out systems."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stages import metrics
from stages.augment import augment
from stages.cache import Cached, cached
from stages.classifier.domain import fitted
from stages.classifier.model import FRAME, ClassifierConfig, unclear
from stages.classifier.networks import Classifier, build, logits_of
from stages.config import to_mapping
from stages.dataset import DatasetError, fingerprint
from stages.mining import Negatives
from stages.training import answer, begun_with, fit, platt
from stages.weights import Card, go_on, learned, load, save

Rows = npt.NDArray[np.intp]
CALIBRATION = "Probabilities are calibrated at equal prior on held-out systems, without lenses that are not trained on."


def train(config: ClassifierConfig, data_dir: Path, out_dir: Path, device: str = "cpu") -> Path:
    """Train on every data set below `data_dir`; returns the weights file `out_dir/classifier.safetensors`."""
    data = cached(data_dir, FRAME, out_dir / "cache", config.workers)
    rows = usable(data, config)
    unseen = cached(Path(config.validation), FRAME, out_dir / "cache", config.workers) if config.validation else data
    validation = np.sort(np.concatenate(usable(unseen, config, None if config.validation else "validation")))
    training = data.truth.iloc[np.concatenate(rows)]
    for name, chosen in (("training", training), ("validation", unseen.truth.iloc[validation])):
        if len(chosen) < 4 or chosen["label"].nunique() < 2:
            raise DatasetError(
                f"{data_dir}: too few lenses or non-lenses for {name}. Simulate more with sim/generate.py."
            )
    state: dict[str, Tensor] = {}
    logits = []
    for member in range(config.members):
        torch.manual_seed(config.seed + member)
        name = f"classifier-{member}"
        others = Negatives(
            data, rows[1], config.hard_share, config.hard_part, config.schedule.check_steps, out_dir / name
        )
        net = fit(
            begin(config, member).to(device), partial(_loss, data=data, lenses=rows[0], others=others, config=config),
            partial(_check, data=data, others=others, unseen=unseen, rows=validation), config.schedule, out_dir, name,
            config.seed + member, begun_with(config, data_dir),
        )  # fmt: skip
        state |= {f"member{member}.{key}": value for key, value in net.state_dict().items()}
        logits.append(logits_of(net, unseen, validation))
        if member == 0:
            state |= fitted(data).state()
    label = unseen.truth["label"].to_numpy()[validation]
    slope, offset = platt(np.mean(logits, axis=0), label)
    state["calibration"] = torch.tensor([slope, offset], dtype=torch.float64)
    card = Card(
        "classifier", "1", to_mapping(config) | {"first": "", "start": Path(config.start).name},
        domain_of(data), learned(fingerprint(data_dir), config.start),
        {"validation": scores(slope * np.mean(logits, axis=0) + offset, label)},
        CALIBRATION,
    )  # fmt: skip
    path = out_dir / "classifier.safetensors"
    save(path, state, card)
    return path


def usable(data: Cached, config: ClassifierConfig, part: str | None = "train") -> tuple[Rows, Rows]:
    """Rows of the lenses and non-lenses of a part (None: of all).

    Without arcs too faint to be seen, rings too small or deflectors too faint to tell a lens from a lone object, which
    teach noise, and their twins.
    """
    truth = data.truth
    pair = truth["system"] + " " + truth["id"].str.rpartition("-")[0]  # on real sky a system has many
    keep = ((truth["part"] == part) if part else True) & ~pair.isin(set(pair[unclear(truth, to_mapping(config))]))
    return (
        np.flatnonzero((keep & (truth["label"] == 1)).to_numpy()),
        np.flatnonzero((keep & (truth["label"] == 0)).to_numpy()),
    )


def domain_of(data: Cached) -> dict[str, Any]:
    """The ranges that the training data span."""
    resolution = 0.3 * 10 ** data.conditions[:, 0].astype(float)
    return {
        "resolution_arcsec": [round(float(resolution.min()), 3), round(float(resolution.max()), 3)],
        "bands": [1, 3],
        "field_arcsec": FRAME.size_pix * FRAME.pixel_arcsec,
    }


def begin(config: ClassifierConfig, member: int) -> Classifier:
    """A fresh network, or one of the members of the weights to go on from."""
    net = build(config.network_of(member), config.width, config.dropout)
    if config.start:
        state, card = load(Path(config.start))
        k = (config.seed + member) % int(card.config["members"])  # other seeds go on from other members
        own = {key.removeprefix(f"member{k}."): v for key, v in state.items() if key.startswith(f"member{k}.")}
        go_on(net, own, Path(config.start))
    return net.to(memory_format=torch.channels_last)


def _loss(
    net: Classifier, rng: np.random.Generator, step: int, data: Cached, lenses: Rows, others: Negatives,
    config: ClassifierConfig,
) -> Tensor:  # fmt: skip
    n = config.schedule.batch_size
    n_lens = round(config.positive_share * n)
    chosen = np.concatenate([rng.choice(lenses, n_lens), others.draw(rng, n - n_lens, step)])
    pixels = torch.from_numpy(np.asarray(data.pixels[chosen], np.float32))
    conditions = torch.from_numpy(data.conditions[chosen])
    pixels, conditions, _ = augment(pixels, conditions, config.augmentation, rng)
    label = torch.zeros(n)
    label[:n_lens] = 1
    smooth = label * (1 - config.label_smoothing) + 0.5 * config.label_smoothing
    logit = answer(net, pixels.contiguous(memory_format=torch.channels_last), conditions)
    return focal(logit.float().cpu(), smooth, config.focal_gamma)


def focal(logit: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Mean cross-entropy of logits (N,), each times (1 - probability given to its target)^gamma (Lin et al. 2017)."""
    entropy = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    if not gamma:
        return entropy.mean()
    return (entropy * (1 - (1 - target - torch.sigmoid(logit)).abs()) ** gamma).mean()


def _check(net: Classifier, step: int, data: Cached, others: Negatives, unseen: Cached, rows: Rows) -> dict[str, float]:
    """Figures on rows of what validates, after the non-lenses that train were mined."""
    mined = others.mine(lambda chosen: logits_of(net, data, chosen, 1), step)
    return scores(logits_of(net, unseen, rows, 1), unseen.truth["label"].to_numpy()[rows]) | mined


def scores(logit: npt.NDArray[np.float64], label: npt.NDArray[np.int64]) -> dict[str, float]:
    """Figures of validation logits (n,) for a card."""
    lens, other = logit[label == 1], logit[label == 0]
    return {
        "auroc": round(metrics.auroc(lens, other), 4),
        "tpr_at_fpr_1e-2": round(metrics.tpr_at_fpr(lens, other, 0.01), 4),
    }
