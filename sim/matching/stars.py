"""Which compact objects are stars, and how wide they are.

A star has the width of the PSF whatever its brightness; a galaxy's width is the PSF's with its own added in quadrature,
and its profile has another index. Objects of one image share its seeing, which scatters from image to image. A mixture
of stars and galaxies in width and index, with each image's seeing integrated out, is fitted by maximum likelihood: the
median seeing is a parameter, so that a star of bad seeing that passes for a galaxy does not make it too sharp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from sim.matching.curvature import curvature_errors
from sim.matching.image import ImageStats
from sim.matching.psf import MoffatFit
from stages.records import BoolArray, FloatArray

MIN_STARS = 5
_STAR_P = 0.6
_MIN_GAIN = 5.5  # of log likelihood; galaxies alone give -0.2 to 4.9, 15 stars among 15 galaxies 20
_NARROW, _WIDE = 0.004, 0.09  # least and greatest rms of log10(FWHM) of the seeing from image to image
_FLOOR = 0.008  # least error of a log10(FWHM): undersampling, blends too faint to see
_INDEX_FLOOR = 0.12  # rms of ln(Moffat index - 1) of the PSF from image to image
_MOST_FITTED = 600
_NODES = np.linspace(-3.0, 3.0, 31)  # seeing of an image, in units of its scatter
_LOG_WEIGHT = -0.5 * _NODES**2 - logsumexp(-0.5 * _NODES**2)
_ERROR_NODES, _ERROR_WEIGHTS = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)]), np.log([1 / 6, 2 / 3, 1 / 6])
_GOOD_SNR, _GOOD_MISFIT, _GOOD_ELLIPTICITY = 15.0, 0.05, 0.25
_PICTURE_SNR = 80.0  # a composite's sky is clipped: its noise is more than it seems

# Parameters: log10 of the median FWHM of stars, logit of its scatter, logit of their share, ln(index - 1) of stars;
# log10 of galaxies' own size over the PSF's and ln of its rms; the mean ln(index - 1) of spheroids and of discs, ln of
# the rms of both, logit of the share of discs.
_MU, _SCATTER, _SHARE, _INDEX, _OWN, _OWN_RMS, _SPHEROID, _DISC, _INDEX_RMS, _DISCS = range(10)
_PRIOR_MEAN = np.array([0.0, 0.0, 0.0, np.log(2.4), 0.1, np.log(0.2), -0.3, 0.9, np.log(0.4), 0.0])
_PRIOR_RMS = np.array([np.inf, 2.0, np.inf, 0.35, 0.25, 0.3, 0.4, 0.4, 0.3, 1.0])
_STEP = np.array([0.002, 0.1, 0.1, 0.03, 0.02, 0.05, 0.05, 0.05, 0.05, 0.1])  # of differences


@dataclass(frozen=True, eq=False)
class Compact:
    """N compact objects: log10 FWHM, ln(Moffat index - 1), the errors of both, and the image that each is in."""

    log_fwhm: FloatArray
    error: FloatArray
    index: FloatArray
    index_error: FloatArray
    image: FloatArray


@dataclass(frozen=True, eq=False)
class Locus:
    """The stars among N objects: log10 of the median FWHM, rms of log10, their errors, and each object's chance (N,).

    gain : log likelihood over that of galaxies alone.
    """

    centre: float
    centre_error: float
    scatter: float
    scatter_error: float
    chance: FloatArray
    gain: float

    @property
    def stars(self) -> BoolArray:
        """Which objects are taken for stars."""
        return np.asarray(self.chance > _STAR_P)

    @property
    def found(self) -> bool:
        """Whether there are stars at all: enough of them, and a peak that galaxies alone do not make."""
        return bool(self.stars.sum() >= MIN_STARS and self.gain > _MIN_GAIN)


@dataclass(frozen=True, eq=False)
class StarSample:
    """The objects with profiles: image number and number within it, log10 FWHM (arcsec) and error in `band`."""

    band: str
    image: FloatArray
    number: FloatArray
    log_fwhm: FloatArray
    error: FloatArray
    snr: FloatArray
    locus: Locus


def stars_of(images: Sequence[ImageStats], bands: Sequence[str]) -> StarSample:
    """Find the stars among all images' compact objects, in the band with most good profiles (the reddest of equals).

    The cutouts' own objects were chosen by what they are, and do not count.
    """
    count = {b: sum(good(f) for s in images for f in s.profiles.get(b, ())) for b in bands}
    band = bands[max(range(len(bands)), key=lambda k: (count[bands[k]], k))]
    rows = [
        (i, j, np.log10(f.fwhm * s.pixel_scale_arcsec), f.fwhm_error / f.fwhm / np.log(10), f.snr,
         np.log(f.beta - 1), f.beta_error / (f.beta - 1))
        for i, s in enumerate(images)
        for j, f in enumerate(s.profiles.get(band, ()))
        if f is not None and good(f) and (not s.picture or f.snr > _PICTURE_SNR) and j not in _chosen(s)
    ]  # fmt: skip
    image, number, width, error, snr, index, index_error = np.array(rows, float).reshape(-1, 7).T
    locus = star_locus(Compact(width, error, index, index_error, image))
    return StarSample(band, image, number, width, error, snr, locus)


def good(f: MoffatFit | None) -> bool:
    """Whether a fit is that of a single round object with enough light."""
    return f is not None and f.snr > _GOOD_SNR and f.misfit < _GOOD_MISFIT and np.hypot(f.e1, f.e2) < _GOOD_ELLIPTICITY


def _chosen(s: ImageStats) -> set[int]:
    return set(s.objects["profile"][s.objects["chosen"].astype(bool)]) if len(s.objects) else set()


def star_locus(objects: Compact) -> Locus:
    """Fit the mixture; the errors are those of the likelihood's curvature."""
    n = len(objects.log_fwhm)
    nan = float("nan")
    if n < MIN_STARS:
        return Locus(nan, nan, nan, nan, np.zeros(n), 0.0)
    part = objects if n <= _MOST_FITTED else _first(objects, _MOST_FITTED)

    def cost(p: FloatArray) -> float:
        return -_likelihood(p, part)[0]

    def without(p: FloatArray) -> FloatArray:
        return np.concatenate([p[:2], [-30.0, _PRIOR_MEAN[_INDEX]], p[2:]])

    fast = {"maxiter": 60, "ftol": 1e-6}
    best = min(
        (
            minimize(cost, np.array([at, -1.0, -1.0, *_PRIOR_MEAN[3:]]), method="L-BFGS-B", options=fast)
            for at in np.quantile(part.log_fwhm, (0.03, 0.12, 0.3))
        ),
        key=lambda f: float(f.fun),
    )
    starts = (np.array([at, -1.0, *_PRIOR_MEAN[4:]]) for at in np.quantile(part.log_fwhm, (0.03, 0.2)))
    alone = min(minimize(lambda p: cost(without(p)), p, method="L-BFGS-B", options=fast).fun for p in starts)
    error = curvature_errors(cost, best.x, _STEP)
    slope = float(_scatter(best.x[_SCATTER] + 0.01) - _scatter(best.x[_SCATTER] - 0.01)) / 0.02
    return Locus(
        float(best.x[_MU]), float(error[_MU]), _scatter(best.x[_SCATTER]), float(error[_SCATTER] * slope),
        _likelihood(best.x, objects)[1], float(alone - best.fun),
    )  # fmt: skip


def _first(objects: Compact, n: int) -> Compact:
    return Compact(*(getattr(objects, name)[:n] for name in ("log_fwhm", "error", "index", "index_error", "image")))


def _scatter(t: float) -> float:
    return float(_NARROW + (_WIDE - _NARROW) * expit(t))


def _likelihood(p: FloatArray, o: Compact) -> tuple[float, FloatArray]:
    """Log likelihood with weak priors, and each object's chance to be a star."""
    error = np.hypot(o.error, _FLOOR)
    beyond = o.log_fwhm[:, None] - (p[_MU] + _scatter(p[_SCATTER]) * _NODES)  # (N, K): above the image's seeing
    star = (
        _normal(beyond, error[:, None]) + _normal(o.index - p[_INDEX], np.hypot(o.index_error, _INDEX_FLOOR))[:, None]
    )
    own = [
        _excess(beyond - error[:, None] * z, p[_OWN], np.exp(p[_OWN_RMS])) + w
        for z, w in zip(_ERROR_NODES, _ERROR_WEIGHTS, strict=True)
    ]
    rms = np.hypot(o.index_error, np.exp(p[_INDEX_RMS]))
    disc = np.log(expit(p[_DISCS])) + _normal(o.index - p[_DISC], rms)
    spheroid = np.log(expit(-p[_DISCS])) + _normal(o.index - p[_SPHEROID], rms)
    galaxy = np.logaddexp.reduce(own, axis=0) + np.logaddexp(disc, spheroid)[:, None]
    f = np.clip(expit(p[_SHARE]), 1e-12, 1 - 1e-6)
    star = np.log(f) + star
    both = np.logaddexp(star, np.log1p(-f) + galaxy)
    _, number = np.unique(o.image, return_inverse=True)
    joint = np.zeros((int(number.max()) + 1, len(_NODES))) + _LOG_WEIGHT
    np.add.at(joint, number, both)
    total = logsumexp(joint, axis=1)
    seeing = np.exp(joint - total[:, None])[number]
    prior = -0.5 * float(np.sum(((p - _PRIOR_MEAN) / _PRIOR_RMS) ** 2))
    return float(total.sum()) + prior, np.asarray((seeing * np.exp(star - both)).sum(axis=1))


def _excess(beyond: FloatArray, own: float, rms: float) -> FloatArray:
    """Log density of log10(FWHM / PSF) where log10 of the own size over the PSF's is normal; low where none can be."""
    ratio = 10 ** (2 * np.clip(beyond, 1e-4, 2.0))
    size = 0.5 * np.log10(ratio - 1)
    return np.where(beyond > 1e-4, _normal(size - own, rms) + np.log(ratio / (ratio - 1)), -50.0)


def _normal(x: FloatArray, rms: FloatArray | float) -> FloatArray:
    return np.asarray(-0.5 * (x / rms) ** 2 - np.log(rms))
