"""Lenses that make three bright images and no more, among those that three images allow.

A source within the part of the tangential caustic that lies outside the radial one has two minima and a saddle; the
other saddle and the maximum are gone. Such lenses are the elongated tail of a posterior whose mode has a fourth image,
never a mode, so a fit does not find them: their share of the posterior is what they weigh.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import chdtrc

from stages.counter.images import Images, all_images
from stages.counter.lens_fit import Fit
from stages.counter.lens_model import Array, LensModel
from stages.counter.posterior import N_DRAWS
from stages.counter.prediction import followed, lenses_like, posterior_chi2

COUNTS = (2, 1, 0)  # minima, saddles, maxima
_ROUND_ENOUGH = 0.75  # ellipticity, as in the fit
_MOST_SOLVED = 12  # of the lenses that lack the fourth image


def without_fourth(fit: Fit, least_share: float) -> Fit | None:
    """A naked cusp for three images whose fitted lens has a fourth, the saddle that arrives last.

    Its log evidence is that of the fit times the share of naked cusps in the posterior; its lens is the middle one of
    these, of which chi2 and p-value are. None where the share is below `least_share`.
    """
    bright = np.flatnonzero(fit.images.kind < 2)
    if len(bright) != 4 or fit.images.kind[bright[-1]] != 1 or fit.detection[bright[-1]] >= 0:
        return None
    draws = lenses_like(fit)
    draws = draws[(draws[:, 0] > 0) & (np.hypot(draws[:, 1], draws[:, 2]) < _ROUND_ENOUGH)]
    lost = draws[~np.isfinite(followed(fit, int(bright[-1]), draws)).all(1)]
    if len(lost) < max(least_share * len(draws), 1):
        return None
    some = lost[np.linspace(0, len(lost) - 1, min(len(lost), _MOST_SOLVED)).astype(int)]
    naked = some[[counts(_images(fit, draw)) == COUNTS for draw in some]]
    share = len(lost) / len(draws) * len(naked) / len(some)
    if share < least_share or not len(naked):
        return None
    middle = naked.mean(0)
    if counts(_images(fit, middle)) != COUNTS:
        middle = naked[np.argmin([posterior_chi2(fit, draw) for draw in naked])]
    return _as_fit(fit, middle, share)


def counts(images: Images) -> tuple[int, ...]:
    """Numbers of minima, saddles and maxima."""
    return tuple(np.bincount(images.kind, minlength=3).tolist())


def _images(fit: Fit, draw: Array) -> Images:
    return all_images(_model(fit, draw), draw[7:9])


def _model(fit: Fit, draw: Array) -> LensModel:
    theta_e, e1, e2, gamma1, gamma2, x, y = draw[:7].tolist()
    return LensModel(theta_e, e1, e2, gamma1, gamma2, x, y, fit.model.core_arcsec)


def _as_fit(fit: Fit, draw: Array, share: float) -> Fit | None:
    """The fit with another lens, if each of its images is nearest to a detection of its own."""
    images, seen = _images(fit, draw), np.flatnonzero(fit.detection >= 0)
    distance = np.hypot(*(images.xy_arcsec[:, None] - fit.images.xy_arcsec[None, seen]).transpose(2, 0, 1))
    nearest = distance.argmin(1)
    if len(set(nearest.tolist())) < len(seen):
        return None
    chi2 = fit.chi2 + posterior_chi2(fit, draw)
    return replace(
        fit, model=_model(fit, draw), source_xy_arcsec=draw[7:9], chi2=chi2, p_value=float(chdtrc(fit.dof, chi2)),
        images=images, detection=fit.detection[seen][nearest],
        log_evidence=fit.log_evidence - fit.log_fluxes + float(np.log(share)),
        weights=np.full(N_DRAWS, 1 / N_DRAWS), log_fluxes=0.0,
    )  # fmt: skip
