"""Pixels to a picture: noise-scaled asinh colour or greyscale, invalid pixels hatched."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.bands import wavelength_nm
from stages.records import BoolArray, FloatArray
from stages.scaling import slots

Picture = npt.NDArray[np.uint8]

_SOFTENING_SIGMA = 6.0  # linear below, logarithmic above: the noise stays dark, arcs and cores both show
_BLACK_SIGMA = -0.6  # the sky is dark grey, not black, so that noise and faint arcs can be told apart
_MAX_GAIN = 1.25  # a saturated core turns pale, but keeps its hue
_OBJECT_SIGMA = 5.0
_WHITE_RANGE_SIGMA = (20.0, 1500.0)
_HATCH = np.array([(36, 42, 50), (72, 81, 93)], np.uint8)
_LOSSLESS_MAX_PIX = 80 * 80


def colour_order(bands: tuple[str, ...]) -> tuple[int, int, int]:
    """Indices of the bands shown as red, green and blue.

    i, r and g where all are there (what lies beyond is mostly noise), else the longest, the middle and the shortest
    wavelength. Two bands give (long, -1, short), where -1 stands for the mean of the two; one band gives itself three
    times. Bands of unknown wavelength keep the file's order, first as blue.
    """
    usual = slots(bands)
    if min(usual) >= 0:
        return usual[2], usual[1], usual[0]
    wavelength = np.array([wavelength_nm(band) for band in bands])
    known = np.flatnonzero(np.isfinite(wavelength))
    if len(known) >= 3 or (len(known) == len(bands) and len(known)):
        order = known[np.argsort(wavelength[known], kind="stable")]
    else:
        order = np.arange(len(bands))
    middle = -1 if len(order) == 2 else int(order[len(order) // 2])
    return int(order[-1]), middle, int(order[0])


def sky_and_noise(plane: FloatArray, valid: BoolArray) -> tuple[float, float]:
    """Sky level and rms of a plane (H, W) from its border; the rms from below the median, where no source reaches."""
    edge = max(1, min(plane.shape) // 6)
    border = np.ones(plane.shape, bool)
    border[edge:-edge, edge:-edge] = False
    sample = plane[border & valid]
    if sample.size < 16:
        sample = plane[valid]
    if not sample.size:
        return 0.0, 1.0
    low, sky = np.percentile(sample, (15.87, 50.0))
    floor = 1e-4 * float(np.percentile(np.abs(plane[valid] - sky), 99.0)) + 1e-30
    return float(sky), max(float(sky - low), floor)


def shrink(plane: FloatArray, valid: BoolArray, factor: int) -> tuple[FloatArray, BoolArray]:
    """Mean of the valid pixels in blocks of `factor` pixels; a block without any is invalid."""
    if factor == 1:
        return np.where(valid, plane, 0.0), valid
    pad = [(0, -size % factor) for size in plane.shape]
    good = np.pad(valid, pad)
    rows, columns = (size // factor for size in good.shape)
    blocks = (rows, factor, columns, factor)
    count = good.reshape(blocks).sum(axis=(1, 3))
    total = np.pad(np.where(valid, plane, 0.0), pad).reshape(blocks).sum(axis=(1, 3))
    return total / np.maximum(count, 1), count > 0


def colour_picture(planes: FloatArray, valid: BoolArray, scales: FloatArray) -> Picture:
    """Colour-preserving asinh picture (Lupton et al. 2004) of planes in units of their noise.

    Parameters
    ----------
    planes, valid : (3, H, W)
        Red, green and blue flux, and where each may be used; a pixel that one plane lacks takes the others' mean.
    scales : (3, 2)
        Sky level and noise of each plane.

    Returns
    -------
    (H, W, 3) uint8
        Row 0 is row 0 of the planes; pixels without any valid plane are hatched.
    """
    snr = np.where(valid, (planes - scales[:, :1, None]) / scales[:, 1:, None], 0.0)
    count = valid.sum(axis=0)
    snr[1] *= _green_balance(snr, count == 3)
    intensity = snr.sum(axis=0) / np.maximum(count, 1)
    snr = np.where(valid, snr, intensity)
    anywhere = count > 0
    white = float(np.percentile(intensity[anywhere], 99.7)) if anywhere.any() else 1.0
    white = float(np.clip(white, *_WHITE_RANGE_SIGMA))
    top, bottom = np.arcsinh(white / _SOFTENING_SIGMA), np.arcsinh(_BLACK_SIGMA / _SOFTENING_SIGMA)
    gain = (np.arcsinh(intensity / _SOFTENING_SIGMA) - bottom) / (top - bottom)
    gain = np.minimum(gain, _MAX_GAIN)
    ratio = (snr - intensity) / np.maximum(intensity, 2.0 * _SOFTENING_SIGMA)
    rgb = np.clip(gain + np.clip(ratio, -1.0, 2.0) * np.clip(gain, 0.0, 1.0), 0.0, 1.0)
    return hatched((255.0 * rgb).round().astype(np.uint8).transpose(1, 2, 0), anywhere)


def _green_balance(snr: FloatArray, complete: BoolArray) -> float:
    """Factor that puts an object's green between its red and its blue: depths differ, but no galaxy is green."""
    if np.array_equal(snr[0], snr[2]):
        return 1.0
    bright = complete & (snr.max(axis=0) > _OBJECT_SIGMA)
    red, green, blue = snr[:, bright].sum(axis=1)
    if min(red, green, blue) <= 0:
        return 1.0
    return float(np.clip(np.sqrt(red * blue) / green, 0.3, 3.0))


def hatched(picture: Picture, valid: BoolArray) -> Picture:
    """Draw diagonal grey stripes where no pixel is valid, so that absence never looks like sky."""
    y, x = np.indices(valid.shape)
    stripes = _HATCH[((x + y) // max(2, min(valid.shape) // 40)) % 2]
    return np.where(valid[..., None], picture, stripes).astype(np.uint8)


def encode(picture: Picture) -> tuple[bytes, str]:
    """Encode as PNG where small or grey, else as a good JPEG (noise makes PNG large); also gives the MIME type."""
    grey = bool((picture == picture[..., :1]).all())
    image = Image.fromarray(picture[..., 0] if grey else picture)
    buffer = BytesIO()
    if picture.shape[0] * picture.shape[1] <= _LOSSLESS_MAX_PIX:
        image.save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "image/png"
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue(), "image/jpeg"
