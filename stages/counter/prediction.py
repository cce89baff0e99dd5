"""Where an image that was not detected must be, and how sure its brightness is, from the lenses that the data allow."""

from __future__ import annotations

import numpy as np

from stages.counter.lens_fit import Fit
from stages.counter.lens_model import Array
from stages.counter.posterior import N_DRAWS, draws_of, follow

_CONTENT = (0.68, 0.95)
_TRIMS = 4  # how often the farthest places are left out of what gives an ellipse its shape
_CORE = 0.85  # the rest
_MOST_STEPS = 10  # from the centre of a search ellipse to its end


def search_ellipse(fit: Fit, image: int) -> Array:
    """Ellipse about one image of a fitted lens that holds it in 68% of the posterior; see `ellipse_about`."""
    found, weight = in_other_lenses(fit, image)
    return ellipse_about(fit.images.xy_arcsec[image], found[:, :2], weight)


def ellipse_about(centre: Array, found: Array, weight: Array, least: int = N_DRAWS // 8) -> Array:
    """Ellipse about a place: (semi-major and semi-minor axis, angle, semi-major axis of the 95%).

    The first two hold 68% of the weight (n,) of the places (n, 2); arcsec, and degrees from the x axis. The fourth has
    the first's axis ratio and angle. NaN where there are fewer places than `least`.
    """
    if len(found) < least:
        return np.full(4, np.nan)
    away, share = found - centre, weight / weight.sum()
    core = np.ones(len(away), np.bool_)
    for _ in range(_TRIMS):  # stragglers on another branch would stretch the shape
        spread = (away[core].T * share[core]) @ away[core] / share[core].sum() + 1e-12 * np.eye(2)
        radius = np.sqrt((away @ np.linalg.inv(spread) * away).sum(1))
        core = radius <= quantile(radius, share, _CORE)
    values, axes = np.linalg.eigh(spread)
    more = 1 + float((share**2).sum())  # another lens is as likely to lie between or beyond these as between any two
    inner, outer = (quantile(radius, share, min(content * more, 0.5 + 0.5 * content)) for content in _CONTENT)
    major, minor = np.sqrt(values[1]), np.sqrt(values[0])
    angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))) % 180
    return np.array([inner * major, inner * minor, angle, outer * major])


def in_ellipse(offset: Array, ellipse: Array) -> bool:
    """Whether a place at an offset from its centre (2,) lies in the 95% of a search ellipse, False if that is NaN."""
    major, minor, angle, outer = ellipse
    turn = np.radians(angle)
    along, across = offset @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return bool(np.hypot(along, across * major / minor) <= outer)


def magnitude_error(fit: Fit, image: int) -> float:
    """Half of the central 68% of an image's magnitude in the posterior; NaN: not known."""
    found, weight = in_other_lenses(fit, image)
    if len(found) < N_DRAWS // 8:
        return float("nan")
    magnitude, share = 2.5 * np.log10(np.abs(found[:, 2])), weight / weight.sum()
    return 0.5 * (quantile(magnitude, share, 0.8413) - quantile(magnitude, share, 0.1587))


def quantile(values: Array, share: Array, content: float) -> float:
    """Quantile of values (n,) whose shares (n,) sum to 1."""
    order = np.argsort(values)
    middle = np.cumsum(share[order]) - 0.5 * share[order]
    return float(np.interp(content, middle, values[order]))


def in_other_lenses(fit: Fit, image: int) -> tuple[Array, Array]:
    """Place and det A (n, 3) of one image in the lenses of the posterior, without those that lack it; weights (n,)."""
    draws = lenses_like(fit)
    found = followed(fit, image, draws)
    kept = np.isfinite(found).all(1) & (fit.weights[: len(draws)] > 0)
    return found[kept], fit.weights[: len(draws)][kept]


def followed(fit: Fit, image: int, draws: Array) -> Array:
    """(n, 3) place and det A of one image of a fitted lens in other lenses (n, 9), NaN in those that lack it."""
    one = np.array([image])
    return follow(draws, fit.model.core_arcsec, fit.images.xy_arcsec[one], fit.images.kind[one] == 1)[:, 0]


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
    return draws_of(fit.parameters, fit.covariance)


def posterior_chi2(fit: Fit, draw: Array) -> float:
    """How much worse than the best another lens (9,) of the fit's Gaussian posterior is."""
    away = draw - fit.parameters
    return float(away @ np.linalg.solve(fit.covariance, away))
