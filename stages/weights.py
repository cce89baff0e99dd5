"""Save and load trained weights: fp16 safetensors beside a card that a person can read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # reading processes know this module, and do without torch
    import torch


class WeightsError(ValueError):
    """Weights that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Card:
    """What a set of weights is: the stage, how and on what it was trained, where it holds, what it scored.

    domain : where the weights were trained, such as {"resolution_arcsec": [0.07, 1.5], "bands": [1, 3]}.
    data : fingerprint of the training data: surveys, seeds, counts, sha256 of the manifests.
    metrics : figures on held-out data, each under a name that says which data.
    """

    stage: str
    version: str
    config: dict[str, Any]
    domain: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    sha256: str = ""


def save(path: Path, state: dict[str, torch.Tensor], card: Card) -> Card:
    """Write `path` (.safetensors, floats as fp16) and its card (.json); returns the card with its sha256."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: _half(v).contiguous().cpu() for k, v in state.items()}, path)
    path.chmod(0o644)  # safetensors leaves it to its owner alone
    return save_card(path, card)


def _half(value: torch.Tensor) -> torch.Tensor:
    """Floats as fp16, or as float32 where one of them is too large for fp16."""
    if not value.is_floating_point():
        return value
    return value.half() if bool((value.abs() < 65504).all()) else value.float()


def save_card(path: Path, card: Card) -> Card:
    """Write the card of a weights file, whatever its format; returns it with the file's sha256."""
    signed = Card(**{**asdict(card), "sha256": sha256(path)})
    path.with_suffix(".json").write_text(json.dumps(asdict(signed), indent=2, sort_keys=True) + "\n")
    return signed


def load(path: Path) -> tuple[dict[str, torch.Tensor], Card]:
    """Read weights as float32 tensors with their card; raises WeightsError if absent, altered or without a card."""
    from safetensors.torch import load_file

    card = load_card(path)
    state = load_file(path)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, card


def holds(path: Path, name: str) -> bool:
    """Whether weights have a tensor of this name; reads names alone."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        names: list[str] = file.keys()
    return name in names


def go_on(net: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Give a fresh network the trained state of `path`; raises WeightsError where it does not fit."""
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: a network of another shape. Set width to that of its card.") from error


def learned(data: dict[str, Any], start: str) -> dict[str, Any]:
    """Data sets for a card: these, and what the weights `start` learned from, if there are any to go on from."""
    return (load_card(Path(start)).data if start else {}) | data


def load_card(path: Path) -> Card:
    """Read the card of a weights file and check that the file is the one it describes."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights. Train the stage, or restore weights/ from the repository.")
    card_path = path.with_suffix(".json")
    try:
        card = Card(**json.loads(card_path.read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise WeightsError(f"{card_path}: no readable card ({error}). Restore it beside {path.name}.") from error
    if sha256(path) != card.sha256:
        raise WeightsError(f"{path}: differs from the file its card describes. Restore both, or train the stage anew.")
    return card


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
