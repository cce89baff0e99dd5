"""Real sky to paint on: a user's own cutouts, those that show a fit deflector, with its mass estimated from its light.

Reads whatever `pipeline.py` reads. Each cutout that is not used has a reason (`Backgrounds.rejected`, `report`). The
PSF is the one that came with the image, else as wide as the survey's own stars, else from the survey's facts.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from sim.observe import sampling
from sim.populations.photometry import Photometry
from sim.real_sky import deflector_light as light
from sim.real_sky import deflector_mass
from sim.real_sky.cutouts import BackgroundError, BackgroundOptions, Seen, place_of, psf_width, read_cutouts, square
from sim.real_sky.view import Background, RealView
from stages.records import BoolArray, FloatArray
from stages.stretch import to_composite

__all__ = ["BackgroundError", "BackgroundOptions", "Backgrounds", "RealView"]

_MAX_MASKED = 0.25
_MAX_BEYOND = 0.2  # share of the survey's cutout that may lie off the image
_MAX_NOISE = 3.0  # over the survey's median
_MIN_THETA_E_FWHM = 0.6  # smaller rings are lost in the galaxy's own light


class Backgrounds:
    """The cutouts of a folder that are fit to be painted on.

    rejected : (id, reason) of each of the others; psf_source : "images", "stars" or "survey facts".
    """

    def __init__(self, options: BackgroundOptions) -> None:
        """Read, measure and choose; raises BackgroundError where nothing is left, InputError for unreadable folders."""
        self.options, self.survey = options, options.survey
        self.photometry = Photometry.of(options.survey)
        self.rejected: list[tuple[str, str]] = []
        seen = list(read_cutouts(options, self.rejected))
        self.fwhm, self.psf_source = psf_width(seen, self.survey)
        self._noise = np.median([s.found.sky_sigma for s in seen], axis=0) if seen else np.empty(0)
        self._kept: list[Background] = []
        for one in seen:
            made = self._background(one)
            if isinstance(made, str):
                self.rejected.append((one.cutout.id, made))
            else:
                self._kept.append(made)
        if not self._kept:
            raise BackgroundError(
                f"{options.folder}: no cutout shows a deflector to paint on ({self.report()}). "
                "Give cutouts centred on red early-type galaxies, and the survey that they are from."
            )

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Background:
        return self._kept[index]

    def counts(self) -> dict[str, int]:
        """Cutouts by what became of them: "kept", or the reason."""
        reasons = Counter(reason for _, reason in self.rejected)
        return {"kept": len(self._kept)} | dict(reasons.most_common())

    def report(self) -> str:
        """The same in words."""
        return ", ".join(f"{name} {n}" for name, n in self.counts().items()) + f"; PSF from {self.psf_source}"

    def view(self, rng: np.random.Generator, index: int | None = None) -> RealView:
        """One use of a background, drawn if `index` is None: mirrored and turned at random."""
        k = int(rng.integers(len(self._kept))) if index is None else index
        return RealView.of(rng, self.survey, self.photometry, self._kept[k])

    def _background(self, one: Seen) -> Background | str:
        cutout, found, pixel = one.cutout, one.found, self.survey.pixel_scale_arcsec
        fwhm = self.fwhm if not cutout.psf.size else cutout.psf_fwhm_arcsec
        typical = float(np.median(fwhm))
        number = light.central(found, cutout.xy_pix, pixel, typical)
        if number is None:
            return "no_galaxy_at_centre"
        if (found.sky_sigma > _MAX_NOISE * self._noise).any():
            return "noisy"
        measured = light.measure(cutout.flux, self._saturated(one), found, number, pixel, typical)
        if isinstance(measured, str):
            return measured
        mass = deflector_mass.estimate(measured, self.photometry)
        if isinstance(mass, str):
            return mass
        if mass.theta_e_arcsec() < _MIN_THETA_E_FWHM * typical:
            return "low_mass"
        return self._cut(one, measured, mass, fwhm)

    def _saturated(self, one: Seen) -> BoolArray:
        """Pixels (H, W) at the top of what the detector or the picture holds."""
        flux, survey = one.cutout.flux, self.survey
        if one.composite:
            assert survey.stretch is not None  # pictures without were refused
            planes = [survey.bands.index(band) for band in survey.stretch.bands]
            return np.asarray((to_composite(flux[planes], survey.stretch) == 255).all(axis=2))
        limit = np.array([survey.saturation.get(band, np.inf) for band in survey.bands])[:, None, None]
        return np.asarray((np.nan_to_num(flux) >= 0.95 * limit).any(axis=0))

    def _cut(self, one: Seen, measured: light.Light, mass: deflector_mass.Mass, fwhm: FloatArray) -> Background | str:
        """The survey's square about the galaxy."""
        cutout, n = one.cutout, sampling(self.survey).size_pix
        flux, variance, valid, origin = square(cutout, measured.xy_pix, n)
        size_xy, middle = np.array(cutout.flux.shape[:0:-1]), measured.xy_pix
        inside = np.clip(np.minimum(middle + n / 2, size_xy) - np.maximum(middle - n / 2, 0), 0, n)
        if 1 - float(inside.prod()) / n**2 > _MAX_BEYOND:
            return "too_small"
        if (~valid).mean() > _MAX_MASKED:
            return "masked"
        system = place_of(cutout, self.options.catalogue is not None)
        xy = np.clip(cutout.xy_pix - origin, 0, n - 1)
        return Background(
            id=cutout.id,
            system=f"{self.survey.name}:{system}",
            flux=flux,
            variance=variance,
            valid=valid,
            xy_pix=xy,
            centre_xy_pix=measured.xy_pix - origin,
            psf=cutout.psf,
            fwhm=np.asarray(fwhm, float),
            sky_sigma=one.found.sky_sigma,
            mass=mass,
            q=measured.q,
            pa=measured.pa,
            composite=one.composite,
        )
