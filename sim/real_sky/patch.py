"""A square of real sky that light is added to: its pixels, its PSF, and what an instrument would have recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.special import ndtr, ndtri

from sim.instrument.psf import frequencies, transfer
from sim.observe import Optics, Sampling, sampling
from stages.records import BoolArray, FloatArray
from stages.stretch import from_composite, to_composite
from stages.survey import SurveyFacts

_UNTOUCHED = 1e-3  # of the sky's rms: fainter light is not added, so that those pixels stay bit by bit
_ROLL_OFF = 0.8  # of the Nyquist frequency


@dataclass(frozen=True, eq=False)
class Patch:
    """A square of real sky in the survey's band order.

    flux, variance (B, n, n) as delivered (NaN where unknown), valid; xy_pix : where the object is, or is to be painted;
    psf (B, k, k) or shape (0, 0, 0); fwhm (B,) arcsec; sky_sigma (B,); composite : it is an 8-bit colour picture.
    """

    id: str
    system: str
    flux: FloatArray
    variance: FloatArray
    valid: BoolArray
    xy_pix: FloatArray
    psf: FloatArray
    fwhm: FloatArray
    sky_sigma: FloatArray
    composite: bool

    def turned(self, flip: bool, quarters: int) -> Self:
        """Mirrored left to right, then turned by so many quarters from y to x."""

        def pixels(planes: FloatArray) -> FloatArray:
            return np.ascontiguousarray(np.rot90(planes[..., ::-1] if flip else planes, quarters, axes=(-2, -1)))

        return replace(
            self,
            flux=pixels(self.flux),
            variance=pixels(self.variance),
            valid=pixels(self.valid.astype(np.uint8)).astype(bool),
            psf=pixels(self.psf),
            xy_pix=self.turned_position(self.xy_pix, flip, quarters),
        )

    def turned_position(self, xy_pix: FloatArray, flip: bool, quarters: int) -> FloatArray:
        """Where `turned` takes a position (x, y)."""
        middle = (self.flux.shape[-1] - 1) / 2
        u, v = (-(xy_pix[0] - middle) if flip else xy_pix[0] - middle), xy_pix[1] - middle
        for _ in range(quarters % 4):
            u, v = v, -u
        return np.array([u + middle, v + middle])

    def with_light(
        self, light: FloatArray, unit_noise: FloatArray, gain: FloatArray, survey: SurveyFacts
    ) -> tuple[FloatArray, FloatArray]:
        """Flux and variance with noiseless light (B, n, n) added, with that light's own photon noise.

        Pixels that get less than a thousandth of the sky's rms in every band stay as they are.
        """
        light = np.clip(light, 0, None)
        touched = (light > _UNTOUCHED * self.sky_sigma[:, None, None]).any(axis=0)
        photons = light / gain[:, None, None]
        added = np.where(touched, light + unit_noise * np.sqrt(photons), 0.0)
        if self.composite:
            return self._through_picture(added, unit_noise, survey), self.variance
        limit = np.array([survey.saturation.get(band, np.inf) for band in survey.bands])[:, None, None]
        full = np.where(self.flux < limit, np.minimum(self.flux + added, limit), self.flux)
        return (
            np.where(touched, full, self.flux).astype(np.float32),
            np.where(touched, self.variance + photons, self.variance).astype(np.float32),
        )

    def _through_picture(self, added: FloatArray, unit_noise: FloatArray, survey: SurveyFacts) -> FloatArray:
        """The flux of the 8-bit picture that the survey would have made of the sky with this light.

        A plane at 0 held sky below 0, which light must first fill up: by how much is drawn from the tail of a normal
        law that as many pixels lie in.
        """
        stretch, flux = survey.stretch, self.flux
        assert stretch is not None  # composites are read with one
        planes = [survey.bands.index(band) for band in stretch.bands]
        empty = flux <= 0
        share = np.clip(empty.mean(axis=(1, 2)), 1e-4, 1 - 1e-4)[:, None, None]
        depth = ndtri(1 - share * np.clip(ndtr(unit_noise[:, ::-1]), 1e-6, 1)) - ndtri(1 - share)
        added = np.where(empty, np.clip(added - depth * self.sky_sigma[:, None, None], 0, None), added)
        painted = from_composite(to_composite((flux + added)[planes], stretch), stretch)
        out = flux.copy()
        out[planes] = np.where(np.isfinite(flux[planes]), painted, np.nan)
        return out


def gains(survey: SurveyFacts) -> FloatArray:
    """Effective gain (B,) in electrons per flux unit; infinite where the survey's facts have none."""
    return np.array([survey.gain.get(band, np.inf) for band in survey.bands])


def patch_optics(
    rng: np.random.Generator, survey: SurveyFacts, patch: Patch, offset_arcsec: tuple[float, float]
) -> Optics:
    """The image's own PSF where it came with one, else one of the survey's as wide as measured.

    offset_arcsec : (x, y) of the scene's origin from the patch's middle.
    """
    frame = replace(sampling(survey), size_pix=patch.flux.shape[-1])
    if patch.psf.size:
        optics = Optics.measured(frame, [_faded(kernel) for kernel in patch.psf], patch.fwhm)
        optics = replace(optics, otf=optics.otf * _roll_off(frame))
    else:
        still = replace(survey, band_offset_arcsec=0.0)  # the offsets of real bands are in the galaxy's own light
        optics = Optics(frame, patch.fwhm, transfer(still, patch.fwhm, frame.grid, rng))
    x, y = offset_arcsec
    kx, ky, _ = frequencies(frame.grid.size, frame.grid.step)
    phase = (np.exp(-2j * np.pi * x * kx) * np.exp(-2j * np.pi * y * ky)).astype(np.complex64)
    return replace(optics, otf=optics.otf * phase, offset_arcsec=offset_arcsec)


def _faded(kernel: FloatArray) -> FloatArray:
    """A kernel that falls to 0 at its edge: else a bright point shows the kernel's square outline."""
    half = (kernel.shape[0] - 1) / 2
    y, x = np.indices(kernel.shape) - half
    return np.asarray(kernel * np.clip(4 * (1 - np.hypot(x, y) / (half + 1)), 0, 1))


def _roll_off(frame: Sampling) -> FloatArray:
    """Factor on a measured transfer function: 1 up to 0.8 of the pixels' Nyquist frequency, 0 from there on.

    What is known of a PSF of few pixels ends abruptly at that frequency, which draws streaks through bright points. The
    price is a PSF of 1.5 pixels that is wider by a tenth; one of three pixels stays as it is.
    """
    kx, ky, _ = frequencies(frame.grid.size, frame.grid.step)

    def part(k: FloatArray) -> FloatArray:
        beyond = np.clip((np.abs(k) * 2 * frame.pixel_arcsec - _ROLL_OFF) / (1 - _ROLL_OFF), 0, 1)
        return np.asarray(np.cos(np.pi / 2 * beyond) ** 2)

    return part(kx) * part(ky)
