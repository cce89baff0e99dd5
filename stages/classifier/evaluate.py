"""Figures of stage 1 on labelled data sets: on test systems, or on all of a data set that it never learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from stages import metrics
from stages.classifier.model import unclear
from stages.classifier.predict import load
from stages.dataset import shards_to_test
from stages.prior import restated
from stages.records import FloatArray
from stages.strata import TRUTH_COLUMNS, by_stratum, with_strata
from stages.weights import load_card

_N_BOOTSTRAP = 300


def evaluate(weights: Path, data_dir: Path, device: str = "cpu") -> dict[str, float]:
    """AUROC, recalls and calibration error with 95% intervals, by survey, by kind and by stratum.

    NAME_clear : without lenses that the network was not trained on, as none could tell them from lone objects.
    calibration_error : at the sample's own share of lenses; _clear_1e-3 : were one in a thousand a lens.
    share_above_0.5_KIND : of each kind; recall_STRATUM_LOW_HIGH : of lensed galaxies at the threshold that 1% of
    all non-lenses pass, with _low and _high.
    """
    table = scored(weights, data_dir, device)
    clear = table[~unclear(table, load_card(weights).config)]
    rng = np.random.default_rng(0)
    out = _ranking(table, "", rng) | _ranking(clear, "_clear", rng)
    for name, rows, prior in (("", table, None), ("_clear", clear, None), ("_clear_1e-3", clear, 1e-3)):
        p, label = rows["p_lens"].to_numpy(), rows["label"].to_numpy(float)
        out[f"calibration_error{name}"] = calibration_error(p, label, prior)
    for survey, rows in table.groupby("survey"):
        out[f"auroc_{survey}"] = metrics.auroc(*(rows.loc[rows["label"] == v, "p_lens"].to_numpy() for v in (1, 0)))
    for survey, rows in clear.groupby("survey"):
        p, label = rows["p_lens"].to_numpy(), rows["label"].to_numpy(float)
        out[f"calibration_error_clear_{survey}"] = calibration_error(p, label)
    for kind, rows in table.groupby("kind"):
        out[f"share_above_0.5_{kind}"] = float((rows["p_lens"] > 0.5).mean())
    return out | by_stratum(table, "p_lens", rng)


def _ranking(table: pd.DataFrame, suffix: str, rng: np.random.Generator) -> dict[str, float]:
    """The challenges' figures of lenses against all others, with their intervals."""
    lens, other = (table.loc[table["label"] == v, "p_lens"].to_numpy() for v in (1, 0))
    out: dict[str, float] = {f"n_lenses{suffix}": len(lens), f"n_others{suffix}": len(other)}
    for name, figure in (
        ("auroc", metrics.auroc),
        ("tpr_at_fpr_1e-2", lambda a, b: metrics.tpr_at_fpr(a, b, 0.01)),
        ("tpr0", lambda a, b: metrics.tpr_at_fpr(a, b, 0.0)),
        ("tpr10", metrics.tpr10),
    ):
        key = f"{name}{suffix}"
        out[key] = figure(lens, other)
        if len(lens) and len(other):
            out[f"{key}_low"], out[f"{key}_high"] = metrics.bootstrap(figure, lens, other, rng, _N_BOOTSTRAP)
    return out


def calibration_error(p_lens: FloatArray, label: FloatArray, prior: float | None = None) -> float:
    """Expected calibration error of probabilities at equal numbers, restated for the share of lenses `prior`.

    Each lens and each other counts so much that they have this share; by default the sample's own, where all count one.
    """
    own = label.mean()
    if not 0 < own < 1:
        return float("nan")
    wanted = own if prior is None else prior
    weight = np.where(label == 1, wanted / own, (1 - wanted) / (1 - own))
    return metrics.calibration_error(restated(p_lens, wanted), label, weight)


def scored(weights: Path, data_dir: Path, device: str = "cpu") -> pd.DataFrame:
    """Truth of every cutout that the weights can be tested on with its `p_lens` and `survey`."""
    predictor = load(weights, device)
    parts = []
    for shard, keep in shards_to_test(data_dir, load_card(weights).data):
        p = predictor.predict([shard.cutouts[k] for k in keep]).p_lens
        truth = shard.truth.iloc[keep].reindex(columns=TRUTH_COLUMNS)
        parts.append(truth.assign(p_lens=p, survey=shard.cutouts[0].survey))
    return with_strata(pd.concat(parts, ignore_index=True))
