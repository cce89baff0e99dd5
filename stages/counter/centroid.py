"""Sub-pixel positions and fluxes of detected points: Gaussians of the PSF's width on a sloping background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.records import Cutout, FloatArray
from stages.scaling import resolution_arcsec

_ROUNDS = 6
_WINDOW_FWHM = 1.0
_MAX_MOVE_FWHM = 0.6  # a fit that leaves the detection further behind has found something else
_FWHM_PER_SIGMA = 2.3548


def refine(cutout: Cutout, xy_pix: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Positions (n, 2) and fluxes (n,) of points near `xy_pix`, and the flux of a 5 sigma point.

    Measured in the band in which the points stand out most, in its unit. A point whose pixels are invalid, or whose fit
    wanders off, keeps the position it came with and has flux NaN.
    """
    if not len(xy_pix):
        return np.empty((0, 2)), np.empty(0), float("nan")
    best: tuple[float, FloatArray, FloatArray, float] | None = None
    for band in range(len(cutout.bands)):
        seeing = cutout.psf_fwhm_arcsec[band]
        arcsec = seeing if np.isfinite(seeing) else resolution_arcsec(cutout)
        fwhm = max(float(arcsec) / cutout.pixel_scale_arcsec, 1.5)
        noise = _noise(cutout.flux[band], cutout.valid[band])
        position, flux = _fit_points(cutout.flux[band], cutout.valid[band], xy_pix, fwhm)
        limit = 5 * noise * np.sqrt(2.266 * fwhm**2)
        worth = float(np.nansum(np.clip(flux / limit, 0, 1e3)))
        if best is None or worth > best[0]:
            best = worth, position, flux, limit
    assert best is not None  # a cutout has a band
    return best[1:]


def _fit_points(
    image: FloatArray, valid: npt.NDArray[np.bool_], start: FloatArray, fwhm: float
) -> tuple[FloatArray, FloatArray]:
    """Gauss-Newton on every point in turn, the others' light taken away."""
    sigma = fwhm / _FWHM_PER_SIGMA
    n = len(start)
    position, peak = start.astype(float).copy(), np.zeros(n)
    for _ in range(_ROUNDS):
        for k in range(n):
            rows, columns, good = _window(valid, position[k], _WINDOW_FWHM * fwhm)
            if good.sum() < 7:
                continue
            others = sum(
                (peak[j] * _gauss(columns, rows, position[j], sigma)[0] for j in range(n) if j != k and peak[j] > 0),
                np.zeros(len(rows)),
            )
            value = image[rows, columns] - others
            shape, dx, dy = _gauss(columns, rows, position[k], sigma)
            plane = [np.ones(len(rows)), columns - position[k][0], rows - position[k][1]]
            design = np.column_stack([shape, dx, dy, *plane])
            answer = np.linalg.lstsq(design[good], value[good], rcond=None)[0]
            if answer[0] <= 0:
                continue
            move = np.clip(answer[1:3] / answer[0], -0.3 * sigma, 0.3 * sigma)
            peak[k] = answer[0]
            position[k] += move
    lost = (peak <= 0) | (np.hypot(*(position - start).T) > _MAX_MOVE_FWHM * fwhm)
    position[lost] = start[lost]
    return position, np.where(lost, np.nan, peak * 2 * np.pi * sigma**2)


def _gauss(
    x: npt.NDArray[np.intp], y: npt.NDArray[np.intp], centre: FloatArray, sigma: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A unit-peak Gaussian and its derivatives by the centre's x and y."""
    dx, dy = x - centre[0], y - centre[1]
    value = np.exp(-0.5 * (dx**2 + dy**2) / sigma**2)
    return value, value * dx / sigma**2, value * dy / sigma**2


def _window(
    valid: npt.NDArray[np.bool_], centre: FloatArray, radius: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Rows and columns of the pixels within a radius, and which of them are valid."""
    height, width = valid.shape
    y0, y1 = max(int(np.floor(centre[1] - radius)), 0), min(int(np.ceil(centre[1] + radius)) + 1, height)
    x0, x1 = max(int(np.floor(centre[0] - radius)), 0), min(int(np.ceil(centre[0] + radius)) + 1, width)
    rows, columns = (a.ravel() for a in np.mgrid[y0:y1, x0:x1])
    near = np.hypot(columns - centre[0], rows - centre[1]) <= radius
    rows, columns = rows[near], columns[near]
    return rows, columns, valid[rows, columns]


def _noise(image: FloatArray, valid: npt.NDArray[np.bool_]) -> float:
    """Background rms from differences of neighbouring pixels, which slopes do not reach."""
    step = np.diff(image, axis=1)[valid[:, 1:] & valid[:, :-1]]
    return float(1.4826 * np.median(np.abs(step)) / np.sqrt(2)) if step.size else float("nan")
