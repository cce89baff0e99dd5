"""Fit a cored isothermal ellipsoid with shear to the positions of 1 source's images.

Source-plane Levenberg-Marquardt from several starts, residuals whitened by sigma^2 A A^T; then the image positions
become unknowns with the lens equation as a soft constraint, which is exact in the image plane. Priors on ellipticity,
shear and the deflector's position make doubles and triples solvable, and count in chi^2 as data. Fluxes weigh the
lenses that the positions allow: their errors are no Gaussian noise (microlensing, dust, variability, substructure), so
that they neither move the fit nor count in its p-value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, logsumexp

from stages.counter.chance import log_common
from stages.counter.compiling import compiled
from stages.counter.evidence import laplace
from stages.counter.images import Images, all_images
from stages.counter.least_squares import fit_kernel
from stages.counter.lens_model import Array, LensModel
from stages.counter.posterior import N_DRAWS, draws_of, follow

FLUX_FLOOR_MAG = 0.5  # microlensing, variability, dust, substructure
CORE_ARCSEC = 0.01
_UNSEEN_SPREAD = 0.5  # in units of the images' rms distance from their centroid
_UNSEEN_COST = 4.0  # chi2 that a solution may lack per unseen image when solutions compete


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted lens and what it predicts.

    model, source_xy_arcsec : the best lens and source.
    chi2 : misfit of positions and priors; dof : number of positions and priors less parameters, 2 n - 3.
    p_value : chance of a larger chi2 for a lens drawn from the priors; NaN if nothing could be fitted.
    images : all images of the model, in order of arrival.
    detection : (N,) index of the detection at each model image, -1 where there is none.
    log_evidence : natural log of the probability density of the positions under this solution, arcsec^(-2 n).
    covariance : (9, 9) of (theta_e, e1, e2, gamma1, gamma2, x, y, source x, source y); NaN where it has none.
    weights : (N_DRAWS,) of the lenses drawn from the posterior of the positions, by their fluxes;
        log_fluxes : natural log of the fluxes' likelihood in these, the source's flux integrated over (part of
        log_evidence); 0 without fluxes.
    """

    model: LensModel
    source_xy_arcsec: Array
    chi2: float
    dof: int
    p_value: float
    images: Images
    detection: npt.NDArray[np.int64]
    log_evidence: float
    covariance: Array
    weights: Array
    log_fluxes: float = 0.0

    @property
    def parameters(self) -> Array:
        """(9,) lens and source, in the order of the covariance."""
        return np.concatenate([self.model.as_array()[:7], self.source_xy_arcsec])

    @property
    def matched(self) -> bool:
        """Whether every detection is one of the model's images."""
        return int((self.detection >= 0).sum()) == (self.dof + 3) // 2


def fit(
    positions_arcsec: npt.ArrayLike,
    errors_arcsec: npt.ArrayLike,
    deflector_xy_arcsec: npt.ArrayLike,
    deflector_err_arcsec: float,
    core_arcsec: float = CORE_ARCSEC,
    fluxes: npt.ArrayLike | None = None,
    flux_errs: npt.ArrayLike | None = None,
) -> Fit:
    """The best of `solutions`, which see: fewest unseen images at equal misfit, and the likeliest fluxes."""
    fits = solutions(
        positions_arcsec, errors_arcsec, deflector_xy_arcsec, deflector_err_arcsec, core_arcsec, fluxes, flux_errs
    )
    return min(fits, key=lambda f: f.chi2 + _UNSEEN_COST * float((f.detection < 0).sum()) - 2 * f.log_fluxes)


def solutions(
    positions_arcsec: npt.ArrayLike,
    errors_arcsec: npt.ArrayLike,
    deflector_xy_arcsec: npt.ArrayLike,
    deflector_err_arcsec: float,
    core_arcsec: float = CORE_ARCSEC,
    fluxes: npt.ArrayLike | None = None,
    flux_errs: npt.ArrayLike | None = None,
) -> list[Fit]:
    """Fit NIE + shear to two or more images of one point source; every local solution that competes with the best.

    Parameters
    ----------
    positions_arcsec : (n, 2) image positions, n >= 2.
    errors_arcsec : (n,) error of each position per axis, substructure and the like included.
    deflector_xy_arcsec, deflector_err_arcsec : prior on the deflector's centre; a position of NaN means not seen:
        a wide prior about the images' centroid then takes its place.
    fluxes, flux_errs : (n,) in one unit, NaN where not measured; errors have a floor of FLUX_FLOOR_MAG besides.
    """
    xy, errors = np.asarray(positions_arcsec, dtype=np.float64), np.asarray(errors_arcsec, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) < 2 or errors.shape != (len(xy),):
        raise ValueError(f"positions {xy.shape}, errors {errors.shape}: expected (n, 2) and (n,), n >= 2")
    origin = xy.mean(0)
    centre, starts = np.asarray(deflector_xy_arcsec, dtype=np.float64) - origin, None
    if not np.isfinite(centre).all():
        starts = _centres(xy - origin)
        centre, deflector_err_arcsec = unseen_centre(xy - origin)
    prior = np.array([centre[0], centre[1], deflector_err_arcsec])
    found, scores = fit_kernel(xy - origin, errors, prior, centre[None] if starts is None else starts, core_arcsec)
    fits = [
        _describe(v, float(chi2), xy, errors, origin, prior, core_arcsec)
        for v, chi2 in zip(found, scores, strict=True)
        if chi2 < scores.min() + 3 * _UNSEEN_COST
    ]
    if fluxes is None:
        return fits
    flux = np.asarray(fluxes, dtype=np.float64)
    flux = np.where(flux > 0, flux, np.nan)
    error = np.zeros(len(xy)) if flux_errs is None else 1.086 * np.asarray(flux_errs, dtype=np.float64) / flux
    magnitude, scatter = -2.5 * np.log10(flux), np.hypot(np.nan_to_num(error), FLUX_FLOOR_MAG)
    return [_with_fluxes(fit, magnitude, scatter) for fit in fits]


def _with_fluxes(fit: Fit, magnitude: Array, scatter: Array) -> Fit:
    """The fit with the fluxes (n,) of its images, all or those that the model has."""
    seen = np.sort(fit.detection[fit.detection >= 0])
    rows, predicted = magnitudes_in(fit)
    return weighed(fit, rows, log_common(magnitude[seen] - predicted, scatter[seen]))


def magnitudes_in(fit: Fit) -> tuple[npt.NDArray[np.intp], Array]:
    """Rows (k,) of the posterior's lenses that have every detection, and -2.5 log10 |mu| of these (k, n) there.

    No rows, and the fitted lens's own (1, n), where there are no such lenses.
    """
    images, seen = fit.images, np.flatnonzero(fit.detection >= 0)
    seen = seen[np.argsort(fit.detection[seen])]
    draws = draws_of(fit.parameters, fit.covariance)
    det = follow(draws, fit.model.core_arcsec, images.xy_arcsec[seen], images.kind[seen] == 1)[..., 2]
    rows = np.flatnonzero(np.isfinite(det).all(1))
    if not len(rows):
        return rows, -2.5 * np.log10(np.abs(images.magnification[None, seen]))
    return rows, 2.5 * np.log10(np.abs(det[rows]))


def weighed(fit: Fit, rows: npt.NDArray[np.intp], log_likelihood: Array) -> Fit:
    """The fit with its fluxes' likelihood (k,) in some lenses (k,) of the posterior; in itself, (1,), if k is 0."""
    total = float(logsumexp(log_likelihood))
    log_fluxes = total - float(np.log(len(log_likelihood)))
    weights = fit.weights
    if len(rows):
        weights = np.zeros(N_DRAWS)
        weights[rows] = np.exp(log_likelihood - total)
    return replace(fit, weights=weights, log_fluxes=log_fluxes, log_evidence=fit.log_evidence + log_fluxes)


def _describe(v: Array, chi2: float, xy: Array, errors: Array, origin: Array, prior: Array, core_arcsec: float) -> Fit:
    """Solution with all images of its model; chi2 from these where every detection has one."""
    log_evidence, covariance = laplace(v, xy - origin, errors, prior, core_arcsec)
    v = v.copy()
    v[5::2] += origin[0]
    v[6::2] += origin[1]
    theta_e, e1, e2, gamma1, gamma2, x, y = v[:7].tolist()
    model, fitted_xy = LensModel(theta_e, e1, e2, gamma1, gamma2, x, y, core_arcsec), v[9:].reshape(-1, 2)
    images, dof = all_images(model, v[7:9]), 2 * len(xy) - 3
    detection = _match(images.xy_arcsec, xy, fitted_xy)
    seen = detection >= 0
    if seen.sum() == len(xy):
        order = detection[seen]
        exact = (((images.xy_arcsec[seen] - xy[order]) / errors[order, None]) ** 2).sum()
        chi2 = max(chi2, chi2 + exact - float((((fitted_xy - xy) / errors[:, None]) ** 2).sum()))
    return Fit(
        model, v[7:9], float(chi2), dof, float(chdtrc(dof, chi2)), images, detection, log_evidence, covariance,
        np.full(N_DRAWS, 1.0 / N_DRAWS),
    )  # fmt: skip


@compiled
def _match(model_xy: Array, xy: Array, fitted_xy: Array) -> npt.NDArray[np.int64]:
    """Detection at each model image: the fitted position of each detection names one image, nearest first."""
    detection, free = np.full(len(model_xy), -1), np.ones(len(xy), np.bool_)
    for _ in range(len(xy)):
        best, row, column = np.inf, -1, -1
        for i in range(len(xy)):
            reach = max(0.05, 0.5 * np.hypot(fitted_xy[i, 0] - xy[i, 0], fitted_xy[i, 1] - xy[i, 1]))
            for j in range(len(model_xy)):
                distance = np.hypot(fitted_xy[i, 0] - model_xy[j, 0], fitted_xy[i, 1] - model_xy[j, 1])
                if free[i] and detection[j] < 0 and distance <= reach and distance < best:
                    best, row, column = distance, i, j
        if row < 0:
            break
        detection[column], free[row] = row, False
    return detection


def unseen_centre(xy: Array) -> tuple[Array, float]:
    """Prior on an unseen deflector: the images' centroid and an error per axis, from their spread."""
    centroid = xy.mean(0)
    return centroid, _UNSEEN_SPREAD * float(np.sqrt(((xy - centroid) ** 2).sum(1).mean()))


def _centres(xy: Array) -> Array:
    """Where to look for an unseen deflector: centre of the images' circle, half-way, and their centroid."""
    if len(xy) < 3:
        return np.asarray(xy.mean(0, keepdims=True))
    design = np.column_stack([2 * xy, np.ones(len(xy))])
    circle: Array = np.linalg.lstsq(design, (xy**2).sum(1), rcond=None)[0][:2]
    spread = float(np.sqrt((xy**2).sum(1).mean()))
    if not np.hypot(*circle) < 1.2 * spread:
        circle = circle * (1.2 * spread / np.hypot(*circle))
    return np.stack([circle, 0.5 * circle, 0.0 * circle])
