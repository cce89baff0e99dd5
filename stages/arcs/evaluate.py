"""Figures of stage 3 on labelled data sets: on test systems, or on all of a data set that it never learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stages import metrics
from stages.arcs.calibration import MASK_SHARE, directions
from stages.arcs.measure import THRESHOLD
from stages.arcs.model import FRAME
from stages.arcs.predict import load
from stages.cache import transform
from stages.changes import one_band
from stages.dataset import Shard, shards_to_test, unclear_lenses
from stages.records import FloatArray
from stages.strata import TRUTH_COLUMNS, by_stratum, with_strata
from stages.weights import load_card

_ERRORS = ("coverage", "theta_e")
_LIMITS = ("max_arc_contrast", "min_theta_e_seeing")


def evaluate(weights: Path, data_dir: Path, device: str = "cpu") -> dict[str, float]:
    """Arc pixels, coverage, Einstein radius and score with 95% intervals, by survey, kind and stratum.

    Pixels, coverage and radius are of arcs as visible as those trained on, about the deflector's true position; errors
    of coverage are against the true mask's. NAME_clear : without lenses that the network was not trained on, as none
    could tell them from lone objects. share_above_0.5_KIND : `arc_score` of each kind; recall_STRATUM_LOW_HIGH :
    of lensed galaxies at the threshold of `arc_score` that 1% of all non-lenses pass.
    """
    table = scored(weights, data_dir, device)
    seen, config = visible(table, weights), load_card(weights).config
    limits = {name: config[name] for name in _LIMITS if name in config}
    clear = seen & ~unclear_lenses(table, **limits)
    arcs, other = table[seen], table.loc[~seen, "arc_score"].to_numpy()
    rng = np.random.default_rng(0)
    out: dict[str, float] = {"n_arcs": len(arcs), "n_arcs_clear": int(clear.sum()), "n_others": len(other)}
    if not len(arcs) or not len(other):
        return out
    out |= _figures(arcs, other, "", rng) | _figures(table[clear], other, "_clear", rng)
    for survey, rows in arcs.groupby("survey"):
        for name in _ERRORS:
            out |= _errors(name, rows, rng, f"_{survey}")
    for kind, rows in table.groupby("kind"):
        out[f"share_above_0.5_{kind}"] = float((rows["arc_score"] > 0.5).mean())
    return out | by_stratum(table, "arc_score", rng)


def _figures(arcs: pd.DataFrame, other: FloatArray, where: str, rng: np.random.Generator) -> dict[str, float]:
    """Ranking of arcs against other scores, pixels, coverage and radius, with their intervals."""
    out: dict[str, float] = {}
    lens = arcs["arc_score"].to_numpy()
    if not len(lens):
        return out
    for name, figure in (("auroc", metrics.auroc), ("tpr_at_fpr_2e-2", lambda a, b: metrics.tpr_at_fpr(a, b, 0.02))):
        key = f"{name}{where}"
        out[key] = figure(lens, other)
        out[f"{key}_low"], out[f"{key}_high"] = metrics.bootstrap(figure, lens, other, rng, 300)
    for name in ("pixel_precision", "pixel_recall"):
        out |= _interval(f"{name}{where}", arcs[name].to_numpy(), np.mean, rng)
        out |= _interval(f"{name}_median{where}", arcs[name].to_numpy(), np.median, rng)
    for name in _ERRORS:
        out |= _errors(name, arcs, rng, where)
    return out


def visible(table: pd.DataFrame, weights: Path) -> pd.Series:
    """Which rows of `scored` have arcs as visible as those that the weights were trained on."""
    bright: pd.Series = table["arc_snr"] >= float(load_card(weights).config["min_arc_snr"])
    return bright & (table["label"] == 1)


def scored(weights: Path, data_dir: Path, device: str = "cpu", grey: bool = False) -> pd.DataFrame:
    """Truth of every cutout that the weights can be tested on, with what stage 3 says of it.

    arc_score, coverage, coverage_err, coverage_wrong (degrees, said less true); theta_e_wrong, theta_e_err (relative to
    the truth); pixel_precision, pixel_recall of the mask, NaN without true arc pixels. grey : with one band only.
    """
    predictor = load(weights, device)
    parts = []
    for shard, keep in shards_to_test(data_dir, load_card(weights).data):
        truth = shard.truth.iloc[keep].reindex(columns=[*TRUTH_COLUMNS, "deflector_x_pix", "deflector_y_pix"])
        part = Shard(tuple(shard.cutouts[k] for k in keep), shard.truth.iloc[keep], shard.source_mask[keep])
        if grey:
            part = replace(part, cutouts=tuple(one_band(c) for c in part.cutouts))
        said = predictor.predict(part.cutouts, list(truth[["deflector_x_pix", "deflector_y_pix"]].to_numpy(float)))
        _, _, share, centre = transform(part, FRAME)
        mask = np.asarray(share, np.float32) > MASK_SHARE
        middle = np.where(np.isfinite(centre), centre, (FRAME.size_pix - 1) / 2).astype(np.float32)
        true = 360.0 * directions(torch.from_numpy(mask).float(), torch.from_numpy(middle)).mean(1).double().numpy()
        found = np.array([a.mask.astype(np.float32) > THRESHOLD for a in said])
        both, said_n, true_n = (m.sum(axis=(1, 2)) for m in (found & mask, found, mask))
        theta = truth["theta_e_arcsec"].to_numpy(float)
        degrees = np.array([a.coverage_deg for a in said])
        parts.append(
            truth.assign(
                survey=[c.survey for c in part.cutouts], arc_score=[a.score for a in said], coverage=degrees,
                coverage_err=[a.coverage_err_deg for a in said], coverage_wrong=degrees - true,
                theta_e_wrong=np.array([a.theta_e_arcsec for a in said]) / theta - 1,
                theta_e_err=np.array([a.theta_e_err_arcsec for a in said]) / theta,
                pixel_precision=np.where(true_n > 0, both / np.maximum(said_n, 1), np.nan),
                pixel_recall=np.where(true_n > 0, both / np.maximum(true_n, 1), np.nan),
            )
        )  # fmt: skip
    return with_strata(pd.concat(parts, ignore_index=True))


def _errors(name: str, arcs: pd.DataFrame, rng: np.random.Generator, where: str = "") -> dict[str, float]:
    """Median size of an error, its median (bias), and how often the truth lies inside the stated one."""
    wrong, stated = arcs[f"{name}_wrong"].to_numpy(), arcs[f"{name}_err"].to_numpy()
    unit = ("_deg" if name == "coverage" else "") + where
    return (
        _interval(f"{name}_abs_error{unit}", np.abs(wrong), np.median, rng)
        | _interval(f"{name}_bias{unit}", wrong, np.median, rng)
        | _interval(f"{name}_inside_68{where}", (np.abs(wrong) <= stated).astype(float), np.mean, rng)
    )


def _interval(
    name: str, values: Sequence[float] | FloatArray, figure: Callable[[FloatArray], float], rng: np.random.Generator
) -> dict[str, float]:
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not len(known):
        return {}
    boot = [figure(rng.choice(known, len(known))) for _ in range(500)]
    low, high = np.percentile(boot, [2.5, 97.5])
    return {name: float(figure(known)), f"{name}_low": float(low), f"{name}_high": float(high)}
