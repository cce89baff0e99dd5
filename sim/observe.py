"""Sampling and blurring: from light on a fine grid to the noiseless pixels that an instrument would deliver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft

from sim.instrument.artefacts import defects
from sim.instrument.noise import expose, noise
from sim.instrument.psf import PIXEL_FWHM, ComplexArray, draw_seeing, kernel_transfer, transfer
from sim.scene import Grid
from stages.records import FloatArray
from stages.survey import SurveyFacts

__all__ = [
    "Optics", "Points", "Sampling", "blur", "defects", "draw_seeing", "expose", "noise", "sampling", "transfer",
]  # fmt: skip

Points = Sequence[tuple[float, float, FloatArray]]
_MARGIN_PIX = 12  # least that is simulated beyond the cutout's edge: light and PSF wings come in from outside
_SAMPLES_PER_FWHM = {"ground": 7.5, "space": 7.0}  # fewer: 1.6e-3 of the peak off for Euclid
_MAX_OVERSAMPLE = 6
_PSF_FWHM = 3.5  # of the widest band's median seeing, to which PSFs are told


@dataclass(frozen=True)
class Sampling:
    """The fine grid of a survey: `oversample` samples per pixel over the cutout and a margin.

    psf_half_pix : pixels on each side of the PSFs that are told with a cutout.
    """

    size_pix: int
    pixel_arcsec: float
    oversample: int
    psf_half_pix: int = 12

    @property
    def margin_pix(self) -> int:
        """Pixels beyond each edge: at least eight, and such that the fine grid suits a fast Fourier transform."""
        least = self.size_pix + 2 * _MARGIN_PIX
        sizes = [least + 2 * extra for extra in range(9)]
        fast = [n for n in sizes if fft.next_fast_len(n * self.oversample, real=True) == n * self.oversample]
        return ((fast or sizes)[0] - self.size_pix) // 2

    @property
    def grid(self) -> Grid:
        """The fine grid that scenes are painted on."""
        return Grid((self.size_pix + 2 * self.margin_pix) * self.oversample, self.pixel_arcsec / self.oversample)

    def bin(self, light: FloatArray) -> FloatArray:
        """Sum fine samples into pixels and cut the margin off: (..., fine, fine) to (..., size, size)."""
        margin, k, size = self.margin_pix, self.oversample, self.size_pix
        inner = slice(margin * k, (margin + size) * k)
        pixels = light[..., inner, inner].reshape(*light.shape[:-2], size, k, size, k)
        return np.asarray(np.einsum("...ikjl->...ij", pixels))

    def to_pixel(self, arcsec: FloatArray) -> FloatArray:
        """Offsets from the centre in arcsec to 0-based pixel coordinates of the cutout."""
        return np.asarray(arcsec) / self.pixel_arcsec + (self.size_pix - 1) / 2


@dataclass(frozen=True, eq=False)
class Optics:
    """One field's sampling and PSFs, what every object in it is seen through.

    fwhm : (B,) arcsec as measured on the pixels. otf : (B, n, n // 2 + 1) on the fine grid, with each band's
    registration error and `offset_arcsec`, (x, y) by which the sky lies off the pixel grid.
    """

    sampling: Sampling
    fwhm: FloatArray
    otf: ComplexArray
    offset_arcsec: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def draw(cls, rng: np.random.Generator, survey: SurveyFacts) -> Optics:
        """Conditions of a field: seeing, PSF shapes, and where the object falls within its pixel."""
        frame = sampling(survey)
        fwhm = draw_seeing(rng, survey)
        x, y = frame.pixel_arcsec * rng.uniform(-0.5, 0.5, 2)
        offset = (float(x), float(y))
        return cls(frame, fwhm, transfer(survey, fwhm, frame.grid, rng, offset), offset)

    @classmethod
    def measured(cls, frame: Sampling, kernels: Sequence[FloatArray], fwhm: FloatArray) -> Optics:
        """The PSFs of a real image, one kernel (k, k) a band on that image's pixels."""
        return cls(frame, fwhm, np.stack([kernel_transfer(k, frame.pixel_arcsec, frame.grid) for k in kernels]))

    def see(self, light: FloatArray, points: Points = ()) -> FloatArray:
        """Noiseless pixels (B, H, W) of light (B, n, n) on the fine grid and of points (x, y arcsec, flux (B,))."""
        return self.sampling.bin(blur(light, self.sampling.grid, self.otf, points))

    @cached_property
    def kernels(self) -> FloatArray:
        """PSFs (B, k, k) float32 on the cutout's pixels: what a unit point in the middle of a pixel makes there.

        A band's registration error moves its kernel; what lies beyond `Sampling.psf_half_pix` is cut off.
        """
        frame, middle = self.sampling, self.sampling.size_pix // 2
        half = min(frame.psf_half_pix, (frame.size_pix - 1) // 2)
        x, y = (middle - self.to_pixel(np.zeros(2))) * frame.pixel_arcsec
        n = len(self.otf)
        dark = np.zeros((n, frame.grid.size, frame.grid.size), np.float32)
        part = slice(middle - half, middle + half + 1)
        return self.see(dark, [(float(x), float(y), np.ones(n))])[:, part, part].astype(np.float32)

    def to_pixel(self, arcsec: FloatArray) -> FloatArray:
        """Offsets (..., 2) from the object in arcsec to 0-based (x, y) pixels of the cutout."""
        return self.sampling.to_pixel(np.asarray(arcsec) + np.array(self.offset_arcsec))


def sampling(survey: SurveyFacts) -> Sampling:
    """The cutout and fine grid of a survey: as many samples per pixel as its sharpest PSF needs."""
    sharpest = min(survey.psf_fwhm_arcsec.values())
    core = np.sqrt(max(sharpest**2 - (PIXEL_FWHM * survey.pixel_scale_arcsec) ** 2, (0.5 * sharpest) ** 2))
    oversample = int(np.ceil(_SAMPLES_PER_FWHM[survey.kind] * survey.pixel_scale_arcsec / core - 0.2))
    return Sampling(
        round(survey.cutout_arcsec / survey.pixel_scale_arcsec),
        survey.pixel_scale_arcsec,
        min(max(1, oversample), _MAX_OVERSAMPLE),
        int(np.ceil(_PSF_FWHM * max(survey.psf_fwhm_arcsec.values()) / survey.pixel_scale_arcsec)),
    )


def blur(light: FloatArray, grid: Grid, otf: ComplexArray, points: Points = ()) -> FloatArray:
    """Convolve light (B, size, size) with the PSF, adding point sources (x, y arcsec, flux (B,)) at their place.

    light : flux per sample, integrated over the sample.
    """
    light = np.asarray(light, np.float32)
    half = (len(light), grid.size, grid.size // 2 + 1)
    spectrum = fft.rfft2(light) if light.any() else np.zeros(half, np.complex64)
    if len(points):
        middle = np.float64((grid.size - 1) / 2 * grid.step)
        place = np.array([(x, y) for x, y, _ in points]) + middle
        flux = np.array([f for _, _, f in points])
        along_x = np.exp(-2j * np.pi * place[:, :1] * fft.rfftfreq(grid.size, grid.step))
        along_y = np.exp(-2j * np.pi * place[:, 1:] * fft.fftfreq(grid.size, grid.step))
        # a sample holds the light of its square, of a point as of a surface
        along_x *= np.sinc(fft.rfftfreq(grid.size))
        along_y *= np.sinc(fft.fftfreq(grid.size))
        along_y, along_x = along_y.astype(np.complex64), along_x.astype(np.complex64)
        for plane, band_flux in zip(spectrum, flux.T.astype(np.float32), strict=True):
            plane += (along_y * band_flux[:, None]).T @ along_x
    image: FloatArray = fft.irfft2(spectrum * otf, s=light.shape[-2:], overwrite_x=True)
    return image
