"""Stage 3 on the command line: python -m stages.arcs train|evaluate|predict|mean --data DIR --out DIR."""

import sys

import numpy as np

from stages.arcs.evaluate import evaluate
from stages.arcs.mean import command as mean_command
from stages.arcs.model import ArcsConfig
from stages.arcs.predict import Predictor, load
from stages.arcs.train import train
from stages.command import run
from stages.dataset import Shard


def rows(predictor: Predictor, shard: Shard) -> list[dict[str, object]]:
    """Results on a shard, about the objects' own positions, as table rows."""
    unknown = [np.full(2, np.nan)] * len(shard.cutouts)
    return [
        {
            "id": a.id,
            "arc_score": a.score,
            "arc_coverage_deg": a.coverage_deg,
            "arc_coverage_err_deg": a.coverage_err_deg,
            "theta_e_arcsec": a.theta_e_arcsec,
            "theta_e_err_arcsec": a.theta_e_err_arcsec,
        }
        for a in predictor.predict(shard.cutouts, unknown)
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["mean"]:
        sys.exit(mean_command(sys.argv[2:]))
    sys.exit(run("arcs", ArcsConfig, train, evaluate, load, rows))
