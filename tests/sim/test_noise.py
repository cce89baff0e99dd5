"""Noise: correlation as asked, photons by the gain, and nothing that gives a cutout's edge away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.instrument.noise import expose, noise
from stages import config as configuration
from stages.config import CONFIG_DIR
from stages.records import FloatArray
from stages.survey import SurveyFacts


def survey(name: str = "des") -> SurveyFacts:
    return configuration.load(SurveyFacts, CONFIG_DIR / "surveys" / f"{name}.yaml")


def lag(noise_planes: FloatArray, dy: int, dx: int) -> float:
    height, width = noise_planes.shape[-2:]
    return float((noise_planes[..., : height - dy, : width - dx] * noise_planes[..., dy:, dx:]).mean())


@pytest.mark.parametrize("name", ["des", "cfhtls", "hsc", "hst_acs"])
def test_noise_has_the_measured_correlation_at_every_lag(name: str) -> None:
    facts = replace(survey(name), resampled_exposures=0, noise_variation=0.0)
    unit = noise(np.random.default_rng(0), facts, 700, 1.0)[0]
    table = facts.noise_correlation[facts.bands[0]]
    for dy, row in enumerate(table):
        for dx, value in enumerate(row):
            assert lag(unit, dy, dx) == pytest.approx(value, abs=0.012), (dy, dx)
    assert lag(unit, 0, 6) == pytest.approx(0, abs=0.01)


def test_gaussian_correlation_is_that_of_smoothed_white_noise() -> None:
    facts = replace(survey(), noise_correlation={}, noise_correlation_pix=0.8)
    unit = noise(np.random.default_rng(1), facts, 700, 1.0)[0]
    weights = np.exp(-0.5 * (np.arange(-8, 9) / 0.8) ** 2)
    expected = float((weights[1:] * weights[:-1]).sum() / (weights**2).sum())
    assert lag(unit, 0, 0) == pytest.approx(1, abs=0.01)
    assert lag(unit, 0, 1) == pytest.approx(expected, abs=0.012)
    assert lag(unit, 1, 1) == pytest.approx(expected**2, abs=0.012)


def test_an_impossible_correlation_still_gives_finite_unit_noise() -> None:
    facts = replace(survey(), noise_correlation=dict.fromkeys("gri", ((1.0, 0.9, -0.9), (0.9, -0.9, 0.9))))
    unit = noise(np.random.default_rng(2), facts, 300, 1.0)[0]
    assert np.isfinite(unit).all()
    assert unit.std() == pytest.approx(1, abs=0.05)


def test_white_noise_bands_and_opposite_edges_are_independent() -> None:
    facts = replace(survey(), noise_correlation={}, noise_correlation_pix=1.5)
    rng = np.random.default_rng(3)
    planes = np.stack([noise(rng, facts, 40, 1.0)[0] for _ in range(200)])
    assert abs((planes[:, 0] * planes[:, 1]).mean()) < 0.02
    assert abs((planes[..., 0, :] * planes[..., -1, :]).mean()) < 0.04


@pytest.mark.parametrize("size", [1, 2, 31, 64])
def test_noise_of_any_size_has_that_size(size: int) -> None:
    unit, sky = noise(np.random.default_rng(0), survey(), size, 2.0)
    assert unit.shape == (3, size, size)
    assert np.isfinite(unit).all()
    stated = np.array([survey().sky_sigma[b] for b in "gri"])
    assert sky / stated == pytest.approx(2.0, rel=0.3)


def test_photon_noise_follows_the_gain() -> None:
    """Against Poisson counts: sky noise left out, variance = flux / gain."""
    rng = np.random.default_rng(4)
    light, gain = np.full((2, 200, 200), 50.0), np.array([0.5, 8.0])
    flux, variance = expose(light, rng.normal(size=light.shape), np.zeros(2), gain)
    counted = rng.poisson(light * gain[:, None, None]) / gain[:, None, None]
    assert flux.var(axis=(1, 2)) == pytest.approx(counted.var(axis=(1, 2)), rel=0.03)
    assert variance[:, 0, 0] == pytest.approx([100.0, 6.25])


def test_negative_light_has_the_skys_variance_alone() -> None:
    variance = expose(np.full((1, 2, 3), -4.0), np.zeros((1, 2, 3)), np.array([3.0]), np.ones(1))[1]
    assert (variance == 9.0).all()
