"""A certificate for extended sources: the brightest places of the arcs stand for images of the source's own peak."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.feature import peak_local_max

from stages.counter.photometry import sky_noise
from stages.counter.priors import TheoremConfig
from stages.counter.theorem import Detections, certificate
from stages.records import ArcScore, Certificate, Cutout, FloatArray
from stages.scaling import resolution_arcsec

MASK_LEVEL = 0.5  # of the arc stage's probability of lensed light
_APART_FWHM = 1.5  # peaks nearer to each other are one
_MIN_SNR = 5.0
_MOST_PEAKS = 5
_RADIAL_BINS_PIX = 1.0
_LEAST_SHARE = 0.3  # of the light under the smoothing kernel that must be valid; with less the sum is not scaled up


def certify_arcs(
    cutout: Cutout, arc: ArcScore, deflector_xy_pix: FloatArray, trust: float, prior: TheoremConfig
) -> tuple[Certificate, FloatArray]:
    """What the theorem says of the arcs' peaks, at most "possible", and these peaks (n, 2) in cutout pixels."""
    seen = bool(np.isfinite(deflector_xy_pix).all())
    centre = deflector_xy_pix if seen else arc.centre_xy_pix
    xy, flux, limit = find_peaks(cutout, arc, centre)
    nan = float("nan")
    known_scale = "assumed_pixel_scale" not in cutout.reasons
    result = certificate(
        Detections(
            xy, flux, np.ones(len(xy)), deflector_xy_pix, trust, cutout.pixel_scale_arcsec if known_scale else nan,
            resolution_arcsec(cutout) if known_scale else nan, limit, are_points=False,
        ),
        prior,
    )  # fmt: skip
    return result, xy


def find_peaks(cutout: Cutout, arc: ArcScore, centre_xy_pix: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Peaks of lensed light: positions (n, 2), brightest first, heights (n,), and the height of a 5 sigma peak.

    Looked for where the arc mask says so, in the sum of the bands over their noise, the deflector's median profile and
    the sky taken away, smoothed by the resolution.
    """
    fwhm = resolution_arcsec(cutout) / cutout.pixel_scale_arcsec
    light = np.sum([_lensed(cutout.flux[b], cutout.valid[b], centre_xy_pix) for b in range(len(cutout.bands))], axis=0)
    share = cutout.valid.mean(axis=0)  # smoothing leaves masked pixels out rather than taking them for dark
    smooth = gaussian_filter(light, fwhm / 2.3548) / np.maximum(gaussian_filter(share, fwhm / 2.3548), _LEAST_SHARE)
    rows, columns = np.indices(smooth.shape)
    on_mask = [
        (rows - arc.mask_origin_xy_pix[1]) / arc.mask_step_pix,
        (columns - arc.mask_origin_xy_pix[0]) / arc.mask_step_pix,
    ]
    inside = map_coordinates(np.nan_to_num(arc.mask.astype(float)), on_mask, order=1, mode="constant") > MASK_LEVEL
    outside = smooth[~inside & cutout.valid.all(axis=0)]
    noise = 1.4826 * float(np.median(np.abs(outside - np.median(outside)))) if outside.size else np.inf
    limit = _MIN_SNR * max(noise, 1e-12)
    found = peak_local_max(
        np.where(inside & (share > 0), smooth, 0.0), min_distance=max(int(np.ceil(_APART_FWHM * fwhm)), 1),
        threshold_abs=limit, num_peaks=_MOST_PEAKS, exclude_border=False,
    )  # fmt: skip
    return found[:, ::-1].astype(float), smooth[found[:, 0], found[:, 1]], limit


def _lensed(plane: FloatArray, valid: np.ndarray, centre: FloatArray) -> FloatArray:
    """A band in units of its noise, less the median at each distance from the centre; 0 where it is not valid."""
    rows, columns = np.indices(plane.shape)
    ring = (np.hypot(columns - centre[0], rows - centre[1]) / _RADIAL_BINS_PIX).astype(int)
    image, order = np.where(valid, plane, 0.0).astype(float), np.argsort(ring[valid], kind="stable")
    if not len(order):
        return image
    values, numbers = image[valid][order], ring[valid][order]
    edges = np.flatnonzero(np.diff(numbers)) + 1
    medians = np.zeros(ring.max() + 1)
    medians[numbers[np.r_[0, edges]]] = [np.median(part) for part in np.split(values, edges)]
    left = np.where(valid, image - medians[ring], 0.0)
    return np.asarray(left / max(np.nan_to_num(sky_noise(image, valid)), 1e-12))
