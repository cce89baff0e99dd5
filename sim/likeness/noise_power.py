"""Correlation and power spectrum of the noise in the sky pixels of a masked image."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import fft

from stages.records import BoolArray, FloatArray

MAX_LAG_PIX = 8
MIN_SKY_PIX = 60
_EDGES_PER_PIX = (0.0, 0.0625, 0.125, 0.25, 0.5)  # octaves of spatial frequency up to Nyquist


def autocorrelation(values: FloatArray, sky: BoolArray) -> FloatArray:
    """Correlation (17, 17) of sky pixels (H, W) at lags -8..8 in y and x; NaN where too few pairs share a lag.

    The masked estimator: products of deviations over the number of pairs at that lag, so that masks and edges do not
    bias it (the deviation's mean and variance are those of all sky pixels).
    """
    shape = tuple(n + MAX_LAG_PIX for n in values.shape)
    mask = sky.astype(float)
    deviation = np.where(sky, values - values[sky].mean(), 0.0)
    pairs = _lagged(mask, shape)
    products = _lagged(deviation, shape)
    variance = float((deviation[sky] ** 2).mean()) + 1e-30
    return np.where(pairs > MIN_SKY_PIX / 2, products / np.maximum(pairs, 1.0) / variance, np.nan)


def _lagged(image: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Sum of image(p) image(p + lag) for every lag up to the largest, zero lag in the middle."""
    spectrum = fft.rfft2(image, shape)
    full = fft.irfft2(np.abs(spectrum) ** 2, shape)
    index = np.arange(-MAX_LAG_PIX, MAX_LAG_PIX + 1)
    return np.asarray(full[np.ix_(index, index)])


def power_bands(correlation: FloatArray) -> list[float]:
    """log10 of the power density in octaves of spatial frequency, relative to white noise, and its x-y asymmetry.

    The spectrum is the Fourier transform of the correlation under a Hann window (Blackman & Tukey 1958); the last
    number is log10 of the power of fast waves along x over that of fast waves along y.
    """
    window = np.hanning(2 * MAX_LAG_PIX + 3)[1:-1]
    tapered = np.nan_to_num(correlation) * window[:, None] * window[None, :]
    n = 4 * MAX_LAG_PIX
    power = np.clip(fft.fft2(fft.ifftshift(_padded(tapered, n))).real, 1e-3, None)
    fy, fx = np.abs(fft.fftfreq(n))[:, None], np.abs(fft.fftfreq(n))[None, :]
    k = np.hypot(fx, fy)
    out = [float(np.log10(power[(k >= low) & (k < high)].mean())) for low, high in pairwise(_EDGES_PER_PIX)]
    along_x, along_y = power[(fx > 0.25) & (fy < 0.125)].mean(), power[(fy > 0.25) & (fx < 0.125)].mean()
    return [*out, float(np.log10(along_x / along_y))]


def _padded(image: FloatArray, n: int) -> FloatArray:
    """An odd image in the middle (n // 2) of an (n, n) frame of zeros."""
    out = np.zeros((n, n))
    start = n // 2 - image.shape[0] // 2
    out[start : start + image.shape[0], start : start + image.shape[1]] = image
    return out
