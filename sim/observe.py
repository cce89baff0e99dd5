"""PSF, sampling and noise: from light on a fine grid to the cutout that an instrument would deliver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from sim.scene import Grid
from stages.bands import wavelength_nm
from stages.records import BoolArray, FloatArray
from stages.survey import SurveyFacts

_MARGIN_PIX = 8  # simulated beyond the cutout's edge, so that light and PSF wings come in from outside
_APERTURE_M = {"hst": 2.4, "jwst": 6.5, "euclid": 1.2}
_BANDWIDTH = 0.2
_JITTER_ARCSEC = {"hst": 0.02, "jwst": 0.02, "euclid": 0.04}


@dataclass(frozen=True)
class Sampling:
    """The fine grid of a survey: `oversample` samples per pixel over the cutout and a margin."""

    size_pix: int
    pixel_arcsec: float
    oversample: int

    @property
    def grid(self) -> Grid:
        """The fine grid that scenes are painted on."""
        return Grid((self.size_pix + 2 * _MARGIN_PIX) * self.oversample, self.pixel_arcsec / self.oversample)

    def bin(self, light: FloatArray) -> FloatArray:
        """Sum fine samples into pixels and cut the margin off: (..., fine, fine) to (..., size, size)."""
        n, k = self.size_pix + 2 * _MARGIN_PIX, self.oversample
        pixels = light.reshape(*light.shape[:-2], n, k, n, k).sum(axis=(-3, -1))
        return np.asarray(pixels[..., _MARGIN_PIX:-_MARGIN_PIX, _MARGIN_PIX:-_MARGIN_PIX])

    def to_pixel(self, arcsec: FloatArray) -> FloatArray:
        """Offsets from the centre in arcsec to 0-based pixel coordinates of the cutout."""
        return np.asarray(arcsec) / self.pixel_arcsec + (self.size_pix - 1) / 2


def sampling(survey: SurveyFacts) -> Sampling:
    """The cutout and fine grid of a survey; the sampling follows its sharpest PSF."""
    sharpest = min(survey.psf_fwhm_arcsec.values())
    oversample = max(2, int(np.ceil(survey.pixel_scale_arcsec / (sharpest / 5.0))))
    return Sampling(
        round(survey.cutout_arcsec / survey.pixel_scale_arcsec), survey.pixel_scale_arcsec, min(oversample, 4)
    )


def draw_seeing(rng: np.random.Generator, survey: SurveyFacts) -> FloatArray:
    """FWHM (B,) in arcsec of one exposure set: one factor for all bands and a little of its own for each."""
    median = np.array([survey.psf_fwhm_arcsec[band] for band in survey.bands])
    common = np.exp(survey.psf_fwhm_scatter * rng.normal())
    return np.asarray(
        median * np.clip(common * np.exp(0.3 * survey.psf_fwhm_scatter * rng.normal(size=len(median))), 0.6, 1.8)
    )


def transfer(survey: SurveyFacts, fwhm: FloatArray, grid: Grid, rng: np.random.Generator) -> FloatArray:
    """Optical transfer functions (B, size, size // 2 + 1) of Moffat (ground) or diffraction (space) PSFs."""
    angle = rng.uniform(0, 2 * np.pi)
    out = []
    for band, width in zip(survey.bands, fwhm, strict=True):
        if survey.kind == "space":
            kernel = _pupil_kernel(_telescope(survey), wavelength_nm(band), grid.step, min(grid.size, 241))
            kernel = _embed(kernel, grid.size)
            extra = (
                np.sqrt(max((width / survey.psf_fwhm_arcsec[band]) ** 2 - 1, 0)) * survey.psf_fwhm_arcsec[band] / 2.355
            )
            if extra > 0.3 * grid.step:
                kernel = gaussian_filter(kernel, extra / grid.step)
        else:
            kernel = _moffat(grid, width, survey.psf_beta, 0.04 * rng.random(), angle)
        out.append(fft.rfft2(fft.ifftshift((kernel / kernel.sum()).astype(np.float32))))
    return np.stack(out)


def blur(
    light: FloatArray, grid: Grid, otf: FloatArray, points: Sequence[tuple[float, float, FloatArray]] = ()
) -> FloatArray:
    """Convolve light (B, size, size) with the PSF, adding point sources (x, y arcsec, flux (B,)) at their place."""
    spectrum = fft.rfft2(light.astype(np.float32))
    if points:
        ky = fft.fftfreq(grid.size)[:, None]
        kx = fft.rfftfreq(grid.size)[None, :]
        middle = (grid.size - 1) / 2
        for x, y, flux in points:
            phase = np.exp(-2j * np.pi * kx * (x / grid.step + middle)) * np.exp(
                -2j * np.pi * ky * (y / grid.step + middle)
            )
            spectrum += flux[:, None, None] * phase
    image: FloatArray = fft.irfft2(spectrum * otf, s=light.shape[-2:])
    return image


def noise(rng: np.random.Generator, survey: SurveyFacts, size: int, depth: float) -> tuple[FloatArray, FloatArray]:
    """Unit noise (B, size, size), correlated as the survey's pixels are, and the sky's rms (B,)."""
    white = rng.normal(size=(len(survey.bands), size, size))
    if survey.noise_correlation_pix > 0:
        width = survey.noise_correlation_pix
        white = gaussian_filter(white, (0, width, width), mode="wrap")
        white /= white.std(axis=(1, 2), keepdims=True)
    sky = np.array([survey.sky_sigma[band] for band in survey.bands])
    return white, sky * depth * np.exp(0.06 * rng.normal(size=len(sky)))


def expose(
    light: FloatArray, unit_noise: FloatArray, sky_sigma: FloatArray, gain: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Light (B, H, W) as observed, with its variance: sky and read noise, and photons at `gain` e- per flux unit."""
    variance = sky_sigma[:, None, None] ** 2 + np.clip(light, 0, None) / gain[:, None, None]
    return light + unit_noise * np.sqrt(variance), variance


def defects(rng: np.random.Generator, survey: SurveyFacts, size: int) -> BoolArray:
    """Valid mask (B, H, W) with a survey's usual losses: cosmic rays, columns, chip edges; most cutouts have none."""
    valid = np.ones((len(survey.bands), size, size), bool)
    chance = rng.random()
    if survey.kind == "space" and chance < 0.5:
        hits = gaussian_filter(rng.normal(size=(size, size)), 0.9)
        part = 10 ** rng.uniform(-3.3, -1.0)
        valid &= hits < np.quantile(hits, 1 - part)
    elif chance < 0.04:
        column, width = int(rng.integers(0, size)), int(rng.integers(1, 4))
        valid[:, :, column : column + width] = False
    if rng.random() < 0.04:
        cut = int(rng.integers(1, max(2, size // 3)))
        side = np.rot90(valid, int(rng.integers(0, 4)), axes=(1, 2))
        side[:, :cut] = False
    return valid


def _moffat(grid: Grid, fwhm: float, beta: float, ellipticity: float, angle: float) -> FloatArray:
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    axis = (np.arange(grid.size) - grid.size // 2) * grid.step
    x, y = np.meshgrid(axis, axis)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    r2 = along**2 * (1 - ellipticity) + across**2 / (1 - ellipticity)
    return np.asarray((1 + r2 / alpha**2) ** (-beta))


def _telescope(survey: SurveyFacts) -> str:
    return next((name for name in _APERTURE_M if name in survey.name.lower()), "hst")


@lru_cache(maxsize=32)
def _pupil_kernel(telescope: str, wavelength: float, step_arcsec: float, size: int) -> FloatArray:
    """Diffraction PSF of a pupil with struts, averaged over a band (Fraunhofer; matrix Fourier transform)."""
    diameter = _APERTURE_M[telescope]
    axis = np.linspace(-0.55 * diameter, 0.55 * diameter, 240)
    x, y = np.meshgrid(axis, axis)
    pupil = _hexagons(x, y) if telescope == "jwst" else _annulus(x, y, diameter, telescope)
    offsets = (np.arange(size) - size // 2) * step_arcsec / 206264.806
    kernel = np.zeros((size, size))
    for factor in np.linspace(1 - _BANDWIDTH / 2, 1 + _BANDWIDTH / 2, 7):
        e = np.exp(-2j * np.pi * np.outer(offsets, axis) / (wavelength * factor * 1e-9))
        kernel += np.abs(e @ pupil @ e.T) ** 2
    r = np.hypot(*np.meshgrid(offsets, offsets)) / np.abs(offsets).max()
    kernel *= np.clip(2.5 * (1 - r), 0, 1)  # fade out before the edge: no square outline round bright stars
    blurred: FloatArray = gaussian_filter(kernel / kernel.sum(), _JITTER_ARCSEC[telescope] / step_arcsec)
    return blurred


def _annulus(x: FloatArray, y: FloatArray, diameter: float, telescope: str) -> FloatArray:
    """A round mirror with central obstruction and vanes: four for HST at 45 degrees, three for Euclid."""
    r = np.hypot(x, y)
    pupil = ((r < diameter / 2) & (r > 0.165 * diameter)).astype(float)
    turns = np.radians((45, 135, 225, 315) if telescope == "hst" else (90, 210, 330))
    for turn in turns:
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        pupil[(np.abs(across) < 0.011 * diameter) & (along > 0)] = 0
    return pupil


def _hexagons(x: FloatArray, y: FloatArray) -> FloatArray:
    """JWST's 18 hexagons, 1.32 m flat to flat, with the gaps and the three struts of the secondary."""
    pupil = np.zeros(x.shape)
    pitch, flat = 1.327, 1.32
    for a in range(-2, 3):
        for b in range(-2, 3):
            if abs(a + b) > 2 or (a, b) == (0, 0):
                continue
            cx, cy = pitch * np.sqrt(3) / 2 * b, pitch * (a + b / 2)
            dx, dy = x - cx, y - cy
            inside = np.abs(dy) < flat / 2
            for turn in np.radians((60.0, 120.0)):
                inside &= np.abs(dy * np.cos(turn) + dx * np.sin(turn)) < flat / 2
            pupil[inside] = 1
    for turn in np.radians((90.0, 240.0, 300.0)):
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        pupil[(np.abs(across) < 0.06) & (along > 0)] = 0
    return pupil


def _embed(kernel: FloatArray, size: int) -> FloatArray:
    canvas = np.zeros((size, size))
    start = size // 2 - kernel.shape[0] // 2
    canvas[start : start + kernel.shape[0], start : start + kernel.shape[1]] = kernel
    return canvas
