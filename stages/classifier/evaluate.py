"""Figures of stage 1 on the test systems of labelled data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages import metrics
from stages.classifier.predict import load
from stages.dataset import read_shards, split_of


def evaluate(weights: Path, data_dir: Path, device: str = "cpu") -> dict[str, float]:
    """AUROC, recalls and calibration error with 95% intervals, the share of each kind above 0.5; test systems only."""
    predictor = load(weights, device)
    scores, labels, kinds, surveys = [], [], [], []
    for shard in read_shards(data_dir):
        keep = np.flatnonzero(split_of(shard.truth["system"].tolist()) == "test")
        scores.append(predictor.predict([shard.cutouts[k] for k in keep]).p_lens)
        labels.append(shard.truth["label"].to_numpy()[keep])
        kinds.append(shard.truth["kind"].to_numpy(str)[keep])
        surveys.append(np.full(len(keep), shard.cutouts[0].survey))
    p, label = np.concatenate(scores), np.concatenate(labels)
    kind, survey = np.concatenate(kinds), np.concatenate(surveys)
    lens, other = p[label == 1], p[label == 0]
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
            out[f"{name}_low"], out[f"{name}_high"] = metrics.bootstrap(figure, lens, other, rng, 300)
    out["calibration_error"] = metrics.calibration_error(p, label.astype(float))
    for name in np.unique(survey):
        here = survey == name
        out[f"auroc_{name}"] = metrics.auroc(p[here & (label == 1)], p[here & (label == 0)])
    for name in np.unique(kind):
        out[f"share_above_0.5_{name}"] = float((p[kind == name] > 0.5).mean())
    return out
