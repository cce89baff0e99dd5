"""Real sky to paint on: a user's own cutouts, those that show a fit deflector, with its mass estimated from its light.

Reads whatever `pipeline.py` reads. Each cutout that is not used has a reason (`Backgrounds.rejected`, `report`). The
PSF is the one that came with the image, else as wide as the survey's own stars, else from the survey's facts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim import deflector_light as light
from sim import deflector_mass
from sim.known import Known
from sim.observe import sampling
from sim.photometry import Photometry
from sim.real_view import Background, RealView
from stages.bands import wavelength_nm
from stages.ingest import IngestOptions, Survey
from stages.ingest.names import PICTURE_SUFFIXES, suffix_of
from stages.records import BoolArray, Cutout, FloatArray
from stages.stretch import to_composite
from stages.survey import SurveyFacts

__all__ = ["BackgroundError", "BackgroundOptions", "Backgrounds", "RealView"]

_PIXEL_TOLERANCE = 0.03
_MAX_MASKED = 0.25
_MAX_BEYOND = 0.2  # share of the survey's cutout that may lie off the image
_MAX_NOISE = 3.0  # over the survey's median
_RECENTRING_ARCSEC = 3.0
_MIN_THETA_E_FWHM = 0.6  # smaller rings are lost in the galaxy's own light
_MIN_STARS, _STAR_SPREAD = 8, 1.15
_R50_PER_FWHM = 0.62  # of stars as measured here: 0.59 for Moffat index 4, 0.63 for 3, 0.66 for 2.5


class BackgroundError(ValueError):
    """A folder that cannot be painted on; the message says what to do."""


@dataclass(frozen=True)
class BackgroundOptions:
    """Where the real sky is.

    folder, catalogue : as for `pipeline.py`; survey : facts of the images; exclude : known candidates to leave out, a
    text file of ids or a table with ids or ra, dec; limit : at most so many backgrounds are kept, evenly by id.
    """

    folder: Path
    survey: SurveyFacts
    catalogue: Path | None = None
    exclude: Path | None = None
    limit: int = 4000

    def __hash__(self) -> int:
        return hash((self.folder, self.survey.name, self.catalogue, self.exclude, self.limit))

    def request(self) -> dict[str, Any]:
        """What identifies a data set that was painted on it."""
        paths = {name: getattr(self, name) for name in ("folder", "catalogue", "exclude")}
        return {name: None if path is None else str(path) for name, path in paths.items()} | {"limit": self.limit}


@dataclass(frozen=True, eq=False)
class _Seen:
    """A cutout with its objects found, before the stars of all cutouts have told the PSF."""

    cutout: Cutout
    found: light.Detected
    composite: bool


class Backgrounds:
    """The cutouts of a folder that are fit to be painted on.

    rejected : (id, reason) of each of the others; psf_source : "images", "stars" or "survey facts".
    """

    def __init__(self, options: BackgroundOptions) -> None:
        """Read, measure and choose; raises BackgroundError where nothing is left, InputError for unreadable folders."""
        self.options, self.survey = options, options.survey
        self.photometry = Photometry.of(options.survey)
        self.rejected: list[tuple[str, str]] = []
        seen = list(self._read())
        self.fwhm, self.psf_source = self._psf(seen)
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

    def _read(self) -> Iterator[_Seen]:
        """Cutouts with all of the survey's bands on its pixels, objects found."""
        o = self.options
        side = self.survey.cutout_arcsec + (_RECENTRING_ARCSEC if o.catalogue is not None else 0.0)
        listed = Survey(o.folder, IngestOptions(o.catalogue, self.survey, side, workers=0))
        known = Known.read(o.exclude) if o.exclude is not None else Known()
        share = min(1.0, 4 * o.limit / len(listed))
        near: list[_Seen] = []
        for batch in listed.batches():
            self.rejected += [(p.id, f"unreadable: {p.reason}") for p in batch.problems if p.reason != "not_an_image"]
            for cutout in batch.cutouts:
                known.note(cutout)
                if share < 1 and _fraction(cutout.id) > share:
                    self.rejected.append((cutout.id, "not_needed"))
                    continue
                made = self._seen(cutout)
                if isinstance(made, str):
                    self.rejected.append((cutout.id, made))
                else:
                    near.append(made)
        for one in near:
            reason = known.reason(one.cutout, 0.7 * self.survey.cutout_arcsec)
            if reason:
                self.rejected.append((one.cutout.id, reason))
            else:
                yield one

    def _seen(self, cutout: Cutout) -> _Seen | str:
        survey = self.survey
        composite = suffix_of(Path(cutout.source)) in PICTURE_SUFFIXES
        if composite and survey.stretch is None:
            raise BackgroundError(
                f"{self.options.folder}: holds pictures, but survey {survey.name} has no stretch. "
                "Give the facts of the composite, such as --survey cfhtls_composite."
            )
        order = _band_order(cutout.bands, survey.bands)
        if order is None or not cutout.valid[order].any(axis=(1, 2)).all():
            return "missing_band"
        if abs(cutout.pixel_scale_arcsec / survey.pixel_scale_arcsec - 1) > _PIXEL_TOLERANCE:
            return "other_pixel_scale"
        cutout = replace(
            cutout, flux=cutout.flux[order], variance=cutout.variance[order], valid=cutout.valid[order],
            bands=survey.bands, psf_fwhm_arcsec=np.asarray(cutout.psf_fwhm_arcsec)[order],
            psf=cutout.psf[order] if cutout.psf.size else cutout.psf,
        )  # fmt: skip
        if composite:  # the noise of a picture is cut off at 0: only the facts know it
            sigma = np.array([survey.sky_sigma.get(band, np.nan) for band in survey.bands])
        else:
            sigma = np.sqrt([_median(plane) for plane in cutout.variance])
        return _Seen(cutout, light.detect(cutout.flux, cutout.valid, sigma), composite)

    def _psf(self, seen: list[_Seen]) -> tuple[FloatArray, str]:
        """FWHM (B,) in arcsec for images without a PSF of their own, and where it is from."""
        survey = self.survey
        facts = np.array([survey.psf_fwhm_arcsec[band] for band in survey.bands])
        if any(s.composite for s in seen):  # the shift of a composite averages neighbouring pixels
            blur2 = (
                np.mean([d * (1 - d) for d in survey.composite_shift_pix]) * (2.355 * survey.pixel_scale_arcsec) ** 2
            )
            facts = np.sqrt(facts**2 + blur2)
        if seen and all(s.cutout.psf.size for s in seen):
            return np.median([s.cutout.psf_fwhm_arcsec for s in seen], axis=0), "images"
        radii = np.sort(
            np.concatenate([np.empty(0), *(light.star_radii(s.found, survey.pixel_scale_arcsec) for s in seen)])
        )
        typical = float(np.median(facts)) * _R50_PER_FWHM
        radii = radii[(radii > 0.65 * typical) & (radii < 1.3 * typical)]
        ends = np.searchsorted(radii, radii * _STAR_SPREAD)
        within = ends - np.arange(len(radii))
        if not len(radii) or within.max() < _MIN_STARS:
            return facts, "survey facts"
        k = int(np.argmax(within))  # stars crowd at one radius, galaxies do not
        return facts * float(np.median(radii[k : ends[k]])) / typical, "stars"

    def _background(self, one: _Seen) -> Background | str:
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

    def _saturated(self, one: _Seen) -> BoolArray:
        """Pixels (H, W) at the top of what the detector or the picture holds."""
        flux, survey = one.cutout.flux, self.survey
        if one.composite:
            assert survey.stretch is not None  # pictures without were refused
            planes = [survey.bands.index(band) for band in survey.stretch.bands]
            return np.asarray((to_composite(flux[planes], survey.stretch) == 255).all(axis=2))
        limit = np.array([survey.saturation.get(band, np.inf) for band in survey.bands])[:, None, None]
        return np.asarray((np.nan_to_num(flux) >= 0.95 * limit).any(axis=0))

    def _cut(self, one: _Seen, measured: light.Light, mass: deflector_mass.Mass, fwhm: FloatArray) -> Background | str:
        """The survey's square about the galaxy."""
        cutout, n = one.cutout, sampling(self.survey).size_pix
        x0, y0 = (int(np.round(v - (n - 1) / 2)) for v in measured.xy_pix)
        height, width = cutout.flux.shape[1:]
        rows, columns = (slice(max(y0, 0), min(y0 + n, height)), slice(max(x0, 0), min(x0 + n, width)))
        inside = (slice(rows.start - y0, rows.stop - y0), slice(columns.start - x0, columns.stop - x0))
        flux, variance = np.full((2, len(cutout.flux), n, n), np.nan, np.float32)
        valid = np.zeros(flux.shape, bool)
        for target, planes in ((flux, cutout.flux), (variance, cutout.variance), (valid, cutout.valid)):
            target[(slice(None), *inside)] = planes[:, rows, columns]
        if 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / n**2 > _MAX_BEYOND:
            return "too_small"
        if (~valid).mean() > _MAX_MASKED:
            return "masked"
        system = cutout.source if self.options.catalogue is not None else cutout.id
        origin = np.array([x0, y0])
        flux = np.where(valid, flux, np.nan).astype(np.float32)
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


def _band_order(bands: tuple[str, ...], wanted: tuple[str, ...]) -> list[int] | None:
    """Which plane is each wanted band, by name, else by wavelength within 6%; None where one is absent."""
    if bands == ("",) and len(wanted) == 1:
        return [0]
    order: list[int] = []
    for band in wanted:
        if band in bands:
            order.append(bands.index(band))
            continue
        ratio = np.array([wavelength_nm(b) for b in bands]) / wavelength_nm(band)
        if not (np.abs(ratio - 1) < 0.06).any():
            return None
        order.append(int(np.nanargmin(np.abs(ratio - 1))))
    return order


def _median(plane: FloatArray) -> float:
    """Median of what is finite, NaN for nothing."""
    finite = plane[np.isfinite(plane)]
    return float(np.median(finite)) if finite.size else float("nan")


def _fraction(name: str) -> float:
    """A number 0..1 from a name."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
