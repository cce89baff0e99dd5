"""Unrelated galaxies and stars over a field, drawn as arrays."""

from __future__ import annotations

import numpy as np

from sim.populations.counts import galaxies_per_arcmin2, galaxy_magnitudes, galaxy_redshifts
from sim.populations.galaxies import Sersic, blue_galaxy, star_forming_radius
from sim.populations.photometry import Photometry
from sim.populations.priors import Population
from stages.records import FloatArray

_CLEAR_ARCSEC = 1.5  # nothing lies nearer to the object at the centre
_STAR_SLOPE, _STAR_BRIGHT, _STAR_REFERENCE = 0.15, 14.0, 23.0
_DETAILED_ARCSEC = 0.25  # larger ones get clumps and bulges


def neighbours(
    rng: np.random.Generator, photometry: Photometry, prior: Population, field_arcsec: float, per_arcmin2: float
) -> tuple[tuple[Sersic, ...], list[tuple[float, float, FloatArray]]]:
    """Unrelated galaxies and stars over the field, at least 1.5 arcsec from its centre; stars are (x, y, flux).

    per_arcmin2 : galaxies brighter than the survey's depth; fainter ones follow the counts.
    """
    bright, faint = prior.neighbour_limits(photometry.depth_i)
    ratio = (galaxies_per_arcmin2(faint) - galaxies_per_arcmin2(bright)) / galaxies_per_arcmin2(photometry.depth_i)
    area = (field_arcsec / 60.0) ** 2
    crowd = float(np.exp(prior.overdensity_sigma * rng.normal()))
    x, y = _positions(rng, int(rng.poisson(per_arcmin2 * ratio * crowd * area)), field_arcsec)
    m = galaxy_magnitudes(rng, len(x), bright, faint)
    return tuple(field_galaxies(rng, photometry, m, x, y)), _stars(rng, photometry, area, field_arcsec, faint)


def _positions(rng: np.random.Generator, n: int, field_arcsec: float) -> FloatArray:
    xy = rng.uniform(-field_arcsec / 2, field_arcsec / 2, (2, n))
    return np.asarray(xy[:, np.hypot(*xy) > _CLEAR_ARCSEC])


def field_galaxies(
    rng: np.random.Generator, photometry: Photometry, m: FloatArray, x: FloatArray, y: FloatArray
) -> list[Sersic]:
    """Galaxies of i magnitudes m (n,) at x, y (n,) arcsec; redshift, type, colours and size follow from m."""
    n = len(m)
    z = galaxy_redshifts(rng, m)
    red = rng.random(n) < np.clip(
        0.35 - 0.06 * (m - 20.0), 0.03, 0.45
    )  # share of passive galaxies (Ilbert et al. 2010)
    radius = star_forming_radius(rng, m, z) * np.where(red, 0.6, 1.0)
    index = np.where(red, rng.uniform(2.0, 5.0, n), rng.uniform(0.6, 1.8, n))
    q = np.where(red, np.clip(rng.normal(0.75, 0.15, n), 0.3, 0.99), np.hypot(0.2, 0.98 * rng.random(n)))
    pa = rng.uniform(0, np.pi, n)
    colour = np.where(
        red[:, None], photometry.early_many(rng, z), photometry.star_forming_many(rng, rng.beta(2.0, 2.5, n), z)
    )
    flux = photometry.flux(m, colour)
    out: list[Sersic] = []
    for k in range(n):
        if not red[k] and radius[k] > _DETAILED_ARCSEC:
            out.extend(
                blue_galaxy(rng, photometry, float(m[k]), (float(x[k]), float(y[k])), float(radius[k]), float(z[k]))
            )
        else:
            out.append(
                Sersic(float(x[k]), float(y[k]), float(radius[k]), float(index[k]), float(q[k]), float(pa[k]), flux[k])
            )
    return out


def _stars(
    rng: np.random.Generator, photometry: Photometry, area_arcmin2: float, field_arcsec: float, faint: float
) -> list[tuple[float, float, FloatArray]]:
    """Stars: the survey's density is of those brighter than i = 23; counts as 10^(0.15 m) (Juric et al. 2008)."""
    low, high, reference = (10 ** (_STAR_SLOPE * m) for m in (_STAR_BRIGHT, min(faint, 25.0), _STAR_REFERENCE))
    expected = photometry.star_density_per_arcmin2 * area_arcmin2 * (high - low) / (reference - low)
    x, y = _positions(rng, int(rng.poisson(expected)), field_arcsec)
    m = np.log10(rng.uniform(low, high, len(x))) / _STAR_SLOPE
    flux = photometry.flux(m, photometry.star_many(rng, len(x)))
    return [(float(x[k]), float(y[k]), flux[k]) for k in range(len(x))]
