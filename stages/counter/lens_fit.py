"""Fit a cored isothermal ellipsoid with shear to the positions of 1 source's images.

Source-plane Levenberg-Marquardt from several starts, residuals whitened by sigma^2 A A^T; then the image positions
become unknowns with the lens equation as a soft constraint, which is exact in the image plane. Priors on ellipticity,
shear and the deflector's position make doubles and triples solvable, and count in chi^2 as data.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, log, sqrt

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2 as chi2_distribution

from stages.counter.images import Images, all_images
from stages.counter.lens_model import Array, LensModel, compiled, deflect, frame, hessian

ELLIPTICITY_SIGMA = 0.15
SHEAR_SIGMA = 0.07
CORE_ARCSEC = 0.01
_SHAPE = 9  # theta_e, e1, e2, gamma1, gamma2, x, y of the deflector, x, y of the source
_CONSTRAINTS_ARCSEC = (5e-3, 3e-4, 2e-5)  # how well the fitted images must obey the lens equation, in turn
_HIGH_MAGNIFICATION = 100.0  # total magnification beyond which P(> mu) falls as mu^-2 (a fold's cross-section)
_UNSEEN_COST = 4.0  # chi2 that a solution may lack per unseen image when solutions compete


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted lens and what it predicts.

    model, source_xy_arcsec : the best lens and source.
    chi2 : misfit of positions and priors; dof : number of positions and priors less parameters, 2 n - 3.
    p_value : chance of a larger chi2 for a lens drawn from the priors; NaN if nothing could be fitted.
    images : all images of the model, in order of arrival.
    detection : (N,) index of the detection at each model image, -1 where there is none.
    """

    model: LensModel
    source_xy_arcsec: Array
    chi2: float
    dof: int
    p_value: float
    images: Images
    detection: npt.NDArray[np.int64]


def fit(
    positions_arcsec: npt.ArrayLike,
    errors_arcsec: npt.ArrayLike,
    deflector_xy_arcsec: npt.ArrayLike,
    deflector_err_arcsec: float,
    core_arcsec: float = CORE_ARCSEC,
) -> Fit:
    """Fit NIE + shear to two or more images of one point source.

    Parameters
    ----------
    positions_arcsec : (n, 2) image positions, n >= 2.
    errors_arcsec : (n,) error of each position per axis, substructure and the like included.
    deflector_xy_arcsec, deflector_err_arcsec : prior on the deflector's centre; a position of NaN means not seen:
        a wide prior about the centre of the images' circle then takes its place.
    """
    xy, errors = np.asarray(positions_arcsec, dtype=np.float64), np.asarray(errors_arcsec, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) < 2 or errors.shape != (len(xy),):
        raise ValueError(f"positions {xy.shape}, errors {errors.shape}: expected (n, 2) and (n,), n >= 2")
    origin = xy.mean(0)
    centre = np.asarray(deflector_xy_arcsec, dtype=np.float64) - origin
    starts = centre[None]
    if not np.isfinite(centre).all():
        starts = _centres(xy - origin)
        centre, deflector_err_arcsec = starts[0], 0.3 * float(np.sqrt(((xy - origin) ** 2).sum(1).mean()))
    prior = np.array([centre[0], centre[1], deflector_err_arcsec])
    solutions, scores = _fit(xy - origin, errors, prior, starts, core_arcsec)
    fits = [
        _describe(v, chi2, xy, errors, origin, core_arcsec)
        for v, chi2 in zip(solutions, scores, strict=True)
        if chi2 < scores.min() + 3 * _UNSEEN_COST
    ]
    return min(fits, key=lambda f: f.chi2 + _UNSEEN_COST * float((f.detection < 0).sum()))


def _describe(v: Array, chi2: float, xy: Array, errors: Array, origin: Array, core_arcsec: float) -> Fit:
    """Solution with all images of its model; chi2 from these where every detection has one."""
    shift = np.concatenate([np.zeros(5), np.tile(origin, 2 + len(xy))])
    v = v + shift
    theta_e, e1, e2, gamma1, gamma2, x, y = (float(a) for a in v[:7])
    model, fitted_xy = LensModel(theta_e, e1, e2, gamma1, gamma2, x, y, core_arcsec), v[9:].reshape(-1, 2)
    images, dof = all_images(model, v[7:9]), 2 * len(xy) - 3
    detection = _match(images.xy_arcsec, xy, fitted_xy)
    seen = detection >= 0
    if seen.sum() == len(xy):
        order = detection[seen]
        exact = (((images.xy_arcsec[seen] - xy[order]) / errors[order, None]) ** 2).sum()
        chi2 = max(chi2, chi2 + exact - float((((fitted_xy - xy) / errors[:, None]) ** 2).sum()))
    p_value = float(chi2_distribution.sf(chi2, dof))
    return Fit(model, v[7:9], float(chi2), dof, p_value, images, detection)


def _match(model_xy: Array, xy: Array, fitted_xy: Array) -> npt.NDArray[np.int64]:
    """Detection at each model image: the fitted position of each detection names one image, nearest first."""
    detection = np.full(len(model_xy), -1)
    if not len(model_xy):
        return detection
    distance = np.hypot(*(fitted_xy[:, None] - model_xy[None]).transpose(2, 0, 1))
    reach = np.maximum(0.05, 0.5 * np.hypot(*(fitted_xy - xy).T))
    for flat in np.argsort(distance, axis=None):
        i, j = divmod(int(flat), len(model_xy))
        if distance[i, j] <= reach[i] and detection[j] < 0 and i not in detection:
            detection[j] = i
    return detection


def _centres(xy: Array) -> Array:
    """Guesses of an unseen deflector, the best first: centre of the images' circle, then their centroid."""
    if len(xy) < 3:
        return np.asarray(xy.mean(0, keepdims=True))
    design = np.column_stack([2 * xy, np.ones(len(xy))])
    circle: Array = np.linalg.lstsq(design, (xy**2).sum(1), rcond=None)[0][:2]
    spread = float(np.sqrt((xy**2).sum(1).mean()))
    if not np.hypot(*circle) < 1.2 * spread:
        circle = circle * (1.2 * spread / np.hypot(*circle))
    return np.stack([circle, 0.5 * circle, 0.0 * circle])


@compiled
def _solve_spd(matrix: Array, vector: Array) -> bool:
    """Solve in place by Cholesky; False if the matrix is not positive definite."""
    n = len(vector)
    for i in range(n):
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
    for i in range(n):
        for k in range(i):
            vector[i] -= matrix[i, k] * vector[k]
        vector[i] /= matrix[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            vector[i] -= matrix[k, i] * vector[k]
        vector[i] /= matrix[i, i]
    return True


@compiled
def _residuals(v: Array, xy: Array, errors: Array, prior: Array, core: float, tight: float, out: Array) -> bool:
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
            x, y = v[_SHAPE + 2 * i], v[_SHAPE + 2 * i + 1]
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
        out[6 + 4 * len(xy)] = sqrt(2.0 * log(1.0 + (total / _HIGH_MAGNIFICATION) ** 2))
    return True


@compiled
def _minimise(v: Array, xy: Array, errors: Array, prior: Array, core: float, tight: float, steps: int) -> float:
    """Levenberg-Marquardt with forward differences, in place; chi2."""
    n, m = len(v), (7 + 4 * len(xy)) if tight > 0.0 else (6 + 2 * len(xy))
    r, trial_r, jac = np.empty(m), np.empty(m), np.empty((m, n))
    if not _residuals(v, xy, errors, prior, core, tight, r):
        return 1e300
    chi2, damping, trial = float((r * r).sum()), 1e-2, v.copy()
    for _ in range(steps):
        for k in range(n):
            h = 1e-6
            trial[:] = v
            trial[k] += h
            if not _residuals(trial, xy, errors, prior, core, tight, trial_r):
                return chi2
            jac[:, k] = (trial_r - r) / h
        gradient, normal, before = np.zeros(n), np.zeros((n, n)), chi2
        for k in range(n):
            for j in range(k + 1):
                normal[k, j] = (jac[:, k] * jac[:, j]).sum()
            gradient[k] = -(jac[:, k] * r).sum()
        for _ in range(8):
            matrix, step = normal.copy(), gradient.copy()
            for k in range(n):
                matrix[k, k] *= 1.0 + damping
                matrix[k, k] += 1e-12
            if _solve_spd(matrix, step):
                trial[:] = v + step
                if _residuals(trial, xy, errors, prior, core, tight, trial_r):
                    new = float((trial_r * trial_r).sum())
                    if new < chi2:
                        v[:], r[:], chi2 = trial, trial_r, new
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
            row[:] = (x / r, x, y, 1.0, 0.0) if axis == 0 else (y / r, -y, x, 0.0, 1.0)
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
def _fit(xy: Array, errors: Array, prior: Array, starts: Array, core: float) -> tuple[Array, Array]:
    """Up to four solutions, the fitted image positions appended to the parameters, and their chi2."""
    n = len(xy)
    tries, scores, count = np.empty((5 * len(starts), _SHAPE)), np.full(5 * len(starts), 1e300), 0
    for s in range(len(starts)):
        cx, cy = starts[s]
        t, g1, g2, sx, sy = _start(xy, cx, cy)
        for e_part, g_part in ((0.0, 1.0), (-3.0, 0.0), (-1.5, 0.5), (0.0, 0.0), (-4.5, -0.5)):
            shrink = min(1.0, 0.5 / (abs(e_part) * hypot(g1, g2) + 1e-9))
            e, g = e_part * shrink, g_part
            tries[count] = max(t, 0.1), e * g1, e * g2, g * g1, g * g2, cx, cy, cx + sx, cy + sy
            scores[count] = _minimise(tries[count], xy, errors, prior, core, 0.0, 25)
            count += 1
    best, best_chi2, kept, chi2 = np.empty((4, _SHAPE + 2 * n)), np.empty(4), 0, 1e300
    order = np.argsort(scores)
    for k in range(len(order)):
        if kept == 4 or (k > 0 and scores[order[k]] - scores[order[k - 1]] < 0.02):
            continue
        v = np.empty(_SHAPE + 2 * n)
        v[:_SHAPE] = tries[order[k]]
        for i in range(n):
            v[_SHAPE + 2 * i], v[_SHAPE + 2 * i + 1] = xy[i, 0], xy[i, 1]
        for tight in _CONSTRAINTS_ARCSEC:
            chi2 = _minimise(v, xy, errors, prior, core, tight, 25)
        best[kept], best_chi2[kept] = v, chi2
        kept += 1
    return best[:kept], best_chi2[:kept]
