"""The audit finds planted shortcuts, and sees where a network looks."""

from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from stages.classifier.audit import FAMILIES, audit, occlusion, pair_figures, shortcut_figures, shortcuts
from stages.classifier.model import FRAME
from stages.classifier.networks import Classifier
from stages.classifier.predict import FirstLook, Predictor
from stages.config import WEIGHTS_DIR
from stages.scaling import N_CHANNELS, N_SLOTS, NetworkInput

COLUMNS = [column for family in FAMILIES.values() for column in family]


def table(n: int = 400, planted: str = "") -> pd.DataFrame:
    """Features that say nothing of the label, but for one column."""
    rng = np.random.default_rng(1)
    made = pd.DataFrame(rng.normal(size=(n, len(COLUMNS))), columns=COLUMNS)
    made["label"] = np.arange(n) % 2
    made["system"] = made["pair"] = [f"s{k // 2}" for k in range(n)]
    made["kind"] = np.where(made["label"] == 1, "lens_galaxy", "twin")
    made["logit"] = rng.normal(size=n) + 3 * made["label"]
    if planted:
        made[planted] += 2.0 * made["label"]
    return made


def test_without_a_shortcut_only_the_network_tells() -> None:
    figures = shortcut_figures(table())
    assert figures["auroc_network"] > 0.95
    assert all(abs(figures[f"auroc_{name}"] - 0.5) < 0.12 for name in (*FAMILIES, "all_shortcuts"))


def test_a_planted_shortcut_is_named() -> None:
    for family, columns in FAMILIES.items():
        figures = shortcut_figures(table(planted=columns[0]))
        assert figures[f"auroc_{family}"] > 0.85
        assert all(figures[f"auroc_{other}"] < 0.65 for other in FAMILIES if other != family)


def test_lenses_are_set_against_their_own_twins() -> None:
    rows = [
        ("a", 1, "lens_galaxy", 3.0), ("a", 0, "twin", 1.0), ("b", 1, "lens_quasar", 0.0), ("b", 0, "twin", 1.0),
        ("c", 0, "spiral", 9.0), ("d", 1, "lens_galaxy", 5.0),
    ]  # fmt: skip
    made = pd.DataFrame(rows, columns=["pair", "label", "kind", "logit"])
    figures = pair_figures(made)
    assert (figures["n_pairs"], figures["pair_median"], figures["pair_share_above"]) == (2, 0.5, 0.5)
    assert (figures["pair_share_above_low"], figures["pair_share_above_high"]) == (0.0, 1.0)
    assert pair_figures(made[made["label"] == 0]) == {"n_pairs": 0}


def test_shortcuts_follow_what_they_are_named_for() -> None:
    rng = np.random.default_rng(2)
    size = FRAME.size_pix
    pixels = np.ones((3, N_CHANNELS, size, size), np.float32)
    pixels[:, :N_SLOTS] = 0.1 * rng.normal(size=(3, N_SLOTS, size, size))
    middle = size // 2
    pixels[:, :N_SLOTS, middle, middle] = 2.0
    pixels[1, 0, middle - 2 : middle + 2, middle - 2 : middle + 2] += 1.0  # bright and blue
    pixels[2, :N_SLOTS, middle, middle + 9] = 3.0  # off the centre
    zeros = np.zeros((3, 2))
    out = shortcuts(NetworkInput(pixels, zeros.astype(np.float32), zeros, np.ones(3), zeros))
    assert out["core_0"][1] > 2 * out["core_0"][0]
    assert out["colour_01"][1] > out["colour_01"][0] + 0.5
    assert out["offset"][2] > 8 * FRAME.pixel_arcsec > out["offset"][0]
    assert np.abs(out["lag_0"]).max() < 0.1
    assert set(out) == set(COLUMNS)


class Corner(nn.Module):
    """Looks at a corner alone."""

    def forward(self, pixels: Tensor, conditions: Tensor) -> Tensor:
        return pixels[:, 0, :16, :16].sum((1, 2)) + 0 * conditions[:, 0]


def test_occlusion_shows_where_the_network_looks() -> None:
    net = cast(Classifier, Corner())
    predictor = Predictor(FirstLook(net, 1.0, 0.0), (net,), 1.0, 0.0, (0.1, 1.0), None, "cpu")
    pixels = torch.zeros(N_CHANNELS, FRAME.size_pix, FRAME.size_pix)
    pixels[0, 4:8, 4:8] = 1.0
    drop = occlusion(predictor, pixels, torch.zeros(1, 2))
    assert drop[:8, :8].mean() > 1.0
    assert np.abs(drop[24:, 24:]).max() == 0.0


def test_the_command_writes_figures_and_maps(data_dir: Path, tmp_path: Path) -> None:
    figures = audit(WEIGHTS_DIR / "classifier.safetensors", data_dir, tmp_path)
    assert figures["n_pairs"] >= 0
    if figures.get("n_maps"):
        assert (tmp_path / "occlusion.png").stat().st_size > 1000
