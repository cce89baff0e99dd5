"""Draw deflectors, sources and their surroundings from the priors in `configs/sim.yaml`.

Angles are arcsec with x to the right and y up; magnitudes are AB. The relations are the observed ones to first order:
Faber-Jackson and size-dispersion for early types (Bernardi et al. 2003), passive colours with redshift
(Eisenstein et al. 2001, Table 1), faint blue source counts rising as a power law (Capak et al. 2007).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from scipy.interpolate import RegularGridInterpolator

from stages.records import FloatArray

Range = tuple[float, float]

_COSMOLOGY = FlatLambdaCDM(70.0, 0.3)
_SPEED_OF_LIGHT_KM_S = 299792.458
_ARCSEC = 206264.806

# Wavelengths (nm) at which colours relative to the i band are tabulated; between them log wavelength is interpolated.
_ANCHOR_NM = np.array([355.0, 475.0, 622.0, 763.0, 905.0, 1250.0, 1650.0, 2200.0, 4440.0])
# Early types by redshift: magnitude minus i magnitude at the anchors (passive evolution, formation at z = 3).
_EARLY_Z = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5])
_EARLY_COLOUR = np.array(
    [
        [3.15, 1.35, 0.40, 0.0, -0.28, -0.65, -0.90, -0.75, 0.30],
        [3.40, 1.70, 0.48, 0.0, -0.30, -0.70, -1.00, -1.00, 0.00],
        [3.60, 2.05, 0.55, 0.0, -0.33, -0.80, -1.10, -1.30, -0.40],
        [3.70, 2.33, 0.67, 0.0, -0.36, -0.88, -1.25, -1.60, -0.80],
        [3.80, 2.60, 0.87, 0.0, -0.40, -0.95, -1.38, -1.85, -1.20],
        [3.90, 2.80, 1.05, 0.0, -0.45, -1.05, -1.50, -2.05, -1.50],
        [4.00, 2.95, 1.22, 0.0, -0.72, -1.45, -1.95, -2.55, -2.10],
        [4.00, 3.00, 1.30, 0.0, -0.90, -1.85, -2.40, -3.00, -2.70],
        [3.60, 2.60, 1.20, 0.0, -0.80, -2.10, -2.90, -3.50, -3.60],
    ]
)
_BLUE_COLOUR = np.array([0.85, 0.45, 0.18, 0.0, -0.12, -0.25, -0.35, -0.40, -0.60])
_RED_TILT = np.array([1.6, 1.1, 0.45, 0.0, -0.25, -0.6, -0.9, -1.1, -1.4])  # from blue towards dusty or old


@dataclass(frozen=True)
class Population:
    """Priors of one survey's scenes; ranges are (low, high).

    crowded_fraction : share of ordinary galaxies that have a bright early type of a group 3 to 9 arcsec away.
    overdensity_sigma : natural-log scatter of the number density of neighbours from field to field.
    """

    z_deflector: Range = (0.15, 0.9)
    velocity_dispersion_km_s: Range = (170.0, 380.0)
    group_fraction: float = 0.18
    z_source: Range = (0.6, 3.5)
    source_magnitude: Range = (21.0, 26.5)
    quasar_magnitude: Range = (19.0, 24.0)
    magnitude_slope: float = 0.30
    shear_sigma: float = 0.05
    neighbour_magnitude: Range = (19.5, 26.0)
    field_magnitude: Range = (17.0, 21.5)
    crowded_fraction: float = 0.15
    overdensity_sigma: float = 0.5

    def __post_init__(self) -> None:
        for name in ("z_deflector", "velocity_dispersion_km_s", "z_source", "source_magnitude", "quasar_magnitude",
                     "neighbour_magnitude", "field_magnitude"):  # fmt: skip
            pair = getattr(self, name)
            if not pair[0] < pair[1]:
                raise ValueError(f"{name}: expected [low, high] with low < high, got {list(pair)}")


@dataclass(frozen=True, eq=False)
class Sersic:
    """One elliptical Sersic profile: position and half-light radius in arcsec, flux per band in the survey's unit."""

    x: float
    y: float
    radius: float
    index: float
    q: float
    pa: float
    flux: FloatArray


def moved(component: Sersic, dx: float, dy: float) -> Sersic:
    """The same profile elsewhere, by (dx, dy) arcsec."""
    return replace(component, x=component.x + dx, y=component.y + dy)


@dataclass(frozen=True, eq=False)
class Deflector:
    """A lens galaxy: singular isothermal ellipsoid with shear (theta_E of Kormann et al. 1994) and its light."""

    theta_e: float
    q: float
    pa: float
    gamma1: float
    gamma2: float
    z: float
    z_source: float
    light: tuple[Sersic, ...]


@dataclass(frozen=True, eq=False)
class Source:
    """What is lensed: extended light relative to (x, y), and a point of the given flux per band (zero: none)."""

    x: float
    y: float
    light: tuple[Sersic, ...]
    point_flux: FloatArray


@dataclass(frozen=True, eq=False)
class Photometry:
    """Turns magnitudes and colours into flux per band of one survey."""

    wavelength_nm: FloatArray
    zero_point: FloatArray = field(repr=False)

    def flux(self, i_magnitude: float, colour: FloatArray) -> FloatArray:
        """Flux (B,) of an object with the given i magnitude and colours at the anchor wavelengths."""
        offset = np.interp(np.log(self.wavelength_nm), np.log(_ANCHOR_NM), colour)
        return np.asarray(10.0 ** (-0.4 * (i_magnitude + offset - self.zero_point)))


def early_colour(z: float, rng: np.random.Generator) -> FloatArray:
    """Colours of a passive galaxy at redshift z, with the red sequence's scatter."""
    table = np.array([np.interp(z, _EARLY_Z, column) for column in _EARLY_COLOUR.T])
    return table * (1.0 + 0.04 * rng.normal()) + 0.03 * rng.normal(size=table.size)


def blue_colour(rng: np.random.Generator, redness: float | None = None) -> FloatArray:
    """Colours of a star-forming galaxy; `redness` 0 is a starburst, 1 old or dusty."""
    tilt = rng.beta(1.5, 4.0) if redness is None else redness
    return _BLUE_COLOUR + tilt * _RED_TILT + 0.25 * rng.normal() * _BLUE_COLOUR + 0.05 * rng.normal(size=9)


def magnitude(rng: np.random.Generator, low_high: Range, slope: float = 0.3) -> float:
    """A magnitude from counts N(m) proportional to 10^(slope m) within a range."""
    low, high = low_high
    u = rng.random()
    return float(np.log10((1 - u) * 10 ** (slope * low) + u * 10 ** (slope * high)) / slope)


@lru_cache(maxsize=1)
def _distances() -> tuple[RegularGridInterpolator, FloatArray, FloatArray, FloatArray]:
    """Interpolators of D_ls / D_s, and of the distance modulus and kpc per arcsec."""
    z = np.linspace(0.02, 6.0, 120)
    comoving = _COSMOLOGY.comoving_distance(z).value
    ratio = np.clip(1.0 - comoving[:, None] / comoving[None, :], 0.0, None)
    modulus = _COSMOLOGY.distmod(z).value
    scale = comoving / (1 + z) * 1000.0 / _ARCSEC
    return RegularGridInterpolator((z, z), ratio), z, modulus, scale


def einstein_radius_arcsec(dispersion_km_s: float, z_deflector: float, z_source: float) -> float:
    """Einstein radius of a singular isothermal sphere, 4 pi (sigma/c)^2 D_ls/D_s."""
    ratio = float(_distances()[0]((z_deflector, z_source)))
    return 4 * np.pi * (dispersion_km_s / _SPEED_OF_LIGHT_KM_S) ** 2 * ratio * _ARCSEC


def early_type(
    rng: np.random.Generator, photometry: Photometry, z: float, dispersion: float, xy: tuple[float, float] = (0.0, 0.0)
) -> Sersic:
    """The light of an early type of a given dispersion and redshift at a position."""
    _, grid, modulus, scale = _distances()
    absolute_i = -22.7 - 2.5 * 3.3 * np.log10(dispersion / 220.0) + 0.30 * rng.normal()
    k_correction = 0.9 * z
    apparent = absolute_i + np.interp(z, grid, modulus) + k_correction
    radius_kpc = 10 ** (np.log10(4.8) + 1.6 * np.log10(dispersion / 220.0) + 0.13 * rng.normal())
    radius = float(np.clip(radius_kpc / np.interp(z, grid, scale), 0.15, 6.0))
    flux = photometry.flux(float(apparent), early_colour(z, rng))
    index = float(np.clip(rng.normal(4.0, 0.9), 1.8, 6.5))
    return Sersic(*xy, radius, index, rng.uniform(0.55, 0.98), rng.uniform(0, np.pi), flux)


def deflector(rng: np.random.Generator, photometry: Photometry, prior: Population) -> Deflector:
    """An early-type deflector, weighted by its lensing cross-section, in a group with companions now and then."""
    while True:
        z, z_source = rng.uniform(*prior.z_deflector), rng.uniform(*prior.z_source)
        dispersion = rng.uniform(*prior.velocity_dispersion_km_s)
        theta_e = einstein_radius_arcsec(dispersion, z, z_source) if z_source > z + 0.15 else 0.0
        if theta_e > 0.35 and rng.random() < (theta_e / 2.5) ** 0.7:
            break
    in_group = rng.random() < prior.group_fraction
    if in_group:
        theta_e = min(theta_e * rng.uniform(1.2, 2.2), 4.8)
    main = early_type(rng, photometry, z, dispersion)
    light = [main]
    for _ in range(int(rng.integers(1, 4)) if in_group else 0):
        r, angle = rng.uniform(1.2, 5.0), rng.uniform(0, 2 * np.pi)
        companion_dispersion = dispersion * rng.uniform(0.55, 0.95)
        light.append(early_type(rng, photometry, z, companion_dispersion, (r * np.cos(angle), r * np.sin(angle))))
    q = float(np.clip(main.q + 0.1 * rng.normal(), 0.45, 0.98))
    shear, angle = rng.rayleigh(prior.shear_sigma * (1.5 if in_group else 1.0)), rng.uniform(0, np.pi)
    shear = min(shear, 0.25)
    return Deflector(
        theta_e, q, main.pa + np.radians(8.0) * rng.normal(), shear * np.cos(2 * angle), shear * np.sin(2 * angle),
        z, z_source, tuple(light),
    )  # fmt: skip


def blue_galaxy(
    rng: np.random.Generator, photometry: Photometry, i_magnitude: float, xy: tuple[float, float], radius: float
) -> tuple[Sersic, ...]:
    """A star-forming galaxy: a disc with up to four clumps of its own colour scatter, sometimes a bulge."""
    x, y = xy
    q, pa = rng.uniform(0.25, 0.98), rng.uniform(0, np.pi)
    colour = blue_colour(rng)
    total = photometry.flux(i_magnitude, colour)
    share = rng.dirichlet([6.0, *([1.0] * int(rng.integers(0, 5)))])
    parts = [Sersic(x, y, radius, rng.uniform(0.7, 1.6), q, pa, total * share[0])]
    for part in share[1:]:
        r, angle = radius * rng.uniform(0.3, 1.6), rng.uniform(0, 2 * np.pi)
        along, across = r * np.cos(angle), q * r * np.sin(angle)
        dx, dy = along * np.cos(pa) - across * np.sin(pa), along * np.sin(pa) + across * np.cos(pa)
        bluer = photometry.flux(i_magnitude, colour - 0.3 * rng.random() * _RED_TILT)
        parts.append(
            Sersic(x + dx, y + dy, radius * rng.uniform(0.08, 0.3), 1.0, rng.uniform(0.6, 1), 0.0, bluer * part)
        )
    if rng.random() < 0.25:
        redder = photometry.flux(i_magnitude + rng.uniform(0.7, 2.0), colour + 0.5 * _RED_TILT)
        parts.append(Sersic(x, y, 0.3 * radius, 2.0, rng.uniform(0.6, 1.0), pa, redder))
    return tuple(parts)


def source(
    rng: np.random.Generator, photometry: Photometry, prior: Population, lens: Deflector, with_point: bool
) -> Source:
    """A source near the caustics: positions fill the disc in which more than one image forms."""
    reach = lens.theta_e * (0.75 if with_point else 0.9)
    r, angle = reach * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    if with_point and rng.random() < 0.55:  # quads are over-drawn: the counter must see them
        r = 0.35 * lens.theta_e * np.sqrt(rng.random())
    xy = (r * np.cos(angle), r * np.sin(angle))
    radius = float(np.clip(rng.lognormal(np.log(0.22), 0.45), 0.05, 0.7))
    host_magnitude = magnitude(rng, prior.source_magnitude, prior.magnitude_slope)
    point = np.zeros_like(photometry.zero_point)
    if with_point:
        point_magnitude = magnitude(rng, prior.quasar_magnitude, prior.magnitude_slope)
        host_magnitude = point_magnitude + rng.uniform(0.3, 4.0)
        point = photometry.flux(point_magnitude, 0.8 * blue_colour(rng, rng.uniform(0, 0.6)))
    return Source(*xy, blue_galaxy(rng, photometry, host_magnitude, xy, radius), point)


def neighbours(
    rng: np.random.Generator, photometry: Photometry, prior: Population, field_arcsec: float, per_arcmin2: float
) -> tuple[tuple[Sersic, ...], list[tuple[float, float, FloatArray]]]:
    """Unrelated galaxies and stars over the field, at least 1.5 arcsec from its centre; stars are (x, y, flux)."""
    galaxies: list[Sersic] = []
    stars: list[tuple[float, float, FloatArray]] = []
    density = per_arcmin2 * np.exp(prior.overdensity_sigma * rng.normal())
    for _ in range(rng.poisson(density * (field_arcsec / 60.0) ** 2)):
        x, y = rng.uniform(-field_arcsec / 2, field_arcsec / 2, 2)
        if np.hypot(x, y) < 1.5:
            continue
        m = magnitude(rng, prior.neighbour_magnitude)
        kind = rng.random()
        if kind < 0.08:
            stars.append((x, y, photometry.flux(m, star_colour(rng))))
        elif kind < 0.30:
            early = early_type(rng, photometry, rng.uniform(0.15, 0.9), 140.0, (x, y))
            flux = photometry.flux(m, early_colour(rng.uniform(0.15, 0.9), rng))
            galaxies.append(Sersic(x, y, min(early.radius, 0.8), early.index, early.q, early.pa, flux))
        else:
            radius = float(np.clip(rng.lognormal(np.log(0.35 * 10 ** (0.1 * (23 - m))), 0.35), 0.06, 2.0))
            galaxies.extend(blue_galaxy(rng, photometry, m, (x, y), radius))
    return tuple(galaxies), stars


def star_colour(rng: np.random.Generator) -> FloatArray:
    """Colours of a star: the main sequence from A to M as one line in colour space."""
    t = rng.random()
    base = np.array([1.4, 0.15, 0.02, 0.0, 0.0, 0.0, 0.1, 0.6, 2.0])
    cool = np.array([4.2, 2.5, 1.15, 0.0, -0.6, -1.2, -1.2, -0.9, 0.3])
    return (1 - t) * base + t * cool + 0.03 * rng.normal(size=9)
