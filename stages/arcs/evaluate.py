"""Figures of stage 3 on labelled data sets: on test systems, or on all of a data set that it never learned from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages import config as configuration
from stages import metrics
from stages import weights as weight_files
from stages.arcs.model import FRAME, ArcsConfig
from stages.arcs.predict import load
from stages.cache import transform
from stages.dataset import shards_to_test
from stages.records import FloatArray


def evaluate(weights: Path, data_dir: Path, device: str = "cpu") -> dict[str, float]:
    """Arc pixels, coverage, Einstein radius (by survey too) and score with 95% intervals."""
    predictor = load(weights, device)
    config = configuration.from_mapping(ArcsConfig, weight_files.load_card(weights).config, str(weights))
    pixels, coverage, radius, survey = [], [], [], []
    lens_score: list[float] = []
    other_score: list[float] = []
    for shard, rows in shards_to_test(data_dir, weight_files.load_card(weights).data):
        truth = shard.truth.iloc[rows]
        cutouts = [shard.cutouts[k] for k in rows]
        centres = truth[["deflector_x_pix", "deflector_y_pix"]].to_numpy(float)
        visible = ((truth["label"] == 1) & (truth["arc_snr"] >= config.min_arc_snr)).to_numpy()
        masks = transform(shard, FRAME)[2][rows] > 0.3
        for k, arc in enumerate(predictor.predict(cutouts, list(centres))):
            (lens_score if visible[k] else other_score).append(arc.score)
            if not visible[k]:
                continue
            found = arc.mask.astype(float) > 0.5
            pixels.append(((found & masks[k]).sum(), found.sum(), masks[k].sum()))
            coverage.append((arc.coverage_deg - truth["coverage_deg"].iloc[k], arc.coverage_err_deg))
            true = truth["theta_e_arcsec"].iloc[k]
            radius.append(((arc.theta_e_arcsec - true) / true, arc.theta_e_err_arcsec / true))
            survey.append(cutouts[k].survey)
    rng = np.random.default_rng(0)
    out: dict[str, float] = {"n_arcs": len(pixels), "n_others": len(other_score)}
    if not pixels or not other_score:
        return out
    lens, other = np.array(lens_score), np.array(other_score)
    out["auroc"] = metrics.auroc(lens, other)
    out["auroc_low"], out["auroc_high"] = metrics.bootstrap(metrics.auroc, lens, other, rng, 300)
    both, found_n, true_n = np.array(pixels, float).T
    wrong, wrong_err = np.array(coverage).T
    error, error_err = np.array(radius).T
    for name, values in (
        ("pixel_precision", both / np.maximum(found_n, 1)),
        ("pixel_recall", both / np.maximum(true_n, 1)),
        ("coverage_inside_68", (np.abs(wrong) <= wrong_err).astype(float)),
        ("theta_e_inside_68", (np.abs(error) <= error_err).astype(float)),
    ):
        out |= _interval(name, values, np.mean, rng)
    out |= _interval("coverage_abs_error_deg", np.abs(wrong), np.median, rng)
    out |= _interval("theta_e_abs_error", np.abs(error), np.median, rng)
    for name in np.unique(survey):
        here = np.array(survey) == name
        out |= _interval(f"theta_e_abs_error_{name}", np.abs(error[here]), np.median, rng)
        out |= _interval(f"theta_e_inside_68_{name}", (np.abs(error) <= error_err)[here].astype(float), np.mean, rng)
    return out


def _interval(
    name: str, values: FloatArray, figure: Callable[[FloatArray], float], rng: np.random.Generator
) -> dict[str, float]:
    boot = [figure(rng.choice(values, len(values))) for _ in range(500)]
    low, high = np.percentile(boot, [2.5, 97.5])
    return {name: float(figure(values)), f"{name}_low": float(low), f"{name}_high": float(high)}
