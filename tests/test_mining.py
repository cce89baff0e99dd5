"""Which non-lenses are mined."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stages.cache import Cached
from stages.mining import Negatives, contact_sheet

ROUNDS = (0.5, 0.1, 10)  # share of a batch, part of all, steps between


def number(rows: np.ndarray) -> np.ndarray:
    """A logit that is the row's number, as is the brightness of `pool`."""
    return rows.astype(float)


def pool(n: int, kind: str) -> Cached:
    """Cutouts whose brightness is their row's number, half of them lenses."""
    pixels = np.broadcast_to(np.arange(n, dtype=np.float16)[:, None, None, None], (n, 6, 4, 4))
    truth = pd.DataFrame({"id": [f"a{k}" for k in range(n)], "survey": "s", "kind": kind, "label": 0})
    return Cached(np.asarray(pixels), np.zeros((n, 2), np.float32), np.zeros((n, 4, 4), np.float16), truth)


def test_before_the_first_round_all_are_drawn_alike(tmp_path: Path) -> None:
    rows = np.arange(50, 100)
    drawn = Negatives(pool(100, "spiral"), rows, *ROUNDS, tmp_path / "n").draw(np.random.default_rng(1), 5000, 9)
    assert np.bincount(drawn, minlength=100)[50:].min() > 50
    assert drawn.min() == 50


def test_after_a_round_half_are_the_hardest(tmp_path: Path) -> None:
    rows = np.arange(0, 200, 2)
    others = Negatives(pool(200, "spiral"), rows, *ROUNDS, tmp_path / "n")
    figures = others.mine(number, 10)
    assert figures["mistaken"] == 0.99
    drawn = others.draw(np.random.default_rng(1), 4000, 10)
    assert set(drawn) <= set(rows)
    assert 0.5 < np.isin(drawn, rows[-10:]).mean() < 0.6
    assert pd.read_csv(tmp_path / "n-mined-10.csv")["id"].iloc[0] == "a198"


def test_real_objects_that_look_most_like_lenses_are_left_alone(tmp_path: Path) -> None:
    others = Negatives(pool(100, "sky"), np.arange(100), *ROUNDS, tmp_path / "n")
    others.mine(number, 10)
    mined = pd.read_csv(tmp_path / "n-mined-10.csv")["row"].tolist()
    assert mined == list(range(97, 87, -1))


def test_a_resumed_training_draws_the_same(tmp_path: Path) -> None:
    data, rows = pool(100, "ring_galaxy"), np.arange(100)
    first = Negatives(data, rows, *ROUNDS, tmp_path / "n")
    first.mine(number, 10)
    first.mine(number, 20)
    again = Negatives(data, rows, *ROUNDS, tmp_path / "n")
    for step in (5, 15, 25):
        assert np.array_equal(
            first.draw(np.random.default_rng(step), 64, step), again.draw(np.random.default_rng(step), 64, step)
        )


def test_without_non_lenses_nothing_breaks(tmp_path: Path) -> None:
    others = Negatives(pool(4, "spiral"), np.arange(1), *ROUNDS, tmp_path / "n")
    assert others.mine(number, 10) == {"mistaken": 0.0}
    assert others.draw(np.random.default_rng(1), 8, 12).tolist() == [0] * 8


def test_a_contact_sheet_shows_the_objects_in_order_with_the_first_slot_in_blue_and_y_upwards(tmp_path: Path) -> None:
    pixels = np.zeros((9, 6, 4, 4), np.float16)
    pixels[1, 0, 3, 0] = 100.0  # the second object: bright at the left of its top row, in the bluest slot
    pixels[8, 2] = 100.0  # the ninth begins the second row, in the reddest
    contact_sheet(pixels, tmp_path / "sheet.png")
    shown = np.asarray(Image.open(tmp_path / "sheet.png").resize((32, 8), Image.Resampling.BOX)).astype(int)
    assert shown[0, 4].argmax() == 2
    assert (shown[4:, :4].argmax(axis=-1) == 0).all()
    assert shown[:4, 8:].max() == 0
