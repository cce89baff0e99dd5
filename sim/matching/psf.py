"""Moffat (1969) fits to compact objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from sim.instrument.psf import PIXEL_FWHM
from stages.records import BoolArray, FloatArray

OVERSAMPLE = 3
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
