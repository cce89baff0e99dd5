"""Noise of a survey's pixels: sky and photons, correlated as resampled and drizzled images have it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft

from stages.records import FloatArray
from stages.survey import SurveyFacts

_PAD_PIX = 8  # drawn beyond the cutout and cut off: opposite edges of a Fourier-filtered field are correlated
_BAND_SCATTER = 0.06  # rms of ln(sky rms) from band to band, beside the field's common depth (assumed)
_VARIATION = (0.5, 1.5)  # of both variations of the variance from field to field (assumed)
Table = tuple[tuple[float, ...], ...]


def noise(rng: np.random.Generator, survey: SurveyFacts, size: int, depth: float) -> tuple[FloatArray, FloatArray]:
    """Noise of unit variance (B, size, size), correlated as the survey's pixels are, and the sky's rms (B,).

    depth : factor on the survey's usual sky rms that all bands of this field share.
    """
    n = int(fft.next_fast_len(size + _PAD_PIX, real=True))
    white = rng.standard_normal((len(survey.bands), n, n), dtype=np.float32)
    filters = [_filter(survey.noise_correlation.get(b, ()), survey.noise_correlation_pix, n) for b in survey.bands]
    if survey.resampled_exposures or any(f is not None for f in filters):
        flat = np.ones((n, n // 2 + 1), np.float32)
        shape = np.stack([flat if f is None else f for f in filters])
        if survey.resampled_exposures:
            shape = shape * np.stack([_stack_filter(rng, survey.resampled_exposures, n) for _ in survey.bands])
            full = np.concatenate([shape, shape[..., 1 : (n + 1) // 2]], axis=-1)
            shape = shape / np.sqrt((full**2).mean(axis=(1, 2), keepdims=True))
        white = fft.irfft2(fft.rfft2(white) * shape, s=(n, n))
    sky = np.array([survey.sky_sigma[band] for band in survey.bands])
    scatter = np.exp(_BAND_SCATTER * rng.normal(size=len(sky)))
    unit = np.ascontiguousarray(white[:, :size, :size])
    if survey.noise_variation > 0 or survey.noise_pattern > 0:
        unit *= np.sqrt(_variance_map(rng, survey, size))
    return unit, sky * depth * scatter


def _variance_map(rng: np.random.Generator, survey: SurveyFacts, size: int) -> FloatArray:
    """Local variance (size, size) of mean 1: exposures lost here and there, and the beat of resampling."""
    strength = rng.uniform(*_VARIATION)
    sigma = np.sqrt(np.log1p((strength * survey.noise_variation) ** 2))
    lost = np.exp(sigma * rng.standard_normal((size, size), dtype=np.float32) - sigma**2 / 2)
    k, (px, py) = 2 * np.pi / survey.noise_pattern_pix, rng.uniform(0, 2 * np.pi, 2)
    axis = k * np.arange(size)
    beat = np.cos(axis + py)[:, None] * np.cos(axis + px)[None, :]
    return np.asarray(lost * np.clip(1 + strength * survey.noise_pattern * beat, 0.05, None), np.float32)


def expose(
    light: FloatArray, unit_noise: FloatArray, sky_sigma: FloatArray, gain: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Light (B, H, W) as observed, with its variance: sky and read noise, and photons at `gain` e- per flux unit."""
    variance = sky_sigma[:, None, None] ** 2 + np.clip(light, 0, None) / gain[:, None, None]
    return light + unit_noise * np.sqrt(variance), variance


def _stack_filter(rng: np.random.Generator, exposures: int, n: int) -> FloatArray:
    """Amplitude (n, n // 2 + 1) by which the noise of one stack departs from that of the mean over phases.

    Interpolation at a fraction f of a pixel multiplies the noise's power spectrum by |K_f|^2 along each axis, where K_f
    is the transform of the kernel's samples; a stack has the mean over its exposures.
    """
    power = _phase_power(n)
    along_y, along_x = (power[rng.integers(0, len(power), exposures)] for _ in range(2))
    mean = power.mean(axis=0)
    stack = np.einsum("ey,ex->yx", along_y, along_x[:, : n // 2 + 1]) / exposures
    return np.asarray(np.sqrt(stack / (mean[:, None] * mean[: n // 2 + 1])), np.float32)


@lru_cache(maxsize=16)
def _phase_power(n: int) -> FloatArray:
    """Power (32, n) of Lanczos-3 interpolation at 32 phases within a pixel, by frequency as in a Fourier transform."""
    phase = (np.arange(32) + 0.5) / 32
    sample = np.arange(-2, 4) - phase[:, None]
    kernel = np.sinc(sample) * np.sinc(sample / 3)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return np.asarray(np.abs(fft.fft(kernel, n, axis=1)) ** 2)


@lru_cache(maxsize=64)
def _filter(table: Table, sigma_pix: float, size: int) -> FloatArray | None:
    """Amplitude (size, size // 2 + 1) whose square is the noise's power spectrum, of mean 1; None for white noise.

    A measured autocorrelation need not be a possible one: where its power spectrum is negative it is set to 0.
    """
    if not table and sigma_pix <= 0:
        return None
    correlation = np.zeros((size, size))
    if table:
        rows, columns = min(len(table), size // 2), min(len(table[0]), size // 2)
        measured = np.asarray(table)[:rows, :columns]
        for y in (1, -1):
            for x in (1, -1):
                correlation[np.ix_(y * np.arange(rows), x * np.arange(columns))] = measured
        power = np.clip(fft.fft2(correlation).real, 0, None)
    else:
        lag = np.minimum(np.arange(size), size - np.arange(size))
        kernel = np.exp(-0.5 * (lag / sigma_pix) ** 2)
        power = np.abs(fft.fft2(kernel[:, None] * kernel[None, :])) ** 2
    amplitude: FloatArray = np.sqrt(power / power.mean())[:, : size // 2 + 1].astype(np.float32)
    return amplitude
