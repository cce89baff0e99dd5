"""How the pixels of a fitted point differ from the PSF: broader, as of a galaxy, or longer, as of an arc.

What the joint fit took for smooth light under the points stays away: how much there is depends on how well the PSF is
known, which on real images is less well than on simulated ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.counter.photometry import Photometry
from stages.records import FloatArray

_STEP_FWHM = 0.35  # by which shifted PSFs lie apart whose differences are the shapes
_RADIUS_FWHM, _SMALLEST_RADIUS_PIX = 1.0, 3.0
_SHAPES = 7  # the PSF, broader, longer in two directions, moved in two, a level
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Shape:
    """Of k points: light in the broader and longer shapes over that in the PSF, what these are in sigma, and chi2 per
    pixel with all shapes and with the PSF alone. NaN where too few pixels are valid."""

    broad: FloatArray
    broad_sigma: FloatArray
    long: FloatArray
    long_sigma: FloatArray
    chi2: FloatArray
    chi2_point: FloatArray


def shapes(points: Photometry) -> Shape:
    """Shapes of fitted points, without each other and without smooth light; n of them, NaN where nothing was fitted."""
    left, flux = points.leftover, points.flux[:, 0]
    if left is None:
        return Shape(*(np.full(len(flux), np.nan) for _ in range(6)))
    radius = max(_RADIUS_FWHM * left.psf.fwhm_pix, _SMALLEST_RADIUS_PIX)
    dx, dy, residual, weight = left.about(points.xy_pix, radius)
    step = _STEP_FWHM * left.psf.fwhm_pix

    def psf(x: float, y: float) -> FloatArray:
        return left.psf.value((dx - step * x).ravel(), (dy - step * y).ravel()).reshape(dx.shape)

    middle, slant = psf(0, 0), np.sqrt(0.5)
    right, left_of, up, down = psf(1, 0), psf(-1, 0), psf(0, 1), psf(0, -1)
    one, other = psf(slant, slant) + psf(-slant, -slant), psf(slant, -slant) + psf(-slant, slant)
    design = np.stack([
        middle, (right + left_of + up + down + one + other) / 8 - middle, (right + left_of - up - down) / 4,
        (one - other) / 4, (right - left_of) / 2, (up - down) / 2, np.ones(dx.shape),
    ], -1)  # fmt: skip
    value = residual + flux[:, None] * middle
    weighted = design * weight[..., None]
    covariance = np.linalg.pinv(weighted.transpose(0, 2, 1) @ weighted, hermitian=True)
    answer = (covariance @ (weighted.transpose(0, 2, 1) @ (value * weight)[..., None]))[..., 0]
    error = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), _TINY**2))
    free = (weight > 0).sum(1) - _SHAPES
    chi2 = (((value - (design @ answer[..., None])[..., 0]) * weight) ** 2).sum(1) / np.maximum(free, 1)
    alone = ((residual * weight) ** 2).sum(1) / np.maximum(free, 1)
    total = np.maximum(np.abs(answer[:, 0]), _TINY)
    found = (
        answer[:, 1] / total, answer[:, 1] / error[:, 1], np.hypot(answer[:, 2], answer[:, 3]) / total,
        np.hypot(answer[:, 2] / error[:, 2], answer[:, 3] / error[:, 3]), chi2, alone,
    )  # fmt: skip
    return Shape(*(np.where((free >= 2) & np.isfinite(flux), part, np.nan) for part in found))
