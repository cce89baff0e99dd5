"""Stage 1 on the command line: python -m stages.classifier VERB --data DIR --out DIR.

VERB is train, evaluate, predict, join, distil, domain or audit; each says more with --help.

`python -m stages.classifier adapt --survey-dir DIR --out DIR` goes on from the shipped weights on one's own survey.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from stages import config as configuration
from stages.classifier.adapt import command as adapt_command
from stages.classifier.audit import audit
from stages.classifier.distil import distil, succeed
from stages.classifier.domain import know
from stages.classifier.evaluate import evaluate
from stages.classifier.join import join
from stages.classifier.model import ClassifierConfig
from stages.classifier.predict import Predictor, load
from stages.classifier.train import train
from stages.command import run
from stages.config import CONFIG_DIR, WEIGHTS_DIR
from stages.dataset import DatasetError, Shard
from stages.weights import WeightsError


def rows(predictor: Predictor, shard: Shard) -> list[dict[str, object]]:
    """Results on a shard as table rows."""
    result = predictor.predict(shard.cutouts)
    columns = (result.ids, result.p_lens, result.p_lens_err, result.out_of_domain)
    names = ("id", "p_lens", "p_lens_err", "out_of_domain")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def join_command(argv: Sequence[str]) -> int:
    """`join --weights A B ... --data DIR --out DIR [--members 0 1 2 ...]`: one ensemble of several weights."""
    parser = argparse.ArgumentParser(prog="python -m stages.classifier join", description=join_command.__doc__)
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, required=True, help="data set whose validation systems calibrate")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--members", type=int, nargs="+", help="which of all members, counted from 0; all by default")
    options = parser.parse_args(argv)
    try:
        print(join(options.weights, options.data, options.out, options.members))
    except (DatasetError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def audit_command(argv: Sequence[str]) -> int:
    """`audit --data DIR --out DIR [--weights FILE]`: does it look at arcs, or take a shortcut?"""
    parser = argparse.ArgumentParser(prog="python -m stages.classifier audit", description=audit_command.__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR / "classifier.safetensors")
    parser.add_argument("--data", type=Path, required=True, help="labelled data sets whose test systems are looked at")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    try:
        figures = audit(options.weights, options.data, options.out, options.device)
    except (DatasetError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(f"{name}: {value:.4g}" for name, value in figures.items()))
    (options.out / "audit.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def distil_command(argv: Sequence[str]) -> int:
    """`distil --weights FILE --data DIR --out DIR [--succeed]`: a fast first look for an ensemble, or its successor."""
    parser = argparse.ArgumentParser(prog="python -m stages.classifier distil", description=distil_command.__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR / "classifier.safetensors")
    parser.add_argument("--data", type=Path, required=True, help="data sets whose labels are not learned")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--succeed", action="store_true", help="make networks that take the ensemble's place")
    parser.add_argument("--config", type=Path, help="classifier_first.yaml, or classifier_successor.yaml, of configs/")
    options = parser.parse_args(argv)
    make, name = (succeed, "classifier_successor") if options.succeed else (distil, "classifier_first")
    try:
        config = configuration.load(ClassifierConfig, options.config or CONFIG_DIR / f"{name}.yaml")
        print(make(options.weights, config, options.data, options.out))
    except (DatasetError, WeightsError, configuration.ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def domain_command(argv: Sequence[str]) -> int:
    """`domain --weights FILE --data DIR --out DIR`: what is called out of domain, anew for weights as they are."""
    parser = argparse.ArgumentParser(prog="python -m stages.classifier domain", description=domain_command.__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR / "classifier.safetensors")
    parser.add_argument("--data", type=Path, required=True, help="data sets that stand for what it was trained on")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        print(know(options.weights, options.data, options.out))
    except (DatasetError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


MORE_VERBS = {
    "join": join_command, "distil": distil_command, "domain": domain_command, "audit": audit_command,
    "adapt": adapt_command,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(run("classifier", ClassifierConfig, train, evaluate, load, rows, more=MORE_VERBS))
