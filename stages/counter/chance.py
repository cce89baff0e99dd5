"""How probable points beside a galaxy are when no lens made them: positions, brightnesses and colours."""

from __future__ import annotations

from math import lgamma, log, pi, sqrt

import numpy as np

from stages.counter.compiling import compiled
from stages.counter.lens_model import Array

RADIUS_MEDIAN_ARCSEC, RADIUS_SCATTER = 1.2, 0.7  # log-normal distance of an unrelated point from the galaxy
RING_JITTER = 0.15  # of points at about one distance: what chance looks like where a quartet was taken for a lens
_FINE_ARCSEC = 0.1  # a centre known better than this needs few places


def log_chance(xy: Array, centre: Array, centre_err: float) -> float:
    """Log density, arcsec^(-2 n), of n unlabelled unrelated points about a centre known to within an error.

    The mean of two pictures: points at independent distances, and points on a ring whose radius is free.
    """
    sigmas = np.linspace(-2.25, 2.25, 5 if centre_err < _FINE_ARCSEC else 13)  # of the centre's error, per axis
    weight = np.exp(-0.5 * (sigmas[:, None] ** 2 + sigmas[None] ** 2)).ravel()
    shift = np.stack(np.meshgrid(sigmas, sigmas), -1).reshape(-1, 2) * centre_err
    return lgamma(len(xy) + 1) + float(_log_mean(xy, centre + shift, weight / weight.sum()))


@compiled
def _log_mean(xy: Array, centres: Array, weights: Array) -> float:
    """Log of the weighted mean over centres of both pictures' densities."""
    n, n_ring = len(xy), 40
    total, rho = 0.0, np.empty(n)
    for c in range(len(centres)):
        area, alone = 0.0, 0.0
        for i in range(n):
            rho[i] = max(sqrt((xy[i, 0] - centres[c, 0]) ** 2 + (xy[i, 1] - centres[c, 1]) ** 2), 0.02)
            z = log(rho[i] / RADIUS_MEDIAN_ARCSEC) / RADIUS_SCATTER
            area += log(2 * pi * rho[i])
            alone += -0.5 * z * z - log(sqrt(2 * pi) * RADIUS_SCATTER * rho[i])
        ring = 0.0
        for k in range(n_ring):  # radii at equal steps of log r, over 3 scatters
            z = -3.0 + 6.0 * (k + 0.5) / n_ring
            r = RADIUS_MEDIAN_ARCSEC * np.exp(RADIUS_SCATTER * z)
            value = -0.5 * z * z
            for i in range(n):
                value -= 0.5 * ((rho[i] - r) / (RING_JITTER * r)) ** 2 + log(sqrt(2 * pi) * RING_JITTER * r)
            ring += np.exp(value) * 6.0 / n_ring / sqrt(2 * pi)
        total += weights[c] * 0.5 * (np.exp(alone - area) + ring * np.exp(-area))
    return log(total + 1e-300)


def log_common(values: Array, scatter: Array) -> Array:
    """Log likelihood (...) of numbers (..., n) that scatter about an unknown common value, integrated over (flat).

    Numbers that are not finite, for whichever row, say nothing. An empty set and a single number give 0: their constant
    cancels between hypotheses that explain the same numbers.
    """
    good = np.isfinite(values).reshape(-1, values.shape[-1]).all(0) & np.isfinite(scatter)
    if good.sum() < 2:
        return np.zeros(values.shape[:-1])
    v, s = values[..., good], scatter[good]
    w = s**-2
    spread = (w * (v - (w * v).sum(-1, keepdims=True) / w.sum()) ** 2).sum(-1)
    constant = (len(s) - 1) * log(2 * pi) + float(np.log(s**2).sum()) + log(float(w.sum()))
    return np.asarray(-0.5 * (spread + constant))
