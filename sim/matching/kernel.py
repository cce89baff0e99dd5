"""The PSF kernel of stars: the one cubic spline that, moved, stretched and scaled, draws them all best.

The kernel is not stacked but fitted, in the way it will be used (`stages/psf.py`): a star's pixels are a cubic
spline through the kernel's pixels, read at the star's place, times its flux, on a flat sky. Its pixels are linear in
the spline's coefficients, so nothing is interpolated, and what the stars do not say stays the Moffat profile that the
fit begins with, which is also its prior. In `benchmarks/star_kernels.py` this is nearer to the truth than photutils'
`EPSFBuilder` (Anderson & King 2000, PASP 112, 1360) and, but for the brightest stars, than a clipped mean of shifted
stars.

A star of other seeing than the survey's is drawn by the kernel stretched by the ratio of both, as the simulator
(`sim/instrument/psf.py`) and scans (`stages/ingest/survey_psf.py`) do. The kernel holds the pixel's share, as kernels
delivered with images do: nothing is deconvolved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solveh_banded
from scipy.ndimage import map_coordinates, shift, spline_filter
from scipy.sparse import csc_matrix, diags_array, triu

from stages.psf import REACH_FWHM, core_centre, moffat
from stages.records import BoolArray, FloatArray

_ROUNDS, _CLIP_FROM = 8, 2
_PRIOR_PART, _PRIOR_PEAK = 0.5, 0.006  # rms of the kernel less the Moffat: of its own value and of its peak
_STAR_ERROR = 0.02  # part of a pixel's light by which stars of one survey differ
_CLIP_SIGMAS, _CLIP_PART = 4.0, 0.1  # a pixel further from the kernel is another object's
_TAPER = 0.85  # of the reach: from here the kernel falls to 0
_STEP_PIX = 0.05
_MOST_MOVE_PIX = 0.5


@dataclass(frozen=True, eq=False)
class Star:
    """A star's pixels (n, n), odd n, NaN where they are not its own; `sigma` : rms of the sky per pixel.

    x, y : place in pixels from the middle; flux : all its light; sky : under it; stretch : its image's seeing over the
    kernel's; image : number of its image; gain : electrons per flux unit.
    """

    pixels: FloatArray
    sigma: float
    x: float
    y: float
    flux: float
    sky: float
    stretch: float
    image: int = 0
    gain: float = np.inf


def moffat_kernel(fwhm_pix: float, beta: float, side: int) -> FloatArray:
    """(side, side) of a round Moffat at the middles of its pixels, of unit sum over the plane.

    fwhm_pix : as seen, the pixel included.
    """
    y, x = np.indices((side, side)) - side // 2
    return moffat(np.hypot(x, y), fwhm_pix, beta)


def reach_pix(fwhm_pix: float) -> int:
    """Half the side of a kernel."""
    return int(np.clip(np.ceil(REACH_FWHM * fwhm_pix), 6, 40))


def fit_kernel(stars: Sequence[Star], start: FloatArray, rounds: int = _ROUNDS) -> tuple[FloatArray, list[Star]]:
    """The kernel (side, side), centred and of unit sum, and the stars as it draws them; start : the Moffat."""
    kernel, stars = finished(start), list(stars)
    prior = spline_filter(kernel, order=3)
    loose = 1 / (_PRIOR_PART * np.abs(prior) + _PRIOR_PEAK * kernel.max()) ** 2
    for k in range(rounds):
        stars = [placed(star, kernel, clipped=k >= _CLIP_FROM) for star in stars]
        kernel = _solved(stars, kernel, prior, loose, clipped=k >= _CLIP_FROM)
        dx, dy = off_centre_pix(kernel)
        stars = [replace(s, x=s.x + s.stretch * dx, y=s.y + s.stretch * dy) for s in stars]
        kernel = shift(kernel, (-dy, -dx), order=3) if k == rounds - 1 else kernel
    return finished(kernel), stars


def finished(kernel: FloatArray) -> FloatArray:
    """Tapered to 0 at the edge, and of unit sum."""
    half = kernel.shape[0] // 2
    y, x = np.indices(kernel.shape) - half
    part = np.clip((np.hypot(x, y) / half - _TAPER) / (1 - _TAPER), 0, 1)
    out = kernel * 0.5 * (1 + np.cos(np.pi * part))
    return np.asarray(out / out.sum())


def off_centre_pix(kernel: FloatArray) -> tuple[float, float]:
    """(x, y) from the middle pixel to the centroid of the kernel's core."""
    x, y = core_centre(kernel)
    return x - kernel.shape[1] // 2, y - kernel.shape[0] // 2


def drawn(star: Star, kernel: FloatArray | tuple[float, float]) -> FloatArray:
    """A star of unit flux (n, n) as a kernel draws it, or a Moffat of (fwhm_pix, beta)."""
    return _shape(star, kernel if isinstance(kernel, tuple) else spline_filter(kernel, order=3))


def _shape(star: Star, model: FloatArray | tuple[float, float], dx: float = 0.0, dy: float = 0.0) -> FloatArray:
    """`drawn` of spline coefficients, moved."""
    y, x = (np.indices(star.pixels.shape) - star.pixels.shape[0] // 2).astype(float)
    u, v = (x - star.x - dx) / star.stretch, (y - star.y - dy) / star.stretch
    if isinstance(model, tuple):
        return moffat(np.hypot(u, v), *model) / star.stretch**2
    half = model.shape[0] // 2
    at = [v + half, u + half]
    return np.asarray(map_coordinates(model, at, order=3, mode="constant", prefilter=False)) / star.stretch**2


def weights(star: Star, shape: FloatArray, clipped: bool = False) -> FloatArray:
    """1 / variance of each pixel, 0 where it is not the star's; shape : the star at unit flux.

    clipped : also where it is further from the shape than stars are from each other.
    """
    light = np.maximum(star.flux * shape, 0)
    weight = 1 / (star.sigma**2 + light / star.gain + (_STAR_ERROR * light) ** 2)
    used = np.isfinite(star.pixels)
    if clipped:
        used &= _like(star, light)
    return np.where(used, weight, 0.0)


def _like(star: Star, light: FloatArray) -> BoolArray:
    away = np.abs(np.nan_to_num(star.pixels) - star.sky - light)
    return np.asarray(away < _CLIP_SIGMAS * np.hypot(star.sigma, _CLIP_PART * light))


def placed(
    star: Star, kernel: FloatArray | tuple[float, float], *, clipped: bool = False, steps: int = 1,
    weight: FloatArray | None = None,
) -> Star:  # fmt: skip
    """The star with flux, sky and place fitted anew by Gauss-Newton steps; weight (n, n) : in place of its own."""
    model = kernel if isinstance(kernel, tuple) else spline_filter(kernel, order=3)
    h = _STEP_PIX
    for _ in range(steps):
        shape = _shape(star, model)
        right, left, up, down = (_shape(star, model, *d) for d in ((h, 0), (-h, 0), (0, h), (0, -h)))
        slope_x, slope_y = (right - left) / (2 * h), (up - down) / (2 * h)
        columns = np.stack([shape, np.ones_like(shape), star.flux * slope_x, star.flux * slope_y], -1).reshape(-1, 4)
        root = np.sqrt(weights(star, shape, clipped) if weight is None else weight).ravel()
        answer = np.linalg.lstsq(columns * root[:, None], np.nan_to_num(star.pixels).ravel() * root, rcond=None)[0]
        dx, dy = np.clip(answer[2:], -_MOST_MOVE_PIX, _MOST_MOVE_PIX)
        star = replace(star, flux=float(answer[0]), sky=float(answer[1]), x=star.x + float(dx), y=star.y + float(dy))
    return star


def _solved(
    stars: Sequence[Star], kernel: FloatArray, prior: FloatArray, loose: FloatArray, clipped: bool
) -> FloatArray:
    """The kernel that draws stars of known places and fluxes best; loose : 1 / variance of the prior's coefficients."""
    side = kernel.shape[0]
    matrix = diags_array(loose.ravel()).tocsc()
    wanted = (loose * prior).ravel()
    for star in stars:
        weight = weights(star, drawn(star, kernel), clipped)
        basis = _basis(star, side) * (star.flux / star.stretch**2)
        weighed = diags_array(weight.ravel()) @ basis
        matrix = matrix + basis.T @ weighed
        wanted = wanted + weighed.T @ (np.nan_to_num(star.pixels).ravel() - star.sky)
    reach = 3 * side + 3  # two coefficients further apart share no pixel
    upper = triu(matrix).tocoo()
    banded = np.zeros((reach + 1, side * side))
    banded[reach + upper.row - upper.col, upper.col] = upper.data
    coefficients = solveh_banded(banded, wanted).reshape(side, side)
    y, x = np.indices((side, side)).astype(float)
    pixels = np.asarray(map_coordinates(coefficients, [y, x], order=3, mode="constant", prefilter=False))
    return finished(pixels)


def _basis(star: Star, side: int) -> csc_matrix:
    """(n * n, side * side): each pixel of the star as a sum of the spline's coefficients."""
    n, half = star.pixels.shape[0], side // 2
    axes = []
    for place in (star.y, star.x):
        at = (np.arange(n) - n // 2 - place) / star.stretch + half
        first = np.floor(at).astype(int) - 1
        column = first[:, None] + np.arange(4)
        value = _cubic(at[:, None] - column)
        axes.append((np.clip(column, 0, side - 1), np.where((column >= 0) & (column < side), value, 0.0)))
    (rows, by_y), (columns, by_x) = axes
    where = (rows[:, None, :, None] * side + columns[None, :, None, :]).reshape(n * n, 16)
    value = (by_y[:, None, :, None] * by_x[None, :, None, :]).reshape(n * n, 16)
    pixel = np.repeat(np.arange(n * n), 16)
    return csc_matrix((value.ravel(), (pixel, where.ravel())), shape=(n * n, side * side))


def _cubic(t: FloatArray) -> FloatArray:
    """The cubic B-spline at distances t."""
    t = np.abs(t)
    inner, outer = 2 / 3 - t**2 + t**3 / 2, (2 - t) ** 3 / 6
    return np.where(t < 1, inner, np.where(t < 2, outer, 0.0))
