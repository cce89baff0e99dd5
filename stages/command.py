"""The command line that the trained stages share: train, evaluate and predict."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from stages import config as configuration
from stages.dataset import DatasetError, Shard, read_shards
from stages.weights import WeightsError


def run(
    stage: str,
    config_class: type,
    train: Callable[[Any, Path, Path, str], Path],
    evaluate: Callable[[Path, Path, str], dict[str, float]],
    load: Callable[[Path, str], Any],
    rows: Callable[[Any, Shard], list[dict[str, object]]],
    argv: Sequence[str] | None = None,
    suffix: str = ".safetensors",
) -> int:
    """Carry out `python -m stages.STAGE VERB ...`; `rows` makes a table of a loaded predictor's results on a shard."""
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}")
    parser.add_argument("verb", choices=("train", "evaluate", "predict"))
    parser.add_argument("--config", type=Path, default=configuration.CONFIG_DIR / f"{stage}.yaml")
    parser.add_argument("--data", type=Path, required=True, help="a labelled data set, or a folder of them")
    parser.add_argument("--out", type=Path, help="folder for weights, figures or predictions")
    parser.add_argument("--weights", type=Path, default=configuration.WEIGHTS_DIR / f"{stage}{suffix}")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    if options.verb != "evaluate" and options.out is None:
        parser.error(f"{options.verb} needs --out: name a folder for what it writes")
    try:
        if options.verb == "train":
            print(train(configuration.load(config_class, options.config), options.data, options.out, options.device))
        elif options.verb == "evaluate":
            figures = evaluate(options.weights, options.data, options.device)
            print("\n".join(f"{name}: {value:.4g}" for name, value in figures.items()))
            if options.out is not None:
                options.out.mkdir(parents=True, exist_ok=True)
                (options.out / f"{stage}-figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        else:
            options.out.mkdir(parents=True, exist_ok=True)
            shards = tqdm(read_shards(options.data), unit="shard", desc=stage)
            predictor = load(options.weights, options.device)
            table = pd.DataFrame([row for shard in shards for row in rows(predictor, shard)])
            table.map(_cell).to_csv(options.out / f"{stage}-predictions.csv", index=False)
    except (configuration.ConfigError, DatasetError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _cell(value: object) -> object:
    """A list as in `candidates.csv`: its values with a space between."""
    return " ".join(str(v) for v in value) if isinstance(value, tuple) else value
