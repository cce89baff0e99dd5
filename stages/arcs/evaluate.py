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
from stages.arcs.compare import MEASURED, against, true_colour
from stages.arcs.measure import THRESHOLD
from stages.arcs.model import FRAME
from stages.arcs.predict import load
from stages.cache import transform
from stages.changes import one_band
from stages.dataset import Shard, shards_to_test, unclear_lenses
from stages.polar import to_polar
from stages.records import BoolArray, FloatArray
from stages.strata import TRUTH_COLUMNS, by_stratum, with_strata
from stages.weights import load_card

_ERRORS = ("coverage", "theta_e")
_LEVELS = np.round(np.arange(0.1, 0.95, 0.1), 1)  # of the probability of lensed light, for precision against recall
_RECALL = 0.75  # at which the precision of arc pixels is stated
_LIMITS = ("max_arc_contrast", "min_theta_e_seeing")


def evaluate(weights: Path, data_dir: Path, device: str = "cpu") -> dict[str, float]:
    """Arc pixels, coverage, Einstein radius and score with 95% intervals, by survey, kind and stratum.

    Pixels, coverage and radius are of arcs as visible as those trained on, about the deflector's true position; errors
    of coverage and of what is read from the mask (see `stages.arcs.compare`) are against the true mask's.
    pixel_precision_at_recall_0.75 : mean precision at the level of probability where the mean recall is 0.75.
    snr_ratio_median : stated signal to noise over the true. NAME_clear : without lenses that the network was not
    trained on, as none could tell them from lone objects. calibration_error : of `arc_score`, at equal numbers of
    these arcs and all else. share_above_0.5_KIND : `arc_score` of each kind; recall_STRATUM_LOW_HIGH : of lensed
    galaxies at the threshold of `arc_score` that 1% of all non-lenses pass.
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
    both, is_arc = np.concatenate([lens, other]), np.repeat([1.0, 0.0], [len(lens), len(other)])
    out[f"calibration_error{where}"] = metrics.calibration_error(both, is_arc, np.where(is_arc, len(other), len(lens)))
    for name in ("pixel_precision", "pixel_recall"):
        out |= _interval(f"{name}{where}", arcs[name].to_numpy(), np.mean, rng)
        out |= _interval(f"{name}_median{where}", arcs[name].to_numpy(), np.median, rng)
    curve = arcs[[f"{name}_{level}" for name in ("precision", "recall") for level in _LEVELS]].to_numpy()
    out |= _interval(f"pixel_precision_at_recall_{_RECALL}{where}", curve, precision_at, rng)
    for name in (*_ERRORS, *MEASURED):
        out |= _errors(name, arcs, rng, where)
    for name in ("same_arcs", "same_counter_images"):
        out |= _interval(f"{name}{where}", arcs[name].to_numpy(), np.mean, rng)
    return out | _interval(f"snr_ratio_median{where}", arcs["snr_ratio"].to_numpy(), np.median, rng)


def precision_at(curve: FloatArray) -> float:
    """Mean precision where the mean recall is 0.75, of (n, 2 K): precision at each level, then recall; NaN beyond."""
    precision, recall = np.split(np.nanmean(curve, axis=0), 2)
    return float(np.interp(_RECALL, recall[::-1], precision[::-1], left=np.nan, right=np.nan))


def visible(table: pd.DataFrame, weights: Path) -> pd.Series:
    """Which rows of `scored` have arcs as visible as those that the weights were trained on."""
    bright: pd.Series = table["arc_snr"] >= float(load_card(weights).config["min_arc_snr"])
    return bright & (table["label"] == 1)


def scored(weights: Path, data_dir: Path, device: str = "cpu", grey: bool = False) -> pd.DataFrame:
    """Truth of every cutout that the weights can be tested on, with what stage 3 says of it.

    arc_score, coverage, coverage_err, coverage_wrong (degrees, said less true); theta_e_wrong, theta_e_err (relative to
    the truth); pixel_precision, pixel_recall of the mask, NaN without true arc pixels, and precision_LEVEL,
    recall_LEVEL where a pixel counts from other probabilities on; snr_ratio, said over true; and what
    `stages.arcs.compare` gives. grey : with one band only.
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
        circles = to_polar(torch.from_numpy(mask).float()[:, None], torch.from_numpy(middle))[:, 0].double().numpy()
        pixel = np.array([a.mask_step_pix * c.pixel_scale_arcsec for a, c in zip(said, part.cutouts, strict=True)])
        colour = [true_colour(d, c.bands) for d, c in zip(part.truth["drawn"], part.cutouts, strict=True)]
        compared = [against(*all_of) for all_of in zip(said, circles, middle, pixel, colour, strict=True)]
        light = np.array([a.mask for a in said], np.float32)
        rates = {"pixel_precision": THRESHOLD, "pixel_recall": THRESHOLD}
        rates |= {f"{name}_{level}": level for name in ("precision", "recall") for level in _LEVELS}
        pixels = {name: _rate(light > level, mask, "recall" in name) for name, level in rates.items()}
        theta = truth["theta_e_arcsec"].to_numpy(float)
        degrees = np.array([a.coverage_deg for a in said])
        parts.append(
            truth.assign(
                survey=[c.survey for c in part.cutouts], arc_score=[a.score for a in said], coverage=degrees,
                coverage_err=[a.coverage_err_deg for a in said], coverage_wrong=degrees - true,
                theta_e_wrong=np.array([a.theta_e_arcsec for a in said]) / theta - 1,
                theta_e_err=np.array([a.theta_e_err_arcsec for a in said]) / theta,
                snr_ratio=np.array([a.snr for a in said]) / np.maximum(truth["arc_snr"].to_numpy(float), 1e-9),
                **pixels, **pd.DataFrame(compared, truth.index),
            )
        )  # fmt: skip
    return with_strata(pd.concat(parts, ignore_index=True))


def _rate(found: BoolArray, true: BoolArray, recall: bool) -> FloatArray:
    """Precision or recall (N,) of masks (N, S, S), NaN without true pixels."""
    both, whole, n_true = (m.sum(axis=(1, 2)) for m in (found & true, true if recall else found, true))
    return np.where(n_true > 0, both / np.maximum(whole, 1), np.nan)


def _errors(name: str, arcs: pd.DataFrame, rng: np.random.Generator, where: str = "") -> dict[str, float]:
    """Median size of an error, its median (bias), and how often the truth lies inside the stated one."""
    wrong, stated = arcs[f"{name}_wrong"].to_numpy(), arcs[f"{name}_err"].to_numpy()
    unit = ("_deg" if name == "coverage" else "") + where
    inside = np.where(np.isfinite(wrong), np.abs(wrong) <= stated, np.nan)
    return (
        _interval(f"{name}_abs_error{unit}", np.abs(wrong), np.median, rng)
        | _interval(f"{name}_bias{unit}", wrong, np.median, rng)
        | _interval(f"{name}_inside_68{where}", inside, np.mean, rng)
    )


def _interval(
    name: str, values: Sequence[float] | FloatArray, figure: Callable[[FloatArray], float], rng: np.random.Generator
) -> dict[str, float]:
    """A figure of values (n,), or of rows (n, K), and its interval; nothing where nothing is known."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known).reshape(len(known), -1).any(axis=1)]
    if not len(known) or not np.isfinite(figure(known)):
        return {}
    boot = [figure(known[rng.integers(len(known), size=len(known))]) for _ in range(500)]
    low, high = np.nanpercentile(boot, [2.5, 97.5])
    return {name: float(figure(known)), f"{name}_low": float(low), f"{name}_high": float(high)}
