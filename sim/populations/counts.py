"""How many galaxies, quasars and supernovae there are per apparent magnitude (SDSS i, AB) and redshift."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sim.lensing.cosmology import distance_modulus, volume_per_z
from sim.populations.supernovae import apparent_table
from stages.records import FloatArray

Z = np.arange(0.05, 6.5, 0.05)
I_MAGNITUDE = np.arange(14.0, 30.01, 0.1)

# log10 galaxies per half magnitude and square degree, i band: Weaver et al. 2022, Table 2, from i = 19 to 27, where the
# total agrees with 46 per square arcmin to i = 25 (LSST Science Book); brighter and fainter, after Metcalfe et al. 2001
_COUNT_I = np.array([14.0, 16.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 27.0, 28.0, 30.0])
_COUNT_LOG = np.array([-0.3, 0.85, 2.0, 2.58, 3.03, 3.44, 3.82, 4.16, 4.48, 4.72, 4.94, 5.12, 5.30, 5.66])


def galaxy_log_counts(i_magnitude: FloatArray) -> FloatArray:
    """log10 galaxies per half magnitude and square degree."""
    return np.asarray(np.interp(i_magnitude, _COUNT_I, _COUNT_LOG))


@lru_cache(maxsize=1)
def _cumulative() -> FloatArray:
    step = 2 * (I_MAGNITUDE[1] - I_MAGNITUDE[0])
    density = 10 ** galaxy_log_counts(I_MAGNITUDE) * step / 3600.0
    return np.asarray(np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))]))


def galaxies_per_arcmin2(brighter_than: float) -> float:
    """Galaxies per square arcmin brighter than an i magnitude."""
    return float(np.interp(brighter_than, I_MAGNITUDE, _cumulative()))


def galaxy_magnitudes(rng: np.random.Generator, n: int, bright: float, faint: float) -> FloatArray:
    """Magnitudes (n,) that follow the counts between two limits."""
    low, high = galaxies_per_arcmin2(bright), galaxies_per_arcmin2(faint)
    return np.asarray(np.interp(rng.uniform(low, high, n), _cumulative(), I_MAGNITUDE))


def galaxy_redshifts(rng: np.random.Generator, i_magnitude: FloatArray) -> FloatArray:
    """Redshifts (n,) of galaxies, density z^2 exp(-z / z0(i)) (Coil et al. 2004, DEEP2; continued beyond i = 24)."""
    return np.asarray(np.clip(rng.gamma(3.0, _scale(i_magnitude)), 0.02, 6.4))


def _scale(i_magnitude: FloatArray) -> FloatArray:
    return np.asarray(np.maximum(0.0417 * i_magnitude - 0.744, 0.03))


@lru_cache(maxsize=1)
def galaxies() -> FloatArray:
    """Density (Z, I) of galaxies."""
    scale = _scale(I_MAGNITUDE)
    redshift = Z[:, None] ** 2 * np.exp(-Z[:, None] / scale) / (2 * scale**3)
    return np.asarray(redshift * 10 ** galaxy_log_counts(I_MAGNITUDE))


@lru_cache(maxsize=1)
def quasars() -> FloatArray:
    """Density (Z, I) of quasars: luminosity function of Richards et al. (2005), as Oguri & Marshall (2010) use it."""
    z = Z[:, None]
    absolute = I_MAGNITUDE - distance_modulus(z) + 1.25 * np.log10(1 + z)  # continuum nu^-0.5
    turn = np.exp(4.05 * 1.60)
    evolution = np.exp(2.98 * z) * (1 + turn) / (np.sqrt(np.exp(4.05 * z)) + np.sqrt(turn)) ** 2
    knee = -20.90 + 5 * np.log10(0.7) - 2.5 * np.log10(evolution)
    bright = np.where(z < 3, -3.31, -2.58)
    x = 0.4 * (absolute - knee)
    density = 1 / (10 ** ((bright + 1) * x) + 10 ** ((-1.45 + 1) * x))
    return np.asarray(density * volume_per_z(z) * (absolute < -20.0))


@lru_cache(maxsize=1)
def supernovae() -> FloatArray:
    """Density (Z, I) of supernovae at a random day of their light curves."""
    weight, mean, sigma = apparent_table(Z)
    offset = (I_MAGNITUDE[None, None, :] - mean[..., None]) / sigma[:, None, None]
    return np.asarray((weight[..., None] / sigma[:, None, None] * np.exp(-0.5 * offset**2)).sum(axis=0))


@lru_cache(maxsize=256)
def _redshift_table(kind: str, limits: tuple[float, float]) -> FloatArray:
    density = of_kind(kind)
    inside = (limits[0] <= I_MAGNITUDE) & (limits[1] >= I_MAGNITUDE)
    return np.asarray(density[:, inside].sum(axis=1))


def of_kind(kind: str) -> FloatArray:
    """Density (Z, I) of galaxies, quasars or supernovae, any unit."""
    return {"galaxy": galaxies, "quasar": quasars, "supernova": supernovae}[kind]()


def redshift_density(kind: str, limits: tuple[float, float], z: FloatArray) -> FloatArray:
    """Density in redshift of sources between two magnitudes, any shape and unit."""
    return np.asarray(np.interp(z, Z, _redshift_table(kind, limits)))


def magnitudes_at(
    rng: np.random.Generator, kind: str, z: float, limits: tuple[float, float], n: int, tilt: float = 0.0
) -> FloatArray:
    """Magnitudes (n,) of sources of one redshift between two limits, their numbers multiplied by 10^(tilt i)."""
    density = of_kind(kind)[min(int(np.searchsorted(Z, z)), len(Z) - 1)]
    inside = (limits[0] <= I_MAGNITUDE) & (limits[1] >= I_MAGNITUDE)
    places = I_MAGNITUDE[inside]
    running = np.cumsum(density[inside] * 10 ** (tilt * (places - places[0])))
    if not running[-1] > 0:  # none so bright at this redshift: as faint as allowed
        return np.full(n, limits[1])
    k = np.minimum(np.searchsorted(running, rng.random(n) * running[-1], side="right"), len(places) - 1)
    return np.asarray(np.clip(places[k] + rng.uniform(-0.05, 0.05, n), *limits))
