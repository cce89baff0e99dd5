"""Sub-pixel positions against Gaussians drawn by their formula."""

import numpy as np
import pytest

from stages.counter.centroid import refine
from stages.counter.predict import distinct
from stages.counter.train import matched
from stages.records import Cutout


def scene(
    points: list[tuple[float, float, float]], sky: float = 0.02, slope: float = 0.0, fwhm_pix: float = 3.0
) -> Cutout:
    y, x = np.mgrid[0:40, 0:40]
    sigma = fwhm_pix / 2.3548
    flux = sum(
        f / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / sigma**2) for a, b, f in points
    )
    flux = flux + slope * x + np.random.default_rng(0).normal(0, sky, (40, 40))
    planes = flux[None].astype(np.float32)
    return Cutout(
        "p", "p", planes, np.full_like(planes, sky**2), np.ones(planes.shape, bool), ("i",), 0.1,
        np.array([0.1 * fwhm_pix]), np.zeros((0, 0, 0), np.float32), np.array([19.5, 19.5]), np.zeros(2),
    )  # fmt: skip


def test_position_and_flux_on_a_slope() -> None:
    cutout = scene([(20.3, 18.8, 50.0)], slope=0.1)
    xy, flux, limit = refine(cutout, np.array([[21.0, 18.3]]))
    np.testing.assert_allclose(xy[0], [20.3, 18.8], atol=0.02)
    assert flux[0] == pytest.approx(50, rel=0.03)
    assert 0 < limit < 5


def test_close_pair_is_separated() -> None:
    truth = np.array([[18.0, 20.0], [22.0, 20.4]])
    cutout = scene([(*truth[0], 50.0), (*truth[1], 25.0)])
    xy, flux, _ = refine(cutout, truth + np.array([[0.5, -0.4], [-0.5, 0.3]]))
    np.testing.assert_allclose(xy, truth, atol=0.06)
    assert flux[0] / flux[1] == pytest.approx(2, rel=0.06)


def test_nothing_there_keeps_the_detection_and_gives_no_flux() -> None:
    cutout = scene([(5.0, 5.0, 50.0)])
    hole = Cutout(**{**cutout.__dict__, "valid": np.zeros_like(cutout.valid)})
    xy, flux, _ = refine(hole, np.array([[20.0, 20.0]]))
    np.testing.assert_array_equal(xy, [[20.0, 20.0]])
    assert np.isnan(flux).all()


def test_empty() -> None:
    xy, flux, limit = refine(scene([]), np.empty((0, 2)))
    assert xy.shape == (0, 2)
    assert flux.shape == (0,)
    assert np.isnan(limit)


def test_distinct_keeps_the_surest() -> None:
    xy = np.array([[0.0, 0], [0.3, 0], [5, 5]])
    assert distinct(xy, np.array([0.6, 0.9, 0.7]), 1.0).tolist() == [1, 2]


def test_matched_counts_each_true_position_once() -> None:
    found, true = np.array([[0.0, 0], [0.1, 0], [9, 9]]), np.array([[0.0, 0.1]])
    assert matched(found, true, 1.0).tolist() == [True, False, False]
    assert matched(found, np.empty((0, 2)), 1.0).tolist() == [False] * 3
