"""The one transform from calibrated pixels to network input, used by training and prediction alike.

Every cutout, whatever its survey, is resampled to a square grid of fixed angular pixel about its object, divided by its
own noise and compressed with asinh. Three colour slots (blue, middle, red) hold the bands nearest to g, r, i; a slot
without a band holds the mean of the others and says so in its validity plane, so that an absent band is never zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from statistics import median

import numpy as np
import numpy.typing as npt

from stages.bands import wavelength_nm
from stages.records import BoolArray, Cutout, FloatArray

N_SLOTS = 3
N_CHANNELS = 2 * N_SLOTS  # scaled flux, then validity, of each slot
N_CONDITIONS = 2
SLOT_WAVELENGTH_NM = (475.0, 622.0, 763.0)  # g, r, i
_SLOT_REACH_NM = 90.0  # a band this near to a slot's wavelength fills it
SOFTENING_SIGMA = 3.0  # asinh is linear below this many sigma: faint arcs keep their noise texture
_DEFAULT_RESOLUTION_PIX = 2.5  # resolution assumed where the seeing is unknown, in native pixels
SHARP_ARCSEC = 0.3
_MIN_COVERAGE = 0.5  # part of an output pixel that must be valid


@dataclass(frozen=True)
class Frame:
    """A square grid on the sky: `size_pix` pixels of `pixel_arcsec` on a side.

    sharp_pixel_arcsec : pixel for images sharper than 0.3 arcsec, where another serves them better.
    """

    size_pix: int
    pixel_arcsec: float
    sharp_pixel_arcsec: float | None = None

    def pixel_of(self, cutout: Cutout) -> float:
        """Side of a grid pixel in arcsec for a cutout."""
        sharp = self.sharp_pixel_arcsec is not None and resolution_arcsec(cutout) < SHARP_ARCSEC
        return self.sharp_pixel_arcsec if sharp and self.sharp_pixel_arcsec is not None else self.pixel_arcsec


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """What the networks see of N cutouts.

    pixels : (N, 6, S, S) float32, three scaled flux planes and three validity planes (0 or 1).
    conditions : (N, 2) float32, log10 of the resolution in units of 0.3 arcsec, and the share of colour slots present.
    origin_xy_pix, step_pix : (N, 2) and (N,), grid pixel (i, j) = (x, y) lies at cutout pixel origin + step * (i, j).
    noise : (N, 3) background rms of each slot on this grid, in the cutout's flux unit.
    """

    pixels: npt.NDArray[np.float32]
    conditions: npt.NDArray[np.float32]
    origin_xy_pix: FloatArray
    step_pix: FloatArray
    noise: FloatArray


def network_inputs(cutouts: Sequence[Cutout], frame: Frame) -> NetworkInput:
    """Transform cutouts for a network; empty in, empty out."""
    size = frame.size_pix
    pixels = np.zeros((len(cutouts), N_CHANNELS, size, size), np.float32)
    conditions = np.zeros((len(cutouts), N_CONDITIONS), np.float32)
    origin = np.zeros((len(cutouts), 2))
    step = np.ones(len(cutouts))
    noise = np.full((len(cutouts), N_SLOTS), np.nan)
    for k, cutout in enumerate(cutouts):
        step[k] = frame.pixel_of(cutout) / cutout.pixel_scale_arcsec
        origin[k] = cutout.xy_pix - step[k] * (size - 1) / 2
        pixels[k], noise[k] = _planes(cutout, size, origin[k], step[k])
        present = pixels[k, N_SLOTS:].any(axis=(1, 2)).mean()
        conditions[k] = np.log10(resolution_arcsec(cutout) / 0.3), present
    return NetworkInput(pixels, conditions, origin, step, noise)


def resolution_arcsec(cutout: Cutout) -> float:
    """Median seeing of a cutout's bands, or what its pixels allow where the seeing is unknown."""
    known = [fwhm for fwhm in cutout.psf_fwhm_arcsec.tolist() if isfinite(fwhm)]
    floor = 1.5 * cutout.pixel_scale_arcsec
    return max(median(known) if known else _DEFAULT_RESOLUTION_PIX * cutout.pixel_scale_arcsec, floor)


@lru_cache(maxsize=512)
def slots(bands: tuple[str, ...]) -> tuple[int, ...]:
    """Index of the band that fills each colour slot (blue, middle, red); -1 where none does.

    Bands near g, r, i take the slot nearest to them; where none is near, the bands are spread from short to long
    wavelengths.
    """
    wavelength = np.array([wavelength_nm(band) for band in bands])
    near = [_nearest(wavelength, target) for target in SLOT_WAVELENGTH_NM]
    if any(k >= 0 for k in near):
        return tuple(near)
    order = np.argsort(np.where(np.isfinite(wavelength), wavelength, np.inf), kind="stable")
    if len(order) == 1:
        return (-1, int(order[0]), -1)
    if len(order) == 2:
        return (int(order[0]), -1, int(order[1]))
    return (int(order[0]), int(order[len(order) // 2]), int(order[-1]))


def _nearest(wavelength: FloatArray, target: float) -> int:
    slot = np.abs(wavelength[:, None] - np.array(SLOT_WAVELENGTH_NM)).argmin(axis=1)  # no band fills two slots
    here = np.isfinite(wavelength) & (np.array(SLOT_WAVELENGTH_NM)[slot] == target)
    distance = np.where(here, np.abs(wavelength - target), np.inf)
    best = int(np.argmin(distance))
    return best if distance[best] <= _SLOT_REACH_NM else -1


@lru_cache(maxsize=512)
def _weights(n_in: int, n_out: int, origin: float, step: float) -> npt.NDArray[np.float32]:
    """Triangle-kernel weights (n_out, n_in) that average when the step is above one pixel and interpolate below."""
    width = max(1.0, step)
    centre = origin + step * np.arange(n_out)
    return np.clip(1.0 - np.abs(np.arange(n_in) - centre[:, None]) / width, 0.0, None).astype(np.float32)


def resample(
    image: FloatArray, valid: BoolArray, size: int, origin_xy_pix: FloatArray, step_pix: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Average or interpolate planes (B, H, W) on a grid, leaving invalid pixels out.

    Returns the planes (B, size, size) and the share of each grid pixel that was valid (0 off the edge).
    """
    height, width = image.shape[-2:]
    rows = _weights(height, size, round(float(origin_xy_pix[1]), 4), round(step_pix, 6))
    columns = _weights(width, size, round(float(origin_xy_pix[0]), 4), round(step_pix, 6)).T
    share = rows @ valid.astype(np.float32) @ columns
    total = rows @ np.where(valid, image, 0).astype(np.float32) @ columns
    norm = max(1.0, step_pix) ** 2
    return np.where(share > 0, total / np.maximum(share, 1e-6), 0.0).astype(np.float32), share / norm


def _planes(cutout: Cutout, size: int, origin: FloatArray, step: float) -> tuple[npt.NDArray[np.float32], FloatArray]:
    chosen = slots(cutout.bands)
    index = [k for k in chosen if k >= 0]
    at = [slot for slot, k in enumerate(chosen) if k >= 0]
    valid = cutout.valid[index]
    flux, share = resample(cutout.flux[index], valid, size, origin, step)
    good = share >= _MIN_COVERAGE
    scaled = np.zeros((N_SLOTS, size, size), np.float32)
    mask = np.zeros((N_SLOTS, size, size), np.float32)
    noise = np.full(N_SLOTS, np.nan)
    for plane, slot in enumerate(at):
        if not good[plane].any():
            continue
        sky, rms = _sky(flux[plane], good[plane])
        given = _given_noise(cutout.variance[index[plane]], valid[plane], step)
        noise[slot] = min(given, rms) if np.isfinite(given) else rms  # error maps are often too large, borders too full
        snr = (flux[plane] - sky) / (SOFTENING_SIGMA * noise[slot])
        scaled[slot] = np.where(good[plane], np.arcsinh(snr) / SOFTENING_SIGMA, 0.0)
        mask[slot] = good[plane]
    _fill_absent(scaled, mask)
    return np.concatenate([scaled, mask]), noise


def _fill_absent(scaled: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]) -> None:
    """Give pixels that a slot lacks the mean of the slots that have them; their validity plane stays 0."""
    count = mask.sum(axis=0)
    mean = np.where(count > 0, (scaled * mask).sum(axis=0) / np.maximum(count, 1), 0.0)
    scaled[:] = np.where(mask > 0, scaled, mean)


def _sky(plane: npt.NDArray[np.float32], good: BoolArray) -> tuple[float, float]:
    """Sky level and rms from the frame's border, the rms from the lower half, which sources do not reach."""
    border = np.ones(plane.shape, bool)
    edge = max(1, plane.shape[0] // 8)
    border[edge:-edge, edge:-edge] = False
    sample = plane[border & good]
    if sample.size < 32:
        sample = plane[good]
    low, sky = _quantiles(sample, 0.1587, 0.5)
    floor = 1e-6 * float(np.abs(sample).max()) + 1e-30
    return float(sky), max(float(sky - low), floor)


def _given_noise(variance: FloatArray, valid: BoolArray, step: float) -> float:
    """Background rms on the grid from the file's variance (uncorrelated pixels), NaN where it gives none."""
    usable = variance[valid & np.isfinite(variance) & (variance > 0)]
    if usable.size < 0.5 * valid.sum() or not usable.size:
        return float("nan")
    return float(np.sqrt(_quantiles(usable, 0.2)[0]) * _shrink(round(step, 6)))


@lru_cache(maxsize=512)
def _shrink(step: float) -> float:
    """What averaging to grid pixels leaves of the rms of uncorrelated pixels."""
    width = max(1.0, step)
    kernel = np.clip(1.0 - np.abs(np.arange(-np.ceil(width), np.ceil(width) + 1)) / width, 0, None)
    return float((kernel**2).sum() / kernel.sum() ** 2)  # of both axes


def _quantiles(sample: FloatArray, *shares: float) -> FloatArray:
    """What `np.quantile` gives for some hundred finite numbers, ten times as fast."""
    ordered = np.sort(sample)
    return np.asarray(np.interp(np.array(shares) * (len(ordered) - 1), np.arange(len(ordered)), ordered))
