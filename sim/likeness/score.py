"""How well scores tell simulated from real: cross-validation, AUC within folds, intervals that respect groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from sim.likeness.features import FAMILIES
from stages import metrics
from stages.records import FloatArray

_FOLDS = 4
_REPEATS = 3  # of the forest's cross-validation with other folds
_TREES = 120
_DRAWS = 1000
_MIN_OF_A_KIND = 10

IntArray = npt.NDArray[np.intp]
Groups = npt.NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Scores:
    """Out-of-fold scores (R, N) of R repeats, the higher the more simulated, and the fold (R, N) that each came from.

    Only scores of one fold are compared with each other: those of several folds come from several models.
    """

    value: FloatArray
    fold: IntArray

    @property
    def rank(self) -> FloatArray:
        """Mean rank within the fold, 0..1, (N,)."""
        table = [pd.Series(v).groupby(f).rank(pct=True) for v, f in zip(self.value, self.fold, strict=True)]
        return np.asarray(np.mean(table, axis=0))


@dataclass(frozen=True)
class Separation:
    """How well one classifier tells simulated from real: AUC with its 95% interval; 0.5 is perfect realism."""

    auc: float
    low: float
    high: float


def folds(label: IntArray, groups: Groups, seed: int) -> list[tuple[IntArray, IntArray]]:
    """Cross-validation that keeps a tile or a simulated system whole."""
    n = int(min(_FOLDS, *(len(set(groups[label == k])) for k in (0, 1))))
    split = StratifiedGroupKFold(max(n, 2), shuffle=True, random_state=seed)
    return list(split.split(np.zeros(len(label)), label, groups))


def forest_scores(table: pd.DataFrame, label: IntArray, groups: Groups, seed: int, repeats: int = _REPEATS) -> Scores:
    """Scores of a forest on the features."""
    value, fold = np.zeros((repeats, len(label))), np.zeros((repeats, len(label)), np.intp)
    for r in range(repeats):
        model = make_pipeline(
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            ExtraTreesClassifier(
                _TREES, min_samples_leaf=3, max_features=0.3, class_weight="balanced", random_state=seed + r
            ),
        )
        for k, (train, test) in enumerate(folds(label, groups, seed + r)):
            model.fit(table.iloc[train], label[train])
            value[r, test], fold[r, test] = model.predict_proba(table.iloc[test])[:, 1], k
    return Scores(value, fold)


def separation(scores: Scores, label: IntArray, groups: Groups, rng: np.random.Generator) -> Separation:
    """AUC over pairs of one fold, with its interval from resampling whole groups of real and of simulated cutouts."""
    n_draws = _DRAWS
    weight = np.ones((n_draws + 1, len(label)))
    for side in (0, 1):
        names, number = np.unique(groups[label == side], return_inverse=True)
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), n_draws)
        weight[1:, label == side] = times[:, number]
    over, pairs = np.zeros(n_draws + 1), np.zeros(n_draws + 1)
    for value, fold in zip(scores.value, scores.fold, strict=True):
        for k in np.unique(fold):
            real, sim = (np.flatnonzero((fold == k) & (label == side)) for side in (0, 1))
            gap = value[sim][:, None] - value[real][None, :]
            wins = (gap > 0) + 0.5 * (gap == 0)
            over += ((weight[:, sim] @ wins) * weight[:, real]).sum(axis=1)
            pairs += weight[:, sim].sum(axis=1) * weight[:, real].sum(axis=1)
    auc = over / np.maximum(pairs, 1e-9)
    low, high = np.percentile(auc[1:], (2.5, 97.5))
    return Separation(float(auc[0]), float(low), float(high))


def telling_features(table: pd.DataFrame, label: IntArray, groups: Groups) -> pd.DataFrame:
    """Each feature's own AUC (0.5 or more, whichever way it tells), how many sigma that is from 0.5, its two medians.

    Sigma is that of a rank-sum test between as many independent values as there are groups.
    """
    n_real, n_sim = (len(set(groups[label == side])) for side in (0, 1))
    sigma = np.sqrt((n_real + n_sim + 1) / (12 * n_real * n_sim))
    rows = []
    for name in table:
        values = table[name].to_numpy(float)
        real, sim = (v[np.isfinite(v)] for v in (values[label == 0], values[label == 1]))
        known = len(real) > 0 and len(sim) > 0
        auc = metrics.auroc(sim, real) if known else 0.5
        auc = max(auc, 1 - auc)
        medians = [float(np.median(v)) if known else np.nan for v in (real, sim)]
        rows.append((str(name), auc, (auc - 0.5) / sigma, *medians))
    columns = ["feature", "auc", "sigma", "real", "simulated"]
    return pd.DataFrame(rows, columns=columns).sort_values("auc", ascending=False).set_index("feature")


def by_family(
    table: pd.DataFrame, label: IntArray, groups: Groups, seed: int, rng: np.random.Generator
) -> pd.DataFrame:
    """AUC of a forest that sees the features of one family only: where a simulation must be mended first."""
    rows = {}
    for family in FAMILIES:
        part = table[[c for c in table if str(c).startswith(family)]]
        if part.shape[1]:
            rows[family] = vars(separation(forest_scores(part, label, groups, seed, repeats=1), label, groups, rng))
    return pd.DataFrame(rows).T.rename_axis("family")


def by_kind(
    scores: dict[str, Scores], kinds: Sequence[str], label: IntArray, groups: Groups, rng: np.random.Generator
) -> pd.DataFrame:
    """AUC of each simulated kind against all real cutouts, from the scores of classifiers trained on all kinds."""
    kind = np.array(kinds)
    rows = []
    for name in sorted(set(kind[label == 1].tolist())):
        chosen = (label == 0) | (kind == name)
        n = int((kind == name).sum())
        row: dict[str, object] = {"kind": name, "n": n}
        for which, s in scores.items() if n >= _MIN_OF_A_KIND else ():
            found = separation(Scores(s.value[:, chosen], s.fold[:, chosen]), label[chosen], groups[chosen], rng)
            row |= {f"auc_{which}": found.auc, f"{which}_low": found.low, f"{which}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows).set_index("kind")
