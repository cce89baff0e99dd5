"""Weights and their cards."""

from pathlib import Path

import pytest
import torch

from pipeline import PipelineConfig
from stages import config as configuration
from stages.config import REPOSITORY, WEIGHTS_DIR
from stages.ranking import model as ranking
from stages.weights import Card, WeightsError, load, load_card, save


def test_round_trip_in_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = {"a": torch.tensor([1.0, 2.5]), "n": torch.tensor([3])}
    card = save(path, state, Card("toy", "1", {"width": 2}))
    back, read = load(path)
    assert read == card
    assert back["a"].dtype == torch.float32
    torch.testing.assert_close(back["a"], state["a"])
    assert back["n"].item() == 3
    assert len(card.sha256) == 64


def test_a_value_too_large_for_half_precision_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save(path, {"variance": torch.tensor([1.0, 1e6])}, Card("toy", "1", {}))
    assert load(path)[0]["variance"].tolist() == [1.0, 1e6]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: p.unlink(), "no such weights"),
        (lambda p: p.with_suffix(".json").unlink(), "no readable card"),
        (lambda p: p.with_suffix(".json").write_text("{"), "no readable card"),
        (lambda p: p.with_suffix(".json").write_text("[]"), "no readable card"),
        (lambda p: p.with_suffix(".json").write_text('{"stage": "toy", "colour": "red"}'), "no readable card"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x7f"), "differs from the file"),
        (lambda p: p.write_bytes(b""), "differs from the file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-4]), "differs from the file"),
    ],
)
def test_spoiled_weights_say_what_to_do(tmp_path: Path, spoil: object, says: str) -> None:
    path = tmp_path / "w.safetensors"
    save(path, {"a": torch.ones(3)}, Card("toy", "1", {}))
    spoil(path)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=says) as error:
        load(path)
    assert "estore" in str(error.value)  # the next step


@pytest.mark.parametrize("half", [0, 1])
def test_what_scans_a_half_of_the_sky_learned_from_the_other_alone(half: int) -> None:
    config = configuration.load(PipelineConfig, REPOSITORY / "benchmarks" / "cross_fit" / f"scan-half{half}.yaml")
    known = load_card(WEIGHTS_DIR / config.weights["arcs"]).data
    assert any(f"sky{1 - half}" in name for name in known)
    assert not any(f"sky{half}" in name for name in known)
    ranking.load(WEIGHTS_DIR / config.weights["ranking"])
