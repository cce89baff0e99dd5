"""Pure scoring functions of the field, with bootstrap intervals; numpy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages.records import FloatArray


def auroc(positive: FloatArray, negative: FloatArray) -> float:
    """Area under the ROC curve: chance that a lens outranks a non-lens, ties counting half; NaN if a side is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / (2 * len(negative)))


def tpr_at_fpr(positive: FloatArray, negative: FloatArray, fpr: float) -> float:
    """Recall of lenses above the cut that lets at most `fpr` of the non-lenses through; fpr=0 is TPR0."""
    if not len(positive) or not len(negative):
        return float("nan")
    allowed = int(np.floor(fpr * len(negative) + 1e-9))  # 0.29 * 100 is 29, not 28.999...
    cut = np.sort(negative)[::-1][min(allowed, len(negative) - 1)]
    return float((positive > cut).mean())


def tpr10(positive: FloatArray, negative: FloatArray) -> float:
    """Recall with fewer than ten false positives above the cut (Metcalf et al. 2019)."""
    return tpr_at_fpr(positive, negative, 9.0 / max(len(negative), 9))


def bootstrap(
    figure: Callable[[FloatArray, FloatArray], float],
    positive: FloatArray,
    negative: FloatArray,
    rng: np.random.Generator,
    n: int = 1000,
) -> tuple[float, float]:
    """95% interval of a figure by resampling lenses and non-lenses apart."""
    draws = [figure(rng.choice(positive, len(positive)), rng.choice(negative, len(negative))) for _ in range(n)]
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def calibration_error(
    probability: FloatArray, label: FloatArray, weight: FloatArray | None = None, bins: int = 15
) -> float:
    """Expected calibration error: mean |predicted - observed| over equal-count bins (Naeini et al. 2015).

    weight : what each counts, so that a sample can stand for one with another share of lenses.
    """
    if not len(probability):
        return float("nan")
    weight = np.ones(len(probability)) if weight is None else weight
    parts = np.array_split(np.argsort(probability), min(bins, len(probability)))
    return float(sum(abs((weight[k] * (probability[k] - label[k])).sum()) for k in parts) / weight.sum())
