"""The fitted model that turns a candidate's numbers into its score.

Two logistic regressions on held-out simulations: one for rows that only stage 1 has seen, one for rows that every stage
has seen. Both give calibrated probabilities at the same prior, so that their scores can be compared in one list.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit

from stages.records import FloatArray
from stages.weights import WeightsError

FEATURES = ("logit_p_lens", "logit_arc_score", "theorem_against", "theorem_for", "theorem_supports")
_BAYES = (-5.0, 8.0)  # beyond these a log Bayes factor rests on the tails of its model
_RIDGE = 1.0  # penalty on half the squares of the coefficients, against the sum of the log losses
_CLIP = 1e-4


@dataclass(frozen=True)
class RankingConfig:
    """Settings of the ranking; see `configs/ranking.yaml`.

    min_arc_snr, min_arc_contrast, max_arc_contrast, min_theta_e_seeing : lenses that cannot be told from lone objects
    (`stages.dataset.unclear_lenses`) are left out of the fit: what the stages say of them is noise; lens_share : share
    of lenses at which the score is calibrated, whatever the sample's.
    """

    min_arc_snr: float = 0.0
    min_arc_contrast: float = 0.0
    max_arc_contrast: float = 1e6
    min_theta_e_seeing: float = 0.0
    lens_share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.lens_share < 1:
            raise ValueError(f"lens_share {self.lens_share}: expected between 0 and 1")


@dataclass(frozen=True)
class Linear:
    """One logistic regression: coefficients on standardised features."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coefficient: tuple[float, ...]
    intercept: float

    def probability(self, features: FloatArray) -> FloatArray:
        """Probability (N,) of features (N, F)."""
        z = (features - np.array(self.mean)) / np.array(self.scale) @ np.array(self.coefficient) + self.intercept
        return np.asarray(1.0 / (1.0 + np.exp(-z)))


@dataclass(frozen=True)
class Ranker:
    """Scores candidates; immutable after load."""

    first_stage: Linear
    every_stage: Linear

    def score(self, table: pd.DataFrame) -> FloatArray:
        """Score (N,) in 0..1 of candidates with the contract's columns; NaN for rows without a classifier result."""
        numbers = features(table)
        seen = np.isfinite(table["arc_score"].to_numpy(float))
        out = np.full(len(table), np.nan)
        out[~seen] = self.first_stage.probability(numbers[~seen, :1])
        out[seen] = self.every_stage.probability(numbers[seen])
        return out


def features(table: pd.DataFrame) -> FloatArray:
    """The numbers (N, F) in the order of `FEATURES`; what no stage measured is 0, an absent p_lens stays NaN."""

    def column(name: str) -> FloatArray:
        return np.asarray(table[name].to_numpy(float))

    bayes = np.nan_to_num(column("theorem_log_bayes_factor"), neginf=_BAYES[0], posinf=_BAYES[1])
    columns = [
        _logit(column("p_lens")),
        np.nan_to_num(_logit(column("arc_score"))),
        np.clip(bayes, _BAYES[0], 0.0),
        np.clip(bayes, 0.0, _BAYES[1]),
        table["theorem_verdict"].to_numpy(str) == "supports",
    ]
    return np.column_stack(columns).astype(float)


def fit(table: pd.DataFrame, label: FloatArray, lens_share: float | None = None) -> Ranker:
    """Fit both regressions to labelled candidates on which every stage ran.

    lens_share : share of lenses at which they are calibrated; that of the candidates if not given.
    """
    numbers = features(table)
    usable = np.isfinite(numbers[:, 0])
    label = label[usable]
    shift = 0.0 if lens_share is None else float(logit(lens_share) - logit(label.mean()))
    both = (_fit(numbers[usable, :1], label), _fit(numbers[usable], label))
    return Ranker(*(replace(linear, intercept=linear.intercept + shift) for linear in both))


def save(ranker: Ranker, path: Path, notes: dict[str, object]) -> None:
    """Write the model as readable JSON with notes on its data and figures."""
    data = {"stage": "ranking", "features": list(FEATURES), **asdict(ranker), **notes}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n")


def load(path: Path) -> Ranker:
    """Read a model written by `save`; raises WeightsError if it is absent or of other features."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: no readable ranking model ({error}). Restore weights/ or train it anew."
        ) from error
    if not isinstance(data, dict) or tuple(data.get("features", ())) != FEATURES:
        raise WeightsError(
            f"{path}: was fitted to other features. Train it anew with `python -m stages.ranking train`."
        )
    return Ranker(_linear(data["first_stage"]), _linear(data["every_stage"]))


def _linear(data: dict[str, Any]) -> Linear:
    return Linear(tuple(data["mean"]), tuple(data["scale"]), tuple(data["coefficient"]), float(data["intercept"]))


def _fit(table: FloatArray, label: FloatArray) -> Linear:
    """Logistic regression whose coefficients are not negative: no evidence for a lens may count against it."""
    mean, scale = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-6)
    z, sign = (table - mean) / scale, 2 * label - 1

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        margin = sign * (z @ weights[:-1] + weights[-1])
        pull = -sign * expit(-margin)
        slope = np.append(z.T @ pull + _RIDGE * weights[:-1], pull.sum())
        return float(np.logaddexp(0, -margin).sum() + 0.5 * _RIDGE * (weights[:-1] ** 2).sum()), slope

    bounds = [(0.0, None)] * z.shape[1] + [(None, None)]
    best = minimize(loss, np.zeros(z.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Linear(tuple(mean.tolist()), tuple(scale.tolist()), tuple(best[:-1].tolist()), float(best[-1]))


def _logit(p: FloatArray) -> FloatArray:
    clipped = np.clip(p, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))
