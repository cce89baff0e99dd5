"""A noisy image of a galaxy to a noise-free stamp that can be lensed.

Noise and neighbours would become structure under magnification: light is smoothed as its signal to noise asks for, and
fades out where the galaxy does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage, special

from stages.records import BoolArray, FloatArray

_MIN_SNR = 30.0  # of the galaxy within its aperture
_APERTURE_SIGMA = 2.0
_SMOOTHING_PIX = (0.0, 1.0, 2.0, 4.0)
_SMOOTHING_SNR = 9.0  # the narrowest smoothing that reaches this is taken


@dataclass(frozen=True, eq=False)
class Stamp:
    """A galaxy's surface brightness.

    image : (n, n) float32, shares of the flux per pixel, sum 1, centroid in the middle; spline : its cubic B-spline
    coefficients. half_light_radius_arcsec : through the stamp's own PSF of FWHM `psf_fwhm_arcsec`. index : its row in
    the catalogue; sersic_index : of the profile with the same 80% to 20% light radii.
    """

    image: FloatArray
    spline: FloatArray
    pixel_arcsec: float
    psf_fwhm_arcsec: float
    half_light_radius_arcsec: float
    sersic_index: float
    magnitude: float
    index: int

    @property
    def reach_arcsec(self) -> float:
        """No light is further from the centre than this."""
        return float(self.image.shape[0] / np.sqrt(2) * self.pixel_arcsec)

    def sample(
        self, bx: FloatArray, by: FloatArray, x: float, y: float, pa: float = 0.0, scale: float = 1.0
    ) -> FloatArray:
        """Surface brightness per square arcsec (any shape, unit flux) at source-plane positions (bx, by) in arcsec.

        The galaxy's centre lies at (x, y); it is turned by `pa` radians from x to y and is `scale` times as large.
        """
        cos, sin = np.cos(pa), np.sin(pa)
        step = self.pixel_arcsec * scale
        dx, dy = np.asarray(bx, float) - x, np.asarray(by, float) - y
        middle = (self.image.shape[0] - 1) / 2
        place = np.stack([(dy * cos - dx * sin) / step + middle, (dx * cos + dy * sin) / step + middle])
        value = ndimage.map_coordinates(self.spline, place, order=3, mode="constant", prefilter=False)
        return np.asarray(np.maximum(value, 0.0) / step**2)


def stamp_of(
    image: FloatArray, sigma: float, pixel_arcsec: float, fwhm_arcsec: float, magnitude: float, index: int
) -> Stamp | str:
    """The stamp of a noisy image, or the reason for refusing it."""
    if not np.isfinite(image).all() or not image.any():
        return "bad_pixels"
    image, sigma = _levelled(image, sigma)
    segment = _segment(image, sigma)
    if segment is None:
        return "no_galaxy_at_centre"
    light = float(image[segment].sum())
    if light < _MIN_SNR * sigma * np.sqrt(segment.sum()):
        return "too_faint"
    if (segment & _border(image.shape)).sum() > 0.1 * np.sqrt(segment.sum()):
        return "cut_off"
    clean = _centred(np.clip(_smoothed(image, sigma) * _aperture(segment), 0, None))
    clean /= clean.sum()
    radius = _light_radii(clean, (0.2, 0.5, 0.8)) * pixel_arcsec
    if radius[1] < 0.62 * fwhm_arcsec:  # a Gaussian has half its light within 0.5 FWHM
        return "unresolved"
    stored = clean.astype(np.float32)
    return Stamp(
        stored, ndimage.spline_filter(stored, order=3, mode="constant").astype(np.float32), pixel_arcsec, fwhm_arcsec,
        float(radius[1]), _sersic_index(float(radius[2] / max(radius[0], 0.2 * pixel_arcsec))), magnitude, index,
    )  # fmt: skip


def _levelled(image: FloatArray, sigma: float) -> tuple[FloatArray, float]:
    """The image less its sky, and the rms of its noise: as measured, within a factor 2 of the catalogue's."""
    spread = _spread(image)
    sky = float(np.median(image[_border(image.shape)]))
    return image - sky, float(np.clip(spread, 0.5 * sigma, 2 * sigma)) if sigma > 0 else max(spread, 1e-30)


def _spread(image: FloatArray) -> float:
    """Rms of the pixels without light."""
    quiet = image.ravel()
    for _ in range(8):
        middle, spread = float(np.median(quiet)), float(quiet.std())
        quiet = quiet[np.abs(quiet - middle) <= 2.5 * spread]
    return 1.1 * float(quiet.std())  # what clipping at 2.5 takes away


def _border(shape: tuple[int, ...]) -> BoolArray:
    out = np.ones(shape, bool)
    out[2:-2, 2:-2] = False
    return out


def _segment(image: FloatArray, sigma: float) -> BoolArray | None:
    """Pixels of the object at the centre, or None."""
    smooth = ndimage.gaussian_filter(image, 2.0)
    noise = min(_spread(smooth), sigma / 2)
    found, _ = ndimage.label(smooth > _APERTURE_SIGMA * noise)
    middle = (np.array(image.shape) - 1) // 2
    reach = 3 + image.shape[0] // 20
    near = (slice(middle[0] - reach, middle[0] + reach + 1), slice(middle[1] - reach, middle[1] + reach + 1))
    number = int(found[near].flat[int(np.argmax(smooth[near]))])
    if number == 0:
        return None
    return np.asarray(ndimage.binary_fill_holes(found == number))


def _aperture(segment: BoolArray) -> FloatArray:
    """1 on the object, falling smoothly to 0 outside."""
    outside: FloatArray = ndimage.distance_transform_edt(~segment)
    fade = max(4.0, 0.25 * np.sqrt(segment.sum() / np.pi))
    inside = np.clip(1 - outside / fade, 0, 1)
    edge: FloatArray = np.minimum.reduce(
        list(np.meshgrid(*(np.minimum(np.arange(n), np.arange(n)[::-1]) for n in segment.shape[::-1])))
    )
    return np.asarray((inside * inside * (3 - 2 * inside)) * np.clip(edge / 4.0, 0, 1))


def _smoothed(image: FloatArray, sigma: float) -> FloatArray:
    """Each pixel smoothed just so far that it stands above the noise."""
    out: FloatArray = ndimage.gaussian_filter(image, _SMOOTHING_PIX[-1])
    for width in _SMOOTHING_PIX[-2::-1]:
        smooth = ndimage.gaussian_filter(image, width) if width else image
        noise = sigma / np.sqrt(1 + 2 * np.pi * width**2)  # the noise is already correlated over about two pixels
        share = 1 / (1 + np.exp(-3.0 * (ndimage.gaussian_filter(smooth, 1.0) / noise - _SMOOTHING_SNR)).clip(1e-9, 1e9))
        out = share * smooth + (1 - share) * out
    return np.asarray(out)


def _centred(image: FloatArray) -> FloatArray:
    """The centroid moved to the middle of an odd-sided square."""
    side = max(image.shape) | 1
    out = np.zeros((side, side))
    out[: image.shape[0], : image.shape[1]] = image
    moved = ndimage.shift(out, (side - 1) / 2 - np.array(ndimage.center_of_mass(out)), order=3)
    return np.asarray(np.clip(moved, 0, None))


def _light_radii(image: FloatArray, shares: tuple[float, ...]) -> FloatArray:
    """Radii in pixels that hold these shares of the light."""
    y, x = np.indices(image.shape)
    middle = (image.shape[0] - 1) / 2
    r = np.hypot(x - middle, y - middle).ravel()
    order = np.argsort(r)
    return np.asarray(np.interp(shares, np.cumsum(image.ravel()[order]), r[order]))


@lru_cache(maxsize=1)
def _concentrations() -> tuple[FloatArray, FloatArray]:
    """Sersic indices and their ratios of 80% to 20% light radii."""
    n = np.geomspace(0.3, 8, 60)
    return n, (special.gammaincinv(2 * n, 0.8) / special.gammaincinv(2 * n, 0.2)) ** n


def _sersic_index(concentration: float) -> float:
    n, ratio = _concentrations()
    return float(np.interp(concentration, ratio, n))
