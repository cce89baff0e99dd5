"""Probabilities stated for other shares of lenses."""

import numpy as np

from stages.prior import restated, restated_error


def test_a_forecast_stays_calibrated_where_lenses_are_rarer() -> None:
    """Bayes by counting: of 10^6 objects whose evidence is drawn from two known densities, one in 50 a lens."""
    rng = np.random.default_rng(4)
    lens = rng.random(1_000_000) < 0.02
    x = rng.normal(lens * 1.5, 1)
    even = 1 / (1 + np.exp(-(1.5 * x - 1.125)))  # the ratio of the two Gaussians
    p = restated(even, 0.02)
    for low, high in ((0.01, 0.03), (0.1, 0.2), (0.3, 0.5)):
        here = (p > low) & (p < high)
        assert abs(lens[here].mean() - p[here].mean()) < 4 * np.sqrt(p[here].mean() / here.sum())


def test_it_can_be_undone_and_errors_follow_the_slope() -> None:
    p = np.array([0.01, 0.4, 0.97])
    np.testing.assert_allclose(restated(restated(p, 1e-3), 1 - 1e-3), p)
    step = 1e-6
    slope = (restated(p + step, 1e-3) - restated(p - step, 1e-3)) / (2 * step)
    np.testing.assert_allclose(restated_error(p, np.full(3, 0.02), 1e-3), 0.02 * slope, rtol=1e-6)
