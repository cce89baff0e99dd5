"""Claims about the variance of drizzled noise from pixel to pixel."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kurtosis

from sim.instrument.noise import noise
from stages.survey import SurveyFacts

FACTS = SurveyFacts("made", "space", ("i",), 0.05, {"i": 0.1}, {"i": 26.0}, sky_sigma={"i": 1.0})


def unit(seed=1, size=400, **change):
    return noise(np.random.default_rng(seed), replace(FACTS, **change), size, 1.0)[0][0]


def test_variance_stays_one_on_average():
    many = [unit(k, 100, noise_variation=0.4, noise_pattern=0.5).var() for k in range(30)]
    assert np.mean(many) == pytest.approx(1.0, abs=0.02)


def test_kurtosis_is_three_times_the_variance_of_the_variance():
    many = [kurtosis(unit(k, noise_variation=0.3).ravel()) for k in range(20)]
    expected = 3 * 0.3**2 * np.mean(np.linspace(0.5, 1.5, 101) ** 2)
    assert np.mean(many) == pytest.approx(expected, rel=0.25)
    assert abs(kurtosis(unit().ravel())) < 0.03


def test_the_correlation_of_a_stack_scatters_about_the_mean_as_few_exposures_do():
    table = {"i": ((1.0, 0.12, -0.06), (0.12, 0.02, 0.0), (-0.06, 0.0, 0.0))}

    def lag1(seed, exposures):
        image = unit(seed, 120, noise_correlation=table, resampled_exposures=exposures)
        return (image[:, 1:] * image[:, :-1]).mean() / image.var()

    few, many, none = (np.array([lag1(k, n) for k in range(40)]) for n in (2, 50, 0))
    assert few.mean() == pytest.approx(none.mean(), abs=0.04)
    assert few.std() > 2.5 * many.std()
    assert np.mean([unit(k, 120, noise_correlation=table, resampled_exposures=3).var() for k in range(20)]) == (
        pytest.approx(1.0, abs=0.03)
    )


def test_the_beat_returns_after_a_period_and_after_half_of_it_along_the_diagonal():
    square = unit(3, 600, noise_pattern=0.9, noise_pattern_pix=12.0) ** 2
    square = square - square.mean()

    def lag(dx, dy):
        return (square[: 600 - dy, : 600 - dx] * square[dy:, dx:]).mean() / square.var()

    assert lag(12, 0) > 0.03
    assert lag(6, 6) > 0.03
    assert lag(6, 0) < -0.03
