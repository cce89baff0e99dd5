"""Stage 1 on the command line: python -m stages.classifier train|evaluate|predict --data DIR --out DIR."""

import sys

from stages.classifier.evaluate import evaluate
from stages.classifier.model import ClassifierConfig
from stages.classifier.predict import load
from stages.classifier.train import train
from stages.command import run
from stages.dataset import Shard
from stages.records import ClassifierResult


def rows(result: ClassifierResult, shard: Shard) -> list[dict[str, object]]:
    """A result as table rows."""
    columns = (result.ids, result.p_lens, result.p_lens_err, result.out_of_domain)
    return [
        dict(zip(("id", "p_lens", "p_lens_err", "out_of_domain"), row, strict=True))
        for row in zip(*columns, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(
        run("classifier", ClassifierConfig, train, evaluate, lambda w, d, s: rows(load(w, d).predict(s.cutouts), s))
    )
