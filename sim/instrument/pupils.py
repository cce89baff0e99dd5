"""Diffraction PSFs of space telescopes from their pupils (GalSim), as transfer functions on the fine grid."""

from __future__ import annotations

from functools import lru_cache

import galsim
import numpy as np
import numpy.typing as npt
from galsim import roman
from scipy import fft
from scipy.optimize import brentq
from scipy.special import j0

from sim.populations.spectra import curve
from sim.scene import Grid
from stages.bands import wavelength_nm
from stages.records import BoolArray, FloatArray
from stages.survey import SurveyFacts

ComplexArray = npt.NDArray[np.complexfloating]

# Diameter in m, linear obscuration, vanes and their width over the diameter: Krist, Hook & Stoehr (2011) for HST,
# Euclid Collaboration: Cropper et al. (2025) for Euclid. JWST's pupil is drawn below, Roman's is GalSim's own.
_PUPILS = {"hst": (2.4, 0.33, 4, 0.011), "euclid": (1.2, 0.35, 3, 0.012)}
_JWST_M = 6.6
_BANDWIDTH = 0.2
_WAVELENGTHS = 5
_ROLL_STEPS = 8  # orientations that a PSF is drawn and kept for
_ROLL_DEG = 37.0  # between them: all eight differ in pupils that repeat after 60, 90, 120 or 180 degrees
_ROMAN_DETECTOR = 8


def diffraction(survey: SurveyFacts, band: str, grid: Grid, roll_deg: float) -> ComplexArray:
    """Transfer function (size, size // 2 + 1) complex64 of a band's median PSF, turned by `roll_deg` on the sky.

    Charge diffusion and jitter, a Gaussian, make up what a pupil of this telescope lacks to the survey's FWHM.
    """
    name = survey.filters.get(band, "")
    wavelength = curve(name).pivot_nm if name else wavelength_nm(band)
    step = int(roll_deg / 360 * _ROLL_STEPS) % _ROLL_STEPS
    return _turned(
        telescope(survey), round(wavelength, 1), grid.size, grid.step, survey.psf_fwhm_arcsec[band],
        survey.pixel_scale_arcsec, step,
    )  # fmt: skip


def telescope(survey: SurveyFacts) -> str:
    """Whose pupil a space survey has, from its name; HST's if the name does not say."""
    return next((name for name in ("jwst", "euclid", "roman") if name in survey.name.lower()), "hst")


@lru_cache(maxsize=64)
def _turned(
    whose: str, wavelength: float, size: int, step_arcsec: float, fwhm: float, pixel: float, turn: int
) -> ComplexArray:
    """Transfer function of a pupil turned by `turn` steps, brought to a FWHM as measured on the pixels."""
    profile = _profile(whose, wavelength).rotate(_ROLL_DEG * turn * galsim.degrees)
    stamp = galsim.ImageF(size, size, scale=step_arcsec)
    profile.drawImage(stamp, method="no_pixel", use_true_center=False)
    kernel = stamp.array.astype(float)
    offset = np.abs(np.arange(size) - size // 2) / (size / 2)
    r = np.hypot(offset[:, None], offset[None, :])
    kernel *= np.clip(2.5 * (1 - r), 0, 1)  # fade out before the edge: no square outline round bright stars
    otf = fft.rfft2(fft.ifftshift(kernel / kernel.sum()))
    kx, ky = fft.rfftfreq(size, step_arcsec)[None, :], fft.fftfreq(size, step_arcsec)[:, None]
    k = np.hypot(kx, ky)
    otf = otf * np.exp(-2 * np.pi**2 * _jitter(otf * np.sinc(pixel * kx) * np.sinc(pixel * ky), k, fwhm) ** 2 * k**2)
    return np.asarray(otf, np.complex64)


def _jitter(otf: ComplexArray, k: FloatArray, fwhm: float) -> float:
    """Gaussian sigma in arcsec that widens a PSF to a FWHM; 0 where it is as wide already."""
    weight = np.full(k.shape, 2.0)
    weight[:, 0] = 1.0  # half of the spectrum of a real image
    rings = np.round(k / k.max() * 400).astype(int)
    power = np.bincount(rings.ravel(), (weight * otf.real).ravel())
    radius = np.bincount(rings.ravel(), (weight * k).ravel()) / np.maximum(
        np.bincount(rings.ravel(), weight.ravel()), 1.0
    )

    def excess(sigma: float) -> float:
        """Azimuthal mean at half the wanted width, over half the peak, minus 1."""
        part = power * np.exp(-2 * np.pi**2 * sigma**2 * radius**2)
        return float((part * j0(np.pi * radius * fwhm)).sum() / (0.5 * part.sum()) - 1)

    if excess(0.0) >= 0 or excess(fwhm) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, fwhm, xtol=1e-5))


@lru_cache(maxsize=64)
def _profile(whose: str, wavelength: float) -> galsim.GSObject:
    """Sum of monochromatic PSFs over a band."""
    colours = wavelength * np.linspace(1 - _BANDWIDTH / 2, 1 + _BANDWIDTH / 2, _WAVELENGTHS)
    return galsim.Sum([_monochromatic(whose, float(c)) for c in colours]) / _WAVELENGTHS


def _monochromatic(whose: str, wavelength: float) -> galsim.GSObject:
    if whose == "roman":
        return roman.getPSF(_ROMAN_DETECTOR, _roman_band(wavelength), wavelength=wavelength, pupil_bin=8)
    if whose == "jwst":
        pupil, step = _hexagons()
        image = galsim.Image(pupil.astype(float), scale=step)
        return galsim.OpticalPSF(lam=wavelength, diam=_JWST_M, pupil_plane_im=image)
    diameter, obscuration, vanes, width = _PUPILS[whose]
    return galsim.OpticalPSF(
        lam=wavelength, diam=diameter, obscuration=obscuration, nstruts=vanes, strut_thick=width,
        strut_angle=45 * galsim.degrees,
    )  # fmt: skip


def _roman_band(wavelength: float) -> str:
    """The imaging filter nearest to a wavelength in nm, for its pupil and aberrations."""
    centres = {"R062": 620, "Z087": 869, "Y106": 1060, "J129": 1293, "H158": 1577, "F184": 1842, "K213": 2125}
    return min(centres, key=lambda name: abs(centres[name] - wavelength))


@lru_cache(maxsize=1)
def _hexagons() -> tuple[BoolArray, float]:
    """JWST's 18 hexagons, 1.32 m flat to flat, with the gaps and the three struts of the secondary; step in m."""
    n, side = 512, 13.2  # twice the mirror: padding for the Fourier transform
    axis = (np.arange(n) - n / 2) * side / n
    x, y = np.meshgrid(axis, axis)
    pupil = np.zeros(x.shape, bool)
    pitch, flat = 1.327, 1.32
    for a in range(-2, 3):
        for b in range(-2, 3):
            if abs(a + b) > 2 or (a, b) == (0, 0):
                continue
            dx, dy = x - pitch * np.sqrt(3) / 2 * b, y - pitch * (a + b / 2)
            inside = np.abs(dy) < flat / 2
            for turn in np.radians((60.0, 120.0)):
                # normals at 30 and 150 degrees from x
                inside &= np.abs(dy * np.cos(turn) + dx * np.sin(turn)) < flat / 2
            pupil |= inside
    for turn in np.radians((90.0, 240.0, 300.0)):
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        pupil &= ~((np.abs(across) < 0.06) & (along > 0))
    return pupil, side / n
