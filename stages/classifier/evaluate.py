"""Figures of stage 1 on labelled data sets: on test systems, or on all of a data set that it never learned from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from stages import metrics
from stages.classifier.predict import load
from stages.dataset import shards_to_test
from stages.records import FloatArray
from stages.weights import load_card

_COLUMNS = [
    "label", "kind", "theta_e_arcsec", "seeing_arcsec", "arc_snr", "arc_contrast", "coverage_deg", "n_images"
]  # fmt: skip
STRATA: dict[str, tuple[float, ...]] = {
    "theta_e_over_seeing": (0.0, 0.7, 1.0, 1.5, 2.0, 3.0, np.inf),
    "arc_snr": (0.0, 20.0, 40.0, 80.0, 160.0, np.inf),
    "arc_contrast": (0.0, 0.1, 0.3, 1.0, 3.0, np.inf),
    "coverage_deg": (0.0, 30.0, 60.0, 120.0, 180.0, 270.0, 361.0),
    "n_images": (0, 2, 3, 4, 5, np.inf),
}
_N_BOOTSTRAP = 300


def evaluate(weights: Path, data_dir: Path, device: str = "cpu") -> dict[str, float]:
    """AUROC, recalls and calibration error with 95% intervals, by survey, by kind and by stratum.

    calibration_error : at the sample's own share of lenses; _visible : without lenses whose arcs are fainter than the
    network was trained and calibrated on. share_above_0.5_KIND : of each kind; recall_STRATUM_LOW_HIGH : of lensed
    galaxies at the threshold that 1% of all non-lenses pass, with _low and _high.
    """
    table = scored(weights, data_dir, device)
    lens, other = (table.loc[table["label"] == v, "p_lens"].to_numpy() for v in (1, 0))
    rng = np.random.default_rng(0)
    out: dict[str, float] = {"n_lenses": len(lens), "n_others": len(other)}
    for name, figure in (
        ("auroc", metrics.auroc),
        ("tpr_at_fpr_1e-2", lambda a, b: metrics.tpr_at_fpr(a, b, 0.01)),
        ("tpr0", lambda a, b: metrics.tpr_at_fpr(a, b, 0.0)),
        ("tpr10", metrics.tpr10),
    ):
        out[name] = figure(lens, other)
        if len(lens) and len(other):
            out[f"{name}_low"], out[f"{name}_high"] = metrics.bootstrap(figure, lens, other, rng, _N_BOOTSTRAP)
    limits = load_card(weights).config
    seen = (table["arc_snr"] >= limits["min_arc_snr"]) & (table["arc_contrast"] >= limits["min_arc_contrast"])
    shown = table[(table["kind"] != "lens_galaxy") | seen]
    for name, rows in (("calibration_error", table), ("calibration_error_visible", shown)):
        out[name] = calibration_error(rows["p_lens"].to_numpy(), rows["label"].to_numpy(float))
    for survey, rows in table.groupby("survey"):
        out[f"auroc_{survey}"] = metrics.auroc(*(rows.loc[rows["label"] == v, "p_lens"].to_numpy() for v in (1, 0)))
    for kind, rows in table.groupby("kind"):
        out[f"share_above_0.5_{kind}"] = float((rows["p_lens"] > 0.5).mean())
    return out | by_stratum(table, rng)


def calibration_error(p_lens: FloatArray, label: FloatArray) -> float:
    """Expected calibration error of probabilities stated at equal prior, moved to the sample's own share of lenses."""
    share = label.mean()
    if not 0 < share < 1:
        return float("nan")
    odds = p_lens / (1 - p_lens) * share / (1 - share)
    return metrics.calibration_error(odds / (1 + odds), label)


def scored(weights: Path, data_dir: Path, device: str = "cpu") -> pd.DataFrame:
    """Truth of every cutout that the weights can be tested on with its `p_lens` and `survey`."""
    predictor = load(weights, device)
    parts = []
    for shard, keep in shards_to_test(data_dir, load_card(weights).data):
        p = predictor.predict([shard.cutouts[k] for k in keep]).p_lens
        truth = shard.truth.iloc[keep].reindex(columns=_COLUMNS)
        parts.append(truth.assign(p_lens=p, survey=shard.cutouts[0].survey))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(theta_e_over_seeing=table["theta_e_arcsec"] / table["seeing_arcsec"])


def by_stratum(table: pd.DataFrame, rng: np.random.Generator) -> dict[str, float]:
    """Recall of lensed galaxies by `STRATA`, at the threshold that 1% of the non-lenses pass."""
    other = table.loc[table["label"] == 0, "p_lens"].to_numpy()
    lenses = table[table["kind"] == "lens_galaxy"]
    out: dict[str, float] = {}
    if not len(other):
        return out
    for name, edges in STRATA.items():
        for low, high in pairwise(edges):
            p = lenses.loc[lenses[name].between(low, high, inclusive="left"), "p_lens"].to_numpy()
            if not len(p):
                continue
            key = f"recall_{name}_{low:g}_{high:g}"
            out[key] = metrics.tpr_at_fpr(p, other, 0.01)
            out[f"{key}_low"], out[f"{key}_high"] = metrics.bootstrap(
                lambda a, b: metrics.tpr_at_fpr(a, b, 0.01), p, other, rng, _N_BOOTSTRAP
            )
            out[f"{key}_n"] = len(p)
    return out
