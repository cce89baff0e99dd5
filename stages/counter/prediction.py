"""Where an image that was not detected must be, and how sure its brightness is, from the lenses that the data allow."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from stages.counter.compiling import compiled
from stages.counter.image_search import newton
from stages.counter.least_squares import N_SHAPE
from stages.counter.lens_fit import Fit
from stages.counter.lens_model import Array, determinant, frame

N_DRAWS = 256
_CONTENT = (0.68, 0.95)
_MOST_STEPS = 6  # from the centre of a search ellipse to its end


def search_ellipse(fit: Fit, image: int) -> Array:
    """Ellipse about one image of a fitted lens: (semi-major and semi-minor axis, angle, semi-major axis of the 95%).

    The first two hold the image in 68% of the lenses drawn from the fit's Gaussian posterior; arcsec, and degrees from
    the x axis. The fourth has the first's axis ratio and angle. NaN where the posterior is not known.
    """
    found = in_other_lenses(fit, image)[:, :2] - fit.images.xy_arcsec[image]
    if len(found) < N_DRAWS // 8:
        return np.full(4, np.nan)
    middle = np.median(found, 0)
    width = np.median(np.abs(found - middle), 0) * 5 + 1e-6  # stragglers on another branch would stretch the shape
    core = found[(np.abs(found - middle) < width).all(1)]
    spread = core.T @ core / len(core) + 1e-12 * np.eye(2)
    values, axes = np.linalg.eigh(spread)
    radius = np.sqrt((found @ np.linalg.inv(spread) * found).sum(1))
    inner, outer = np.quantile(radius, _CONTENT)
    major, minor = np.sqrt(values[1]), np.sqrt(values[0])
    angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))) % 180
    return np.array([inner * major, inner * minor, angle, outer * major])


def magnitude_error(fit: Fit, image: int) -> float:
    """Half of the central 68% of an image's magnitude in the lenses drawn from the posterior; NaN: not known."""
    found = in_other_lenses(fit, image)
    if len(found) < N_DRAWS // 8:
        return float("nan")
    low, high = np.quantile(2.5 * np.log10(np.abs(found[:, 2])), (0.1587, 0.8413))
    return float(0.5 * (high - low))


def in_other_lenses(fit: Fit, image: int) -> Array:
    """(n, 3) place and det A of one image in the lenses drawn from the fit's posterior, without those that lack it."""
    found = followed(fit, image, lenses_like(fit))
    return np.asarray(found[np.isfinite(found).all(1)])


def followed(fit: Fit, image: int, draws: Array) -> Array:
    """(n, 3) place and det A of one image of a fitted lens in other lenses (n, 9), NaN in those that lack it."""
    return _follow(draws, fit.model.core_arcsec, fit.images.xy_arcsec[image], fit.images.kind[image] == 1)


def places_in(centre: Array, ellipse: Array, step: float) -> tuple[Array, Array]:
    """Places (k, 2) on a grid in the 95% of a search ellipse, and their weights (k,), Gaussian, which sum to 1.

    An axis shorter than half a step is taken as that long: the model is not better than the pixels.
    """
    major, minor = max(ellipse[3], 0.5 * step), max(ellipse[3] * ellipse[1] / ellipse[0], 0.5 * step)
    n_major, n_minor = (min(int(np.ceil(axis / step)), _MOST_STEPS) for axis in (major, minor))
    u, v = np.meshgrid(np.linspace(-1, 1, 2 * n_major + 1), np.linspace(-1, 1, 2 * n_minor + 1))
    inside = u**2 + v**2 <= 1.0001
    u, v = u[inside], v[inside]
    angle = np.radians(ellipse[2])
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    weight = np.exp(-0.5 * 2.45**2 * (u**2 + v**2))  # 95% lie within 2.45 sigma
    return centre + major * u[:, None] * along + minor * v[:, None] * across, weight / weight.sum()


def lenses_like(fit: Fit) -> Array:
    """(N_DRAWS, 9) lens parameters and sources from the fit's Gaussian posterior; none where it has no covariance."""
    if not np.isfinite(fit.covariance).all():
        return np.empty((0, N_SHAPE))
    values, axes = np.linalg.eigh(fit.covariance)
    root = axes * np.sqrt(np.maximum(values, 0))
    best = np.concatenate([fit.model.as_array()[:7], fit.source_xy_arcsec])
    return np.asarray(best + _normals() @ root.T)


def posterior_chi2(fit: Fit, draw: Array) -> float:
    """How much worse than the best another lens (9,) of the fit's Gaussian posterior is."""
    away = draw - np.concatenate([fit.model.as_array()[:7], fit.source_xy_arcsec])
    return float(away @ np.linalg.solve(fit.covariance, away))


@lru_cache(maxsize=1)
def _normals() -> Array:
    """Quasi-random standard normal numbers, the same every time."""
    uniform = qmc.Sobol(N_SHAPE, scramble=True, rng=np.random.default_rng(0)).random(N_DRAWS)
    return np.asarray(ndtri(np.clip(uniform, 1e-6, 1 - 1e-6)))


@compiled
def _follow(draws: Array, core: float, start: Array, saddle: bool) -> Array:
    """Position and det A (n, 3) of one image in other lenses, NaN where it is lost or its parity is another's."""
    out, p = np.full((len(draws), 3), np.nan), np.empty(8)
    for k in range(len(draws)):
        p[:7], p[7] = draws[k, :7], core
        if p[0] <= 0.0 or p[1] * p[1] + p[2] * p[2] > 0.8:
            continue
        f = frame(p)
        x, y, good = newton(f, draws[k, 7] - p[5], draws[k, 8] - p[6], start[0] - p[5], start[1] - p[6])
        det = determinant(f, x, y)
        if good and (det < 0.0) == saddle:
            out[k, 0], out[k, 1], out[k, 2] = x + p[5], y + p[6], det
    return out
