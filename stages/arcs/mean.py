"""One arc network of several that went on from the same weights apart, such as on different halves of a sky."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stages import config as configuration
from stages.arcs.calibration import calibrate
from stages.arcs.model import FRAME, ArcsConfig, build
from stages.arcs.train import held_out, require_both
from stages.cache import cached
from stages.dataset import DatasetError
from stages.training import blend
from stages.weights import Card, WeightsError, go_on, load, save


def mean(paths: Sequence[Path], data_dir: Path, out_dir: Path) -> Path:
    """Average the parameters of networks, as they do not lie far apart (Wortsman et al. 2022), and calibrate anew.

    On the held-out systems of `data_dir`. Returns `out_dir/arcs.safetensors`; raises WeightsError for networks of other
    shapes than the first, and DatasetError where these hold no arcs or nothing else.
    """
    loaded = [load(path) for path in paths]
    cards = [card for _, card in loaded]
    config = configuration.from_mapping(ArcsConfig, cards[0].config, str(paths[0]))
    net = build(config)
    for k, (path, (state, _)) in enumerate(zip(paths, loaded, strict=True)):
        other = build(config)
        state.pop("calibration")
        go_on(other, state, path)
        blend(net, other.state_dict(), 1 / (k + 1))
    data = cached(data_dir, FRAME, out_dir / "cache", config.workers)
    rows = held_out(data, "validation")
    require_both(data, rows, config, f"{data_dir}: calibration")
    calibration, figures = calibrate(net.eval(), data, rows, config)
    low, high = ([card.domain["resolution_arcsec"][k] for card in cards] for k in (0, 1))
    card = Card(
        "arcs", "2", cards[0].config, {"resolution_arcsec": [min(low), max(high)], "bands": [1, 3]},
        {name: data for card in cards for name, data in card.data.items()}, {"validation": figures},
        f"The mean of {len(paths)} networks. Scores and errors are calibrated on held-out simulations.",
    )  # fmt: skip
    path = out_dir / "arcs.safetensors"
    save(path, dict(net.state_dict()) | {"calibration": calibration.tensor()}, card)
    return path


def command(argv: Sequence[str]) -> int:
    """`mean --weights A B ... --data DIR --out DIR`: the mean of networks' parameters, calibrated anew."""
    parser = argparse.ArgumentParser(prog="python -m stages.arcs mean")
    parser.add_argument(
        "--weights", type=Path, nargs="+", required=True, help="networks that began from the same weights"
    )
    parser.add_argument("--data", type=Path, required=True, help="data sets whose held-out systems calibrate")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        print(mean(options.weights, options.data, options.out))
    except (DatasetError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
