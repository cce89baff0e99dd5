"""The stretch of colour composites: from a FITS and picture pair, and noise and shift from pictures alone.

Lupton et al. (2004): plane c = p_c asinh(alpha Q I) / (Q I), p_c = scale_c flux_c, I the mean of the three. Scaling
all p_c by k and alpha by 1 / k changes nothing: only scale_c alpha and Q can be known. The scales' mean is set to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares
from scipy.stats import skew

from stages.ingest.fits_header import band_names
from stages.ingest.fits_planes import load
from stages.records import BoolArray, FloatArray
from stages.stretch import to_composite
from stages.survey import Stretch

_TURNS = {"none": (0, False), "upside down": (0, True), "mirrored": (2, True), "half a turn": (2, False)}
QUIET_NAMES = ("mean", "rms", "zeros", "skewness", "x1", "y1", "xy1", "x2", "y2")
_WEIGHTS = np.array([0.1, 0.05, 0.01, 0.05, 0.01, 0.01, 0.01, 0.02, 0.02])  # what a difference in each may be
_SIDE = 224


class StretchError(ValueError):
    """A pair that cannot be compared; the message says what to do."""


@dataclass(frozen=True, eq=False)
class StretchFit:
    """A stretch, the errors of (scale_r, scale_g, scale_b, alpha, q), the misfit in 8-bit levels, and samples.

    0.25 is what whole levels alone make. flip : how the picture lies on the FITS images; truncated : its levels were
    cut off, not rounded; samples : (n, 3, 2) predicted and shown levels, red first.
    """

    stretch: Stretch
    errors: FloatArray
    misfit: float
    flip: str
    truncated: bool
    samples: FloatArray


def fit_pair(paths: Sequence[Path], rng: np.random.Generator, zero_point: float = 30.0) -> StretchFit:
    """Fit FITS images shown as red, green, blue and the picture made of them; raises StretchError, ReadError."""
    planes = [load(p) for p in paths[:3]]
    flux = np.stack([np.squeeze(p.images[0]) for p in planes])
    bands = tuple(
        band_names(p, plane.header, 1, None)[0] or c for p, plane, c in zip(paths, planes, "irg", strict=False)
    )
    with Image.open(paths[3]) as opened:
        picture = np.asarray(opened.convert("RGB"))
    if flux.ndim != 3 or picture.shape[:2] != flux.shape[1:]:
        raise StretchError(
            f"{paths[3]}: {picture.shape[:2]} pixels, the FITS {flux.shape[1:]}. Give the images it was made of."
        )
    flip, shown = _laid(np.nan_to_num(flux), picture)
    usable = np.isfinite(flux).all(axis=0) & (flux != 0).any(axis=0) & ((shown > 0) & (shown < 250)).all(axis=2)
    index = np.argwhere(usable)
    if len(index) < 500:
        raise StretchError(f"{paths[3]}: only {len(index)} pixels are neither black nor white. Give another pair.")
    bright = index[np.argsort(-shown[usable].sum(axis=1).astype(int), kind="stable")[: len(index) // 10]]
    index = np.concatenate([bright[rng.permutation(len(bright))[:6000]], index[rng.permutation(len(index))[:6000]]])
    f, wanted = flux[:, index[:, 0], index[:, 1]], shown[index[:, 0], index[:, 1]].T.astype(float)
    cut, found = min(  # whole levels are reached by rounding or by cutting the fraction off
        ((extra, _fit(f, wanted + extra)) for extra in (0.0, 0.5)),
        key=lambda t: float(np.std(_levels(t[1], f) - wanted)),
    )
    wanted = wanted + cut
    boot = []
    for _ in range(12):
        pick = rng.integers(0, len(index), len(index))
        boot.append(_parts(_fit(f[:, pick], wanted[:, pick], found)))
    parts = _parts(found)
    predicted = _levels(found, f)
    bands = tuple(b.split(".")[0] for b in bands)
    stretch = Stretch(bands, tuple(float(v) for v in parts[:3]), zero_point, float(parts[3]), float(parts[4]))
    misfit = float(np.abs(predicted - wanted).mean())
    pick = rng.permutation(len(index))[:3000]
    samples = np.stack([predicted[:, pick].T, wanted[:, pick].T], axis=2)
    return StretchFit(stretch, np.std(boot, axis=0), misfit, flip, cut > 0, samples)


def _laid(flux: FloatArray, picture: npt.NDArray[np.uint8]) -> tuple[str, npt.NDArray[np.uint8]]:
    """The picture turned onto the FITS images, by the correlation of their brightness."""
    rank = np.argsort(np.argsort(flux.sum(axis=0).ravel())).astype(float)
    best: tuple[float, str, npt.NDArray[np.uint8]] = (-2.0, "", picture)
    for name, (turns, flip) in _TURNS.items():
        turned = np.rot90(picture, turns)
        turned = turned[::-1] if flip else turned
        if turned.shape == picture.shape:
            r = float(np.corrcoef(rank, turned.sum(axis=2, dtype=float).ravel())[0, 1])
            best = max(best, (r, name, turned), key=lambda t: t[0])
    if best[0] < 0.3:
        raise StretchError(
            f"picture and FITS images do not show the same sky (correlation {best[0]:.2f}). Check --pair."
        )
    return best[1], best[2]


def _levels(p: FloatArray, flux: FloatArray) -> FloatArray:
    """8-bit levels, not rounded; p : log of scale times alpha (3), log Q."""
    planes = np.exp(p[:3])[:, None] * flux
    intensity, q = planes.mean(axis=0), np.exp(p[3])
    u = q * np.where(np.abs(intensity) > 1e-9, intensity, 1e-9)
    return np.asarray(255 * planes * np.arcsinh(u) / u)


def _fit(flux: FloatArray, wanted: FloatArray, start: FloatArray | None = None) -> FloatArray:
    if start is None:
        level = wanted.mean(axis=1) / 255 / np.maximum(np.percentile(flux, 80, axis=1), 1e-12)
        start = np.array([*np.log(level), np.log(5.0)])
    found = least_squares(
        lambda p: (_levels(np.clip(p, -60, 60), flux) - wanted).ravel(),
        start,
        loss="soft_l1",
        f_scale=1.0,
        max_nfev=200,
    )
    return np.asarray(found.x)


def _parts(p: FloatArray) -> FloatArray:
    """(scale_r, scale_g, scale_b, alpha, q) with scales of mean 1."""
    product = np.exp(p[:3])
    alpha = product.mean()
    return np.array([*(product / alpha), alpha, np.exp(p[3])])


def quiet_statistics(picture: npt.NDArray[np.uint8], sky: BoolArray) -> FloatArray:
    """(3, 9) of a picture's quiet pixels: mean, rms, share of zeros, skewness, correlations at lags x1 y1 xy1 x2 y2."""
    out = []
    for plane in picture.transpose(2, 0, 1).astype(float):
        values = plane[sky]
        deviation = np.where(sky, plane - values.mean(), 0.0)
        row = [values.mean(), values.std(), (values == 0).mean(), float(skew(values)) if values.std() > 0 else 0.0]
        for dx, dy in ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2)):
            n, m = plane.shape
            here, there = (slice(0, n - dy), slice(0, m - dx)), (slice(dy, n), slice(dx, m))
            both = sky[here] & sky[there]
            product = deviation[here][both] * deviation[there][both]
            row.append(float(product.mean() / max(values.var(), 1e-12)) if both.any() else 0.0)
        out.append(row)
    return np.array(out)


@dataclass(frozen=True, eq=False)
class QuietFit:
    """Noise and shift of a composite: sky rms per shown band (flux), sigma of the noise's Gaussian, (x, y) shift.

    predicted : (3, 9) statistics of the best model, beside the measured ones.
    """

    sky_sigma: FloatArray
    correlation_pix: float
    shift_pix: tuple[float, float]
    predicted: FloatArray
    misfit: float


def shifted(picture: npt.NDArray[np.uint8], shift_pix: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """A picture moved by part of a pixel: linear interpolation, rounded up (see `SurveyFacts.composite_shift_pix`)."""
    dx, dy = shift_pix
    wide = np.pad(picture.astype(float), ((0, 1), (0, 1), (0, 0)), mode="edge")
    wide = (1 - dx) * wide[:, :-1] + dx * wide[:, 1:]
    return np.asarray(np.ceil((1 - dy) * wide[:-1] + dy * wide[1:] - 1e-6), np.uint8)


def fit_quiet(statistics: FloatArray, stretch: Stretch, seed: int, near: QuietFit | None = None) -> QuietFit:
    """Noise and shift that give a composite's quiet pixels (3, 9); the sky's mean level is taken as 0.

    near : where to start, instead of at several places.
    """
    white = np.random.default_rng(seed).normal(size=(3, _SIDE, _SIDE))
    whole = np.ones((_SIDE, _SIDE), bool)

    def model(p: FloatArray) -> FloatArray:
        noise = gaussian_filter(white, (0, p[3], p[3]), mode="wrap") if p[3] > 0.15 else white
        noise = noise / noise.std(axis=(1, 2), keepdims=True) * np.exp(p[:3])[:, None, None]
        return quiet_statistics(shifted(to_composite(noise, stretch), (p[4], p[5])), whole)

    slope = np.array(stretch.scales) * stretch.alpha * 255
    level = np.log(np.maximum(statistics[:, 1], 0.3) * 1.5 / slope)
    starts = [[*level, 0.4, *shift] for shift in ((0.05, 0.05), (0.25, 0.25), (0.4, 0.1), (0.1, 0.4))]
    if near is not None:
        starts = [[*np.log(near.sky_sigma), near.correlation_pix, *near.shift_pix]]
    low, high = [*(level - 3), 0.0, 0.0, 0.0], [*(level + 3), 1.5, 0.5, 0.5]
    best = min(
        (
            least_squares(
                lambda p: ((model(p) - statistics) / _WEIGHTS).ravel(),
                np.clip(start, np.add(low, 0.01), np.subtract(high, 0.01)),

                bounds=(low, high), diff_step=0.03, x_scale=[0.1, 0.1, 0.1, 0.1, 0.1, 0.1], max_nfev=25,
            )
            for start in starts
        ),
        key=lambda r: float(r.cost),
    )  # fmt: skip
    p = best.x
    return QuietFit(np.exp(p[:3]), float(p[3]), (float(p[4]), float(p[5])), model(p), float(2 * best.cost))
