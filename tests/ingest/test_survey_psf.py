"""The PSF that a survey file tells, against Gaussians integrated over pixels and points drawn by formula."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from PIL import Image
from scipy.special import erf

from stages.ingest import IngestOptions, InputError, Survey
from stages.ingest.survey_psf import with_survey_psf
from stages.records import Cutout
from stages.scaling import Frame, network_inputs
from stages.survey import read

FWHM_ARCSEC = 0.8


def gaussian(scale_arcsec: float, side: int = 25, axis_ratio: float = 1.0, fwhm_arcsec: float = FWHM_ARCSEC):
    """A Gaussian whose light is integrated over each pixel."""
    sigma = fwhm_arcsec / 2.3548 / scale_arcsec
    edges = np.arange(side + 1) - side / 2
    x, y = (np.diff(erf(edges / (np.sqrt(2) * s))) / 2 for s in (sigma, sigma * axis_ratio))
    return np.outer(y, x)


def survey_file(folder: Path, kernels: dict[str, np.ndarray], **facts: object) -> Path:
    """A survey of bands g and r with pixels of 0.2 arcsec and kernels as files beside it, in a folder of their own."""
    (folder / "psfs").mkdir(parents=True, exist_ok=True)
    for band, kernel in kernels.items():
        fits.PrimaryHDU(kernel).writeto(folder / "psfs" / f"{band}.fits", overwrite=True)
    known = {
        "name": "mine", "kind": "ground", "bands": ["g", "r"], "pixel_scale_arcsec": 0.2,
        "psf_fwhm_arcsec": {"g": FWHM_ARCSEC, "r": FWHM_ARCSEC}, "zero_point": {"g": 30.0, "r": 30.0},
        "psf_files": {band: f"psfs/{band}.fits" for band in kernels},
    }  # fmt: skip
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(known | facts))
    return path


def write(path: Path, *others: fits.ImageHDU, **header: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).normal(0, 1, (2, 40, 40)).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(data, fits.Header({"BANDS": "gr", **header})), *others]).writeto(path)


def scanned(images: Path, survey: Path, survey_psf: bool = True) -> list[Cutout]:
    options = IngestOptions(survey=read(survey), workers=0, survey_psf=survey_psf)
    return [c for batch in Survey(images, options).batches() for c in batch.cutouts]


def test_a_kernel_beside_the_survey_file_is_that_of_every_cutout_without_one(tmp_path: Path) -> None:
    kernel = gaussian(0.2, axis_ratio=0.6)
    survey = survey_file(tmp_path, {"r": 7 * kernel})
    for name in ("a", "b"):
        write(tmp_path / "images" / f"{name}.fits")
    first, second = scanned(tmp_path / "images", survey)
    np.testing.assert_allclose(first.psf[1], kernel / kernel.sum(), atol=1e-6)
    assert not first.psf[0].any()  # no kernel for g
    assert first.psf is second.psf
    assert not first.psf.flags.writeable


def test_a_files_own_psf_stays(tmp_path: Path) -> None:
    survey, own = survey_file(tmp_path, {"g": gaussian(0.2), "r": gaussian(0.2)}), gaussian(0.2, fwhm_arcsec=1.4)
    write(tmp_path / "images" / "a.fits", fits.ImageHDU(own, name="PSF"))
    (cutout,) = scanned(tmp_path / "images", survey)
    np.testing.assert_allclose(cutout.psf, [own / own.sum()] * 2, atol=1e-6)


@pytest.mark.parametrize("scale", [0.05, 0.199, 0.26, 0.4])
def test_a_kernel_is_put_on_the_cutouts_pixels(tmp_path: Path, scale: float) -> None:
    survey = survey_file(tmp_path, {"g": gaussian(0.2), "r": gaussian(0.2)})
    write(tmp_path / "images" / "a.fits", PIXSCALE=scale)
    (cutout,) = scanned(tmp_path / "images", survey)
    # A kernel on finer pixels keeps the share of the survey's larger ones.
    fwhm = np.hypot(FWHM_ARCSEC, 2.3548 / np.sqrt(12) * np.sqrt(max(0.2**2 - scale**2, 0)))
    truth = gaussian(scale, cutout.psf.shape[1], fwhm_arcsec=fwhm)
    np.testing.assert_allclose(cutout.psf.sum(axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(cutout.psf[0], truth / truth.sum(), atol=0.015 * truth.max())


def test_a_kernel_is_as_wide_as_the_images_own_seeing_says(tmp_path: Path) -> None:
    survey = survey_file(tmp_path, {"g": gaussian(0.1), "r": gaussian(0.1)}, pixel_scale_arcsec=0.1)
    write(tmp_path / "images" / "a.fits", PIXSCALE=0.1, FWHM1=FWHM_ARCSEC, FWHM2=1.0)
    (cutout,) = scanned(tmp_path / "images", survey)
    width = [np.sqrt(1 / k.max()) for k in cutout.psf]  # of one shape, the peak falls with the area
    assert width[1] / width[0] == pytest.approx(1.0 / FWHM_ARCSEC, rel=0.02)


def test_several_kernels_in_a_file_are_averaged(tmp_path: Path) -> None:
    kernels = np.stack([gaussian(0.2), 3 * gaussian(0.2, fwhm_arcsec=1.0)])
    write(tmp_path / "images" / "a.fits")
    (cutout,) = scanned(tmp_path / "images", survey_file(tmp_path, {"r": kernels}))
    mean = (kernels / kernels.sum(axis=(1, 2), keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(cutout.psf[1], mean / mean.sum(), atol=1e-6)


def test_the_networks_see_the_same_and_the_simulator_is_given_none(tmp_path: Path) -> None:
    survey = survey_file(tmp_path, {"g": gaussian(0.2), "r": gaussian(0.2, fwhm_arcsec=1.2)})
    write(tmp_path / "images" / "a.fits", PIXSCALE=0.25)
    with_it, without = scanned(tmp_path / "images", survey), scanned(tmp_path / "images", survey, survey_psf=False)
    assert without[0].psf.shape == (0, 0, 0)
    assert np.isnan(without[0].psf_beta)
    a, b = (network_inputs(c, Frame(24, 0.2)) for c in (with_it, without))
    np.testing.assert_array_equal(a.pixels, b.pixels)
    np.testing.assert_array_equal(a.conditions, b.conditions)
    assert not IngestOptions().survey_psf


@pytest.mark.parametrize(
    ("facts", "beta"),
    [
        ({"psf_beta": 2.5}, 2.5),
        ({"psf_beta": 2.5, "kind": "space"}, np.nan),
        ({"psf_beta": 2.5, "kind": "space", "measured": {"psf_beta": {"g": {"value": 2.5}}}}, 2.5),
    ],
)
def test_a_moffats_index_is_the_grounds_or_a_measured_one(tmp_path: Path, facts: dict, beta: float) -> None:
    write(tmp_path / "images" / "a.fits")
    (cutout,) = scanned(tmp_path / "images", survey_file(tmp_path, {}, **facts))
    np.testing.assert_equal(cutout.psf_beta, beta)
    assert cutout.psf.shape == (0, 0, 0)


def test_a_picture_recognised_by_its_name_has_its_surveys_index(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 90, (40, 40, 3)).astype(np.uint8)
    for name in ("cfhtls_1.png", "unknown.png"):
        Image.fromarray(picture).save(tmp_path / name)
    got = [c for b in Survey(tmp_path, IngestOptions(workers=0, survey_psf=True)).batches() for c in b.cutouts]
    np.testing.assert_equal([c.psf_beta for c in got], [3.4, np.nan])


def test_a_kernel_on_far_other_pixels_is_left_out(tmp_path: Path) -> None:
    survey = survey_file(tmp_path, {"g": gaussian(0.2), "r": gaussian(0.2)})
    write(tmp_path / "images" / "a.fits", PIXSCALE=0.01)
    (cutout,) = scanned(tmp_path / "images", survey)
    assert cutout.psf.shape == (0, 0, 0)
    assert with_survey_psf(cutout, read(survey)).psf.shape == (0, 0, 0)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: p.unlink(), "no such PSF file"),
        (lambda p: p.write_text("not a FITS file"), "cannot be read"),
        (lambda p: fits.PrimaryHDU(np.zeros((9, 9))).writeto(p, overwrite=True), "not above 0"),
        (lambda p: fits.PrimaryHDU(np.ones(9)).writeto(p, overwrite=True), "shape"),
        (lambda p: fits.PrimaryHDU().writeto(p, overwrite=True), "shape"),
    ],
)
def test_a_psf_that_cannot_be_used_stops_the_scan_and_is_named(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    survey = survey_file(tmp_path, {"g": gaussian(0.2)})
    spoil(tmp_path / "psfs" / "g.fits")
    write(tmp_path / "images" / "a.fits")
    with pytest.raises(InputError, match=says) as error:
        scanned(tmp_path / "images", survey)
    assert str(tmp_path / "psfs" / "g.fits") in str(error.value)
    assert "psf_files" in str(error.value)
