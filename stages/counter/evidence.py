"""Laplace's approximation to the evidence of a fitted lens: how probable were these positions before they were seen?

The images obey beta(theta_i) = source. With delta functions in the source plane, each carrying |det A|, the integral
over lens, source and images is Gaussian about the best fit; the stiff Gaussians that held the fit stand for the deltas.
"""

from __future__ import annotations

from math import hypot, log, pi

import numpy as np

from stages.counter.compiling import compiled
from stages.counter.least_squares import (
    CONSTRAINTS_ARCSEC,
    ELLIPTICITY_SIGMA,
    HIGH_MAGNIFICATION,
    N_SHAPE,
    SHEAR_SIGMA,
    residuals,
)
from stages.counter.lens_model import Array, determinant, frame

THETA_E_MEDIAN_ARCSEC, THETA_E_SCATTER = 1.0, 0.6  # log-normal, of galaxies (SLACS, SL2S, lensed quasars)
_TIGHT = CONSTRAINTS_ARCSEC[-1]


@compiled
def laplace(v: Array, xy: Array, errors: Array, prior: Array, core: float) -> tuple[float, Array]:
    """Natural log of the evidence, arcsec^(-2 n), and the covariance (9, 9) of lens and source.

    v : solution of `fit_kernel`; xy, errors, prior, core as there. -inf where the solution lies at a bound.
    """
    n, size, m = len(xy), len(v), 6 + 4 * len(xy)
    covariance: Array = np.full((N_SHAPE, N_SHAPE), np.nan)
    base, moved, jac, v = np.empty(m + 1), np.empty(m + 1), np.empty((size, m)), v.copy()
    if not residuals(v, xy, errors, prior, core, _TIGHT, base):
        return -np.inf, covariance
    for k in range(size):
        h = 1e-6
        kept, v[k] = v[k], v[k] + h
        inside = residuals(v, xy, errors, prior, core, _TIGHT, moved)
        v[k] = kept
        if not inside:
            return -np.inf, covariance
        jac[k] = (moved[:m] - base[:m]) / h
    normal = jac @ jac.T
    sign, log_det = np.linalg.slogdet(normal)
    if not sign > 0.0:
        return -np.inf, covariance
    covariance[:] = np.linalg.inv(normal)[:N_SHAPE, :N_SHAPE]
    f = frame(np.array([v[0], v[1], v[2], v[3], v[4], 0.0, 0.0, core]))
    out = -0.5 * (base[:m] ** 2).sum() + 0.5 * size * log(2 * pi) - 0.5 * log_det
    total = 0.0
    for i in range(n):
        out -= 2 * log(2 * pi) + 2 * log(errors[i]) + 2 * log(_TIGHT)
        det = abs(determinant(f, v[N_SHAPE + 2 * i] - v[5], v[N_SHAPE + 2 * i + 1] - v[6])) + 1e-12
        out += log(det)
        total += 1.0 / det
    out -= 3 * log(2 * pi) + 2 * (log(ELLIPTICITY_SIGMA) + log(SHEAR_SIGMA) + log(prior[2]))
    size_z = log(v[0] / THETA_E_MEDIAN_ARCSEC) / THETA_E_SCATTER
    out -= 0.5 * size_z**2 + 0.5 * log(2 * pi) + log(THETA_E_SCATTER) + log(v[0])
    out -= log(pi) + 2 * log(v[0])  # a source anywhere within one Einstein radius of the axis, where mu is 4 on average
    out += log(min(total, HIGH_MAGNIFICATION) / 4.0)  # counts as steep as flux^-2: the magnified are seen more often
    if hypot(v[7] - v[5], v[8] - v[6]) > 1.5 * v[0]:
        return -np.inf, covariance
    return out, covariance
