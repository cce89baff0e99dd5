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
from stages.rows import arcs_measured


def rows(predictor: Predictor, shard: Shard) -> list[dict[str, object]]:
    """Results on a shard, about the objects' own positions, as rows of the candidates' columns."""
    unknown = [np.full(2, np.nan)] * len(shard.cutouts)
    said = predictor.predict(shard.cutouts, unknown)
    return [{"id": a.id} | arcs_measured(a, c.origin_xy_pix) for a, c in zip(said, shard.cutouts, strict=True)]


if __name__ == "__main__":
    sys.exit(run("arcs", ArcsConfig, train, evaluate, load, rows, more={"mean": mean_command}))
