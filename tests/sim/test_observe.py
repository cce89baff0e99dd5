"""Blurring and sampling against independent convolutions; PSFs against GalSim and closed forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import galsim
import numpy as np
import pytest
from astropy.io import fits
from scipy.signal import fftconvolve

from sim.instrument.psf import kernel_transfer, moffat
from sim.instrument.pupils import diffraction
from sim.observe import Optics, Sampling, blur, draw_seeing, sampling, transfer
from sim.scene import Grid
from stages import config as configuration
from stages.config import CONFIG_DIR
from stages.records import FloatArray
from stages.survey import SurveyFacts


def survey(name: str = "des") -> SurveyFacts:
    return configuration.load(SurveyFacts, CONFIG_DIR / "surveys" / f"{name}.yaml")


def plain(name: str = "des") -> SurveyFacts:
    """A survey with round PSFs, no wings and bands in register."""
    return replace(
        survey(name), psf_ellipticity=0.0, spikes=0, halo_fraction=0.0, band_offset_arcsec=0.0, psf_fwhm_scatter=0.0
    )


def half_maximum_width(image: FloatArray, step: float) -> float:
    """FWHM from the area above half of the peak."""
    return float(2 * np.sqrt((image > image.max() / 2).sum() / np.pi) * step)


@pytest.mark.parametrize("size", [96, 97, 125])
@pytest.mark.parametrize("bands", [1, 2, 9])
def test_blur_agrees_with_a_padded_convolution_and_conserves_flux(size: int, bands: int) -> None:
    rng = np.random.default_rng(size + bands)
    grid = Grid(size, 0.1)
    otf = np.stack([moffat(grid, 0.6, 3.0 + 0.2 * b, 0.05 + 0.02j) for b in range(bands)])
    light = np.zeros((bands, size, size), np.float32)
    light[:, 30:50, 40:60] = rng.exponential(size=(bands, 20, 20))
    seen = blur(light, grid, otf)
    for plane in range(bands):
        kernel = np.fft.fftshift(np.fft.irfft2(otf[plane], s=(size, size)))
        if size % 2 == 0:  # an odd kernel, so that "same" has one centre
            kernel = np.pad(kernel, ((0, 1), (0, 1)))
        direct = fftconvolve(light[plane], kernel, mode="same")
        inner = slice(20, 70)  # far from the edges, where the two treat wings alike
        assert np.abs(seen[plane] - direct)[inner, inner].max() < 1e-3 * direct.max()
        assert seen[plane].sum() == pytest.approx(light[plane].sum(), rel=1e-5)


@pytest.mark.parametrize("beta", [2.5, 3.0, 4.765])
def test_moffat_point_sources_agree_with_galsim(beta: float) -> None:
    frame = Sampling(41, 0.2, 3)
    otf = moffat(frame.grid, 0.7, beta)[None]
    x, y = 0.33, -0.71
    seen = frame.bin(blur(np.zeros((1, frame.grid.size, frame.grid.size)), frame.grid, otf, [(x, y, np.array([5.0]))]))
    profile = galsim.Moffat(beta=beta, fwhm=0.7, flux=5.0).shift(x, y)
    expected = profile.drawImage(nx=41, ny=41, scale=0.2).array
    assert np.abs(seen[0] - expected).max() < 3e-3 * expected.max()


def test_ellipticity_lies_along_its_angle() -> None:
    grid = Grid(128, 0.05)
    kernel = np.fft.fftshift(np.fft.irfft2(moffat(grid, 0.6, 3.0, 0.2 * np.exp(2j * np.radians(30))), s=(128, 128)))
    expected = galsim.Moffat(beta=3.0, fwhm=0.6).shear(g=0.2, beta=30 * galsim.degrees)
    stamp = galsim.ImageF(128, 128, scale=0.05)
    expected.drawImage(stamp, method="no_pixel", use_true_center=False)
    assert np.abs(kernel - stamp.array).max() < 3e-3 * stamp.array.max()


@pytest.mark.parametrize("name", ["cfhtls", "des", "sdss", "hst_acs", "euclid_vis", "jwst_nircam"])
def test_stars_have_the_seeing_that_the_survey_states(name: str) -> None:
    """On the survey's own pixels, sampled finely: the pixel's share is part of the stated FWHM."""
    facts = plain(name)
    frame = sampling(facts)
    optics = Optics.draw(np.random.default_rng(0), facts)
    n, k = frame.grid.size, 4  # without the offset's phase; interpolated by padding the spectrum
    otf = np.abs(optics.otf[0])
    x, y = np.fft.rfftfreq(n, frame.grid.step), np.fft.fftfreq(n, frame.grid.step)
    otf = otf * np.sinc(x * frame.pixel_arcsec)[None, :] * np.sinc(y * frame.pixel_arcsec)[:, None]
    padded = np.zeros((k * n, k * n // 2 + 1))
    padded[: n // 2, : n // 2], padded[-(n // 2) :, : n // 2] = otf[: n // 2, : n // 2], otf[-(n // 2) :, : n // 2]
    pixel, coarse_step = np.fft.irfft2(padded, s=(k * n, k * n)), frame.grid.step / k
    fwhm = facts.psf_fwhm_arcsec[facts.bands[0]]
    if facts.kind == "space":  # |OTF| of an aberrated pupil is close to, not quite, the OTF
        assert half_maximum_width(pixel, coarse_step) == pytest.approx(fwhm, rel=0.12)
    else:
        assert half_maximum_width(pixel, coarse_step) == pytest.approx(fwhm, rel=0.04)


@pytest.mark.parametrize("name", ["des", "hsc", "euclid_vis", "hst_acs"])
def test_every_survey_keeps_the_flux_of_extended_and_point_sources(name: str) -> None:
    facts = survey(name)
    optics = Optics.draw(np.random.default_rng(1), facts)
    grid = optics.sampling.grid
    light = np.zeros((len(facts.bands), grid.size, grid.size), np.float32)
    light[:, grid.size // 2 : grid.size // 2 + 5, grid.size // 2] = 2.0
    point = np.arange(1.0, len(facts.bands) + 1)
    seen = blur(light, grid, optics.otf, [(0.1, 0.2, point)])
    assert seen.sum(axis=(1, 2)) == pytest.approx(10 + point, rel=1e-4)


def test_points_and_light_land_where_to_pixel_says() -> None:
    facts = plain("des")
    optics = Optics.draw(np.random.default_rng(4), facts)
    grid = optics.sampling.grid
    x, y = 1.3, -2.1
    seen = optics.see(np.zeros((3, grid.size, grid.size)), [(x, y, np.ones(3))])[1]
    seen = np.where(seen > 0.02 * seen.max(), seen, 0)
    rows, columns = np.indices(seen.shape)
    centroid = np.array([(seen * columns).sum(), (seen * rows).sum()]) / seen.sum()
    assert centroid == pytest.approx(optics.to_pixel(np.array([x, y])), abs=0.05)
    assert np.abs(np.array(optics.offset_arcsec)).max() <= facts.pixel_scale_arcsec / 2


def test_band_offsets_move_bands_by_the_stated_rms() -> None:
    facts = replace(plain("des"), band_offset_arcsec=0.2)
    frame, fwhm = sampling(facts), np.array([1.0, 1.0, 1.0])
    rng = np.random.default_rng(3)
    k = frame.grid.size * frame.grid.step
    shifts = [
        -np.angle(transfer(facts, fwhm, frame.grid, rng)[:, 0, 1])
        / (2 * np.pi)
        * k  # phase at one cycle across the grid
        for _ in range(150)
    ]
    assert np.std(shifts) == pytest.approx(0.2, rel=0.15)
    assert abs(np.corrcoef(np.array(shifts).T)[0, 1]) < 0.25


def test_seeing_is_lognormal_about_the_median_and_shared_by_the_bands() -> None:
    facts = survey("des")
    rng = np.random.default_rng(5)
    logs = np.log(
        [draw_seeing(rng, facts) / np.array([facts.psf_fwhm_arcsec[b] for b in facts.bands]) for _ in range(3000)]
    )
    assert np.median(logs) == pytest.approx(0, abs=0.01)
    assert logs.std() == pytest.approx(facts.psf_fwhm_scatter, rel=0.06)
    assert np.corrcoef(logs.T)[0, 1] > 0.8


def test_the_same_seed_gives_the_same_optics() -> None:
    for name in ("des", "euclid_vis"):
        first, second = (Optics.draw(np.random.default_rng(6), survey(name)) for _ in range(2))
        assert np.array_equal(first.otf, second.otf)
        assert first.offset_arcsec == second.offset_arcsec


def test_bright_stars_show_spikes_along_the_stated_lines() -> None:
    facts = replace(plain("cfhtls"), spikes=4, spike_angle_deg=0.0)
    frame = sampling(facts)
    optics = Optics.draw(np.random.default_rng(2), facts)
    seen = optics.see(np.zeros((3, frame.grid.size, frame.grid.size)), [(0.0, 0.0, np.ones(3))])[1]
    middle = frame.size_pix // 2
    off = round(4.0 / facts.pixel_scale_arcsec)
    on_spike = np.median([seen[middle, middle + off], seen[middle + off, middle]])
    between = np.median([seen[middle + int(0.71 * off), middle + int(0.71 * off)]])
    assert on_spike > 5 * between


def test_space_psfs_have_the_symmetry_of_their_pupils() -> None:
    """HST's four vanes repeat after 90 degrees, JWST's hexagons after 60, though not after 90."""
    grid = Grid(240, 0.02)
    hst = np.fft.fftshift(np.fft.irfft2(diffraction(survey("hst_acs"), "F814W", grid, 0.0), s=(240, 240)))
    inner = hst[61:180, 61:180]  # centred on sample 120
    assert np.abs(inner - np.rot90(inner)).max() < 5e-3 * inner.max()
    jwst = np.fft.fftshift(np.fft.irfft2(diffraction(survey("jwst_nircam"), "F444W", grid, 0.0), s=(240, 240)))
    ring = jwst[61:180, 61:180]
    assert np.abs(ring - ring[::-1, ::-1]).max() < 5e-3 * ring.max()
    assert np.abs(ring - np.rot90(ring)).max() > 5e-3 * ring.max()


def test_a_measured_kernel_comes_back_on_the_pixels(tmp_path: Path) -> None:
    """A kernel drawn by GalSim on pixels, pixel response and all, is what a point source then looks like."""
    kernel = galsim.Moffat(beta=3.5, fwhm=0.9).shear(g1=0.05).drawImage(nx=31, ny=31, scale=0.263).array
    fits.writeto(tmp_path / "psf.fits", kernel.astype(np.float32))
    facts = replace(plain("des"), psf_files={b: str(tmp_path / "psf.fits") for b in "gri"})
    frame = sampling(facts)
    otf = transfer(facts, np.array([facts.psf_fwhm_arcsec[b] for b in "gri"]), frame.grid, np.random.default_rng(0))
    odd = Sampling(45, 0.263, frame.oversample)  # a pixel at the centre
    seen = odd.bin(
        blur(
            np.zeros((1, odd.grid.size, odd.grid.size)),
            odd.grid,
            kernel_transfer(kernel, 0.263, odd.grid)[None],
            [(0.0, 0.0, np.ones(1))],
        )
    )[0]
    assert np.abs(seen[7:38, 7:38] - kernel / kernel.sum()).max() < 5e-3 * kernel.max()
    assert otf[0, 0, 0].real == pytest.approx(1, abs=1e-5)


def test_the_grid_is_fine_enough_for_the_sharpest_psf_and_fast_to_transform() -> None:
    for file in (CONFIG_DIR / "surveys").glob("*.yaml"):
        facts = configuration.load(SurveyFacts, file)
        frame = sampling(facts)
        assert min(facts.psf_fwhm_arcsec.values()) / frame.grid.step > 3.5, file.stem
        assert frame.margin_pix >= 8
        assert frame.grid.size == (frame.size_pix + 2 * frame.margin_pix) * frame.oversample


def test_the_kernels_told_with_a_cutout_are_its_points() -> None:
    """GalSim draws an elongated star of the same seeing in the middle of a pixel."""
    facts = plain("lsst")
    optics = Optics.draw(np.random.default_rng(3), facts)
    pixel = facts.pixel_scale_arcsec
    otf = np.stack([moffat(optics.sampling.grid, 0.7, 3.0, 0.1 + 0.05j) for _ in facts.bands])
    kernels = replace(optics, otf=otf, offset_arcsec=(0.0, 0.0)).kernels
    half, size = optics.sampling.psf_half_pix, abs(0.1 + 0.05j)
    assert kernels.shape == (len(facts.bands), 2 * half + 1, 2 * half + 1)
    shear = galsim.Shear(q=(1 - size) / (1 + size), beta=np.angle(0.1 + 0.05j) / 2 * galsim.radians)
    star = galsim.Moffat(beta=3.0, fwhm=0.7, flux=1.0).shear(shear)
    expected = star.drawImage(nx=2 * half + 1, ny=2 * half + 1, scale=pixel).array
    assert np.abs(kernels - expected).max() < 3e-3 * expected.max()
    assert np.abs(np.transpose(expected) - expected).max() > 0.05 * expected.max()  # so a wrong angle would show


def test_kernels_follow_a_sky_off_the_pixel_grid() -> None:
    """Each draw moves the sky by a part of a pixel; its kernels stay centred but for the bands' registration."""
    for seed in range(3):
        kernels = Optics.draw(np.random.default_rng(seed), plain("des")).kernels
        y, x = np.indices(kernels.shape[1:]) - kernels.shape[1] // 2
        total = kernels.sum(axis=(1, 2))
        assert np.abs((kernels * x).sum(axis=(1, 2)) / total).max() < 0.02
        assert np.abs((kernels * y).sum(axis=(1, 2)) / total).max() < 0.02
        assert (total > 0.97).all()
