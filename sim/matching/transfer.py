"""Photon transfer (Janesick 2001): the variance of object pixels against their flux is the sky's plus flux / gain.

Galaxies' structure passes for noise unless it is filtered out: a PSF that the pixels sample well leaves nothing at
their highest frequency along both axes, where the noise still has some, and there alone the variance is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, convolve1d

from stages.records import BoolArray, FloatArray

SHARPEST_PIX = 2.5  # FWHM: a sharper PSF has structure at the highest frequency of its pixels
_FILTER = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70.0)  # sin^4 of half the frequency: most at the highest
_HALF = 2
_SAMPLES = 1500  # pixels of objects kept per image and band
_BRIGHTEST = 60.0  # of the sky's rms: beyond, what is left of the structure of cores outweighs the photons
# Squares are cut at so many variances; the other is the mean of what that leaves of a chi-squared variable.
_CUT, _CUT_MEAN = 2.5, 0.8093
_BOOTSTRAPS, _BINS, _MIN_PIX = 40, 16, 240
_FLOOR = 0.3  # of the sky's variance: no pixel has less
_SYSTEMATIC = 0.12  # of 1 / gain: mean excess in twelve simulated sets (DES, 120 fields each)


@dataclass(frozen=True, eq=False)
class Transfer:
    """1 / gain in flux units per electron, its error, and the curve (bins, 3) of flux, variance and its error."""

    inverse_gain: float
    error: float
    curve: FloatArray


def transfer_samples(
    data: FloatArray, valid: BoolArray, sky: BoolArray, sigma: float, rng: np.random.Generator
) -> FloatArray:
    """(n, 2): flux of object pixels and square of their highest frequency, as a single pixel's variance."""
    residual, flux = _both(data, _FILTER), _both(data, _FILTER**2)
    whole = ~binary_dilation(~valid, np.ones((5, 5), bool)) if not valid.all() else np.ones(valid.shape, bool)
    whole[:_HALF], whole[-_HALF:], whole[:, :_HALF], whole[:, -_HALF:] = False, False, False, False
    quiet = residual[sky & whole]
    chosen = np.argwhere(whole & (flux > 2 * sigma) & (flux < _BRIGHTEST * sigma))
    if quiet.size < 100 or not len(chosen):
        return np.zeros((0, 2), np.float32)
    spread = max(1.4826 * float(np.median(np.abs(quiet))), 1e-12)
    scale = sigma**2 / (spread**2 * max(_mean((quiet / spread) ** 2), 1e-12))
    at = flux[tuple(chosen.T)]
    bright = np.argsort(-at)[: _SAMPLES // 3]
    rest = rng.permutation(len(at))[: _SAMPLES - len(bright)]
    index = tuple(chosen[np.unique(np.concatenate([bright, rest]))].T)
    return np.column_stack([flux[index], residual[index] ** 2 * scale]).astype(np.float32)


def photon_transfer(samples: Sequence[tuple[FloatArray, float]], rng: np.random.Generator) -> Transfer | None:
    """Gain by the samples (n, 2) and sky rms of each image; the error is that of images drawn anew.

    Where a term in flux^2, structure, is seen, what it changes is part of the error. None: too few pixels.
    """
    kept = [np.column_stack([s, np.full(len(s), sigma**2)]) for s, sigma in samples if len(s)]
    if len(kept) < 3 or sum(map(len, kept)) < _MIN_PIX:
        return None
    pooled = np.concatenate(kept).astype(float)
    inverse = _regression(pooled, structure=False)[0]
    with_structure = _regression(pooled, structure=True)
    draws = []
    for _ in range(_BOOTSTRAPS):
        drawn = np.concatenate([kept[k] for k in rng.integers(0, len(kept), len(kept))]).astype(float)
        draws.append([_regression(drawn, structure=False)[0], _regression(drawn, structure=True)[1]])
    error, structure_error = np.std(draws, axis=0)
    seen = with_structure[1] > 2 * structure_error
    away = with_structure[0] - inverse if seen else 0.0
    return Transfer(float(inverse), float(np.sqrt(error**2 + away**2 + (_SYSTEMATIC * inverse) ** 2)), _curve(pooled))


def _regression(rows: FloatArray, structure: bool) -> FloatArray:
    """1 / gain and the factor of flux^2 (0 unless `structure`) by iterated weights; squares far off are cut."""
    flux, square, sky = rows.T
    terms = np.column_stack([flux, flux**2])[:, : 1 + structure]
    found = np.zeros(terms.shape[1])
    for _ in range(12):
        variance = np.maximum(sky + terms @ found, _FLOOR * sky)
        beyond = np.minimum(square, _CUT * variance) / _CUT_MEAN - sky
        weighted = terms / variance[:, None]
        found = np.linalg.lstsq(weighted, beyond / variance, rcond=None)[0]
    return np.append(found, np.zeros(2 - len(found)))


def _mean(squares: FloatArray) -> float:
    """Mean of squares of about unit variance, those far off cut."""
    variance = 1.0
    for _ in range(6):
        variance = float(np.minimum(squares, _CUT * variance).mean()) / _CUT_MEAN
    return variance


def _curve(rows: FloatArray) -> FloatArray:
    """Mean flux, variance beyond the sky's plus the median sky's, and its error in bins of equal number."""
    middle = float(np.median(rows[:, 2]))
    out = []
    for part in np.array_split(rows[np.argsort(rows[:, 0])], _BINS):
        ratio = _mean(part[:, 1] / part[:, 2])
        error = ratio * np.sqrt(2.4 * 6.9 / len(part))  # neighbours share the filter: 6.9 pixels say what one would
        out.append((float(part[:, 0].mean()), ratio * middle, error * middle))
    return np.array(out)


def _both(data: FloatArray, weights: FloatArray) -> FloatArray:
    return np.asarray(convolve1d(convolve1d(data, weights, 0, mode="nearest"), weights, 1, mode="nearest"))
