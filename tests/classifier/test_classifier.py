"""Stage 1's promises on cutouts that lack something."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.classifier.predict import load
from stages.config import WEIGHTS_DIR
from stages.dataset import read_shards
from stages.records import Cutout
from stages.weights import WeightsError

PREDICTOR = load(WEIGHTS_DIR / "classifier.safetensors")


@pytest.fixture(scope="module")
def cutouts(data_dir: Path) -> list[Cutout]:
    return list(next(read_shards(data_dir)).cutouts[:24])


def test_probabilities_do_not_depend_on_the_batch(cutouts: list[Cutout]) -> None:
    together = PREDICTOR.predict(cutouts)
    alone = [PREDICTOR.predict([c]).p_lens[0] for c in cutouts]
    np.testing.assert_allclose(together.p_lens, alone, atol=1e-5)
    assert together.ids == tuple(c.id for c in cutouts)
    assert ((together.p_lens > 0) & (together.p_lens < 1)).all()


def test_empty() -> None:
    assert PREDICTOR.predict([]).p_lens.shape == (0,)


def test_pixels_under_the_mask_do_not_matter(cutouts: list[Cutout]) -> None:
    valid = cutouts[0].valid.copy()
    valid[:, :15] = False
    masked = replace(cutouts[0], valid=valid)
    wild = replace(masked, flux=np.where(valid, masked.flux, 1e6).astype(np.float32))
    np.testing.assert_array_equal(PREDICTOR.predict([masked]).p_lens, PREDICTOR.predict([wild]).p_lens)


def test_a_missing_band_widens_the_error(cutouts: list[Cutout]) -> None:
    lacking = []
    for cutout in cutouts:
        valid = cutout.valid.copy()
        valid[0] = False
        lacking.append(replace(cutout, valid=valid))
    full, less = PREDICTOR.predict(cutouts), PREDICTOR.predict(lacking)
    assert np.isfinite(less.p_lens).all()
    assert less.p_lens_err.mean() > full.p_lens_err.mean()


def test_the_prior_moves_probabilities_and_not_their_order(cutouts: list[Cutout]) -> None:
    rare = load(WEIGHTS_DIR / "classifier.safetensors", prior=1e-3).predict(cutouts)
    even = PREDICTOR.predict(cutouts)
    assert (rare.p_lens < even.p_lens).all()
    np.testing.assert_array_equal(np.argsort(rare.p_lens), np.argsort(even.p_lens))


def test_unlike_seeing_is_said(cutouts: list[Cutout]) -> None:
    blurred = replace(cutouts[0], psf_fwhm_arcsec=np.full(len(cutouts[0].bands), 4.0))
    assert PREDICTOR.predict([cutouts[0], blurred]).out_of_domain.tolist() == [False, True]


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    for suffix in ("safetensors", "json"):
        (tmp_path / f"classifier.{suffix}").write_bytes((WEIGHTS_DIR / f"classifier.{suffix}").read_bytes())
    with (tmp_path / "classifier.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsError, match="differs from the file its card describes"):
        load(tmp_path / "classifier.safetensors")
