"""Light of galaxies as Sersic profiles: early types, discs and clumpy star-forming galaxies.

Angles are arcsec, x to the right and y up; absolute magnitudes are in SDSS i today for H0 = 70 km/s/Mpc.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc

from sim.lensing.cosmology import distance_modulus, kpc_per_arcsec
from sim.populations.photometry import Photometry
from sim.populations.priors import Range
from sim.sersic import b_n
from stages.records import FloatArray

# Joint Gaussian of absolute magnitude, log10 half-light radius (kpc) and log10 velocity dispersion (km/s) of early
# types (Bernardi et al. 2003, part II, Table 1, r band; r - i = 0.38). It holds fundamental plane and Faber-Jackson.
_M_STAR, _M_SIGMA = -21.15 - 0.38, 0.841
_R_STAR, _R_SIGMA = 0.45, 0.263
_V_STAR, _V_SIGMA = 2.20, 0.111
_RHO_RM, _RHO_VM, _RHO_RV = -0.882, -0.780, 0.543
# Early types' half-light radii shrink by 35% from g to K (La Barbera et al. 2010, SPIDER I), as a power law of rest
# wavelength; constant beyond u and K, where the measurements of Kelvin et al. (2012) end.
_RADIUS_SLOPE = np.log(0.65) / np.log(2190.0 / 469.0)
_RADIUS_NM = (355.0, 2190.0)
_I_NM = 748.0
_SAME_RADIUS = 0.01  # radii that differ by less are one


@dataclass(frozen=True, eq=False)
class Sersic:
    """One elliptical Sersic profile: position and half-light radius in arcsec, flux (B,) in the survey's unit.

    radius : geometric mean of the axes of the ellipse that holds half of the light; pa : radians from x towards y;
    band_radius : (B,) half-light radius of each band over `radius`, None where all are the same: a colour gradient.
    """

    x: float
    y: float
    radius: float
    index: float
    q: float
    pa: float
    flux: FloatArray
    band_radius: FloatArray | None = None

    def parts(self) -> tuple[Sersic, ...]:
        """The same light as profiles that each have one radius in all bands: one, or with a gradient two.

        The bands of the smallest and of the largest radius are plain profiles; those between share out their flux so
        that half of it lies within their own radius.
        """
        if self.band_radius is None:
            return (self,)
        small, large = float(self.band_radius.min()), float(self.band_radius.max())
        if large - small < _SAME_RADIUS * small:
            return (replace(self, radius=self.radius * small, band_radius=None),)
        b = b_n(self.index)
        within_inner, within_outer = (
            gammainc(2 * self.index, b * (self.band_radius / r) ** (1 / self.index)) for r in (small, large)
        )
        outer = np.clip((within_inner - 0.5) / (within_inner - within_outer), 0.0, 1.0)
        return tuple(
            replace(self, radius=self.radius * r, flux=self.flux * share, band_radius=None)
            for r, share in ((small, 1 - outer), (large, outer))
        )


def moved(component: Sersic, dx: float, dy: float) -> Sersic:
    """The same profile elsewhere, by (dx, dy) arcsec."""
    return replace(component, x=component.x + dx, y=component.y + dy)


def magnitude(rng: np.random.Generator, low_high: Range, slope: float = 0.3) -> float:
    """A magnitude from counts N(m) proportional to 10^(slope m) within a range."""
    low, high = low_high
    u = rng.random()
    return float(np.log10((1 - u) * 10 ** (slope * low) + u * 10 ** (slope * high)) / slope)


@lru_cache(maxsize=1)
def _given_dispersion() -> tuple[FloatArray, FloatArray]:
    """Slopes (2,) of magnitude and log radius on log dispersion, and the square root (2, 2) of their scatter."""
    cov = np.array([[_M_SIGMA**2, _RHO_RM * _M_SIGMA * _R_SIGMA], [_RHO_RM * _M_SIGMA * _R_SIGMA, _R_SIGMA**2]])
    cross = np.array([_RHO_VM * _M_SIGMA * _V_SIGMA, _RHO_RV * _R_SIGMA * _V_SIGMA])
    return cross / _V_SIGMA**2, np.linalg.cholesky(cov - np.outer(cross, cross) / _V_SIGMA**2)


def early_luminosity_and_size(
    rng: np.random.Generator, dispersion_km_s: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Absolute magnitude and half-light radius in kpc (any shape) of early types of these velocity dispersions."""
    slope, scatter = _given_dispersion()
    above = np.log10(dispersion_km_s) - _V_STAR
    noise = np.tensordot(scatter, rng.normal(size=(2, *np.shape(above))), 1)
    return _M_STAR + slope[0] * above + noise[0], 10 ** (_R_STAR + slope[1] * above + noise[1])


def early_type(
    rng: np.random.Generator, photometry: Photometry, z: float, dispersion: float, xy: tuple[float, float] = (0.0, 0.0)
) -> Sersic:
    """An early type of a velocity dispersion (km/s).

    Sizes fall as (1+z)^-0.49, fitted to red galaxies of DES: (1+z)^-0.98 (van der Wel et al. 2008) makes them look less
    alike, see docs/realism.md. No publication is behind the exponent. The size is that in i; bluer bands have larger
    ones, see `early_band_radius`.
    """
    absolute, radius_kpc = early_luminosity_and_size(rng, dispersion)
    apparent = float(photometry.apparent_i(absolute, z))
    radius = float(np.clip(radius_kpc / (1 + z) ** 0.49 / kpc_per_arcsec(z) * 1.1, 0.08, 8.0))
    index = float(np.clip(rng.normal(4.0, 0.9) - 0.4 * (absolute + 21.5), 1.8, 7.0))  # brighter, more concentrated
    q = float(np.clip(rng.normal(0.78, 0.15), 0.35, 0.99))  # Hyde & Bernardi (2009)
    pa, flux = rng.uniform(0, np.pi), photometry.flux(apparent, photometry.early(rng, z))
    return Sersic(*xy, radius, index, q, pa, flux, early_band_radius(photometry.table.pivot_nm, z))


def early_band_radius(band_nm: FloatArray, z: float) -> FloatArray:
    """Half-light radius (B,) of an early type in bands of these wavelengths (B,), over that in SDSS i.

    Proportional to (rest wavelength)^-0.28: 35% smaller in K than in g (La Barbera et al. 2010; see also Vulcani et
    al. 2014), which is the colour gradient of old galaxies, redder and richer in metals towards the middle.
    """
    rest = np.clip(np.append(band_nm, _I_NM) / (1 + z), *_RADIUS_NM)
    return np.asarray((rest[:-1] / rest[-1]) ** _RADIUS_SLOPE)


def disc_type(
    rng: np.random.Generator, photometry: Photometry, z: float, dispersion: float, xy: tuple[float, float] = (0.0, 0.0)
) -> tuple[Sersic, Sersic]:
    """A disc galaxy as disc and bulge; luminosity from circular velocity sqrt(2) dispersion (Pizagno et al. 2007).

    Sizes fall as (1+z)^-0.75 (van der Wel et al. 2014, late types).
    """
    absolute = -20.33 - (np.log10(np.sqrt(2) * dispersion) - 2.13) / 0.134 + 0.42 * rng.normal()
    apparent = float(photometry.apparent_i(absolute - 0.5 * z, z, "Sbc"))  # disc galaxies were brighter
    radius_kpc = 6.0 * 10 ** (-0.4 * 0.28 * (absolute + 21.5)) * np.exp(0.3 * rng.normal())  # Shen et al. (2003)
    radius = float(np.clip(radius_kpc / (1 + z) ** 0.75 / kpc_per_arcsec(z), 0.1, 8.0))
    q, pa = float(np.hypot(0.2, 0.98 * rng.random())), rng.uniform(0, np.pi)  # any inclination, thickness 0.2
    bulge = rng.uniform(0.15, 0.6)
    disc_flux = photometry.flux(
        apparent - 2.5 * np.log10(1 - bulge), photometry.star_forming(rng, rng.uniform(0.5, 1), z)
    )
    bulge_flux = photometry.flux(apparent - 2.5 * np.log10(bulge), photometry.early(rng, z))
    return (
        Sersic(*xy, radius * np.sqrt(q), 1.0, q, pa, disc_flux),
        Sersic(*xy, max(0.25 * radius, 0.05), rng.uniform(1.5, 4.0), max(q, rng.uniform(0.6, 0.95)), pa, bulge_flux),
    )


def star_forming_radius(rng: np.random.Generator, i_magnitude: FloatArray, z: FloatArray) -> FloatArray:
    """Half-light radii (n,) in arcsec of star-forming galaxies.

    r = 6.9 kpc (1+z)^-1.2 (L_UV / L(-21))^0.27, logarithmic scatter 0.45 (Shibuya, Ouchi & Harikane 2015, section 4);
    the ultraviolet magnitude is that at the rest wavelength of i, less the Balmer break where i lies redward of it.
    """
    absolute = i_magnitude - distance_modulus(z) + 2.5 * np.log10(1 + z) + np.clip(1.2 - 0.8 * z, 0.0, 1.2)
    kpc = 6.9 * (1 + z) ** -1.2 * 10 ** (-0.4 * 0.27 * (absolute + 21.0)) * np.exp(0.45 * rng.normal(size=np.shape(z)))
    return np.asarray(np.clip(kpc / kpc_per_arcsec(z), 0.03, 4.0))


def blue_galaxy(
    rng: np.random.Generator, photometry: Photometry, i_magnitude: float, xy: tuple[float, float], radius: float,
    z: float | None = None,
) -> tuple[Sersic, ...]:  # fmt: skip
    """A star-forming galaxy of a half-light radius in arcsec: disc, often blue clumps, often a redder bulge.

    Three of five distant ones have clumps, which hold about a fifth of the light (Guo et al. 2015); the shares in i add
    up to the magnitude given.
    """
    at = float(rng.gamma(3.0, 0.25)) if z is None else z
    q, pa = float(np.hypot(0.2, 0.98 * rng.random())), float(rng.uniform(0, np.pi))
    red = float(rng.beta(2.0, 2.5))
    colour = photometry.star_forming(rng, red, at)
    n_clumps = int(rng.integers(1, 7)) if rng.random() < 0.6 else 0
    clumpy = rng.beta(2.0, 6.0) if n_clumps else 0.0
    bulge = rng.beta(1.5, 4.0) if rng.random() < 0.5 else 0.0
    disc = (1 - clumpy) * (1 - bulge)
    parts = [Sersic(*xy, radius, rng.uniform(0.7, 1.5), q, pa, photometry.flux(i_magnitude, colour) * disc)]
    if bulge:
        old = 0.5 * colour + 0.5 * photometry.star_forming(rng, 1.0, at)
        flux = photometry.flux(i_magnitude, old) * (1 - clumpy) * bulge
        parts.append(Sersic(*xy, max(0.25 * radius, 0.01), rng.uniform(1, 4), max(q, rng.uniform(0.6, 1)), pa, flux))
    young = photometry.star_forming(rng, 0.4 * red, at) if n_clumps else colour
    for share in rng.dirichlet(np.ones(n_clumps)) if n_clumps else ():
        r, angle = radius * rng.uniform(0.2, 1.8), rng.uniform(0, 2 * np.pi)
        along, across = r * np.cos(angle), q * r * np.sin(angle)
        x, y = along * np.cos(pa) - across * np.sin(pa), along * np.sin(pa) + across * np.cos(pa)
        size = max(radius * rng.uniform(0.06, 0.25), 0.01)
        flux = photometry.flux(i_magnitude, young) * clumpy * share
        parts.append(Sersic(xy[0] + x, xy[1] + y, size, 1.0, rng.uniform(0.6, 1), rng.uniform(0, np.pi), flux))
    return tuple(parts)
