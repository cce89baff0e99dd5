"""What a scene is seen through: simulated conditions, or a real image that light is painted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sim.instrument.artefacts import additive, defects, saturate
from sim.instrument.noise import expose, noise
from sim.observe import Optics
from sim.population import Population, Sersic, neighbours
from sim.populations.photometry import Photometry
from sim.scene import paint
from stages.records import BoolArray, FloatArray
from stages.stretch import from_composite, to_composite
from stages.survey import SurveyFacts

Points = Sequence[tuple[float, float, FloatArray]]
FLOOR = 0.004  # of the sky's rms per pixel: fainter wings are not painted


class View(Protocol):
    """One piece of sky under one set of conditions; a lens and its twin share it, noise and all."""

    @property
    def survey(self) -> SurveyFacts:
        """Facts of the survey."""

    @property
    def optics(self) -> Optics:
        """Sampling and PSFs."""

    @property
    def photometry(self) -> Photometry:
        """Magnitudes to flux."""

    @property
    def xy_pix(self) -> FloatArray:
        """The catalogue's position (2,)."""

    @property
    def valid(self) -> BoolArray:
        """Pixels (B, H, W) that the image has."""

    @property
    def sky_sigma(self) -> FloatArray:
        """Rms of the sky (B,)."""

    @property
    def points(self) -> Points:
        """Stars of the field."""

    @property
    def system(self) -> str:
        """What every use of this sky shares ("" for none): the unit of every split."""

    def base(self, light: Sequence[Sersic]) -> FloatArray:
        """Noiseless pixels (B, H, W) of everything but the lensed light; `light` is the deflector's."""

    def variance(self, pixels: FloatArray) -> FloatArray:
        """Variance (B, H, W) of an exposure of noiseless pixels."""

    def record(self, base: FloatArray, lensed: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Flux and variance (B, H, W) as delivered, with lensed light or (None) without: the twin."""

    def to_pixel(self, arcsec: FloatArray) -> FloatArray:
        """Offsets from the object (..., 2) in arcsec to 0-based (x, y) pixels of the delivered cutout."""


@dataclass(frozen=True, eq=False)
class SimulatedView:
    """Simulated conditions: everything that a pair of cutouts shares but the object."""

    survey: SurveyFacts
    optics: Optics
    photometry: Photometry
    xy_pix: FloatArray
    valid: BoolArray
    sky_sigma: FloatArray
    unit_noise: FloatArray
    field: FloatArray
    extra: FloatArray
    points: Points
    composite: bool
    system: str = ""  # each pair is a system of its own

    @classmethod
    def draw(
        cls, rng: np.random.Generator, survey: SurveyFacts, prior: Population, centring_arcsec: float, composite: float
    ) -> SimulatedView:
        """Draw seeing, noise, neighbours, artefacts, the object's place on the pixel grid and its catalogue error.

        centring_arcsec : rms of the catalogue's position, three times that for one object in eight.
        composite : chance that the cutout passes through the survey's 8-bit colour composite.
        """
        optics = Optics.draw(rng, survey)
        frame = optics.sampling
        photometry = Photometry.of(survey)
        unit_noise, sky = noise(rng, survey, frame.size_pix, float(np.exp(0.12 * rng.normal())))
        error = centring_arcsec * rng.normal(size=2) * (3.0 if rng.random() < 0.12 else 1.0)
        light = np.zeros((len(survey.bands), frame.grid.size, frame.grid.size), np.float32)
        side_arcsec = frame.grid.size * frame.grid.step
        galaxies, stars = neighbours(rng, photometry, prior, side_arcsec, survey.density_per_arcmin2)
        paint(light, frame.grid, galaxies, FLOOR * sky / frame.oversample**2)
        position = optics.to_pixel(np.clip(error, -1.2, 1.2)) - np.array(survey.composite_shift_pix)
        return cls(
            survey, optics, photometry, np.clip(position, 0, frame.size_pix - 1),
            defects(rng, survey, frame.size_pix), sky, unit_noise, light, additive(rng, survey, optics), stars,
            rng.random() < composite,
        )  # fmt: skip

    @property
    def gain(self) -> FloatArray:
        """Effective gain (B,) in electrons per flux unit."""
        return np.array([self.survey.gain[band] for band in self.survey.bands])

    def base(self, light: Sequence[Sersic]) -> FloatArray:
        """See `View`."""
        canvas = self.field.copy()
        self.paint(canvas, light)
        return self.see(canvas)

    def paint(self, canvas: FloatArray, light: Sequence[Sersic]) -> None:
        """Add profiles to a canvas (B, n, n) on the fine grid, wings down to where the noise hides them."""
        frame = self.optics.sampling
        paint(canvas, frame.grid, light, FLOOR * self.sky_sigma / frame.oversample**2)

    def see(self, canvas: FloatArray, points: Points = ()) -> FloatArray:
        """Noiseless pixels of a canvas (B, n, n) on the fine grid and points, with the field's stars and artefacts."""
        return np.asarray(self.optics.see(canvas, [*self.points, *points]) + self.extra)

    def variance(self, pixels: FloatArray) -> FloatArray:
        """See `View`."""
        return expose(pixels, self.unit_noise, self.sky_sigma, self.gain)[1]

    def record(self, base: FloatArray, lensed: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """See `View`."""
        pixels = base if lensed is None else base + lensed
        flux, variance = expose(pixels, self.unit_noise, self.sky_sigma, self.gain)
        flux = saturate(flux, self.survey)
        if self.composite:
            return through_composite(flux, self.survey), np.full_like(variance, np.nan)
        return flux, variance

    def to_pixel(self, arcsec: FloatArray) -> FloatArray:
        """See `View`."""
        shift = np.array(self.survey.composite_shift_pix) if self.composite else 0.0
        return np.asarray(self.optics.to_pixel(arcsec) - shift)


def through_composite(flux: FloatArray, survey: SurveyFacts) -> FloatArray:
    """Flux to the survey's 8-bit colour composite and back, as a survey that ships only pictures delivers it."""
    assert survey.stretch is not None
    planes = [survey.bands.index(band) for band in survey.stretch.bands]
    picture = to_composite(flux[planes], survey.stretch)
    dx, dy = survey.composite_shift_pix
    wide = np.pad(picture.astype(float), ((0, 1), (0, 1), (0, 0)), mode="edge")
    wide = (1 - dx) * wide[:, :-1] + dx * wide[:, 1:]
    picture = np.ceil((1 - dy) * wide[:-1] + dy * wide[1:] - 1e-6).astype(np.uint8)
    out = flux.copy()
    out[planes] = from_composite(picture, survey.stretch)
    return out
