"""Lenses like the fitted one: draws from its Gaussian posterior, and its images followed into them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import qmc

from stages.counter.compiling import compiled
from stages.counter.image_search import newton
from stages.counter.least_squares import N_SHAPE
from stages.counter.lens_model import Array, determinant, frame

N_DRAWS = 128


def draws_of(best: Array, covariance: Array) -> Array:
    """(N_DRAWS, 9) lens parameters and sources about the best (9,); none where there is no covariance (9, 9)."""
    if not np.isfinite(covariance).all():
        return np.empty((0, N_SHAPE))
    values, axes = np.linalg.eigh(covariance)
    root = axes * np.sqrt(np.maximum(values, 0))
    return np.asarray(best + normals(N_DRAWS, N_SHAPE, seed=0) @ root.T)


@lru_cache(maxsize=2)
def normals(number: int, dimensions: int, seed: int) -> Array:
    """Quasi-random standard normal numbers (number, dimensions), the same every time."""
    uniform = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed)).random(number)
    return np.asarray(ndtri(np.clip(uniform, 1e-6, 1 - 1e-6)))


@compiled
def follow(draws: Array, core: float, starts: Array, saddles: npt.NDArray[np.bool_]) -> Array:
    """Position and det A (n, k, 3) of k images in n other lenses, NaN where one is lost or its parity is another's.

    starts, saddles : (k, 2) places in the fitted lens, and which are saddles.
    """
    out, p = np.full((len(draws), len(starts), 3), np.nan), np.empty(8)
    for d in range(len(draws)):
        p[:7], p[7] = draws[d, :7], core
        if p[0] <= 0.0 or p[1] * p[1] + p[2] * p[2] > 0.8:
            continue
        f = frame(p)
        for k in range(len(starts)):
            sx, sy = draws[d, 7] - p[5], draws[d, 8] - p[6]
            x, y, good = newton(f, sx, sy, starts[k, 0] - p[5], starts[k, 1] - p[6])
            det = determinant(f, x, y)
            if good and (det < 0.0) == saddles[k]:
                out[d, k, 0], out[d, k, 1], out[d, k, 2] = x + p[5], y + p[6], det
    return out
