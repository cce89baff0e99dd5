"""The command line that the trained stages share: train, evaluate and predict, and what a stage has besides."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from stages import config as configuration
from stages.dataset import DatasetError, Shard, read_shards
from stages.prior import restated, restated_error, share
from stages.weights import WeightsError


def run(
    stage: str,
    config_class: type,
    train: Callable[[Any, Path, Path, str], Path],
    evaluate: Callable[[Path, Path, str], dict[str, float]],
    load: Callable[[Path, str], Any],
    rows: Callable[[Any, Shard], list[dict[str, object]]],
    argv: Sequence[str] | None = None,
    more: Mapping[str, Callable[[Sequence[str]], int]] | None = None,
) -> int:
    """Carry out `python -m stages.STAGE VERB ...`; `rows` makes a table of a loaded predictor's results on a shard.

    more : further verbs, each with what carries it out on its own arguments.
    """
    argv, more = sys.argv[1:] if argv is None else argv, more or {}
    if argv and argv[0] in more:
        return more[argv[0]](argv[1:])
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{stage}", formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n  ".join(["further verbs, each with its own --help:", *(_first_line(v) for v in more.values())]),
    )  # fmt: skip
    parser.add_argument("verb", choices=("train", "evaluate", "predict"))
    parser.add_argument("--config", type=Path, default=configuration.CONFIG_DIR / f"{stage}.yaml")
    parser.add_argument("--data", type=Path, required=True, help="a labelled data set, or a folder of them")
    parser.add_argument("--out", type=Path, help="folder for weights, figures or predictions")
    parser.add_argument("--weights", type=Path, default=configuration.WEIGHTS_DIR / f"{stage}.safetensors")
    parser.add_argument("--prior", type=share, default=0.5, help="share of lenses for which predict states p_lens")
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
            if "p_lens" in table:
                p, error = (table[name].to_numpy(float) for name in ("p_lens", "p_lens_err"))
                table["p_lens"] = restated(p, options.prior)
                table["p_lens_err"] = restated_error(p, error, options.prior)
            table.map(_cell).to_csv(options.out / f"{stage}-predictions.csv", index=False)
    except (configuration.ConfigError, DatasetError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _first_line(verb: Callable[..., int]) -> str:
    return (verb.__doc__ or "").splitlines()[0]


def _cell(value: object) -> object:
    """A list as in `candidates.csv`: its values with a space between."""
    return " ".join(str(v) for v in value) if isinstance(value, tuple) else value
