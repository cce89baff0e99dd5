"""A fast network that answers as an ensemble does, for a first look at everything (Hinton et al. 2015).

What it takes for certainly no lens, the ensemble need not see. It learns the ensemble's probabilities, not the labels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import logit as scipy_logit
from scipy.stats import spearmanr
from torch import Tensor

from stages.augment import augment
from stages.cache import Cached, cached
from stages.classifier.domain import fitted
from stages.classifier.model import FRAME, ClassifierConfig
from stages.classifier.networks import Classifier, build, logits_of
from stages.classifier.predict import Predictor, load
from stages.config import to_mapping
from stages.dataset import DatasetError
from stages.records import FloatArray
from stages.training import answer, fit
from stages.weights import load as load_state
from stages.weights import save

Rows = npt.NDArray[np.intp]
_MAYBE = 0.05  # half of a batch is drawn from what the ensemble gives at least this probability
_SELECTED = 0.5  # what the ensemble gives at least this
_KEPT = 0.998  # of that is to pass the first look
_INSIDE = 0.683


def distil(weights: Path, config: ClassifierConfig, data_dir: Path, out_dir: Path) -> Path:
    """Train a first look for an ensemble on its own answers; returns `out_dir/classifier.safetensors`, both together.

    `config` names the fast network, its schedule and augmentation; labels and `members` are not used. The cut below
    which the ensemble does not look is set on held-out systems so that 99.8% of what it selects pass.
    """
    teacher = load(weights)
    data = cached(data_dir, FRAME, out_dir / "cache", config.workers)
    part = data.truth["part"].to_numpy()
    rows, held_out = np.flatnonzero(part == "train"), np.flatnonzero(part == "validation")
    answers = np.full(len(part), np.nan)
    used = np.concatenate([rows, held_out])
    answers[used] = _answers(teacher, data, used, out_dir / "answers.npy")
    if (answers[held_out] >= _SELECTED).sum() < 4 or (answers[rows] >= _MAYBE).sum() < 4:
        raise DatasetError(f"{data_dir}: the ensemble finds too few lenses. Simulate more with sim/generate.py.")
    torch.manual_seed(config.seed)
    net = fit(
        build(config.network, config.width, config.dropout).to(memory_format=torch.channels_last),
        partial(_loss, data=data, rows=rows, maybe=rows[answers[rows] >= _MAYBE], answers=answers, config=config),
        lambda n, _: _likeness(n, data, held_out, answers), config.schedule, out_dir, "first", config.seed,
    )  # fmt: skip
    logit, said = logits_of(net, data, held_out, 1), answers[held_out]
    cut = float(np.quantile(logit[said >= _SELECTED], 1 - _KEPT))
    below = logit <= cut
    scatter = float(np.quantile(np.abs(logit - scipy_logit(said))[below], _INSIDE)) if below.any() else 0.0
    state, card = load_state(weights)
    state = {key: value for key, value in state.items() if not key.startswith("first.")}
    state |= {f"first.{key}": value for key, value in net.state_dict().items()}
    state |= {"first_calibration": torch.tensor([1.0, 0.0, cut, scatter], dtype=torch.float64)}
    state |= fitted(net, data).state()
    likeness = _likeness(net, data, held_out, answers) | {"kept": _KEPT}
    first = {key: to_mapping(config)[key] for key in ("network", "width", "seed", "schedule", "augmentation")}
    card = replace(
        card, config=card.config | {"first": config.network, "first_width": config.width},
        metrics=card.metrics | {"first_look": likeness | {"trained": first}}, sha256="",
    )  # fmt: skip
    path = out_dir / "classifier.safetensors"
    save(path, state, card)
    return path


def _answers(teacher: Predictor, data: Cached, rows: Rows, path: Path) -> FloatArray:
    """The ensemble's probabilities (n,) of rows as they lie; kept in a file, as they take minutes."""
    if path.is_file() and len(known := np.load(path)) == len(rows):
        return np.asarray(known, float)
    logit = np.mean([logits_of(net, data, rows, 1) for net in teacher.members], axis=0)
    p = 1 / (1 + np.exp(-(teacher.slope * logit + teacher.offset)))
    np.save(path, p)
    return np.asarray(p)


def _loss(
    net: Classifier, rng: np.random.Generator, step: int, data: Cached, rows: Rows, maybe: Rows, answers: FloatArray,
    config: ClassifierConfig,
) -> Tensor:  # fmt: skip
    n = config.schedule.batch_size
    chosen = np.concatenate([rng.choice(maybe, n // 2), rng.choice(rows, n - n // 2)])
    pixels = torch.from_numpy(np.asarray(data.pixels[chosen], np.float32))
    pixels, conditions, _ = augment(pixels, torch.from_numpy(data.conditions[chosen]), config.augmentation, rng)
    logit = answer(net, pixels.contiguous(memory_format=torch.channels_last), conditions)
    return F.binary_cross_entropy_with_logits(logit.float().cpu(), torch.from_numpy(answers[chosen].astype(np.float32)))


def _likeness(net: Classifier, data: Cached, rows: Rows, answers: FloatArray) -> dict[str, float]:
    """Rank correlation with the ensemble, and the share that it sees if all it selects but 0.2% are to pass."""
    logit, said = logits_of(net, data, rows, 1), answers[rows]
    cut = np.quantile(logit[said >= _SELECTED], 1 - _KEPT)
    alike = float(spearmanr(logit, said).statistic)
    return {"rank_correlation": round(alike, 4), "seen_again": round(float((logit > cut).mean()), 4)}
