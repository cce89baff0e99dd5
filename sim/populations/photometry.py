"""Magnitudes and colours of every kind of object in one survey's bands, through its real filter curves."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sim.lensing.cosmology import distance_modulus
from sim.populations.spectra import STAR_FORMING, TEMPLATES, Tables, attenuation, look_up, look_up_one, tables
from sim.populations.supernovae import template_number
from stages.bands import wavelength_nm
from stages.records import FloatArray
from stages.survey import SurveyFacts

Colour = FloatArray  # (B,): AB magnitude in each band minus that in SDSS i

_KINDS = {name: k for k, name in enumerate(TEMPLATES)} | {"star_forming": TEMPLATES.index("Scd")}
_FIRST, _REDDEST = STAR_FORMING.start, STAR_FORMING.stop - 1 - STAR_FORMING.start
_TYPICAL_Z = 0.5
_I_NM = 748.0
_DEPTH_UNKNOWN = 25.0
# Main sequence by g-i: magnitudes less i at these wavelengths (median locus of Covey et al. 2007; AB throughout).
_STAR_GI = np.array([0.3, 0.45, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4, 2.7, 3.0])
_STAR_NM = np.array([355.0, 469.0, 617.0, 748.0, 893.0, 1235.0, 1662.0, 2159.0, 4500.0])
_STAR_UG = np.array([1.07, 1.105, 1.25, 1.73, 2.17, 2.46, 2.61, 2.62, 2.59, 2.61, 2.61])
_STAR_RI = np.array([0.06, 0.115, 0.16, 0.24, 0.32, 0.41, 0.54, 0.71, 0.98, 1.28, 1.52])
_STAR_IZ = np.array([0.00, 0.02, 0.04, 0.11, 0.16, 0.22, 0.29, 0.39, 0.52, 0.67, 0.81])
_STAR_ZJ = np.array([0.79, 0.825, 0.87, 0.98, 1.07, 1.13, 1.18, 1.23, 1.30, 1.38, 1.48]) - 0.91
_STAR_JH = np.array([0.23, 0.295, 0.34, 0.46, 0.55, 0.62, 0.66, 0.66, 0.63, 0.60, 0.59]) - 0.48
_STAR_HK = np.array([0.08, 0.075, 0.07, 0.09, 0.11, 0.13, 0.16, 0.19, 0.22, 0.25, 0.27]) - 0.46
_K_TO_TAIL = 1.5  # Rayleigh-Jeans from 2.2 to 4.5 microns


@dataclass(frozen=True, eq=False)
class Photometry:
    """One survey's bands: zero points (B,), 5 sigma AB magnitudes (B,) of a point source, and tables of colours."""

    bands: tuple[str, ...]
    zero_point: FloatArray = field(repr=False)
    depth: FloatArray = field(repr=False)
    table: Tables = field(repr=False)
    star_density_per_arcmin2: float = 2.0

    @staticmethod
    def of(survey: SurveyFacts) -> Photometry:
        """The photometry of a survey; tables are made once per set of filters."""
        named: dict[str, str] = getattr(survey, "filters", {})
        filters = tuple(named.get(band) or f"box:{wavelength_nm(band):.1f}" for band in survey.bands)
        zero_point = np.array([survey.zero_point[band] for band in survey.bands])
        stars = float(getattr(survey, "star_density_per_arcmin2", 2.0))
        return Photometry(survey.bands, zero_point, depth(survey), tables(filters), stars)

    @property
    def depth_i(self) -> float:
        """The deepest band's depth for a source of flat colours."""
        return float(self.depth.max())

    def flux(self, i_magnitude: npt.ArrayLike, colour: Colour) -> FloatArray:
        """Flux (..., B) of an object of this SDSS i magnitude (...) and colours (..., B)."""
        return np.asarray(10.0 ** (-0.4 * (np.asarray(i_magnitude)[..., None] + colour - self.zero_point)))

    def magnitude(self, flux: FloatArray) -> FloatArray:
        """AB magnitudes (..., B); infinite where there is no flux."""
        faint = np.finfo(np.float32).tiny
        found = self.zero_point - 2.5 * np.log10(np.maximum(flux, faint))
        return np.asarray(np.where(flux > faint, found, np.inf))

    def colours(self, template: npt.ArrayLike, z: npt.ArrayLike) -> FloatArray:
        """Colours (n, B) of templates by (fractional) number in `TEMPLATES` at redshifts (n,)."""
        return look_up(self.table.colour, template, z, self.table.z)

    def early(self, rng: np.random.Generator, z: float) -> Colour:
        """A passive galaxy; 0.05 magnitudes of scatter in g-i, as the red sequence has (Bower, Lucey & Ellis 1992)."""
        mean = look_up_one(self.table.colour, 0.0, z, self.table.z)
        return np.asarray(self._scattered(rng, mean[None], 0.05, 0.015)[0])

    def early_many(self, rng: np.random.Generator, z: FloatArray) -> FloatArray:
        """Colours (n, B) of passive galaxies at redshifts (n,)."""
        return self._scattered(rng, self.colours(np.zeros(len(z)), z), 0.05, 0.015)

    def star_forming(self, rng: np.random.Generator, redness: float | None = None, z: float | None = None) -> Colour:
        """A star-forming galaxy; redness 0 is a starburst, 1 old or dusty."""
        red = float(rng.beta(2.0, 2.5)) if redness is None else min(max(redness, 0.0), 1.0)
        at = float(rng.gamma(3.0, 0.25)) if z is None else z
        mean = look_up_one(self.table.colour, _FIRST + red * _REDDEST, at, self.table.z)
        return np.asarray(self._scattered(rng, mean[None], 0.08, 0.03)[0])

    def star_forming_many(self, rng: np.random.Generator, redness: FloatArray, z: FloatArray) -> FloatArray:
        """Colours (n, B) of star-forming galaxies."""
        return self._scattered(rng, self.colours(_FIRST + np.clip(redness, 0, 1) * _REDDEST, z), 0.08, 0.03)

    def _scattered(self, rng: np.random.Generator, mean: FloatArray, along: float, each: float) -> FloatArray:
        """Colours (n, B) with scatter along g-i, and in each band by itself."""
        noise = rng.normal(size=(len(mean), len(self.bands) + 1))
        return np.asarray(mean + along * noise[:, :1] * self._tilt + each * noise[:, 1:])

    def redder(self, colour: Colour, amount: float) -> Colour:
        """The same object behind more dust, E(B-V) = amount in a galaxy at z = 0.5 (negative: less)."""
        rest = self.table.pivot_nm / (1 + _TYPICAL_Z)
        return np.asarray(colour + amount * (attenuation(rest) - attenuation(np.array(_I_NM / (1 + _TYPICAL_Z)))))

    def star(self, rng: np.random.Generator) -> Colour:
        """A star of the field."""
        return np.asarray(self.star_many(rng, 1)[0])

    def star_many(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Colours (n, B) of stars at high galactic latitude: a third near the turn-off, the others K and M dwarfs."""
        blue = rng.random(n) < 0.35
        gi = np.clip(np.where(blue, rng.normal(0.6, 0.2, n), 3.0 - 1.8 * rng.beta(1.6, 2.2, n)), 0.3, 3.0)
        i_less = self._star_table
        place = np.interp(gi, _STAR_GI, np.arange(len(_STAR_GI)))
        low = np.minimum(place.astype(int), len(_STAR_GI) - 2)
        part = (place - low)[:, None]
        colour = (1 - part) * i_less[low] + part * i_less[low + 1]
        return np.asarray(colour + 0.02 * rng.normal(size=colour.shape))

    def quasar(self, rng: np.random.Generator, z: float) -> Colour:
        """A quasar; the power law's slope scatters by 0.3 (Vanden Berk et al. 2001; Richards et al. 2003)."""
        slope = 0.3 * rng.normal() * 2.5 * np.log10(self.table.pivot_nm / _I_NM)
        return np.asarray(look_up_one(self.table.colour, _KINDS["quasar"], z, self.table.z) - slope)

    def supernova(self, rng: np.random.Generator, z: float, temperature_k: float | None = None) -> Colour:
        """A supernova of 5000 to 14000 K, from a month after maximum to maximum."""
        t = rng.uniform(5500.0, 13000.0) if temperature_k is None else temperature_k
        return look_up_one(self.table.colour, float(template_number(np.array(t))), z, self.table.z)

    def apparent_i(self, absolute: npt.ArrayLike, z: npt.ArrayLike, kind: str | float = "early") -> FloatArray:
        """Apparent SDSS i from the absolute magnitude in SDSS i today (of supernovae, "sn10000": in B, Vega).

        Distance modulus, K correction and, for early types, passive evolution of the spectrum itself; any shapes.
        """
        number = _KINDS[kind] if isinstance(kind, str) else kind
        k = look_up(self.table.reference, np.full(np.shape(z), number, float), z, self.table.z)
        return np.asarray(np.asarray(absolute) + distance_modulus(z) + k)

    @cached_property
    def _tilt(self) -> FloatArray:
        """A colour change of one magnitude in g - i."""
        return np.asarray(np.log(_I_NM / self.table.pivot_nm) / np.log(_I_NM / 469.0))

    @cached_property
    def _star_table(self) -> FloatArray:
        return _stars(tuple(self.table.pivot_nm))


def depth(survey: SurveyFacts) -> FloatArray:
    """5 sigma magnitudes (B,) of a point source, matched filter of a Gaussian of the survey's median seeing.

    Its noise is sky_sigma times the square root of 4 pi sigma^2 pixels; correlated noise counts by its Gaussian's area.
    """
    noise = np.array([survey.sky_sigma.get(band, np.nan) for band in survey.bands])
    fwhm_pix = np.array([survey.psf_fwhm_arcsec[band] for band in survey.bands]) / survey.pixel_scale_arcsec
    zero_point = np.array([survey.zero_point[band] for band in survey.bands])
    n_pix = np.maximum(2.266 * fwhm_pix**2, 1.0)
    correlated = np.maximum(1.0, 4 * np.pi * survey.noise_correlation_pix**2)
    found = zero_point - 2.5 * np.log10(5 * noise * np.sqrt(n_pix * correlated))
    return np.asarray(np.where(np.isfinite(found), found, _DEPTH_UNKNOWN))


def _stars(pivot_nm: tuple[float, ...]) -> FloatArray:
    """Magnitude less i of the main sequence (G, B) at these wavelengths."""
    j = -_STAR_IZ - _STAR_ZJ
    less_i = np.stack(
        [_STAR_UG + _STAR_GI, _STAR_GI, _STAR_RI, np.zeros(len(_STAR_GI)), -_STAR_IZ, j, j - _STAR_JH,
         j - _STAR_JH - _STAR_HK, j - _STAR_JH - _STAR_HK + _K_TO_TAIL]
    )  # fmt: skip
    return np.stack([np.interp(np.log(pivot_nm), np.log(_STAR_NM), row) for row in less_i.T])
