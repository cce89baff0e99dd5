"""Draw deflectors: mass and light of early types, discs, groups and pairs in the proportions that lensing gives them.

A lens's redshift, velocity dispersion and source redshift are drawn together, in proportion to the velocity dispersion
function (Choi, Park & Vogeley 2007 for early types; Chae 2007 for late), the comoving volume, the cross-section
theta_E^2, and the number of sources behind it to the survey's depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sim.lensing.cosmology import (
    einstein_mass,
    einstein_radius_arcsec,
    kpc_per_arcsec,
    lensing_efficiency,
    volume_per_z,
)
from sim.lensing.lens import Lens, PowerLaw, Subhalo
from sim.populations.counts import redshift_density
from sim.populations.galaxies import Sersic, disc_type, early_type
from sim.populations.photometry import Photometry
from sim.populations.priors import DEFLECTOR_STRATA, Population, Range, choose
from stages.records import FloatArray

KINDS = ("early", "disc", "group", "pair")

_CANDIDATES = 48
_TRIES = 20
# sigma*, alpha, beta of the modified Schechter function
_EARLY_FUNCTION = (161.0, 2.32, 2.67)
_LATE_FUNCTION = (133.0, 0.30, 2.91)
_SUBHALO_MASS = (1e8, 1e10)  # solar masses; smaller ones move no image that a survey sees
_SUBHALO_SLOPE = 1.9
_SUBHALO_REACH = 2.5  # Einstein radii within which subhaloes lie
_MAX_SUBHALOES = 40
_MEMBERS = {"early": 0.8, "disc": 0.2, "group": 3.0, "pair": 1.5}
_MASS_SCATTER = 0.05  # lensing over stellar dispersion (Bolton et al. 2008)


@dataclass(frozen=True, eq=False)
class Deflector:
    """A lens: its mass, its light (the main galaxy first), and by what factor its strata over-represent it.

    kind : one of `KINDS`; velocity_dispersion_km_s : of the main galaxy.
    """

    mass: Lens
    light: tuple[Sersic, ...]
    z: float
    z_source: float
    velocity_dispersion_km_s: float
    kind: str
    boost: float = 1.0

    def before(self, z_source: float) -> Deflector:
        """The same galaxy before a source at another redshift: deflections go with D_ls / D_s.

        Raises LensError where the source is so near that the Einstein radius would lie within the core.
        """
        efficiency = lensing_efficiency(self.z, np.array([z_source, self.z_source]))
        return replace(self, mass=self.mass.scaled(float(efficiency[0] / efficiency[1])), z_source=z_source)


@dataclass(frozen=True, eq=False)
class _Cells:
    """A density over redshift, log10 dispersion and source redshift: running sums and the corners of its cells."""

    cumulative: FloatArray
    corners: tuple[FloatArray, FloatArray, FloatArray]

    def draw(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Redshift, log10 dispersion and source redshift (3, n)."""
        cell = np.searchsorted(self.cumulative, rng.random(n) * self.cumulative[-1], side="right")
        places = np.unravel_index(cell, tuple(len(c) - 1 for c in self.corners))
        part = rng.random((3, n))
        return np.array(
            [c[p] + part[k] * (c[p + 1] - c[p]) for k, (c, p) in enumerate(zip(self.corners, places, strict=True))]
        )


def deflector(
    rng: np.random.Generator, photometry: Photometry, prior: Population, source_kind: str = "galaxy"
) -> Deflector:
    """A deflector before a source of a kind (galaxy, quasar or supernova), by its lensing cross-section."""
    limits = prior.source_limits(source_kind, photometry.depth_i)
    n = _CANDIDATES if prior.is_boosted(DEFLECTOR_STRATA) else 1
    shares = np.array([0.0, prior.disc_fraction, prior.group_fraction, prior.pair_fraction])
    shares[0] = 1 - shares.sum()
    for _ in range(_TRIES):  # until a candidate is in a stratum that is wanted
        kind = np.searchsorted(np.cumsum(shares)[:-1], rng.random(n), side="right")
        z, log_dispersion, z_source = np.where(
            kind == 1, _cells(_LATE_FUNCTION, prior, source_kind, limits).draw(rng, n),
            _cells(_EARLY_FUNCTION, prior, source_kind, limits).draw(rng, n),
        )  # fmt: skip
        theta_e = einstein_radius_arcsec(10**log_dispersion, z, z_source)
        weights = prior.weights(_strata(kind, z, z_source, theta_e))
        if weights is None or weights.any():
            break
    k, boost = (0, 1.0) if weights is None else choose(rng, weights)
    return _made(
        rng, photometry, prior, KINDS[kind[k]], float(z[k]), float(z_source[k]), float(10 ** log_dispersion[k]), boost
    )


def source_redshift(rng: np.random.Generator, photometry: Photometry, prior: Population, z: float) -> float:
    """Redshift of a galaxy behind redshift z, by the counts to the survey's depth and the cross-section at each."""
    low, high = prior.z_source
    grid = np.linspace(max(low, z + 0.05), max(high, z + 0.5), 200)
    chance = redshift_density("galaxy", prior.source_limits("galaxy", photometry.depth_i), grid)
    chance = chance * lensing_efficiency(z, grid) ** 2 + 1e-12
    return float(rng.choice(grid, p=chance / chance.sum()))


def _strata(
    kind: npt.NDArray[np.intp], z: FloatArray, z_source: FloatArray, theta_e: FloatArray
) -> dict[str, npt.NDArray[np.bool_]]:
    return {
        "early": kind == 0, "discs": kind == 1, "groups": kind == 2, "pairs": kind == 3,
        "small_theta_e": theta_e < 0.7, "large_theta_e": theta_e > 1.8,
        "low_z_deflector": z < 0.25, "high_z_deflector": z > 0.7, "high_z_source": z_source > 2.5,
    }  # fmt: skip


def _cells(function: tuple[float, float, float], prior: Population, source_kind: str, limits: Range) -> _Cells:
    ranges = (prior.z_deflector, prior.velocity_dispersion_km_s, prior.theta_e_arcsec, prior.z_source)
    rounded = (round(limits[0], 2), round(limits[1], 2))
    return _cell_table(function, *(tuple(r) for r in ranges), source_kind, rounded)


@lru_cache(maxsize=64)
def _cell_table(
    function: tuple[float, float, float], z_deflector: Range, dispersion: Range, theta_e: Range, z_source: Range,
    source_kind: str, limits: Range,
) -> _Cells:  # fmt: skip
    corners = (
        np.linspace(z_deflector[0], z_deflector[1], 61), np.log10(np.geomspace(dispersion[0], dispersion[1], 41)),
        z_source[0] + (z_source[1] - z_source[0]) * np.linspace(0, 1, 49) ** 1.5,
    )  # fmt: skip
    z, log_dispersion, zs = np.meshgrid(*(0.5 * (c[1:] + c[:-1]) for c in corners), indexing="ij")
    theta = einstein_radius_arcsec(10**log_dispersion, z, zs)
    inside = (theta >= theta_e[0]) & (theta <= theta_e[1])
    density = dispersion_function(10**log_dispersion, function) * volume_per_z(z) * theta**2 * inside
    density = density * redshift_density(source_kind, limits, zs) * np.diff(corners[2])
    if not density.any():
        raise ValueError(
            f"no lens has theta_e_arcsec {list(theta_e)} with z_deflector {list(z_deflector)}, "
            f"velocity_dispersion_km_s {list(dispersion)} and z_source {list(z_source)}. Widen one of these ranges."
        )
    return _Cells(np.cumsum(density.ravel()), corners)


def dispersion_function(
    dispersion_km_s: FloatArray, function: tuple[float, float, float] = _EARLY_FUNCTION
) -> FloatArray:
    """Galaxies per unit log10 dispersion and volume, any unit (Choi, Park & Vogeley 2007, equation 4)."""
    star, alpha, beta = function
    x = np.asarray(dispersion_km_s) / star
    return np.asarray(x**alpha * np.exp(-(x**beta)))


def _made(
    rng: np.random.Generator, photometry: Photometry, prior: Population, kind: str, z: float, z_source: float,
    dispersion: float, boost: float,
) -> Deflector:  # fmt: skip
    """Mass and light of a deflector whose redshifts and dispersion are known; the main galaxy lies at the origin."""
    light: list[Sersic] = [early_type(rng, photometry, z, dispersion)]
    if kind == "disc":
        light = list(disc_type(rng, photometry, z, dispersion))
    theta_e = float(einstein_radius_arcsec(dispersion * np.exp(_MASS_SCATTER * rng.normal()), z, z_source))
    halo = rng.uniform(*prior.group_halo) if kind == "group" else 1.0
    main = _power_law(rng, prior, light[0], min(theta_e * halo, 1.5 * prior.theta_e_arcsec[1]), kind == "disc")
    parts: list[PowerLaw | Subhalo] = [main]
    for satellite, x, y in _companions(rng, kind, dispersion, z):
        galaxy = early_type(rng, photometry, z, satellite, (x, y))
        light.append(galaxy)
        own = float(einstein_radius_arcsec(satellite, z, z_source))
        parts.append(_power_law(rng, prior, galaxy, max(own, 0.03), False))
    if rng.random() < prior.subhalo_fraction:
        parts += subhaloes(rng, main.theta_e, einstein_mass(main.theta_e, z, z_source), prior.subhalo_mass_fraction)
    light += _members(rng, photometry, kind, dispersion, z)
    crowd = 1.4 if kind in ("group", "pair") else 1.0
    shear, foreground = _shear(rng, prior.shear_sigma * crowd), _shear(rng, prior.foreground_shear_sigma)
    return Deflector(Lens(tuple(parts), *shear, *foreground), tuple(light), z, z_source, dispersion, kind, boost)


def _power_law(rng: np.random.Generator, prior: Population, light: Sersic, theta_e: float, is_disc: bool) -> PowerLaw:
    """Mass that follows a galaxy's light within scatter in shape and angle; discs lie in rounder haloes."""
    roundness = 0.55 if is_disc else 1.0
    q = float(np.clip(1 - roundness * (1 - light.q) + prior.axis_ratio_sigma * rng.normal(), 0.4, 0.99))
    turn = (
        np.radians(prior.misalignment_deg) * rng.normal() * min(0.3 / max(1 - light.q, 0.1), 3.0)
    )  # round ones turn freely
    slope = float(np.clip(rng.normal(prior.slope_mean, prior.slope_sigma), 1.6, 2.5))
    core = min(float(prior.core_arcsec * np.exp(prior.core_sigma_ln * rng.normal())), 0.2 * theta_e)
    return PowerLaw(theta_e, slope, q, float(light.pa + turn), light.x, light.y, core)


def _companions(rng: np.random.Generator, kind: str, dispersion: float, z: float) -> list[tuple[float, float, float]]:
    """Dispersion and position (arcsec) of satellites; surface density falls as 1 / distance (Chen et al. 2006)."""
    if kind not in ("group", "pair"):
        return []
    found = []
    for _ in range(1 + rng.poisson(1.3) if kind == "group" else 1):
        share = rng.uniform(0.35, 0.85) if kind == "group" else rng.uniform(0.75, 1.0)
        kpc = rng.uniform(8.0, 50.0) if kind == "group" else rng.uniform(3.0, 12.0)
        angle, distance = rng.uniform(0, 2 * np.pi), kpc / float(kpc_per_arcsec(z))
        found.append((dispersion * share, distance * np.cos(angle), distance * np.sin(angle)))
    return found


def _members(rng: np.random.Generator, photometry: Photometry, kind: str, dispersion: float, z: float) -> list[Sersic]:
    """Light of fainter early types of the deflector's own surroundings, whose mass is in the external shear.

    Their excess over the field, surface density as 1 / distance to 120 kpc, is about one for a luminous early type
    (cutouts around such galaxies in DES show 0.9 within 10 arcsec), and three in a group.
    """
    found = []
    for _ in range(rng.poisson(_MEMBERS[kind])):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(15.0, 120.0) / float(kpc_per_arcsec(z))
        place = (distance * np.cos(angle), distance * np.sin(angle))
        found.append(early_type(rng, photometry, z, dispersion * rng.triangular(0.35, 0.45, 0.9), place))
    return found


def _shear(rng: np.random.Generator, sigma: float) -> tuple[float, float]:
    size, angle = min(rng.rayleigh(sigma), 0.25) if sigma > 0 else 0.0, rng.uniform(0, 2 * np.pi)
    return float(size * np.cos(angle)), float(size * np.sin(angle))


def subhaloes(rng: np.random.Generator, theta_e: float, mass_within: float, fraction: float) -> list[Subhalo]:
    """Pseudo-Jaffe subhaloes that hold `fraction` of the convergence at theta_E, dn/dm ~ m^-1.9 (Springel et al. 2008).

    mass_within : solar masses within theta_E. A subhalo truncated at sqrt(b theta_E) has mass pi b^1.5 theta_E^0.5
    Sigma_cr (Dalal & Kochanek 2002, section 3), hence b = theta_E (m / mass_within)^(2/3).
    """
    low, high = _SUBHALO_MASS
    power = 1 - _SUBHALO_SLOPE
    mean = power / (power + 1) * (high ** (power + 1) - low ** (power + 1)) / (high**power - low**power)
    expected = fraction * rng.lognormal(0.0, 0.7) * 0.5 * _SUBHALO_REACH**2 * mass_within / mean
    n = min(int(rng.poisson(expected)), _MAX_SUBHALOES)
    mass = (low**power + rng.random(n) * (high**power - low**power)) ** (1 / power)
    b = theta_e * (mass / mass_within) ** (2 / 3)
    r, angle = _SUBHALO_REACH * theta_e * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    truncation = np.sqrt(b * theta_e)
    return [
        Subhalo(
            float(b[k]),
            float(r[k] * np.cos(angle[k])),
            float(r[k] * np.sin(angle[k])),
            float(0.05 * b[k]),
            float(truncation[k]),
        )
        for k in range(n)
    ]
