"""Noise of real pixels: sky level and rms, autocorrelation, and what a delivered variance map says of the gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from scipy import fft
from scipy.ndimage import binary_dilation, distance_transform_edt

from sim.matching.transfer import transfer_samples
from stages.records import BoolArray, FloatArray

LAGS = 4  # the autocorrelation is kept at dy = 0..4, dx = -4..4
HISTOGRAM = np.linspace(-6, 6, 61)
MIN_SKY_PIX = 300
_DETECT_SIGMA, _CLIPPED_SIGMA, _MASK_GROWTH_PIX = 2.0, 3.5, 3
_MESH_PIX = 32


@dataclass(frozen=True, eq=False)
class BandNoise:
    """Sky of one band of one image: level, rms, sky pixels, autocorrelation (5, 9) and the pairs that it rests on.

    histogram : counts of (pixel - level) / rms in `HISTOGRAM`; transfer : as `transfer_samples` gives it;
    map_gain : electrons per flux unit by the delivered variance map, NaN without
    one, inf where the map holds no photon noise; map_ratio : the map's sky variance over the measured one;
    residual : rms of the large-scale sky over the noise.
    """

    level: float
    sigma: float
    n_pix: int
    correlation: FloatArray
    pairs: FloatArray
    histogram: FloatArray
    transfer: FloatArray
    map_gain: float
    map_ratio: float
    residual: float


def sky_mask(flux: FloatArray, valid: BoolArray, clipped: bool = False) -> BoolArray:
    """Pixels (H, W) without objects, found in the sum of all bands (B, H, W) weighted by their noise.

    clipped : the sky was cut at zero (composites): its upper half alone tells how far noise reaches.
    """
    usable = valid.all(axis=0) if valid.all(axis=0).sum() > 0.3 * valid.any(axis=0).sum() else valid.any(axis=0)
    sky, total = usable, np.zeros(flux.shape[1:])
    threshold = _CLIPPED_SIGMA if clipped else _DETECT_SIGMA
    for _ in range(2):
        planes = [_standard(f, v, sky & v) for f, v in zip(flux, valid, strict=True)]
        total = np.sum(planes, axis=0)
        quiet = total[sky] if sky.sum() > 50 else total[usable]
        spread = float(np.diff(np.percentile(quiet, (50, 84)))[0]) if clipped else _mad(quiet)
        _, found = sep.extract(
            np.ascontiguousarray(total), threshold, err=max(spread, 1e-12), mask=~usable, minarea=4,
            segmentation_map=True,
        )  # fmt: skip
        sky = usable & ~binary_dilation(found > 0, iterations=_MASK_GROWTH_PIX)
        bright = found > 0
        if bright.any():  # haloes reach further, the larger the object
            sizes = np.sqrt(np.bincount(found.ravel())[found] / np.pi) * bright
            far, index = distance_transform_edt(~bright, return_indices=True)
            sky &= far > 0.7 * sizes[tuple(index)]
    return np.asarray(sky)


def _standard(flux: FloatArray, valid: BoolArray, sky: BoolArray) -> FloatArray:
    sample = flux[sky] if sky.sum() > 50 else flux[valid]
    if not sample.size:
        return np.zeros(flux.shape)
    level = float(np.median(sample))
    return np.where(valid, flux - level, 0.0).astype(float) / max(_mad(sample), 1e-12)


def band_noise(
    flux: FloatArray, variance: FloatArray, valid: BoolArray, sky: BoolArray, rng: np.random.Generator
) -> BandNoise | None:
    """Measure one band (H, W); None where there is too little sky."""
    sky = sky & valid
    if sky.sum() < MIN_SKY_PIX:
        return None
    data = np.where(valid, flux, 0.0).astype(float)
    data -= (level := float(np.median(data[sky])))
    background = _background(data, sky)
    residual = float(np.std(background[sky])) if background is not None else float("nan")
    flat = data if background is None else data - background
    sigma = _mad(flat[sky])
    if not sigma > 0:
        sigma = float(flat[sky].std())
    if not sigma > 0:
        return None
    kept = sky & (np.abs(flat) < 4.5 * sigma)
    correlation, pairs = autocorrelation(flat, kept)
    gain, ratio = _map_gain(flat, variance, valid, sky, sigma)
    return BandNoise(
        level, sigma, int(sky.sum()), correlation, pairs,
        np.histogram(flat[sky] / sigma, HISTOGRAM)[0].astype(float),
        transfer_samples(flat, valid, sky, sigma, rng), gain, ratio, residual / sigma,
    )  # fmt: skip


def autocorrelation(data: FloatArray, kept: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Correlation (5, 9) of kept pixels at dy = 0..4, dx = -4..4, and the number of pairs at each lag."""
    shape = [fft.next_fast_len(n + LAGS, real=True) for n in data.shape]
    mask = kept.astype(float)
    values = np.where(kept, data - data[kept].mean(), 0.0)
    products = fft.irfft2(np.abs(fft.rfft2(values, shape)) ** 2, shape)
    pairs = fft.irfft2(np.abs(fft.rfft2(mask, shape)) ** 2, shape)
    rows, columns = np.arange(LAGS + 1)[:, None], np.arange(-LAGS, LAGS + 1)[None, :]
    products, pairs = products[rows, columns], np.maximum(np.round(pairs[rows, columns]), 1)
    covariance = products / pairs
    return np.asarray(covariance / covariance[0, LAGS]), np.asarray(pairs)


def gaussian_width(correlation: FloatArray) -> float:
    """Sigma in pixels of the Gaussian filter whose noise has these correlations (5, 9) at its shortest lags."""
    wanted = np.array([correlation[0, LAGS + 1], correlation[1, LAGS], _diagonal(correlation)])
    widths = np.arange(0.0, 2.5, 0.01)
    x = np.arange(-15, 16)
    kernels = np.exp(-(x**2) / (2 * np.maximum(widths, 1e-3)[:, None] ** 2))
    one = (kernels[:, :-1] * kernels[:, 1:]).sum(axis=1) / (kernels**2).sum(axis=1)
    misfit = (one[:, None] * np.ones(2) - wanted[:2]) ** 2
    return float(widths[np.argmin(misfit.sum(axis=1) + (one**2 - wanted[2]) ** 2)])


def folded(correlation: FloatArray) -> FloatArray:
    """(5, 9) at both signs of dx to (5, 5) at dx = 0..4, the two signs averaged."""
    right, left = correlation[:, LAGS:], correlation[:, LAGS::-1]
    return np.asarray((right + left) / 2)


def _diagonal(correlation: FloatArray) -> float:
    return float((correlation[1, LAGS + 1] + correlation[1, LAGS - 1]) / 2)


def _map_gain(
    data: FloatArray, variance: FloatArray, valid: BoolArray, sky: BoolArray, sigma: float
) -> tuple[float, float]:
    """Gain by the slope of a delivered variance map with flux, and its sky variance over the pixels' own."""
    known = valid & np.isfinite(variance) & (variance > 0)
    if known.sum() < MIN_SKY_PIX or not (known & sky).any():
        return float("nan"), float("nan")
    floor = float(np.median(variance[known & sky]))
    bright = known & (data > 5 * sigma)
    ratio = floor / sigma**2
    if bright.sum() < 30:
        return float("nan"), ratio
    slope = float(np.median((variance[bright] - floor) / data[bright]))
    scatter = 1.4826 * float(np.median(np.abs(variance[known & sky] - floor)))
    seen = slope * float(np.percentile(data[bright], 90)) > max(0.02 * floor, 0.5 * scatter)
    return (1 / slope if seen else float("inf")), ratio


def _background(data: FloatArray, sky: BoolArray) -> FloatArray | None:
    """Large-scale sky, or None where the image is too small to tell it from its object."""
    if min(data.shape) < 2 * _MESH_PIX:
        return None
    out: FloatArray = sep.Background(np.ascontiguousarray(data), mask=~sky, bw=_MESH_PIX, bh=_MESH_PIX).back()
    return out


def _mad(values: FloatArray) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else 0.0
