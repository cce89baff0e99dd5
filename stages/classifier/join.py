"""Make one ensemble of networks that were trained apart, such as on different halves of a sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stages import config as configuration
from stages.cache import Cached, cached
from stages.classifier.domain import fitted
from stages.classifier.model import FRAME, ClassifierConfig
from stages.classifier.networks import logits_of
from stages.classifier.predict import load
from stages.classifier.train import CALIBRATION, scores, usable
from stages.training import platt
from stages.weights import Card, WeightsError, load_card, save
from stages.weights import load as load_state


def join(paths: Sequence[Path], data_dir: Path, out_dir: Path, chosen: Sequence[int] | None = None) -> Path:
    """Stack the members of several weights and calibrate their mean logit on a data set's validation systems.

    Each member's own calibration goes into its last layer, so that members count alike whatever their scale.
    `chosen` : which of all of them to take, counted from 0; one named twice counts twice. Returns
    `out_dir/classifier.safetensors`; raises WeightsError for networks of different widths and members that do not
    exist.
    """
    cards = [load_card(path) for path in paths]
    configs = [
        configuration.from_mapping(ClassifierConfig, c.config, str(p)) for c, p in zip(cards, paths, strict=True)
    ]
    if len({c.width for c in configs}) != 1:
        raise WeightsError(f"{', '.join(map(str, paths))}: of different widths. Train them with the same width.")
    found: list[dict[str, Tensor]] = []
    for path, config in zip(paths, configs, strict=True):
        loaded, _ = load_state(path)
        slope, offset = loaded["calibration"]
        for member in range(config.members):
            prefix = f"member{member}."
            own = {key.removeprefix(prefix): v for key, v in loaded.items() if key.startswith(prefix)}
            own["head.3.weight"] = own["head.3.weight"] * slope
            own["head.3.bias"] = own["head.3.bias"] * slope + offset
            found.append(own)
    domain = cards[0].domain | {
        "resolution_arcsec": [
            min(c.domain["resolution_arcsec"][0] for c in cards), max(c.domain["resolution_arcsec"][1] for c in cards)
        ]
    }  # fmt: skip
    kinds = [c.network_of(member) for c in configs for member in range(c.members)]
    chosen = range(len(found)) if chosen is None else chosen
    if not chosen or not set(chosen) <= set(range(len(found))):
        raise WeightsError(f"members {list(chosen)}: there are 0 to {len(found) - 1}.")
    state = {
        f"member{k}.{key}": value.clone() for k, member in enumerate(chosen) for key, value in found[member].items()
    }
    merged = configuration.to_mapping(configs[0]) | {
        "members": len(chosen), "networks": [kinds[member] for member in chosen], "start": "", "first": ""
    }  # fmt: skip
    card = Card("classifier", "1", merged, domain, {n: d for c in cards for n, d in c.data.items()}, {}, CALIBRATION)
    return calibrated(out_dir / "classifier.safetensors", state, card, cached(data_dir, FRAME, out_dir / "cache"))


def calibrated(path: Path, state: dict[str, Tensor], card: Card, data: Cached) -> Path:
    """Write weights whose mean logit is calibrated on the held-out systems that the card's configuration lets in.

    The card's figures gain those of validation; returns `path`.
    """
    save(path, state | {"calibration": torch.tensor([1.0, 0.0], dtype=torch.float64)}, card)
    config = configuration.from_mapping(ClassifierConfig, card.config, str(path))
    rows = np.sort(np.concatenate(usable(data, config, "validation")))
    members = load(path).members
    logit = np.mean([logits_of(net, data, rows) for net in members], axis=0)
    label = data.truth["label"].to_numpy()[rows]
    slope, offset = platt(logit, label)
    card = replace(card, metrics=card.metrics | {"validation": scores(slope * logit + offset, label)}, sha256="")
    state |= fitted(data).state()
    save(path, state | {"calibration": torch.tensor([slope, offset], dtype=torch.float64)}, card)
    return path
