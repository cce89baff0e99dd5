"""Train, evaluate or apply the ranking: python -m stages.ranking train --data RUN... --truth CSV... --out weights.

Each RUN is a scan of simulations, or of lenses painted on real sky, with `pipeline.py --all`; each CSV has the columns
id, system and label, and what `--config` needs to leave out unclear lenses, as `sim/export.py` writes them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stages import config as configuration
from stages import metrics
from stages.config import CONFIG_DIR, WEIGHTS_DIR
from stages.dataset import DatasetError, split_of, unclear_lenses
from stages.prior import restated
from stages.ranking import model
from stages.ranking.model import RankingConfig
from stages.records import FloatArray
from stages.weights import WeightsError


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("train", "evaluate"))
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="run folders with candidates.parquet")
    parser.add_argument("--truth", type=Path, nargs="+", required=True, help="the truth of each run")
    parser.add_argument("--out", type=Path, default=WEIGHTS_DIR)
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR / "ranking.json")
    parser.add_argument("--config", type=Path, default=CONFIG_DIR / "ranking.yaml")
    options = parser.parse_args(argv)
    if len(options.data) != len(options.truth):
        parser.error("give one --truth for each run in --data")
    try:
        carry_out(options)
    except (OSError, DatasetError, WeightsError, configuration.ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def carry_out(options: argparse.Namespace) -> None:
    """Train or evaluate, as the command line asks."""
    config = configuration.load(RankingConfig, options.config)
    table, label = labelled_rows(options.data, options.truth, config)
    if options.verb == "evaluate":
        print_figures(figures(model.load(options.weights), table, label, config.lens_share))
        return
    seen = split_of(table["system"].tolist()) == "train"
    ranker = model.fit(table[seen], label[seen], config.lens_share)
    shown = figures(ranker, table[~seen], label[~seen], config.lens_share)
    print_figures(shown)
    notes: dict[str, object] = {
        "data": {"n": len(table), "lenses": int(label.sum())},
        "config": configuration.to_mapping(config),
        "metrics_on_unseen_systems": shown,
    }
    model.save(model.fit(table, label, config.lens_share), options.out / "ranking.json", notes)


def labelled_rows(
    runs: Sequence[Path], truths: Sequence[Path], config: RankingConfig
) -> tuple[pd.DataFrame, FloatArray]:
    """Scored candidates of runs that have a label, without unclear lenses, in id order within each; and the labels."""
    tables, labels = zip(*(_labelled_rows(*pair, config) for pair in zip(runs, truths, strict=True)), strict=True)
    return pd.concat(tables, ignore_index=True), np.concatenate(labels)


def _labelled_rows(run: Path, truth: Path, config: RankingConfig) -> tuple[pd.DataFrame, FloatArray]:
    labels = pd.read_csv(truth, dtype={"id": str, "system": str}).set_index("id")
    if "arc_snr" in labels:  # of simulations
        if lacking := {"kind", "arc_contrast", "theta_e_arcsec", "seeing_arcsec"} - set(labels):
            raise DatasetError(f"{truth}: lacks {', '.join(sorted(lacking))}. Write it anew with sim/export.py.")
        limits = configuration.to_mapping(config)
        del limits["lens_share"]
        labels = labels[~unclear_lenses(labels, **limits)]
    table = pd.read_parquet(run / "candidates.parquet")
    table = table[table["id"].isin(labels.index) & table["p_lens"].notna()].sort_values("id")
    prior = json.loads((run / "run.json").read_text())["configuration"]["prior"]
    table = table.assign(p_lens=restated(table["p_lens"].to_numpy(float), 1 - prior))
    known = labels.loc[table["id"]]
    system = known["system"].to_numpy(str) if "system" in known else known.index.to_numpy(str)
    return table.assign(system=system), known["label"].to_numpy(float)


def figures(ranker: model.Ranker, table: pd.DataFrame, label: FloatArray, lens_share: float) -> dict[str, float]:
    """AUROC and recall of the score and of p_lens alone, and the score's calibration error at a share of lenses."""
    score = ranker.score(table)
    out: dict[str, float] = {}
    for name, value in (("score", score), ("p_lens", table["p_lens"].to_numpy(float))):
        lens, other = value[label == 1], value[label == 0]
        out[f"auroc_{name}"] = metrics.auroc(lens, other)
        out[f"tpr_at_fpr_1e-2_{name}"] = metrics.tpr_at_fpr(lens, other, 0.01)
    weight = np.where(label == 1, lens_share / label.mean(), (1 - lens_share) / (1 - label.mean()))
    out["ece_score"] = metrics.calibration_error(score, label, weight)
    return out


def print_figures(shown: dict[str, float]) -> None:
    """One figure a line."""
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    sys.exit(main())
