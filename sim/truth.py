"""What is true of a simulated cutout: arc mask, coverage, signal to noise, and the rows of a data set's truth table."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.observe import Sampling
from sim.population import Deflector
from sim.scene import Images
from stages.records import BoolArray, FloatArray

_MASK_SIGMA = 1.5  # an arc pixel stands this far above the noise of all bands together
_MASK_CONTRAST = 0.15  # and has at least this share of the deflector's light in some band
_COVERAGE_BINS = 72


def arc_mask(lensed: FloatArray, variance: FloatArray, deflector: FloatArray) -> BoolArray:
    """Pixels (H, W) where lensed extended light (B, H, W) can be seen.

    It stands above the noise of all bands together, and in some band above a share of the deflector's light: what lies
    under a deflector's core nobody can see, however bright it is.
    """
    light = np.clip(lensed, 0, None)
    visible = (light > _MASK_CONTRAST * deflector).any(axis=0)
    mask: BoolArray = ((light**2 / variance).sum(axis=0) > _MASK_SIGMA**2) & visible
    return mask


def arc_snr(lensed: FloatArray, variance: FloatArray, mask: BoolArray) -> float:
    """Signal to noise of the lensed extended light within the mask, in its best band (matched filter)."""
    return float(np.sqrt((lensed**2 / variance * mask).sum(axis=(1, 2))).max())


def arc_contrast(lensed: FloatArray, deflector: FloatArray, mask: BoolArray) -> float:
    """Lensed over deflector light within the mask in the band where that is largest; 0 for an empty mask."""
    if not mask.any():
        return 0.0
    below = np.maximum((deflector * mask).sum(axis=(1, 2)), 1e-30)
    return float(((lensed * mask).sum(axis=(1, 2)) / below).max())


def coverage_deg(mask: BoolArray, centre_xy_pix: FloatArray) -> float:
    """Part of 360 degrees about the deflector in which the mask has a pixel, in 5-degree bins."""
    y, x = np.nonzero(mask)
    far = np.hypot(x - centre_xy_pix[0], y - centre_xy_pix[1]) > 1.5
    angle = np.arctan2(y - centre_xy_pix[1], x - centre_xy_pix[0])[far]
    hit = np.unique(np.floor(np.mod(angle, 2 * np.pi) / (2 * np.pi / _COVERAGE_BINS)))
    return 360.0 * len(hit) / _COVERAGE_BINS


def point_snr(xy_pix: FloatArray, flux: FloatArray, fwhm_pix: FloatArray, variance: FloatArray) -> FloatArray:
    """Signal to noise (n,) of point sources (n, B) in their best band, from the local variance and the PSF's area."""
    if not len(xy_pix):
        return np.empty(0)
    size = variance.shape[-1]
    column, row = np.clip(np.round(xy_pix).astype(int), 0, size - 1).T
    n_effective = 2.266 * np.maximum(fwhm_pix, 1.2) ** 2
    return np.asarray((flux / np.sqrt(variance[:, row, column].T * n_effective)).max(axis=1))


def blank_row() -> dict[str, Any]:
    """A truth row of an object that is no lens; every list is empty and every number that lensing gives is NaN."""
    nan = float("nan")
    return {
        "id": "", "system": "", "label": 0, "kind": "",
        "theta_e_arcsec": nan, "q": nan, "pa_deg": nan, "gamma1": nan, "gamma2": nan,
        "source_x_arcsec": nan, "source_y_arcsec": nan, "deflector_x_pix": nan, "deflector_y_pix": nan,
        "image_x_pix": [], "image_y_pix": [], "image_magnification": [], "image_parity": [],
        "n_images": 0, "n_images_with_centre": 0,
        "point_x_pix": [], "point_y_pix": [], "point_snr": [],
        "arc_snr": 0.0, "arc_contrast": 0.0, "coverage_deg": 0.0, "seeing_arcsec": nan,
    }  # fmt: skip


def lens_row(lens: Deflector, source_xy: tuple[float, float], images: Images, sampling: Sampling) -> dict[str, Any]:
    """The part of a truth row that the lens model gives."""
    return {
        "label": 1,
        "theta_e_arcsec": lens.theta_e,
        "q": lens.q,
        "pa_deg": float(np.degrees(lens.pa) % 180.0),
        "gamma1": lens.gamma1,
        "gamma2": lens.gamma2,
        "source_x_arcsec": source_xy[0],
        "source_y_arcsec": source_xy[1],
        "image_x_pix": sampling.to_pixel(images.x).tolist(),
        "image_y_pix": sampling.to_pixel(images.y).tolist(),
        "image_magnification": images.magnification.tolist(),
        "image_parity": np.sign(images.magnification).astype(int).tolist(),
        "n_images": images.n_without_centre,
        "n_images_with_centre": len(images.x),
    }
