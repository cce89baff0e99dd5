"""Plain files read by cfitsio are what astropy says they are; all else is left to astropy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from stages.ingest import fits_files, fits_planes
from stages.ingest.field import Field, ReadError
from stages.ingest.fits_plain import plain_units

NOISE = np.random.default_rng(0).normal(0, 1, (2, 30, 34)).astype(np.float32)
WCS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": -2.2, "CRPIX1": 15.5, "CRPIX2": 16.0,
       "CD1_1": -7.305555555555556e-05, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7.305555555555556e-05}  # fmt: skip


def primary(data: np.ndarray, **keys: object) -> fits.PrimaryHDU:
    return fits.PrimaryHDU(data, fits.Header(keys))


PLAIN: dict[str, Callable[[], fits.HDUList]] = {
    "bands and errors": lambda: fits.HDUList([
        primary(NOISE, BANDS="gr", PIXSCALE=0.2, FWHM1=0.9, BUNIT="nJy"), fits.ImageHDU(np.ones_like(NOISE), name="ERR")
    ]),
    "sky coordinates": lambda: fits.HDUList([primary(NOISE[0], FILTER="i", **WCS)]),
    "empty primary, named extensions": lambda: fits.HDUList([
        primary(None, TELESCOP="x", FILTER="F814W"), fits.ImageHDU(NOISE[0], fits.Header(WCS), name="SCI"),
        fits.ImageHDU(np.eye(30, 34, dtype=np.int16), name="MASK"),
    ]),
    "integers": lambda: fits.HDUList([primary((NOISE[0] * 100).astype(np.int16), PIXSCALE=0.2)]),
    "doubles with remarks": lambda: fits.HDUList([primary(NOISE.astype(float), COMMENT="said", HISTORY="made")]),
    "not a number": lambda: fits.HDUList([primary(np.where(NOISE > 1, np.nan, NOISE), BANDS="gr")]),
}  # fmt: skip


WITH_COORDINATES = ("sky coordinates", "empty primary, named extensions")


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_read_as_astropy_reads_them(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.fits"
    PLAIN[name]().writeto(path)
    assert plain_units(path) is not None
    (quick,) = fits_files.read(path, None)
    monkeypatch.setattr(fits_planes, "plain_units", lambda path: None)
    (careful,) = fits_files.read(path, None)
    assert isinstance(quick, Field)
    assert isinstance(careful, Field)
    for key in ("flux", "variance", "valid", "psf_fwhm_arcsec"):
        np.testing.assert_array_equal(getattr(quick, key), getattr(careful, key))
        assert getattr(quick, key).dtype == getattr(careful, key).dtype
    for key in ("bands", "survey", "unit", "reasons"):
        assert getattr(quick, key) == getattr(careful, key)
    assert quick.pixel_scale_arcsec == pytest.approx(careful.pixel_scale_arcsec, rel=1e-12)
    assert (quick.wcs is None) == (careful.wcs is None) == (name not in WITH_COORDINATES)
    if quick.wcs is not None and careful.wcs is not None:
        there = np.array([[0.0, 0.0], [30.0, 12.0]])
        np.testing.assert_allclose(quick.wcs.wcs_pix2world(there, 0), careful.wcs.wcs_pix2world(there, 0), atol=1e-11)


def truncated(path: Path) -> None:
    primary(NOISE).writeto(path)
    path.write_bytes(path.read_bytes()[:-2880])


def trailed(path: Path) -> None:
    primary(NOISE).writeto(path)
    path.write_bytes(path.read_bytes() + b"x" * 80)


def claimed(path: Path) -> None:
    primary(NOISE).writeto(path)
    path.write_bytes(path.read_bytes().replace(b"NAXIS1  =                   34", b"NAXIS1  =           1000000000"))


NOT_PLAIN: dict[str, Callable[[Path], object]] = {
    "scaled": lambda p: primary(np.full((30, 30), 40000, np.uint16)).writeto(p),
    "compressed": lambda p: fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(NOISE[0])]).writeto(p),
    "table": lambda p: fits.HDUList([primary(NOISE), fits.BinTableHDU(Table({"x": [1.0]}))]).writeto(p),
    "truncated": truncated,
    "trailed": trailed,
    "too large a claim": claimed,
    "no FITS": lambda p: p.write_bytes(b"nothing"),
    "empty": lambda p: p.write_bytes(b""),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_is_not_plain_is_left_alone(tmp_path: Path, name: str) -> None:
    NOT_PLAIN[name](path := tmp_path / "a.fits")
    assert plain_units(path) is None


def test_names_in_which_cfitsio_sees_more_than_a_file_are_left_alone(tmp_path: Path) -> None:
    primary(NOISE).writeto(path := tmp_path / "a[1].fits")
    assert plain_units(path) is None
    assert fits_planes.load(path).images[0].shape == NOISE.shape


def test_a_file_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ReadError) as error:
        fits_planes.load(tmp_path / "a.fits")
    assert error.value.reason == "unreadable"
