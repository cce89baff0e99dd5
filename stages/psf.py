"""The point-spread function at any place between pixels: the cutout's kernel, else a Moffat of the seeing's width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import center_of_mass, map_coordinates, spline_filter

from stages.records import Cutout, FloatArray
from stages.scaling import resolution_arcsec

MOFFAT_BETA = 4.765  # where none is known: of atmospheric turbulence (Trujillo et al. 2001, MNRAS 328, 977)
_STEP_PIX = 0.05
REACH_FWHM = 4.0  # as far as a point's light is followed
_CORE = 0.2  # of the peak: what lies above tells where a kernel is centred


@dataclass(frozen=True, eq=False)
class Psf:
    """A PSF of unit sum; `spline` (h, w) are the cubic coefficients of the kernel, or of size 0 for a Moffat.

    centre_pix : the point's (x, y) in the kernel, the centroid of its core; beta : the Moffat's index.
    """

    fwhm_pix: float
    spline: FloatArray
    centre_pix: tuple[float, float] = (0.0, 0.0)
    beta: float = MOFFAT_BETA

    def value(self, dx_pix: FloatArray, dy_pix: FloatArray) -> FloatArray:
        """Share of a point's light in pixels (n,) at an offset from the point."""
        if not self.spline.size:
            return moffat(np.hypot(dx_pix, dy_pix), self.fwhm_pix, self.beta)
        x, y = self.centre_pix
        return np.asarray(
            map_coordinates(self.spline, [dy_pix + y, dx_pix + x], order=3, mode="constant", prefilter=False)
        )

    def with_gradient(self, dx_pix: FloatArray, dy_pix: FloatArray) -> FloatArray:
        """(n, 3): value and its derivatives by the point's x and y; 0 far from the point."""
        out, h = np.zeros((len(dx_pix), 3)), _STEP_PIX
        near = np.hypot(dx_pix, dy_pix) < REACH_FWHM * self.fwhm_pix
        x, y = dx_pix[near], dy_pix[near]
        moved = self.value(np.concatenate([x, x - h, x + h, x, x]), np.concatenate([y, y, y, y - h, y + h]))
        same, right, left, up, down = moved.reshape(5, -1)
        out[near] = np.column_stack([same, (right - left) / (2 * h), (up - down) / (2 * h)])
        return out

    @property
    def noise_area_pix(self) -> float:
        """Pixels whose noise a fitted point collects, 1 / sum of the PSF squared."""
        size = int(np.ceil(3 * self.fwhm_pix))
        y, x = (a.ravel() for a in np.mgrid[-size : size + 1, -size : size + 1].astype(float))
        return float(1.0 / (self.value(x, y) ** 2).sum())


def psf_of(cutout: Cutout, band: int) -> Psf:
    """The PSF of one band of a cutout."""
    seeing = float(cutout.psf_fwhm_arcsec[band])
    fwhm = max((seeing if np.isfinite(seeing) else resolution_arcsec(cutout)) / cutout.pixel_scale_arcsec, 1.5)
    if band < len(cutout.psf):
        kernel = np.nan_to_num(cutout.psf[band].astype(float))
        if kernel.size and kernel.sum() > 0:
            return Psf(fwhm, spline_filter(kernel / kernel.sum(), order=3), core_centre(kernel))
    return Psf(fwhm, np.empty((0, 0)), beta=cutout.psf_beta if np.isfinite(cutout.psf_beta) else MOFFAT_BETA)


def moffat(radius_pix: FloatArray, fwhm_pix: float, beta: float) -> FloatArray:
    """Share of a point's light in a pixel at a distance: a Moffat of this FWHM as seen, the pixel included."""
    alpha2 = (fwhm_pix / 2) ** 2 / (2 ** (1 / beta) - 1)
    return np.asarray((1 + radius_pix**2 / alpha2) ** -beta * (beta - 1) / (np.pi * alpha2))


def core_centre(kernel: FloatArray) -> tuple[float, float]:
    """Where a kernel's point is, (x, y) in its pixels: the centroid of its core."""
    y, x = center_of_mass(np.maximum(kernel - _CORE * kernel.max(), 0))
    return float(x), float(y)
