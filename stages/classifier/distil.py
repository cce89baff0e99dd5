"""Networks that learn an ensemble's answers instead of labels (Hinton et al. 2015).

`distil` makes a fast one for a first look at everything: what it takes for certainly no lens, the ensemble need not
see. `succeed` makes ones that take the ensemble's place.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import expit
from scipy.special import logit as scipy_logit
from scipy.stats import spearmanr
from torch import Tensor

from stages.augment import augment
from stages.cache import Cached, cached
from stages.classifier.domain import fitted
from stages.classifier.join import calibrated
from stages.classifier.model import FRAME, ClassifierConfig
from stages.classifier.networks import Classifier, logits_of
from stages.classifier.predict import Predictor, load
from stages.classifier.train import CALIBRATION, begin
from stages.config import to_mapping
from stages.dataset import DatasetError, fingerprint
from stages.records import FloatArray
from stages.training import answer, begun_with, fit
from stages.weights import Card, load_card, save, sha256
from stages.weights import load as load_state

Rows = npt.NDArray[np.intp]
_MAYBE = 0.05  # half of a batch is drawn from what the ensemble gives at least this probability
_SELECTED = 0.3  # what the ensemble gives at least this
_KEPT = 0.998  # of that is to pass the first look
_INSIDE = 0.683


def distil(weights: Path, config: ClassifierConfig, data_dir: Path, out_dir: Path) -> Path:
    """Train a first look for an ensemble on its own answers; returns `out_dir/classifier.safetensors`, both together.

    `config` names the fast network, its schedule and augmentation; labels and `members` are not used. The cut below
    which the ensemble does not look is set on held-out systems so that 99.8% of what it selects pass.
    """
    told = begun_with(config, data_dir) | {"ensemble": sha256(weights)[:12]}
    data = cached(data_dir, FRAME, out_dir / "cache", config.workers)
    answers = _answers(load(weights), data, out_dir / f"answers-of-{told['ensemble']}.npy")
    net = _learn(begin(config, 0), data, answers, config, out_dir, "first", config.seed, told)
    held_out = _rows(data, "validation")
    logit, said = logits_of(net, data, held_out, 1), answers[held_out]
    cut = float(np.quantile(logit[said >= _SELECTED], 1 - _KEPT))
    below = logit <= cut
    scatter = float(np.quantile(np.abs(logit - scipy_logit(said))[below], _INSIDE)) if below.any() else 0.0
    state, card = load_state(weights)
    state = {key: value for key, value in state.items() if not key.startswith("first.")}
    state |= {f"first.{key}": value for key, value in net.state_dict().items()}
    state |= {"first_calibration": torch.tensor([1.0, 0.0, cut, scatter], dtype=torch.float64)}
    state |= fitted(data).state()
    likeness = _likeness(net, data, held_out, answers) | {"kept": _KEPT}
    first = {key: to_mapping(config)[key] for key in ("network", "width", "seed", "schedule", "augmentation")}
    card = replace(
        card, config=card.config | {"first": config.network, "first_width": config.width},
        metrics=card.metrics | {"first_look": likeness | {"trained": first}}, sha256="",
    )  # fmt: skip
    path = out_dir / "classifier.safetensors"
    save(path, state, card)
    return path


def succeed(weights: Path, config: ClassifierConfig, data_dir: Path, out_dir: Path) -> Path:
    """Train `config.members` networks on an ensemble's answers, to take its place; `out_dir/classifier.safetensors`.

    `config` names them, their schedule and augmentation and what they `start` from; labels only calibrate the result,
    on held-out systems that the configuration lets in.
    """
    told = begun_with(config, data_dir) | {"ensemble": sha256(weights)[:12]}
    data = cached(data_dir, FRAME, out_dir / "cache", config.workers)
    answers = _answers(load(weights), data, out_dir / f"answers-of-{told['ensemble']}.npy")
    state: dict[str, Tensor] = {}
    likeness = {}
    for member in range(config.members):
        name = f"successor-{member}"
        net = _learn(begin(config, member), data, answers, config, out_dir, name, config.seed + member, told)
        likeness[name] = _likeness(net, data, _rows(data, "validation"), answers)
        state |= {f"member{member}.{key}": value for key, value in net.state_dict().items()}
    taught = load_card(weights)
    own = to_mapping(config) | {"first": "", "start": Path(config.start).name}
    card = Card("classifier", "1", own, taught.domain, taught.data | fingerprint(data_dir), likeness, CALIBRATION)
    return calibrated(out_dir / "classifier.safetensors", state, card, data)


def _learn(
    net: Classifier, data: Cached, answers: FloatArray, config: ClassifierConfig, out_dir: Path, name: str, seed: int,
    told: dict[str, str],
) -> Classifier:  # fmt: skip
    """Train a network on answers (n,); raises DatasetError where they hold too few lenses."""
    rows, held_out = _rows(data, "train"), _rows(data, "validation")
    if (answers[held_out] >= _SELECTED).sum() < 4 or (answers[rows] >= _MAYBE).sum() < 4:
        raise DatasetError(
            f"{name}: the ensemble finds too few lenses in the data. Simulate more with sim/generate.py."
        )
    torch.manual_seed(seed)
    return fit(
        net, partial(_loss, data=data, rows=rows, maybe=rows[answers[rows] >= _MAYBE], answers=answers, config=config),
        lambda n, _: _likeness(n, data, held_out, answers), config.schedule, out_dir, name, seed, told,
    )  # fmt: skip


def _rows(data: Cached, part: str) -> Rows:
    return np.flatnonzero(data.truth["part"].to_numpy() == part)


def _answers(teacher: Predictor, data: Cached, path: Path) -> FloatArray:
    """The ensemble's probabilities (n,) of what is trained on and held out, as it lies, NaN elsewhere.

    Kept in a file, as they take minutes.
    """
    used = np.concatenate([_rows(data, "train"), _rows(data, "validation")])
    answers = np.full(len(data.truth), np.nan)
    if path.is_file() and len(known := np.load(path)) == len(used):
        answers[used] = known
        return answers
    logit = np.mean([logits_of(net, data, used, 1) for net in teacher.members], axis=0)
    answers[used] = expit(teacher.slope * logit + teacher.offset)
    np.save(path, answers[used])
    return answers


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
