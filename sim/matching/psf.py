"""PSF of real images: Moffat (1969) fits to compact objects, and which of these are stars.

A star has the width of the PSF whatever its brightness; a galaxy's width is the PSF's with its own added in quadrature.
So the widths of all isolated bright objects are a narrow peak (the stars, as wide as the seeing scatters from image to
image) and a tail to larger widths: a mixture of both is fitted by maximum likelihood, and the peak is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares, minimize
from scipy.special import expit, logsumexp, ndtri

from sim.instrument.psf import PIXEL_FWHM
from stages.records import BoolArray, FloatArray

OVERSAMPLE = 3
MIN_STARS = 5
_STAR_P = 0.6
_MIN_GAIN = 2.5  # of log likelihood; galaxies alone give -2 to 1.1, 15 stars among 120 galaxies 2.8 to 7
_QUANTILES = 64
_OWN_RMS = (-2.3, -1.2)  # log of the rms of log10(galaxies' own size): 0.1 to 0.3 dex (Shen et al. 2003 find 0.13-0.2)
_NARROW, _WIDE = 0.006, 0.09  # least and greatest rms of log10(FWHM) of the stars
_FLOOR = 0.008  # least error of a log10(FWHM): undersampling, blends too faint to see
PROFILE_RADII = np.linspace(0, 4, 25)  # in units of the FWHM


@dataclass(frozen=True)
class MoffatFit:
    """One profile: FWHM in pixels as seen (pixel included), index, ellipticity (a - b) / (a + b), their errors.

    e1, e2 : ellipticity along and across x; misfit : rms residual over the peak; snr : amplitude over noise.
    """

    fwhm: float
    fwhm_error: float
    beta: float
    beta_error: float
    e1: float
    e2: float
    misfit: float
    snr: float
    x: float
    y: float
    amplitude: float
    background: float


@dataclass(frozen=True, eq=False)
class Locus:
    """The peak of the stars among N objects: log10 of the median FWHM, rms of log10, and each object's chance (N,)."""

    centre: float
    scatter: float
    share: float
    chance: FloatArray
    gain: float  # log likelihood over that of galaxies alone

    @property
    def stars(self) -> BoolArray:
        """Which objects are taken for stars."""
        return np.asarray(self.chance > _STAR_P)

    @property
    def found(self) -> bool:
        """Whether there are stars at all: enough of them, and a peak that galaxies alone do not make."""
        return bool(self.stars.sum() >= MIN_STARS and self.gain > _MIN_GAIN)


def fit_moffat(stamp: FloatArray, valid: BoolArray, sigma: float) -> MoffatFit | None:
    """Fit a pixel-integrated elliptical Moffat profile and a flat sky to a stamp (n, n); None where it cannot be."""
    n = stamp.shape[0]
    middle = (n - 1) / 2
    if valid.sum() < 0.9 * valid.size or not np.isfinite(sigma) or sigma <= 0:
        return None
    weight = np.where(valid, 1 / sigma, 0.0)
    data = np.where(valid, stamp, 0.0).astype(float)
    near = data[int(middle) - 1 : int(middle) + 2, int(middle) - 1 : int(middle) + 2].max()
    half = (data > near / 2).sum()
    start = np.array([0.0, 0.0, np.log(max(2 * np.sqrt(half / np.pi), 1.5)), 0.0, 0.0, np.log(2.0)])
    bound = np.array([2.5, 2.5, np.log(n), 0.6, 0.6, np.log(9.0)])
    low = np.array([-2.5, -2.5, np.log(0.5), -0.6, -0.6, np.log(0.3)])

    def residual(p: FloatArray) -> FloatArray:
        shape = _shape(p, n)
        a, b = _linear(shape, data, weight)
        return np.asarray(((a * shape + b - data) * weight).ravel())

    try:
        found = least_squares(residual, np.clip(start, low + 1e-3, bound - 1e-3), bounds=(low, bound), max_nfev=40)
    except (ValueError, np.linalg.LinAlgError):
        return None
    p, shape = found.x, _shape(found.x, n)
    amplitude, background = _linear(shape, data, weight)
    if amplitude <= 0 or np.any(np.abs(p[:2]) > 2.4):
        return None
    scale = max(1.0, 2 * found.cost / max(int(valid.sum()) - 8, 1))
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * scale
    error = np.sqrt(np.diag(covariance))
    intrinsic = float(np.exp(p[2]))
    seen = float(np.hypot(intrinsic, PIXEL_FWHM))
    size = float(np.hypot(p[3], p[4]))
    return MoffatFit(
        seen, float(error[2] * intrinsic**2 / seen), 1 + float(np.exp(p[5])), float(error[5] * np.exp(p[5])),
        p[3], p[4], float(found.fun.std() * sigma / amplitude), float(amplitude / sigma),
        float(p[0]), float(p[1]), float(amplitude), float(background),
    ) if size < 0.6 and np.isfinite(error).all() else None  # fmt: skip


def profile(stamp: FloatArray, fit: MoffatFit) -> FloatArray:
    """Mean light in rings of `PROFILE_RADII` (units of the FWHM) over the fitted peak, NaN where a ring is empty."""
    y, x = np.indices(stamp.shape) - (stamp.shape[0] - 1) / 2
    radius = np.hypot(x - fit.x, y - fit.y) / fit.fwhm
    ring = np.digitize(radius.ravel(), PROFILE_RADII) - 1
    value = ((stamp - fit.background) / fit.amplitude).ravel()
    return np.array([value[ring == k].mean() if (ring == k).any() else np.nan for k in range(len(PROFILE_RADII) - 1)])


def star_locus(log_fwhm: FloatArray, error: FloatArray) -> Locus:
    """Fit the mixture to N objects: log10 FWHM and its error."""
    error = np.hypot(error, _FLOOR)
    if len(log_fwhm) < MIN_STARS:
        return Locus(float("nan"), float("nan"), 0.0, np.zeros(len(log_fwhm)), 0.0)
    best, value = None, np.inf
    for at in np.quantile(log_fwhm, (0.02, 0.1, 0.3)):
        for scatter in (-2.0, 0.0):
            start = np.array([at, scatter, -0.8, at - 0.1, -1.5])
            found = minimize(
                lambda p: -_likelihood(p, log_fwhm, error)[0], start, method="Nelder-Mead",
                options={"maxiter": 700, "xatol": 1e-3, "fatol": 1e-2},
            )  # fmt: skip
            if found.fun < value:
                best, value = found.x, found.fun
    assert best is not None  # six starts
    total, chance = _likelihood(best, log_fwhm, error)
    alone = max(
        -minimize(
            lambda p: -_likelihood(np.array([p[0], p[3], -30.0, p[1], p[2]]), log_fwhm, error)[0],
            np.array([at, at - 0.1, -1.5, scatter]), method="Nelder-Mead", options={"maxiter": 700, "fatol": 1e-2},
        ).fun
        for at in np.quantile(log_fwhm, (0.02, 0.2))
        for scatter in (-2.0, 0.0)
    )  # fmt: skip
    return Locus(float(best[0]), _scatter(best[1]), float(expit(best[2])), chance, float(total - alone))


def _scatter(t: float) -> float:
    return float(_NARROW + (_WIDE - _NARROW) * expit(t))


def _likelihood(p: FloatArray, x: FloatArray, error: FloatArray) -> tuple[float, FloatArray]:
    """Log likelihood with weak priors, and each object's chance to be a star.

    p : log10 FWHM of the stars, their scatter (logit), their share (logit), log10 of galaxies' own median FWHM, log of
    its rms.
    """
    width = np.hypot(_scatter(p[1]), error)
    star = -0.5 * ((x - p[0]) / width) ** 2 - np.log(width)
    own = p[3] + np.exp(np.clip(p[4], *_OWN_RMS)) * ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    seen = 0.5 * np.log10(10 ** (2 * np.clip(p[0], -2, 3)) + 10 ** (2 * np.clip(own, -3, 3)))
    galaxy = logsumexp(-0.5 * ((x[:, None] - seen) / width[:, None]) ** 2, axis=1) - np.log(_QUANTILES * width)
    f = np.clip(expit(p[2]), 1e-12, 1 - 1e-6)
    both = np.logaddexp(np.log(f) + star, np.log1p(-f) + galaxy)
    # Galaxies are not much smaller than the PSF: else they would be stars by another name.
    prior = -0.5 * ((p[3] - p[0] - 0.1) / 0.25) ** 2 - 0.5 * (p[1] / 2) ** 2
    return float(both.sum() + prior), np.exp(np.log(f) + star - both)


def _shape(p: FloatArray, n: int) -> FloatArray:
    """Moffat profile of peak about 1 on n pixels squared, averaged over each pixel."""
    axis = (np.arange(n * OVERSAMPLE) + 0.5) / OVERSAMPLE - n / 2
    x, y = axis[None, :] - p[0], axis[:, None] - p[1]
    beta = 1 + np.exp(p[5])
    alpha = np.exp(p[2]) / (2 * np.sqrt(2 ** (1 / beta) - 1))
    size = np.hypot(p[3], p[4])
    norm = (1 - size**2) if size < 0.95 else 0.1
    # (a - b) / (a + b) = e; r2 with the geometric mean of the axes kept.
    r2 = ((1 + size**2) * (x**2 + y**2) - 2 * p[3] * (x**2 - y**2) - 4 * p[4] * x * y) / norm
    fine = (1 + r2 / alpha**2) ** (-beta)
    return np.asarray(fine.reshape(n, OVERSAMPLE, n, OVERSAMPLE).mean(axis=(1, 3)))


def _linear(shape: FloatArray, data: FloatArray, weight: FloatArray) -> tuple[float, float]:
    """Best amplitude and sky of a shape."""
    w = weight**2
    total, s, d = w.sum(), (w * shape).sum(), (w * data).sum()
    a = (w * shape * data).sum() - s * d / total
    amplitude = a / max((w * shape * shape).sum() - s * s / total, 1e-30)
    return float(amplitude), float((d - amplitude * s) / total)
