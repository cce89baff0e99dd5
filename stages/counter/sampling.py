"""Lenses that two or three images allow, drawn by importance sampling: no mode is missed, none is taken for a Gaussian.

For a given ellipticity and centre the lens equation is linear in Einstein radius, shear and source. So these five are
integrated over and drawn exactly, and only the other four are drawn from their priors and weighed. With three images
one equation of six is left to tell good lenses from bad; with four there would be three, and too few good lenses.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from stages.counter.chance import log_common
from stages.counter.compiling import compiled
from stages.counter.evidence import THETA_E_MEDIAN_ARCSEC, THETA_E_SCATTER
from stages.counter.least_squares import (
    ELLIPTICITY_SIGMA,
    HIGH_MAGNIFICATION,
    N_SHAPE,
    SHEAR_SIGMA,
    cholesky,
    solve_lower,
    solve_upper,
)
from stages.counter.lens_model import Array, deflect, determinant, frame, hessian
from stages.counter.posterior import normals

N_TRIED = 4096
_LINEAR = 5  # Einstein radius, two of shear, two of the source
_ROUNDS = 3  # in which the errors in the source plane follow from the lens


def lenses_of(
    xy: Array, errors: Array, centre: Array, centre_err: float, magnitude: Array, scatter: Array, core: float, n: int
) -> tuple[Array, Array, Array]:
    """At most n different lenses and sources (k, 9) that make images (m, 2) with errors (m,), and what each counts.

    Drawn from the priors, the positions, and the fluxes so far as the magnifications at the positions tell: magnitude,
    scatter (m,), NaN where not measured. The order of the parameters is that of the fit; weights (k,) sum to 1. Last,
    the log likelihood (k,) of the fluxes that counted.
    """
    prior = np.array([centre[0], centre[1], centre_err])
    lenses, weights, magnified = _lenses(xy, errors, prior, core, normals(N_TRIED, 4 + _LINEAR, seed=1))
    good = np.isfinite(weights)
    if not good.any():
        return np.empty((0, N_SHAPE)), np.empty(0), np.empty(0)
    log_fluxes = log_common(magnitude - magnified[good], scatter)
    weights = weights[good] + log_fluxes
    ladder = np.cumsum(np.exp(weights - weights.max()))
    rows, times = np.unique(np.searchsorted(ladder / ladder[-1], (np.arange(n) + 0.5) / n), return_counts=True)
    return lenses[good][rows], times / n, log_fluxes[rows]


@compiled
def _lenses(xy: Array, errors: Array, prior: Array, core: float, normals: Array) -> tuple[Array, Array, Array]:
    """Lenses (k, 9), logs of their weights (k,), -2.5 log10 |mu| at the images (k, n)."""
    n, m = len(xy), _LINEAR
    out, weights = np.full((len(normals), N_SHAPE), np.nan), np.full(len(normals), -np.inf)
    magnified = np.zeros((len(normals), n))
    p, step, answer = np.zeros(8), np.empty(m), np.empty(m)
    matrix, rows = np.empty((m, m)), np.empty((2, m))
    size = 0.0
    for i in range(n):
        size += sqrt((xy[i, 0] - prior[0]) ** 2 + (xy[i, 1] - prior[1]) ** 2) / n
    for d in range(len(normals)):
        e1, e2 = ELLIPTICITY_SIGMA * normals[d, 0], ELLIPTICITY_SIGMA * normals[d, 1]
        cx, cy = prior[0] + prior[2] * normals[d, 2], prior[1] + prior[2] * normals[d, 3]
        if e1 * e1 + e2 * e2 > 0.5:
            continue
        p[0], p[1], p[2], p[3], p[4], p[7] = size, e1, e2, 0.0, 0.0, core
        chi2, log_det, good = 0.0, 0.0, True
        for turn in range(_ROUNDS):
            f = frame(p)
            bare = np.array([p[0], e1, e2, 0.0, 0.0, 0.0, 0.0, core])
            g = frame(bare)
            matrix[:] = 0.0
            step[:] = 0.0
            matrix[1, 1] = matrix[2, 2] = 1.0 / SHEAR_SIGMA**2
            chi2, log_det = 0.0, 0.0
            for i in range(n):
                x, y = xy[i, 0] - cx, xy[i, 1] - cy
                ax, ay = deflect(g, x, y)
                rows[0, 0], rows[0, 1], rows[0, 2], rows[0, 3], rows[0, 4] = ax / p[0], x, y, 1.0, 0.0
                rows[1, 0], rows[1, 1], rows[1, 2], rows[1, 3], rows[1, 4] = ay / p[0], -y, x, 0.0, 1.0
                if turn == 0:
                    c00, c01, c11 = errors[i] ** 2, 0.0, errors[i] ** 2
                else:
                    xx, pxy, yy = hessian(f, x, y)
                    a, h, b = 1.0 - xx, -pxy, 1.0 - yy
                    v = errors[i] ** 2  # of the source: see `least_squares.residuals`
                    c00, c01, c11 = v * (a * a + h * h + 0.01), v * h * (a + b), v * (h * h + b * b + 0.01)
                det = c00 * c11 - c01 * c01
                log_det += log(det)
                w00, w01, w11 = c11 / det, -c01 / det, c00 / det
                chi2 += w00 * x * x + 2 * w01 * x * y + w11 * y * y
                for j in range(m):
                    u, w = w00 * rows[0, j] + w01 * rows[1, j], w01 * rows[0, j] + w11 * rows[1, j]
                    step[j] += u * x + w * y
                    for k in range(m):
                        matrix[j, k] += u * rows[0, k] + w * rows[1, k]
            if not cholesky(matrix):
                good = False
                break
            solve_lower(matrix, step)
            for i in range(m):
                chi2 -= step[i] * step[i]
                answer[i] = step[i] + (normals[d, 4 + i] if turn == _ROUNDS - 1 else 0.0)
            solve_upper(matrix, answer)
            if not answer[0] > 0.05 * size or answer[1] ** 2 + answer[2] ** 2 > 0.25:
                good = False
                break
            p[0], p[3], p[4] = answer[0], answer[1], answer[2]
        if not good or answer[3] ** 2 + answer[4] ** 2 > (1.5 * answer[0]) ** 2:
            continue
        f, total, weight = frame(p), 0.0, -0.5 * (chi2 + log_det)
        for i in range(m):
            weight -= log(matrix[i, i])
        for i in range(n):
            det = abs(determinant(f, xy[i, 0] - cx, xy[i, 1] - cy)) + 1e-3
            weight += log(det)
            magnified[d, i] = 2.5 * log(det) / log(10.0)
            total += 1.0 / det
        z = log(p[0] / THETA_E_MEDIAN_ARCSEC) / THETA_E_SCATTER
        weight += -0.5 * z * z - 3 * log(p[0]) + log(min(total, HIGH_MAGNIFICATION))
        out[d, :5] = p[:5]
        out[d, 5], out[d, 6], out[d, 7], out[d, 8] = cx, cy, cx + answer[3], cy + answer[4]
        weights[d] = weight
    return out, weights, magnified
