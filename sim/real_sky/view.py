"""A real cutout as a view: light is added to its pixels, with that light's photon noise; all else stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.instrument.noise import noise
from sim.instrument.psf import frequencies, transfer
from sim.observe import Optics, Points, Sampling, sampling
from sim.population import Deflector, Population, Sersic
from sim.populations.photometry import Photometry
from sim.real_sky.deflector_mass import Mass
from sim.real_sky.painted import painted_deflector, unlensed_light
from stages.records import BoolArray, FloatArray
from stages.stretch import from_composite, to_composite
from stages.survey import SurveyFacts

_UNTOUCHED = 1e-3  # of the sky's rms: fainter light is not added, so that those pixels stay bit by bit
_ROLL_OFF = 0.8  # of the Nyquist frequency
_MIN_PART = 0.04  # of the galaxy's light within its Einstein radius
_MIN_SNR = 20.0  # of painted negatives, were they as compact as the PSF: `Selection` keeps lenses that can be seen


@dataclass(frozen=True, eq=False)
class Background:
    """One real cutout that is fit to be painted on, in the survey's band order, square.

    flux, variance (B, n, n) as delivered (NaN where unknown), valid; xy_pix : the catalogue's position; centre_xy_pix :
    the galaxy's. psf (B, k, k) or shape (0, 0, 0); fwhm (B,) arcsec; sky_sigma (B,). q, pa : of the light.
    """

    id: str
    system: str
    flux: FloatArray
    variance: FloatArray
    valid: BoolArray
    xy_pix: FloatArray
    centre_xy_pix: FloatArray
    psf: FloatArray
    fwhm: FloatArray
    sky_sigma: FloatArray
    mass: Mass
    q: float
    pa: float
    composite: bool

    def turned(self, flip: bool, quarters: int) -> Background:
        """Mirrored left to right, then turned by so many quarters from y to x."""

        def pixels(planes: FloatArray) -> FloatArray:
            return np.ascontiguousarray(np.rot90(planes[..., ::-1] if flip else planes, quarters, axes=(-2, -1)))

        middle = (self.flux.shape[-1] - 1) / 2

        def position(xy: FloatArray) -> FloatArray:
            u, v = (-(xy[0] - middle) if flip else xy[0] - middle), xy[1] - middle
            for _ in range(quarters % 4):
                u, v = v, -u
            return np.array([u + middle, v + middle])

        return replace(
            self,
            flux=pixels(self.flux),
            variance=pixels(self.variance),
            valid=pixels(self.valid.astype(np.uint8)).astype(bool),
            psf=pixels(self.psf),
            xy_pix=position(self.xy_pix),
            centre_xy_pix=position(self.centre_xy_pix),
            pa=(-self.pa if flip else self.pa) - quarters * np.pi / 2,
        )


@dataclass(frozen=True, eq=False)
class RealView:
    """One use of a background; see `sim.view.View`. The scene's origin is the galaxy's centre."""

    survey: SurveyFacts
    optics: Optics
    photometry: Photometry
    background: Background
    unit_noise: FloatArray
    points: Points = ()

    @classmethod
    def of(
        cls, rng: np.random.Generator, survey: SurveyFacts, photometry: Photometry, background: Background
    ) -> RealView:
        """A background, mirrored and turned at random, through its own PSF."""
        turned = background.turned(bool(rng.random() < 0.5), int(rng.integers(4)))
        unit_noise, _ = noise(rng, survey, turned.flux.shape[-1], 1.0)
        return cls(survey, _optics(rng, survey, turned), photometry, turned, unit_noise)

    @property
    def system(self) -> str:
        """What every use of this piece of sky shares."""
        return self.background.system

    @property
    def xy_pix(self) -> FloatArray:
        """The catalogue's position."""
        return self.background.xy_pix

    @property
    def valid(self) -> BoolArray:
        """Pixels (B, H, W) that the image has."""
        return self.background.valid

    @property
    def sky_sigma(self) -> FloatArray:
        """Rms of the sky (B,)."""
        return self.background.sky_sigma

    @property
    def gain(self) -> FloatArray:
        """Effective gain (B,) in electrons per flux unit; infinite where the survey's facts have none."""
        return np.array([self.survey.gain.get(band, np.inf) for band in self.survey.bands])

    def base(self, light: Sequence[Sersic] = ()) -> FloatArray:
        """The real pixels, 0 where there are none; a real galaxy has its light already."""
        del light
        return np.where(self.valid, np.nan_to_num(self.background.flux), 0.0)

    def variance(self, pixels: FloatArray) -> FloatArray:
        """Variance of pixels (B, H, W): the sky's and the photons'."""
        return np.asarray(self.sky_sigma[:, None, None] ** 2 + np.clip(pixels, 0, None) / self.gain[:, None, None])

    def record(self, base: FloatArray, lensed: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """The original's flux and variance, or the same with `lensed` (B, H, W) and its photon noise added."""
        del base
        if lensed is None:
            return self.background.flux, self.background.variance
        return self.add(lensed)

    def add(self, lensed: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Flux and variance with noiseless light (B, H, W) added, with that light's own photon noise.

        Pixels that get less than a thousandth of the sky's rms in every band stay as they are.
        """
        light = np.clip(lensed, 0, None)
        touched = (light > _UNTOUCHED * self.sky_sigma[:, None, None]).any(axis=0)
        photons = light / self.gain[:, None, None]
        added = np.where(touched, light + self.unit_noise * np.sqrt(photons), 0.0)
        flux, variance = self.background.flux, self.background.variance
        if self.background.composite:
            return self._through_picture(added), variance
        limit = np.array([self.survey.saturation.get(band, np.inf) for band in self.survey.bands])[:, None, None]
        full = np.where(flux < limit, np.minimum(flux + added, limit), flux)
        return (
            np.where(touched, full, flux).astype(np.float32),
            np.where(touched, variance + photons, variance).astype(np.float32),
        )

    def _through_picture(self, added: FloatArray) -> FloatArray:
        """The flux of the 8-bit picture that the survey would have made of the sky with this light.

        A plane at 0 held sky below 0, by how much is drawn from the noise: light must first fill that up.
        """
        stretch, flux = self.survey.stretch, self.background.flux
        assert stretch is not None  # composites are read with one
        planes = [self.survey.bands.index(band) for band in stretch.bands]
        below = np.where(flux <= 0, np.abs(self.unit_noise[:, ::-1]) * self.sky_sigma[:, None, None], 0.0)
        added = np.where(flux <= 0, np.clip(added - below, 0, None), added)
        painted = from_composite(to_composite((flux + added)[planes], stretch), stretch)
        out = flux.copy()
        out[planes] = np.where(np.isfinite(flux[planes]), painted, np.nan)
        return out

    def to_pixel(self, arcsec: FloatArray) -> FloatArray:
        """Offsets (..., 2) from the galaxy's centre in arcsec to (x, y) pixels of the cutout."""
        return self.optics.to_pixel(arcsec)

    def draw_deflector(self, rng: np.random.Generator, prior: Population) -> Deflector:
        """A mass that this galaxy may have; its light is in the pixels already."""
        b = self.background
        return painted_deflector(rng, self.photometry, b.mass, b.q, b.pa, prior)

    def unlensed(self, rng: np.random.Generator, prior: Population) -> FloatArray:
        """Noiseless pixels of what may be taken for lensed light but is not, bright enough to be seen."""
        lens = self.draw_deflector(rng, prior)
        least = self._least_flux(float(lens.mass.theta_e))
        return self.optics.see(unlensed_light(rng, self.optics.sampling.grid, self.photometry, lens, prior, least), ())

    def _least_flux(self, theta_e_arcsec: float) -> FloatArray:
        """Flux (B,) that is seen beside the galaxy: above its photon noise, and no vanishing part of its light."""
        base = self.base()
        y, x = np.indices(base.shape[1:])
        cx, cy = self.to_pixel(np.zeros(2))
        within = np.hypot(x - cx, y - cy) * self.optics.sampling.pixel_arcsec < 1.5 * theta_e_arcsec
        variance = self.variance(base)[:, within].mean(axis=1)
        n_effective = 2.266 * np.maximum(self.optics.fwhm / self.optics.sampling.pixel_arcsec, 1.2) ** 2
        noise = np.sqrt(variance * n_effective)
        return np.asarray(np.maximum(_MIN_SNR * noise, _MIN_PART * base[:, within].sum(axis=1)))


def _optics(rng: np.random.Generator, survey: SurveyFacts, background: Background) -> Optics:
    """The image's own PSF where it came with one, else one of the survey's as wide as measured."""
    frame = replace(sampling(survey), size_pix=background.flux.shape[-1])
    if background.psf.size:
        optics = Optics.measured(frame, [_faded(kernel) for kernel in background.psf], background.fwhm)
        optics = replace(optics, otf=optics.otf * _roll_off(frame))
    else:
        still = replace(survey, band_offset_arcsec=0.0)  # the offsets of real bands are in the galaxy's own light
        optics = Optics(frame, background.fwhm, transfer(still, background.fwhm, frame.grid, rng))
    x, y = (background.centre_xy_pix - (frame.size_pix - 1) / 2) * frame.pixel_arcsec
    kx, ky, _ = frequencies(frame.grid.size, frame.grid.step)
    phase = (np.exp(-2j * np.pi * x * kx) * np.exp(-2j * np.pi * y * ky)).astype(np.complex64)
    return replace(optics, otf=optics.otf * phase, offset_arcsec=(float(x), float(y)))


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
