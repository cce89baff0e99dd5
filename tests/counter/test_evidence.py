"""Evidence, chance and search ellipses against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from stages.counter.chance import log_chance, log_common
from stages.counter.hypotheses import log_look
from stages.counter.images import all_images
from stages.counter.least_squares import ELLIPTICITY_SIGMA, SHEAR_SIGMA
from stages.counter.lens_fit import fit
from stages.counter.lens_model import LensModel
from stages.counter.prediction import places_in, search_ellipse


def test_evidence_of_a_double_is_the_mean_likelihood_of_lenses_drawn_from_the_priors():
    """Monte Carlo over lens, source and both assignments; weighted by magnification as the evidence is."""
    rng, xy, sigma = np.random.default_rng(0), np.array([(1.35, 0.3), (-0.6, -0.1)]), 0.2
    found, total = fit(xy, np.full(2, sigma), (0.0, 0.0), 0.1), []
    for _ in range(4000):
        theta_e = np.exp(rng.normal(0, 0.6))
        e, g, centre = rng.normal(0, ELLIPTICITY_SIGMA, 2), rng.normal(0, SHEAR_SIGMA, 2), rng.normal(0, 0.1, 2)
        radius, turn = theta_e * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        if not 0.5 < theta_e < 1.8:  # others put no image here
            total.append(0.0)
            continue
        source = centre + radius * np.array([np.cos(turn), np.sin(turn)])
        images = all_images(LensModel(theta_e, *e, *g, *centre, 0.01), source)
        seen = images.kind < 2
        near = np.exp(-0.5 * ((xy[:, None] - images.xy_arcsec[seen]) ** 2).sum(2) / sigma**2) / (2 * np.pi * sigma**2)
        pairs = near.sum(1).prod() - near.prod(0).sum() if seen.sum() == 2 else 0.0
        total.append(pairs * min(np.abs(images.magnification[seen]).sum(), 100) / 4)
    error = np.std(total) / np.mean(total) / np.sqrt(len(total))
    assert found.log_evidence == pytest.approx(np.log(np.mean(total)), abs=0.25 + 2 * error)


def test_density_of_chance_points_integrates_to_one():
    rng = np.random.default_rng(1)
    angle, size = rng.uniform(0, 2 * np.pi, 20_000), rng.uniform(np.log(0.02), np.log(40), 20_000)
    radius = np.exp(size)
    xy = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    area = 2 * np.pi * radius**2 * np.log(40 / 0.02)  # 1 / density of the points drawn
    density = [np.exp(log_chance(p[None], np.zeros(2), 1e-3)) for p in xy[:3000]]
    assert np.mean(density * area[:3000]) == pytest.approx(1, abs=0.06)


def test_common_value_is_integrated_over():
    values, scatter = np.array([1.0, 1.4, 0.7]), np.array([0.2, 0.5, 0.3])
    grid = np.linspace(-4, 6, 20_001)
    each = np.exp(-0.5 * ((values[:, None] - grid) / scatter[:, None]) ** 2) / scatter[:, None] / np.sqrt(2 * np.pi)
    expected = np.log(each.prod(0).sum() * (grid[1] - grid[0]))
    assert log_common(values, scatter) == pytest.approx(expected, abs=1e-6)
    assert log_common(np.array([1.0, np.nan]), np.ones(2)) == 0


def test_a_look_weighs_what_is_there_against_what_was_predicted():
    flux, error = np.array([10.0, 0.0, 0.0, np.nan]), np.array([1.0, 1.0, 20.0, 1.0])
    as_predicted, nothing, not_deep_enough, unmeasured = log_look(flux, error, 10)
    assert as_predicted > 2
    assert np.log(0.1) - 0.1 < nothing < -1.5  # dust may hide even a bright image
    assert not_deep_enough == pytest.approx(0, abs=0.2)
    assert unmeasured == 0


def test_search_ellipse_is_the_spread_of_the_image_in_other_lenses():
    """Against refits of the same triple with other noise."""
    model, rng = LensModel(1.0, 0.12, -0.06, 0.03, 0.04, core_arcsec=0.01), np.random.default_rng(3)
    images = all_images(model, (0.03, 0.02))
    seen, wanted = images.xy_arcsec[[0, 1, 2]], images.xy_arcsec[3]
    fits = [fit(seen + rng.normal(0, 0.02, (3, 2)), np.full(3, 0.02), rng.normal(0, 0.02, 2), 0.02) for _ in range(60)]
    inside = []
    for found in fits:
        k = int(np.hypot(*(found.images.xy_arcsec - wanted).T).argmin())
        major, minor, angle, _ = search_ellipse(found, k)
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        dx, dy = wanted - found.images.xy_arcsec[k]
        inside.append(((c * dx + s * dy) / major) ** 2 + ((c * dy - s * dx) / minor) ** 2 < 1)
    assert 0.45 < np.mean(inside) < 0.9


def test_places_fill_the_ellipse_and_the_likeliest_is_its_centre():
    places, weight = places_in(np.array([2.0, 1.0]), np.array([0.4, 0.1, 90.0, 0.7]), 0.1)
    np.testing.assert_allclose(places[weight.argmax()], (2, 1))
    assert np.abs(places - (2, 1)).max(0) == pytest.approx((0.175, 0.7), abs=1e-6)
    assert weight.sum() == pytest.approx(1)
