"""A real cutout as a view: light is added to its pixels, with that light's photon noise; all else stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.instrument.noise import noise
from sim.observe import Optics, Points, sampling
from sim.population import Deflector, Population, Sersic
from sim.populations.photometry import Photometry
from sim.real_sky.deflector_mass import Mass
from sim.real_sky.painted import painted_deflector, unlensed_light
from sim.real_sky.patch import Patch, gains, patch_optics
from stages.records import BoolArray, FloatArray
from stages.survey import SurveyFacts

_MIN_PART = 0.04  # of the galaxy's light within its Einstein radius
_MIN_SNR = 20.0  # of painted negatives, were they as compact as the PSF: `Selection` keeps lenses that can be seen


@dataclass(frozen=True, eq=False)
class Background(Patch):
    """A piece of real sky about a galaxy that is fit to be a deflector.

    centre_xy_pix : the galaxy's position; xy_pix is the catalogue's. q, pa : of its light.
    """

    centre_xy_pix: FloatArray
    mass: Mass
    q: float
    pa: float

    def turned(self, flip: bool, quarters: int) -> Background:
        """See `Patch`."""
        patch = super().turned(flip, quarters)
        return replace(
            patch,
            centre_xy_pix=self.turned_position(self.centre_xy_pix, flip, quarters),
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
        return gains(self.survey)

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

    def add(self, light: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Flux and variance with noiseless light (B, H, W) added; see `Patch.with_light`."""
        return self.background.with_light(light, self.unit_noise, self.gain, self.survey)

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
    """The image's own PSF where it came with one, else one of the survey's as wide as measured, about the galaxy."""
    frame = replace(sampling(survey), size_pix=background.flux.shape[-1])
    x, y = (background.centre_xy_pix - (frame.size_pix - 1) / 2) * frame.pixel_arcsec
    return patch_optics(rng, survey, background, (float(x), float(y)))
