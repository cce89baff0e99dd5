"""Levenberg-Marquardt for a cored isothermal ellipsoid with shear, from several starts; compiled."""

from __future__ import annotations

from math import hypot, log, sqrt

import numpy as np

from stages.counter.compiling import compiled
from stages.counter.lens_model import Array, deflect, frame, hessian

ELLIPTICITY_SIGMA = 0.15
SHEAR_SIGMA = 0.07
N_SHAPE = 9  # theta_e, e1, e2, gamma1, gamma2, x, y of the deflector, x, y of the source
CONSTRAINTS_ARCSEC = (5e-3, 3e-4, 2e-5)  # how well the fitted images must obey the lens equation, in turn
HIGH_MAGNIFICATION = 100.0  # total magnification beyond which P(> mu) falls as mu^-2 (a fold's cross-section)


@compiled
def _dot(a: Array, b: Array) -> float:
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@compiled
def cholesky(matrix: Array) -> bool:
    """Lower triangle of a symmetric matrix, in place; False if it is not positive definite."""
    for i in range(len(matrix)):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i == j:
                if not total > 0.0:
                    return False
                matrix[i, i] = sqrt(total)
            else:
                matrix[i, j] = total / matrix[j, j]
    return True


@compiled
def solve_lower(lower: Array, vector: Array) -> None:
    """Solve L x = vector, in place."""
    for i in range(len(vector)):
        for k in range(i):
            vector[i] -= lower[i, k] * vector[k]
        vector[i] /= lower[i, i]


@compiled
def solve_upper(lower: Array, vector: Array) -> None:
    """Solve the transpose of L, L^T x = vector, in place."""
    for i in range(len(vector) - 1, -1, -1):
        for k in range(i + 1, len(vector)):
            vector[i] -= lower[k, i] * vector[k]
        vector[i] /= lower[i, i]


@compiled
def _solve_spd(matrix: Array, vector: Array) -> bool:
    """Solve in place by Cholesky; False if the matrix is not positive definite."""
    if not cholesky(matrix):
        return False
    solve_lower(matrix, vector)
    solve_upper(matrix, vector)
    return True


@compiled
def residuals(v: Array, xy: Array, errors: Array, prior: Array, core: float, tight: float, out: Array) -> bool:
    """Whitened residuals; in the source plane if `tight` is 0, else in the image plane with v[9:] the images."""
    if v[0] < 0.02 or hypot(v[1], v[2]) > 0.75 or hypot(v[3], v[4]) > 0.5:
        return False
    f = frame(np.array([v[0], v[1], v[2], v[3], v[4], 0.0, 0.0, core]))
    out[0], out[1] = v[1] / ELLIPTICITY_SIGMA, v[2] / ELLIPTICITY_SIGMA
    out[2], out[3] = v[3] / SHEAR_SIGMA, v[4] / SHEAR_SIGMA
    out[4], out[5] = (v[5] - prior[0]) / prior[2], (v[6] - prior[1]) / prior[2]
    total = 0.0
    for i in range(len(xy)):
        x, y = xy[i, 0], xy[i, 1]
        if tight > 0.0:
            x, y = v[N_SHAPE + 2 * i], v[N_SHAPE + 2 * i + 1]
            out[6 + 4 * i], out[7 + 4 * i] = (x - xy[i, 0]) / errors[i], (y - xy[i, 1]) / errors[i]
        ax, ay = deflect(f, x - v[5], y - v[6])
        dx, dy = x - ax - v[7], y - ay - v[8]
        if tight > 0.0:
            out[8 + 4 * i], out[9 + 4 * i] = dx / tight, dy / tight
        xx, pxy, yy = hessian(f, x - v[5], y - v[6])
        a, k, d = 1.0 - xx, -pxy, 1.0 - yy
        total += 1.0 / sqrt((a * d - k * k) ** 2 + 1e-8)
        if tight > 0.0:
            continue
        variance = errors[i] * errors[i]  # sigma^2 (A A^T + 0.01): the second term tames critical curves
        c00, c01, c11 = variance * (a * a + k * k + 0.01), variance * k * (a + d), variance * (k * k + d * d + 0.01)
        l00 = sqrt(c00)
        l10 = c01 / l00
        out[6 + 2 * i] = dx / l00
        out[7 + 2 * i] = (dy - l10 * out[6 + 2 * i]) / sqrt(c11 - l10 * l10)
    if tight > 0.0:  # -2 ln P(> mu): circular lenses of boundless magnification would fit any ring of points
        out[6 + 4 * len(xy)] = sqrt(2.0 * log(1.0 + (total / HIGH_MAGNIFICATION) ** 2))
    return True


@compiled
def _minimise(v: Array, xy: Array, errors: Array, prior: Array, core: float, tight: float, steps: int) -> float:
    """Levenberg-Marquardt with forward differences, in place; chi2."""
    n, m = len(v), (7 + 4 * len(xy)) if tight > 0.0 else (6 + 2 * len(xy))
    r, trial_r, jac = np.empty(m), np.empty(m), np.empty((n, m))
    if not residuals(v, xy, errors, prior, core, tight, r):
        return 1e300
    chi2, damping, trial = _dot(r, r), 1e-2, v.copy()
    for _ in range(steps):
        for k in range(n):
            h = 1e-6
            kept, v[k] = v[k], v[k] + h
            inside = residuals(v, xy, errors, prior, core, tight, trial_r)
            v[k] = kept
            if not inside:
                return chi2
            for i in range(m):
                jac[k, i] = (trial_r[i] - r[i]) / h
        gradient, normal, before = np.zeros(n), np.zeros((n, n)), chi2
        for k in range(n):
            for j in range(k + 1):
                normal[k, j] = _dot(jac[k], jac[j])
            gradient[k] = -_dot(jac[k], r)
        for _ in range(8):
            matrix, step = normal.copy(), gradient.copy()
            for k in range(n):
                matrix[k, k] *= 1.0 + damping
                matrix[k, k] += 1e-12
            if _solve_spd(matrix, step):
                for k in range(n):
                    trial[k] = v[k] + step[k]
                if residuals(trial, xy, errors, prior, core, tight, trial_r):
                    new = _dot(trial_r, trial_r)
                    if new < chi2:
                        for k in range(n):
                            v[k] = trial[k]
                        r, trial_r, chi2 = trial_r, r, new
                        damping = max(0.1 * damping, 1e-9)
                        break
            damping *= 8.0
        if before - chi2 < 1e-4 * (1.0 + 1e-2 * chi2):
            break
    return chi2


@compiled
def _start(xy: Array, cx: float, cy: float) -> Array:
    """(theta_e, gamma1, gamma2, source) of the SIS + shear that is linear in its parameters, softly held."""
    matrix, vector, row = np.zeros((5, 5)), np.zeros(5), np.zeros(5)
    scale = 0.0
    for i in range(len(xy)):
        scale += hypot(xy[i, 0] - cx, xy[i, 1] - cy) / len(xy)
    for i in range(len(xy)):
        x, y = xy[i, 0] - cx, xy[i, 1] - cy
        r = max(hypot(x, y), 1e-3 * scale)
        for axis in range(2):
            row[0], row[1], row[2] = (x / r, x, y) if axis == 0 else (y / r, -y, x)
            row[3], row[4] = 1.0 - axis, 1.0 * axis
            for k in range(5):
                vector[k] += row[k] * (x if axis == 0 else y)
                for j in range(5):
                    matrix[k, j] += row[k] * row[j]
    soft = (0.1 * scale / 0.1) ** 2
    matrix[1, 1] += soft
    matrix[2, 2] += soft
    for k in range(5):
        matrix[k, k] += 1e-6
    _solve_spd(matrix, vector)
    return vector


@compiled
def fit_kernel(xy: Array, errors: Array, prior: Array, starts: Array, core: float) -> tuple[Array, Array]:
    """Up to four solutions, the fitted image positions appended to the parameters, and their chi2."""
    n, count, kept = len(xy), 0, 0
    tries, scores = np.empty((5 * len(starts), N_SHAPE)), np.empty(5 * len(starts))
    for s in range(len(starts)):
        cx, cy = starts[s, 0], starts[s, 1]
        linear = _start(xy, cx, cy)
        g1, g2 = linear[1], linear[2]
        for e_part, g_part in ((0.0, 1.0), (-3.0, 0.0), (-1.5, 0.5), (0.0, 0.0), (-4.5, -0.5)):
            e = e_part * min(1.0, 0.5 / (abs(e_part) * hypot(g1, g2) + 1e-9))
            v = tries[count]
            v[0], v[1], v[2], v[3], v[4] = max(linear[0], 0.1), e * g1, e * g2, g_part * g1, g_part * g2
            v[5], v[6], v[7], v[8] = cx, cy, cx + linear[3], cy + linear[4]
            scores[count] = _minimise(v, xy, errors, prior, core, 0.0, 25)
            count += 1
    best, best_chi2, last = np.empty((4, N_SHAPE + 2 * n)), np.empty(4), -1e300
    for _ in range(len(scores)):
        k = scores.argmin()
        score, scores[k] = scores[k], 1e301
        if kept == 4 or score - last < 0.02:  # the same minimum again
            continue
        last = score
        v = best[kept]
        for i in range(N_SHAPE + 2 * n):
            v[i] = tries[k, i] if i < N_SHAPE else xy[(i - N_SHAPE) // 2, (i - N_SHAPE) % 2]
        for tight in CONSTRAINTS_ARCSEC:
            best_chi2[kept] = _minimise(v, xy, errors, prior, core, tight, 25)
        kept += 1
    return best[:kept], best_chi2[:kept]
