"""The composite's stretch and its inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import config
from stages.stretch import from_composite, to_composite
from stages.survey import Stretch, SurveyFacts

STRETCH = config.load(SurveyFacts, config.CONFIG_DIR / "surveys" / "cfhtls_composite.yaml").stretch
assert STRETCH is not None


@given(st.lists(st.integers(1, 254), min_size=3, max_size=3))
def test_every_unclipped_colour_comes_back(colour: list[int]) -> None:
    picture = np.array(colour, np.uint8).reshape(1, 1, 3)
    assert STRETCH is not None
    np.testing.assert_array_equal(to_composite(from_composite(picture, STRETCH), STRETCH), picture)


def test_flux_comes_back_within_the_rounding() -> None:
    assert STRETCH is not None
    flux = np.random.default_rng(0).uniform(1, 60, (3, 20, 30))
    back = from_composite(to_composite(flux, STRETCH), STRETCH)
    shown = to_composite(flux, STRETCH)
    unclipped = ((shown > 2) & (shown < 255)).all(axis=2)
    assert unclipped.sum() > 100
    np.testing.assert_allclose(back[:, unclipped], flux[:, unclipped], rtol=0.25, atol=1.0)


def test_clipping_is_black_and_white() -> None:
    assert STRETCH is not None
    assert to_composite(np.full((3, 2, 2), -5.0), STRETCH).max() == 0
    assert to_composite(np.full((3, 2, 2), 1e6), STRETCH).min() == 255
    assert to_composite(np.full((3, 2, 2), np.nan), STRETCH).max() == 0


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=12, max_size=12))
def test_flux_behind_a_picture_shows_as_that_picture(flux: list[float]) -> None:
    """Where no plane is clipped, going back and forth again changes no pixel."""
    assert STRETCH is not None
    shown = to_composite(np.array(flux).reshape(3, 2, 2), STRETCH)
    unclipped = ((shown > 0) & (shown < 255)).all(axis=2)
    again = to_composite(from_composite(shown, STRETCH), STRETCH)
    np.testing.assert_array_equal(again[unclipped], shown[unclipped])


def test_a_brighter_source_is_never_shown_fainter() -> None:
    assert STRETCH is not None
    flux = np.geomspace(0.1, 1e5, 200)
    shown = to_composite(np.stack([flux, flux, flux])[:, None], STRETCH)[0].astype(int)
    assert (np.diff(shown, axis=0) >= 0).all()


def test_a_linear_stretch_is_scales_alone() -> None:
    linear = Stretch(("i", "r", "g"), (0.01, 0.02, 0.04), 25.0, 1.0, 1.0, "linear")
    shown = to_composite(np.full((3, 1, 2), 10.0), linear)
    np.testing.assert_array_equal(shown, [[[26, 51, 102]] * 2])  # 25.5 rounds to even
    np.testing.assert_allclose(from_composite(shown, linear)[:, 0, 0], [26 / 2.55, 10, 10], rtol=1e-6)


def test_a_stretch_of_two_bands_is_refused() -> None:
    with pytest.raises(ValueError, match="three bands"):
        Stretch(("i", "r"), (1.0, 1.0), 25.0, 1.0, 1.0)
