from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.changes import CHANGES, band_less, masked, rescaled, turned
from stages.classifier.model import FRAME
from stages.classifier.predict import Predictor, load
from stages.classifier.stability import shifts
from stages.config import WEIGHTS_DIR
from stages.dataset import read_shards
from stages.records import Cutout
from stages.scaling import network_inputs


@pytest.fixture(scope="module")
def cutouts(data_dir: Path) -> list[Cutout]:
    return [c for shard in read_shards(data_dir) for c in shard.cutouts[:6]]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load(WEIGHTS_DIR / "classifier.safetensors")


@pytest.mark.parametrize("seed", range(4))
def test_turning_keeps_the_object_where_it_is(cutouts: list[Cutout], seed: int) -> None:
    marked = replace(cutouts[0], flux=np.zeros_like(cutouts[0].flux), xy_pix=np.array([11.0, 17.0]))
    marked.flux[:, 17, 11] = 1
    moved = turned(marked, np.random.default_rng(seed))
    x, y = moved.xy_pix.round().astype(int)
    np.testing.assert_allclose(moved.xy_pix, [x, y], atol=1e-9)
    assert (moved.flux[:, y, x] == 1).all()


def test_rescaling_keeps_what_the_network_sees(cutouts: list[Cutout]) -> None:
    bright = max(cutouts, key=lambda c: float(np.nanmax(c.flux / np.sqrt(c.variance))))
    before, after = (
        network_inputs([c], FRAME).pixels[0, :3] for c in (bright, rescaled(bright, np.random.default_rng(0)))
    )
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.9


def test_a_tenth_is_masked_and_no_value_is_left_there(cutouts: list[Cutout]) -> None:
    hidden = masked(cutouts[0], np.random.default_rng(0))
    new = cutouts[0].valid & ~hidden.valid
    assert 0.04 < new.mean() < 0.2
    assert np.isnan(hidden.flux[new]).all()


def test_a_single_band_stays(cutouts: list[Cutout]) -> None:
    by_bands = {len(c.bands): c for c in cutouts}
    assert band_less(by_bands[1], np.random.default_rng(0)) is None
    several = by_bands[max(by_bands)]
    assert len(fewer := band_less(several, np.random.default_rng(0)).bands) == len(several.bands) - 1  # type: ignore[union-attr]
    assert set(fewer) < set(several.bands)


def test_shifts_are_named_and_finite(predictor: Predictor, cutouts: list[Cutout]) -> None:
    found = shifts(predictor, cutouts)
    assert {f"shift_{name}" for name in CHANGES} <= set(found)
    assert all(np.isfinite(v) and abs(v) <= 1 for v in found.values())
    assert abs(found["shift_turned"]) <= found["shift_abs_turned"]
