"""What the light of a real galaxy says: is it fit to be a deflector, and how bright, large and flattened is it?

Every measurement is made on the pixels of one cutout; a cutout that is not fit is refused with a reason (`REASONS`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sep
from scipy.ndimage import binary_dilation, map_coordinates

from stages.records import BoolArray, FloatArray

REASONS = {
    "missing_band": "a band of the survey is not there",
    "other_pixel_scale": "its pixels are not as large as the survey's",
    "too_small": "much of the survey's cutout would lie off the image",
    "known_candidate": "on the list of known candidates",
    "near_known_candidate": "a known candidate lies within the cutout",
    "masked": "too many pixels are masked, near the galaxy or in all",
    "no_galaxy_at_centre": "nothing is detected at the catalogue's position",
    "saturated": "the galaxy's pixels are saturated",
    "star_like": "no larger than the PSF",
    "bright_star": "a star whose wings reach the galaxy",
    "artefact": "a trail or spike crosses the cutout",
    "too_faint": "signal to noise below the limit",
    "noisy": "noise far above the survey's",
    "elongated": "flatter than early types are",
    "not_smooth": "lopsided or with arms, companions or dust",
    "not_concentrated": "a disc's profile",
    "not_red": "colours off the red sequence at every redshift",
    "low_mass": "too little mass for a visible Einstein radius",
}

_REACH_ARCSEC = 1.0  # a galaxy this near to the catalogue's position is the one meant
_DETECTION_SIGMA = 2.5
_MAX_MASKED_CORE = 0.03
_CORE_ARCSEC = 2.0
_MAX_SATURATED = 3.0  # times the PSF's core
_STAR_AREA = 0.06  # of the cutout: saturated objects that are larger shine on the galaxy
_MIN_SNR = 40.0
_MIN_AXIS_RATIO = 0.4
_MAX_ASYMMETRY = 0.16  # Conselice (2003) has early types at 0.02 +- 0.02, late ones at 0.15 to 0.4
_MIN_CONCENTRATION = (
    2.4  # 80% over 20% light radius after the PSF: 2.0 for a Gaussian, 3.6 exponential, 9 de Vaucouleurs
)
_STAR_R50_FWHM = 0.70  # half-light radius over FWHM: 0.5 Gaussian, 0.63 Moffat of index 3
_TRAIL_AXIS_RATIO, _TRAIL_LENGTH = 0.15, 0.5  # of a long thin object, its length over the cutout's side


@dataclass(frozen=True, eq=False)
class Light:
    """A galaxy as measured: position in pixels, lengths in arcsec, fluxes (B,) in the survey's unit.

    aperture_flux : in one circular aperture, for colours, with its error; total_share : Kron flux over aperture flux in
    the detection image. q, pa : axis ratio and angle (radians, x to y), PSF taken out. r50_arcsec : PSF taken out.
    """

    xy_pix: FloatArray
    aperture_flux: FloatArray
    aperture_error: FloatArray
    total_share: float
    r50_arcsec: float
    q: float
    pa: float
    snr: float


@dataclass(frozen=True, eq=False)
class Detected:
    """The objects of a cutout on its detection image, sky taken off."""

    image: FloatArray
    noise: float
    weight: FloatArray
    sky: FloatArray
    sky_sigma: FloatArray
    objects: npt.NDArray[np.void]
    segments: npt.NDArray[np.int32]
    masked: BoolArray
    r20_50_80: FloatArray
    kron: FloatArray


def detect(flux: FloatArray, valid: BoolArray, sky_sigma: FloatArray) -> Detected:
    """Objects on the noise-weighted mean of the bands; `sky_sigma` (B,) is NaN where it is to be measured."""
    masked: BoolArray = np.asarray(~valid.all(axis=0))
    planes = np.where(masked, 0.0, np.nan_to_num(flux)).astype(float)
    sky, measured = zip(*(_sky(plane, masked) for plane in planes), strict=True)
    sigma = np.where(np.isfinite(sky_sigma), sky_sigma, measured)
    weight = 1 / np.maximum(sigma, 1e-30)
    image = np.ascontiguousarray(np.tensordot(weight, planes - np.array(sky)[:, None, None], 1) / np.sqrt(len(weight)))
    noise = max(_sky(image, masked)[1], 1.0)
    sep.set_extract_pixstack(max(300_000, image.size))
    try:
        objects, segments = sep.extract(
            image, _DETECTION_SIGMA, err=noise, mask=masked, minarea=5, deblend_cont=0.01, segmentation_map=True
        )
    except Exception:  # sep raises plain Exception when a crowded field has too many objects to deblend
        objects, segments = sep.extract(
            image, 4 * _DETECTION_SIGMA, err=noise, mask=masked, minarea=5, deblend_cont=1.0, segmentation_map=True
        )
    kron = np.full(len(objects), np.nan)
    radii = np.full((len(objects), 3), np.nan)
    if len(objects):
        x, y, a, b = (objects[name].astype(float) for name in ("x", "y", "a", "b"))
        theta = np.clip(objects["theta"], -np.pi / 2, np.pi / 2)
        numbers = np.arange(1, len(objects) + 1)
        kron, _ = sep.kron_radius(image, x, y, a, b, theta, 6.0, mask=masked, seg_id=numbers, segmap=segments)
        kron = np.clip(np.nan_to_num(kron, nan=2.0), 1.6, 6.0)
        radii, _ = sep.flux_radius(
            image, x, y, 2.5 * kron * np.sqrt(a * b), [0.2, 0.5, 0.8], mask=masked, seg_id=numbers, segmap=segments
        )
    return Detected(
        image, noise, weight, np.array(sky), sigma, objects, segments, masked, np.asarray(radii), np.asarray(kron)
    )


def central(found: Detected, xy_pix: FloatArray, pixel_arcsec: float, fwhm_arcsec: float) -> int | None:
    """Number of the object meant by a position, or None."""
    if not len(found.objects):
        return None
    distance = np.hypot(found.objects["x"] - xy_pix[0], found.objects["y"] - xy_pix[1]) * pixel_arcsec
    brightness = np.where(distance < max(_REACH_ARCSEC, fwhm_arcsec), found.objects["flux"], -np.inf)
    best = int(np.argmax(brightness))
    return best if np.isfinite(brightness[best]) else None


def measure(
    flux: FloatArray, saturated: BoolArray, found: Detected, number: int, pixel_arcsec: float,
    fwhm_arcsec: float,
) -> Light | str:  # fmt: skip
    """The galaxy `number` of a cutout, or the reason why it is no deflector to paint on.

    saturated : (H, W) pixels that some band's detector or picture could not hold.
    """
    o, image = found.objects[number], found.image
    x, y = float(o["x"]), float(o["y"])
    fwhm_pix = fwhm_arcsec / pixel_arcsec
    reason = _frame_fault(found, number, x, y, pixel_arcsec) or _saturation_fault(found, number, saturated, fwhm_pix)
    if reason:
        return reason
    r20, r50, r80 = found.r20_50_80[number]
    if not r50 > _STAR_R50_FWHM * fwhm_pix:
        return "star_like"
    others = (found.segments != number + 1) & (found.segments > 0)
    radius = float(np.clip(1.5 * r50, 1.0 * fwhm_pix, 3.0 / pixel_arcsec))
    light, error = _aperture(flux, found, others, x, y, radius)
    snr = float(np.sqrt((np.clip(light / error, 0, None) ** 2).sum()))
    if snr < _MIN_SNR:
        return "too_faint"
    kron = 2.5 * found.kron[number]
    theta = float(np.clip(o["theta"], -np.pi / 2, np.pi / 2))
    total = float(sep.sum_ellipse(image, [x], [y], o["a"], o["b"], theta, kron, mask=others | found.masked)[0][0])
    inner = float(sep.sum_circle(image, [x], [y], radius, mask=others | found.masked)[0][0])
    q = _axis_ratio(float(o["a"]), float(o["b"]), fwhm_pix)
    if q < _MIN_AXIS_RATIO:
        return "elongated"
    if asymmetry(found, others, x, y, radius) > _MAX_ASYMMETRY:
        return "not_smooth"
    if r50 > 0.9 * fwhm_pix and r80 < _MIN_CONCENTRATION * r20:
        return "not_concentrated"
    own = np.sqrt(max(r50**2 - (0.55 * fwhm_pix) ** 2, (0.15 * fwhm_pix) ** 2)) * pixel_arcsec
    share = float(np.clip(total / max(inner, 1e-30), 1.0, 4.0))
    return Light(np.array([x, y]), light, error, share, float(own), q, theta, snr)


def asymmetry(found: Detected, others: BoolArray, x: float, y: float, radius: float) -> float:
    """Light that a turn by 180 degrees moves, over the light (Conselice 2003, equation 1); noise taken off."""
    rows, columns = np.mgrid[: found.image.shape[0], : found.image.shape[1]].astype(float)
    near = np.hypot(columns - x, rows - y) <= radius
    turned = np.stack([2 * y - rows[near], 2 * x - columns[near]])
    here = found.image[near]
    there = map_coordinates(found.image, turned, order=1, mode="nearest")
    use = ~others[near] & ~map_coordinates((others | found.masked).astype(float), turned, order=0).astype(bool)
    if use.sum() < 8 or here[use].sum() <= 0:
        return 0.0
    noise = found.noise * 2 / np.sqrt(np.pi) * use.sum()  # mean |difference| of two noisy pixels
    return float(max(np.abs(here - there)[use].sum() - noise, 0) / (2 * here[use].sum()))


def star_radii(found: Detected, pixel_arcsec: float) -> FloatArray:
    """Half-light radii in arcsec (n,) of bright, round, whole objects: the smallest of many cutouts' are stars."""
    o = found.objects
    if not len(o):
        return np.empty(0)
    size = found.image.shape[0]
    inside = (np.minimum(o["x"], o["y"]) > 5) & (np.maximum(o["x"], o["y"]) < size - 6)
    good = inside & (o["flag"] == 0) & (o["b"] > 0.8 * o["a"]) & (o["flux"] > 60 * found.noise * np.sqrt(o["npix"]))
    return np.asarray(found.r20_50_80[good, 1] * pixel_arcsec)


def _frame_fault(found: Detected, number: int, x: float, y: float, pixel_arcsec: float) -> str:
    """What is wrong with the cutout around a galaxy, "" if nothing."""
    rows, columns = np.indices(found.image.shape)
    core = np.hypot(columns - x, rows - y) * pixel_arcsec < _CORE_ARCSEC
    if found.masked[core].mean() > _MAX_MASKED_CORE:
        return "masked"
    o, side = found.objects, max(found.image.shape)
    thin = (o["b"] < _TRAIL_AXIS_RATIO * o["a"]) & (6 * o["a"] > _TRAIL_LENGTH * side)
    edge = binary_dilation(np.pad(found.masked, 1, constant_values=True), iterations=2)[1:-1, 1:-1]
    at_edge = np.bincount(found.segments[edge], minlength=len(o) + 1)[1:]
    thin &= at_edge < 0.3 * o["npix"]  # a bright column along an image's edge is all over a survey
    thin[number] = False
    return "artefact" if thin.any() else ""


def _saturation_fault(found: Detected, number: int, saturated: BoolArray, fwhm_pix: float) -> str:
    """Whether the galaxy, or a large object beside it, is saturated over more than the PSF's core."""
    core = max(np.pi * (0.5 * fwhm_pix) ** 2, 4)
    counts = np.bincount(found.segments[saturated], minlength=len(found.objects) + 1)[1:]
    if counts[number] > _MAX_SATURATED * core:
        return "saturated"
    area = np.bincount(found.segments.ravel(), minlength=len(found.objects) + 1)[1:]
    bright = (counts > core) & (area > _STAR_AREA * saturated.size)
    bright[number] = False
    return "bright_star" if bright.any() else ""


def _aperture(
    flux: FloatArray, found: Detected, others: BoolArray, x: float, y: float, radius: float
) -> tuple[FloatArray, FloatArray]:
    """Flux (B,) within a circle, neighbours left out, and its error."""
    light, error = [], []
    for k, plane in enumerate(flux):
        clean = np.ascontiguousarray(np.where(found.masked, 0.0, np.nan_to_num(plane)) - found.sky[k], dtype=float)
        value, rms, _ = sep.sum_circle(
            clean, [x], [y], radius, err=float(found.sky_sigma[k]), mask=others | found.masked
        )
        light.append(value[0])
        error.append(max(rms[0], 1e-30))
    return np.array(light), np.array(error)


def _axis_ratio(a: float, b: float, fwhm_pix: float) -> float:
    """Axis ratio with the PSF's second moment taken out of both axes."""
    psf2 = (fwhm_pix / 2.355) ** 2
    return float(np.clip(np.sqrt(max(b**2 - psf2, 0.05 * b**2) / max(a**2 - psf2, 0.05 * a**2)), 0.0, 1.0))


def _sky(plane: FloatArray, masked: BoolArray) -> tuple[float, float]:
    """Level and rms of the pixels without light."""
    values = np.sort(plane[~masked], axis=None).astype(float)
    if values.size < 20:
        return 0.0, 1e-30
    sums, squares = (np.concatenate([[0.0], np.cumsum(power)]) for power in (values, values**2))
    low, high = 0, values.size
    for _ in range(12):  # clip at 2.5 rms of what is left, on the sorted values
        n = high - low
        mean = (sums[high] - sums[low]) / n
        spread = float(np.sqrt(max((squares[high] - squares[low]) / n - mean**2, 0.0)))
        level = float(values[(low + high) // 2])
        first, last = np.searchsorted(values, (level - 2.5 * spread, level + 2.5 * spread), side="left")
        if (first, last) == (low, high) or last - first < 20:
            break
        low, high = int(first), int(last)
    return level, max(1.1 * spread, 1e-30)
