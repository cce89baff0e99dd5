"""Stage 1 on the command line: python -m stages.classifier train|evaluate|predict|join --data DIR --out DIR."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.classifier.evaluate import evaluate
from stages.classifier.join import join
from stages.classifier.model import ClassifierConfig
from stages.classifier.predict import Predictor, load
from stages.classifier.train import train
from stages.command import run
from stages.dataset import DatasetError, Shard
from stages.weights import WeightsError


def rows(predictor: Predictor, shard: Shard) -> list[dict[str, object]]:
    """Results on a shard as table rows."""
    result = predictor.predict(shard.cutouts)
    columns = (result.ids, result.p_lens, result.p_lens_err, result.out_of_domain)
    names = ("id", "p_lens", "p_lens_err", "out_of_domain")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def join_command(argv: Sequence[str]) -> int:
    """`join --weights A B ... --data DIR --out DIR`: one ensemble of several weights."""
    parser = argparse.ArgumentParser(prog="python -m stages.classifier join")
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, required=True, help="data set whose validation systems calibrate")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        print(join(options.weights, options.data, options.out))
    except (DatasetError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["join"]:
        sys.exit(join_command(sys.argv[2:]))
    sys.exit(run("classifier", ClassifierConfig, train, evaluate, load, rows))
