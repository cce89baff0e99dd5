"""Stage 1 on the command line: python -m stages.classifier train|evaluate|predict --data DIR --out DIR."""

import sys

from stages.classifier.evaluate import evaluate
from stages.classifier.model import ClassifierConfig
from stages.classifier.predict import Predictor, load
from stages.classifier.train import train
from stages.command import run
from stages.dataset import Shard


def rows(predictor: Predictor, shard: Shard) -> list[dict[str, object]]:
    """Results on a shard as table rows."""
    result = predictor.predict(shard.cutouts)
    columns = (result.ids, result.p_lens, result.p_lens_err, result.out_of_domain)
    names = ("id", "p_lens", "p_lens_err", "out_of_domain")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


if __name__ == "__main__":
    sys.exit(run("classifier", ClassifierConfig, train, evaluate, load, rows))
