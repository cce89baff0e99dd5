"""Stage 2 on the command line: python -m stages.counter train|evaluate|predict|calibrate --data DIR --out DIR."""

import sys

from stages.command import run
from stages.counter.calibrate import command as calibrate_command
from stages.counter.detector import CounterConfig
from stages.counter.evaluate import evaluate
from stages.counter.predict import Predictor, load
from stages.counter.train import train
from stages.dataset import Shard
from stages.rows import counted


def rows(predictor: Predictor, shard: Shard) -> list[dict[str, object]]:
    """Results on a shard as rows of the candidates' columns."""
    said = predictor.predict(shard.cutouts)
    return [{"id": n.id} | counted(n, c.origin_xy_pix) for n, c in zip(said, shard.cutouts, strict=True)]


if __name__ == "__main__":
    sys.exit(run("counter", CounterConfig, train, evaluate, load, rows, more={"calibrate": calibrate_command}))
