"""Whether adapted networks are better on sky nobody learned from: painted lenses against twins and real objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from stages import metrics
from stages.classifier.evaluate import calibration_error
from stages.classifier.model import unclear
from stages.classifier.predict import load
from stages.dataset import parts_of, read_shards
from stages.records import FloatArray
from stages.weights import Card

FIGURES = ("auroc", "tpr_at_fpr_1e-2", "calibration_error")
LEAST_LENSES, LEAST_OTHERS = 10, 20
_CLEARLY = 0.02  # a calibration error that grows by less is no reason to refuse
_N_BOOTSTRAP = 400
_HELD_OUT_KINDS = ("twin", "sky")


class AdaptError(ValueError):
    """A request that cannot be carried out; the message says what to do."""


@dataclass(frozen=True)
class Check:
    """`FIGURES` of held-out lenses before and after, and of their difference the error and the 95% interval.

    noise : standard deviation of the difference over bootstraps of the places.
    """

    n_lenses: int
    n_others: int
    n_places: int
    before: dict[str, float]
    after: dict[str, float]
    noise: dict[str, float]
    interval: dict[str, tuple[float, float]]

    def faults(self) -> list[str]:
        """Why the networks after are not to be used; empty where they are."""
        worse = []
        for name in FIGURES:
            change, limit = self.after[name] - self.before[name], -self.noise[name]
            if name == "calibration_error":
                change, limit = -change, -max(_CLEARLY, 2 * self.noise[name])
            if not change >= limit:  # NaN is no better
                worse.append(f"{name} {self.before[name]:.3f} before, {self.after[name]:.3f} after")
        return worse

    def lines(self) -> list[str]:
        """The figures in words."""
        counts = f"{self.n_lenses} painted lenses, {self.n_others} twins and real objects, {self.n_places} places"
        return [f"held-out sky: {counts}"] + [
            f"  {name:18} {self.before[name]:.3f} before, {self.after[name]:.3f} after, "
            f"difference {self.after[name] - self.before[name]:+.3f} [{low:+.3f}, {high:+.3f}]"
            for name, (low, high) in self.interval.items()
        ]


def held_out(data: Path, card: Card) -> pd.DataFrame:
    """The check's cutouts: visible painted lenses, their twins, and real objects of the test part.

    Columns label, system and row, the number among all cutouts of the test part.
    """
    tables = [shard.truth[parts_of(shard.truth) == "test"] for shard in read_shards(data)]
    truth = pd.concat(tables, ignore_index=True)
    lens = (truth["label"] == 1) & ~unclear(truth, card.config)
    keep = lens | ((truth["label"] == 0) & truth["kind"].isin(_HELD_OUT_KINDS))
    chosen: pd.DataFrame = truth.loc[keep, ["label", "system"]].reset_index(drop=True)
    chosen["row"] = np.flatnonzero(keep.to_numpy())
    n = chosen["label"].value_counts()
    if n.get(1, 0) < LEAST_LENSES or n.get(0, 0) < LEAST_OTHERS:
        raise AdaptError(
            f"{n.get(1, 0)} lenses and {n.get(0, 0)} others could be made on held-out sky: too few for a check. Give "
            "more images, or more --minutes, and another --out."
        )
    return chosen


def probabilities(weights: Path, data: Path, rows: npt.NDArray[np.intp]) -> FloatArray:
    """p_lens (n,) at equal prior of rows of the test part."""
    predictor = load(weights)
    shards = [shard for shard in read_shards(data) if (parts_of(shard.truth) == "test").any()]
    cutouts = [c for s in shards for c, part in zip(s.cutouts, parts_of(s.truth), strict=True) if part == "test"]
    out: list[FloatArray] = [np.empty(0)]
    for start in range(0, len(rows), 128):
        out.append(predictor.predict([cutouts[k] for k in rows[start : start + 128]]).p_lens)
    return np.concatenate(out)


def figures(p_lens: FloatArray, label: npt.NDArray[np.int_]) -> dict[str, float]:
    """`FIGURES` of p_lens at equal prior; the calibration error at the sample's own share of lenses."""
    lens, other = p_lens[label == 1], p_lens[label == 0]
    return {
        "auroc": metrics.auroc(lens, other),
        "tpr_at_fpr_1e-2": metrics.tpr_at_fpr(lens, other, 0.01),
        "calibration_error": calibration_error(np.clip(p_lens, 1e-9, 1 - 1e-9), label.astype(float)),
    }


def compare(truth: pd.DataFrame, before: FloatArray, after: FloatArray, seed: int) -> Check:
    """Figures of both on the same cutouts; their difference by bootstraps of whole places."""
    label = truth["label"].to_numpy()
    places = [np.asarray(rows) for rows in truth.groupby("system").indices.values()]
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {name: [] for name in FIGURES}
    for _ in range(_N_BOOTSTRAP):
        rows = np.concatenate([places[k] for k in rng.integers(len(places), size=len(places))])
        if 0 < label[rows].sum() < len(rows):
            one, two = figures(before[rows], label[rows]), figures(after[rows], label[rows])
            for name in FIGURES:
                draws[name].append(two[name] - one[name])
    ends = {name: np.percentile(values, (2.5, 97.5)) for name, values in draws.items()}
    return Check(
        int((label == 1).sum()), int((label == 0).sum()), len(places), figures(before, label), figures(after, label),
        {name: float(np.std(values)) for name, values in draws.items()},
        {name: (float(low), float(high)) for name, (low, high) in ends.items()},
    )  # fmt: skip
