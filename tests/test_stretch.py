"""The composite's stretch and its inverse."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages import config
from stages.stretch import from_composite, to_composite
from stages.survey import SurveyFacts

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
