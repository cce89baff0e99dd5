"""Joint fit in the pixels against Gaussians drawn by their formula."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from stages.counter.matching import matched
from stages.counter.photometry import Photometry, measure
from stages.counter.proposals import distinct
from stages.ingest.survey_psf import with_survey_psf
from stages.records import Cutout
from stages.survey import SurveyFacts


def scene(
    points: list[tuple[float, float, float]],
    sky: float = 0.02,
    slope: float = 0.0,
    fwhm_pix: float = 3.0,
    seed: int = 0,
) -> Cutout:
    y, x = np.mgrid[0:40, 0:40]
    sigma = fwhm_pix / 2.3548
    flux = sum(
        f / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / sigma**2) for a, b, f in points
    )
    flux = flux + slope * x + np.random.default_rng(seed).normal(0, sky, (40, 40))
    planes = flux[None].astype(np.float32)
    return Cutout(
        "p", "p", planes, np.full_like(planes, sky**2), np.ones(planes.shape, bool), ("i",), 0.1,
        np.array([0.1 * fwhm_pix]), np.zeros((0, 0, 0), np.float32), np.array([19.5, 19.5]), np.zeros(2),
    )  # fmt: skip


NO_DEFLECTOR = np.full(2, np.nan)


def gaussian_psf(cutout: Cutout, fwhm_pix: float = 3.0) -> Cutout:
    y, x = np.mgrid[-8:9, -8:9]
    kernel = np.exp(-0.5 * (x**2 + y**2) / (fwhm_pix / 2.3548) ** 2)
    return replace(cutout, psf=(kernel / kernel.sum())[None].astype(np.float32))


@pytest.mark.parametrize(("kernel", "flux_error"), [(True, 0.06), (False, 0.4)])  # else a Moffat, with wings
def test_position_and_flux_on_a_slope(kernel: bool, flux_error: float) -> None:
    cutout = scene([(20.3, 18.8, 50.0)], slope=0.1)
    got = measure(gaussian_psf(cutout) if kernel else cutout, np.array([[21.0, 18.3]]), NO_DEFLECTOR)
    np.testing.assert_allclose(got.xy_pix[0], [20.3, 18.8], atol=0.03)
    assert got.flux[0, 0] == pytest.approx(50, rel=flux_error)
    assert 0 < got.flux_limit < 5


def test_errors_are_those_of_repeated_measurements() -> None:
    places, errors = [], []
    for seed in range(40):
        got = measure(gaussian_psf(scene([(20.3, 18.8, 3.0)], seed=seed)), np.array([[20.3, 18.8]]), NO_DEFLECTOR)
        places.append(got.xy_pix[0] - (20.3, 18.8))
        errors.append(got.xy_err_pix[0])
    assert np.std(places) == pytest.approx(np.median(errors), rel=0.4)


def test_close_pair_is_separated() -> None:
    truth = np.array([[18.0, 20.0], [22.0, 20.4]])
    cutout = gaussian_psf(scene([(*truth[0], 50.0), (*truth[1], 25.0)]))
    got = measure(cutout, truth + np.array([[0.5, -0.4], [-0.5, 0.3]]), NO_DEFLECTOR)
    np.testing.assert_allclose(got.xy_pix, truth, atol=0.06)
    assert got.flux[0, 0] / got.flux[1, 0] == pytest.approx(2, rel=0.06)


def test_a_merged_pair_found_as_one_becomes_two_and_a_lone_point_stays_one() -> None:
    truth = np.array([[18.8, 20.0], [21.2, 20.6]])  # 0.8 FWHM
    pair = gaussian_psf(scene([(*truth[0], 50.0), (*truth[1], 35.0)]))
    got = measure(pair, np.array([[19.8, 20.2]]), NO_DEFLECTOR)
    assert got.detection.tolist() == [0, 0]
    np.testing.assert_allclose(got.xy_pix[np.argsort(got.xy_pix[:, 0])], truth, atol=0.1)
    assert len(measure(scene([(20.0, 20.0, 50.0)]), np.array([[20.2, 20.0]]), NO_DEFLECTOR).detection) == 1


def test_the_deflectors_light_is_not_taken_for_the_images() -> None:
    galaxy = scene([(20.0, 20.0, 400.0)], fwhm_pix=7.0, sky=0.0).flux
    cutout = gaussian_psf(scene([(25.0, 20.0, 20.0)]))
    got = measure(replace(cutout, flux=cutout.flux + galaxy), np.array([[25.3, 20.2]]), np.array([20.0, 20.0]))
    np.testing.assert_allclose(got.xy_pix[0], [25, 20], atol=0.15)
    assert got.flux[0, 0] == pytest.approx(20, rel=0.15)


def test_leftover_shows_a_point_that_was_not_fitted_and_nothing_else() -> None:
    cutout = gaussian_psf(scene([(14.0, 14.0, 50.0), (27.0, 25.0, 8.0)]))
    left = measure(cutout, np.array([[14.2, 14.0]]), NO_DEFLECTOR).leftover
    assert left is not None
    flux, error = left.look(np.array([[27.0, 25.0], [14.0, 27.0], [-50.0, 3.0]]))
    assert flux[0] == pytest.approx(8, rel=0.05)
    assert abs(flux[1]) < 4 * error[1]
    assert np.isnan(flux[2])


def test_a_point_under_the_deflector_is_told_from_its_own_light() -> None:
    images, deflector = np.array([[12.3, 19.0], [27.1, 20.4]]), np.array([19.4, 19.8])
    y, x = np.mgrid[0:40, 0:40]
    galaxy = 0.6 * np.exp(-0.5 * ((x - 19.4) ** 2 + (y - 19.8) ** 2) / 4.0**2)
    found = []
    for flux in (0.0, 40.0):
        cutout = scene([(12.3, 19.0, 20.0), (27.1, 20.4, 12.0), (19.4, 19.8, flux)])
        cutout = gaussian_psf(replace(cutout, flux=cutout.flux + galaxy.astype(np.float32)))
        found.append(measure(cutout, images, deflector).under_snr)
        assert np.isnan(measure(cutout, images, NO_DEFLECTOR).under_snr)
    assert found[0] < 4
    assert found[1] > 10


def test_peaks_of_what_is_left_are_points_that_were_not_fitted_and_near_enough() -> None:
    cutout = gaussian_psf(scene([(14.0, 14.0, 50.0), (27.0, 25.0, 8.0), (20.0, 31.0, 4.0), (2.0, 38.0, 60.0)]))
    known = np.array([[14.0, 14.0]])
    left = measure(cutout, known, NO_DEFLECTOR).leftover
    assert left is not None
    np.testing.assert_allclose(left.peaks(known, 22.0, 3.0), [[27, 25], [20, 31]], atol=1)
    np.testing.assert_allclose(left.peaks(known, 17.5, 3.0), [[27, 25]], atol=1)
    assert len(left.peaks(known, 10.0, 3.0)) == 0


def test_nothing_there_keeps_the_detection_and_gives_no_flux() -> None:
    cutout = scene([(5.0, 5.0, 50.0)])
    hole = replace(cutout, valid=np.zeros_like(cutout.valid))
    got = measure(hole, np.array([[20.0, 20.0]]), NO_DEFLECTOR)
    np.testing.assert_array_equal(got.xy_pix, [[20.0, 20.0]])
    assert np.isnan(got.flux).all()


def test_empty() -> None:
    got = measure(scene([]), np.empty((0, 2)), NO_DEFLECTOR)
    assert got.xy_pix.shape == (0, 2)
    assert got.flux.shape == (0, 1)
    assert np.isnan(got.flux_limit)


def test_distinct_keeps_the_surest() -> None:
    xy = np.array([[0.0, 0], [0.3, 0], [5, 5]])
    assert distinct(xy, np.array([0.6, 0.9, 0.7]), 1.0).tolist() == [1, 2]


def test_matched_counts_each_true_position_once() -> None:
    found, true = np.array([[0.0, 0], [0.1, 0], [9, 9]]), np.array([[0.0, 0.1]])
    assert matched(found, true, 1.0).tolist() == [True, False, False]
    assert matched(found, np.empty((0, 2)), 1.0).tolist() == [False] * 3


def moffat(side: int, x: float, y: float, fwhm_pix: float, beta: float, axis_ratio: float = 1.0) -> np.ndarray:
    """A Moffat (1969) profile of unit sum on an endless plane, drawn by its formula."""
    across, along = np.mgrid[0:side, 0:side].astype(float)
    alpha = fwhm_pix / 2 / np.sqrt(2 ** (1 / beta) - 1)
    r2 = (along - x) ** 2 + ((across - y) / axis_ratio) ** 2
    return np.asarray((beta - 1) / (np.pi * alpha**2 * axis_ratio) * (1 + r2 / alpha**2) ** -beta)


def misfit(points: Photometry) -> float:
    """Mean square of what is left within a FWHM of the point, in units of its noise without the PSF's."""
    assert points.leftover is not None
    y, x = np.mgrid[0:40, 0:40]
    near = np.hypot(x - 20, y - 19) < 3
    residual = points.leftover.residual[near]
    return float(np.mean((residual - np.median(residual)) ** 2) / 0.02**2)


def test_a_surveys_moffat_index_makes_the_flux_of_its_points_right() -> None:
    light = 50 * moffat(40, 20.3, 18.8, 3.0, 2.5)[None].astype(np.float32)
    flux, left, start = np.zeros((8, 2)), np.zeros((8, 2)), np.array([[20.8, 18.4]])
    for seed in range(8):
        cutout = scene([], seed=seed)
        for told, beta in enumerate((float("nan"), 2.5)):
            got = measure(replace(cutout, flux=cutout.flux + light, psf_beta=beta), start, NO_DEFLECTOR)
            flux[seed, told], left[seed, told] = got.flux[0, 0], misfit(got)
    assert flux[:, 1].mean() == pytest.approx(50, rel=0.03)
    assert flux[:, 0].mean() < 42
    assert left[:, 1].mean() < 0.8 * left[:, 0].mean()


def test_a_surveys_elongated_kernel_leaves_nothing_of_its_points(tmp_path: Path) -> None:
    kernel = moffat(33, 16, 16, 3.0, 3.0, axis_ratio=0.6)
    fits.PrimaryHDU(kernel).writeto(tmp_path / "psf.fits")
    facts = SurveyFacts(
        "mine", "ground", ("i",), 0.1, {"i": 0.3}, {"i": 30.0}, psf_files={"i": str(tmp_path / "psf.fits")}
    )
    cutout = scene([])
    cutout = replace(cutout, flux=cutout.flux + 50 * moffat(40, 20.3, 18.8, 3.0, 3.0, 0.6)[None].astype(np.float32))
    told, not_told = (
        measure(c, np.array([[20.8, 18.4]]), NO_DEFLECTOR) for c in (with_survey_psf(cutout, facts), cutout)
    )
    assert len(told.flux) == 1
    assert told.flux[0, 0] == pytest.approx(50 * kernel.sum(), rel=0.03)  # a kernel has no light beyond its edge
    assert misfit(told) < 0.1 * misfit(not_told)
