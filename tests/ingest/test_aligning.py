"""Bands on other pixels than their neighbours: the same sky, by the WCS, on one grid."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from stages.ingest import IngestOptions, Survey
from stages.records import Cutout

RA, DEC = 150.0, 2.0
FWHM_ARCSEC = 1.2


def wcs(scale_arcsec: float, x: float, y: float, turned_deg: float = 0.0) -> WCS:
    """North up and east left but for a turn; RA, DEC at pixel (x, y)."""
    out = WCS(naxis=2)
    out.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    out.wcs.crval = [RA, DEC]
    out.wcs.crpix = [x + 1, y + 1]
    c, s = np.cos(np.radians(turned_deg)), np.sin(np.radians(turned_deg))
    out.wcs.cd = scale_arcsec / 3600 * np.array([[-c, s], [s, c]])
    return out


def star(at: WCS, side: int, flux: float = 1000.0, seed: int = 0) -> np.ndarray:
    """A star 2 arcsec north of RA, DEC among noise, each pixel the integral over its area."""
    scale = float(np.sqrt(abs(np.linalg.det(at.wcs.cd)))) * 3600
    x0, y0 = at.world_to_pixel_values(RA, DEC + 2 / 3600)
    fine = 5
    axis = (np.arange(side * fine) + 0.5) / fine - 0.5
    sigma = FWHM_ARCSEC / 2.3548 / scale
    line = [np.exp(-0.5 * ((axis - c) / sigma) ** 2).reshape(side, fine).mean(1) for c in (x0, y0)]
    image = np.outer(line[1], line[0])
    noise = np.random.default_rng(seed).normal(0, 0.05 * scale / 0.4, image.shape)
    return (flux * image / image.sum() + noise).astype(np.float32)


def write(folder: Path, band: str, data: np.ndarray, at: WCS | None) -> None:
    header = at.to_header() if at is not None else fits.Header()
    header["SEEING"] = FWHM_ARCSEC
    fits.writeto(folder / f"star_{band}_sci.fits", data, header)


def read(folder: Path) -> Cutout:
    ((cutout,),) = [b.cutouts for b in Survey(folder, IngestOptions(workers=0, cutout_arcsec=20.0)).batches()]
    return cutout


def centroid(plane: np.ndarray) -> np.ndarray:
    y, x = np.indices(plane.shape)
    bright = np.where(plane > 0.1 * np.nanmax(plane), plane, 0)
    return np.array([(x * bright).sum(), (y * bright).sum()]) / bright.sum()


@pytest.mark.parametrize("turned_deg", [0.0, 20.0])
def test_frames_that_are_shifted_or_turned_lie_on_each_other(tmp_path: Path, turned_deg: float) -> None:
    grids = {"g": wcs(0.4, 30, 28), "r": wcs(0.4, 25.3, 33.7, turned_deg), "i": wcs(0.4, 33, 27)}
    for k, (band, at) in enumerate(grids.items()):
        write(tmp_path, band, star(at, 61, seed=k), at)
    cutout = read(tmp_path)
    assert cutout.reasons[0] == "bands_aligned"
    assert cutout.bands == ("g", "r", "i")
    here = np.array([centroid(p) for p in cutout.flux])
    there = np.array(grids["g"].world_to_pixel_values(RA, DEC + 2 / 3600)) - cutout.origin_xy_pix
    assert np.abs(here - there).max() < 0.1
    total = np.nansum(np.where(cutout.flux > 1, cutout.flux, 0), axis=(1, 2))
    assert total == pytest.approx(1000, rel=0.02)


def test_a_coarser_band_keeps_its_flux_and_its_error_on_the_finer_grid(tmp_path: Path) -> None:
    fine, coarse = wcs(0.2, 40, 40), wcs(0.6, 14, 13)
    write(tmp_path, "i", star(fine, 81), fine)
    write(tmp_path, "H", star(coarse, 27), coarse)
    fits.writeto(tmp_path / "star_H_var.fits", np.full((27, 27), 0.075**2, np.float32))
    cutout = read(tmp_path)
    assert cutout.pixel_scale_arcsec == pytest.approx(0.2)
    assert set(cutout.bands) == {"i", "H"}
    h = cutout.bands.index("H")
    x, y = centroid(cutout.flux[1 - h])
    rows, columns = np.indices(cutout.flux.shape[1:])
    aperture = np.hypot(columns - x, rows - y) < 12
    flux = cutout.flux[:, aperture].sum(axis=1)
    assert flux[h] == pytest.approx(flux[1 - h], rel=0.03)
    error = np.sqrt(cutout.variance[h][aperture].sum())
    assert error == pytest.approx(0.075 * np.sqrt(aperture.sum() / 9), rel=0.02)  # of as many coarse pixels


def test_bands_on_one_grid_are_left_bit_by_bit(tmp_path: Path) -> None:
    at = wcs(0.4, 30, 28)
    planes = [star(at, 61, seed=k) for k in range(2)]
    for band, plane in zip("gr", planes, strict=True):
        write(tmp_path, band, plane, at)
    cutout = read(tmp_path)
    assert cutout.reasons == ()
    x, y = cutout.origin_xy_pix.astype(int)
    height, width = cutout.flux.shape[1:]
    np.testing.assert_array_equal(cutout.flux, np.array(planes)[:, y : y + height, x : x + width])


def test_a_band_of_another_place_is_missing(tmp_path: Path) -> None:
    near, far = wcs(0.4, 30, 30), wcs(0.4, 400, 30)
    for band, at in (("g", near), ("r", near), ("i", far)):
        write(tmp_path, band, star(near, 61), at)
    cutout = read(tmp_path)
    assert cutout.bands == ("g", "r")
    assert "missing_band" in cutout.reasons


def test_a_wcs_that_leads_nowhere_leaves_the_pixels_as_they_lie(tmp_path: Path) -> None:
    at = wcs(0.4, 30, 30)
    for band in "gr":
        write(tmp_path, band, star(at, 61), at)
    with fits.open(tmp_path / "star_r_sci.fits", mode="update") as units:
        header = units[0].header
        header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2})
        header.update({"A_2_0": 0.5, "B_0_2": -0.5, "A_0_2": 2.0})  # no inverse converges
    cutout = read(tmp_path)
    assert cutout.bands == ("g", "r")
    assert "wcs_ignored" in cutout.reasons
    assert "bands_aligned" not in cutout.reasons
    assert np.abs(centroid(cutout.flux[0]) - centroid(cutout.flux[1])).max() < 0.01


def test_masked_pixels_stay_masked_where_they_come_to_lie(tmp_path: Path) -> None:
    onto, other = wcs(0.4, 30, 30), wcs(0.4, 26, 30)
    data = star(other, 61)
    data[20:24, 30:34] = np.nan
    write(tmp_path, "g", star(onto, 61), onto)
    write(tmp_path, "r", data, other)
    cutout = read(tmp_path)
    x, y = cutout.origin_xy_pix.astype(int)
    assert not cutout.valid[1, 20 - y : 24 - y, 34 - x : 38 - x].any()
    assert cutout.valid[1, 30 - y, 30 - x]
    assert cutout.valid[0, 20 - y : 24 - y, 34 - x : 38 - x].all()


def test_a_weight_map_with_negative_pixels_is_none_and_masks_nothing(tmp_path: Path) -> None:
    at = wcs(0.4, 30, 30)
    write(tmp_path, "g", star(at, 61), at)
    noise = np.random.default_rng(1).normal(0, 0.05, (61, 61)).astype(np.float32)
    fits.writeto(tmp_path / "star_g_wht.fits", noise)
    cutout = read(tmp_path)
    assert cutout.valid.all()
    assert cutout.reasons == ("noise_map_ignored",)
