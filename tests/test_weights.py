"""Weights and their cards."""

from pathlib import Path

import pytest
import torch

from stages.weights import Card, WeightsError, load, save


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


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: p.unlink(), "no such weights"),
        (lambda p: p.with_suffix(".json").unlink(), "no readable card"),
        (lambda p: p.with_suffix(".json").write_text("{"), "no readable card"),
        (lambda p: p.write_bytes(p.read_bytes()[:-4]), "differs from the file"),
    ],
)
def test_spoiled_weights_say_what_to_do(tmp_path: Path, spoil: object, says: str) -> None:
    path = tmp_path / "w.safetensors"
    save(path, {"a": torch.ones(3)}, Card("toy", "1", {}))
    spoil(path)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=says):
        load(path)
