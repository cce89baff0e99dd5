"""Brushes of the impostors: thin discs drawn on a log-polar mesh, and soft spots strung along curves.

Both give the same light whatever the grid: a disc's pattern lives on a mesh of its own, finer than its features, and is
sampled more densely where the grid is coarse; a spot is integrated over each sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import atan2, ceil, cos, erf, log, pi, sin, sqrt

import numba
import numpy as np

from sim.scene import Grid
from stages.records import FloatArray

RADII, ANGLES = 128, 192
_INNER, _OUTER = 0.04, 7.0  # the mesh's span in scale lengths
_SPAN = log(_OUTER / _INNER)
_FINEST = 0.12  # scale lengths: the narrowest feature that a mesh holds, at the radius where light is
_SPOT_SIGMAS = 4.0


@lru_cache(maxsize=1)
def mesh() -> tuple[FloatArray, FloatArray]:
    """Radius (RADII, 1) in scale lengths, equally spaced in its logarithm, and azimuth (1, ANGLES) in the plane."""
    radius = np.exp(np.linspace(log(_INNER), log(_OUTER), RADII, dtype=np.float32))[:, None]
    azimuth = np.arange(ANGLES, dtype=np.float32)[None, :] * np.float32(2 * pi / ANGLES)
    radius.setflags(write=False)
    azimuth.setflags(write=False)
    return radius, azimuth


@dataclass(frozen=True, eq=False)
class Layer:
    """One population of a disc: surface brightness (RADII, ANGLES) in any unit, and its whole flux (B,)."""

    brightness: FloatArray
    flux: FloatArray


@dataclass(frozen=True, eq=False)
class Disc:
    """A thin inclined disc: centre and exponential scale in arcsec, q = cos(inclination), pa of the major axis in rad.

    bend : lopsidedness; a point is moved across the major axis by bend * scale * (along / scale)^2.
    """

    x: float
    y: float
    scale: float
    q: float
    pa: float
    layers: tuple[Layer, ...]
    bend: float = 0.0

    def place(self, radius: FloatArray, azimuth: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sky positions in arcsec of points of the disc's plane; radius in arcsec."""
        along, across = radius * np.cos(azimuth), self.q * radius * np.sin(azimuth)
        across = across + self.bend * along**2 / self.scale
        return (
            np.asarray(self.x + along * cos(self.pa) - across * sin(self.pa)),
            np.asarray(self.y + along * sin(self.pa) + across * cos(self.pa)),
        )


def paint_disc(canvas: FloatArray, grid: Grid, disc: Disc) -> None:
    """Add a disc to a canvas (B, size, size) in flux per sample; only the window that holds light is visited."""
    tables = np.stack([_per_square_scale(layer.brightness) for layer in disc.layers])
    lit = tables.max(axis=2) > 1e-4 * tables.max(axis=(1, 2))[:, None]
    rows_lit = np.nonzero(lit.any(axis=0))[0]
    if not len(rows_lit):
        return
    reach = disc.scale * _INNER * np.exp(_SPAN * rows_lit[-1] / (RADII - 1))
    rows, columns = grid.window(disc.x, disc.y, float(reach * (1 + abs(disc.bend) * reach / disc.scale)) + grid.step)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    fine = int(np.clip(ceil(grid.step / (_FINEST * disc.scale * max(disc.q, 0.25))), 1, 10))
    share = grid.step**2 / (fine**2 * disc.scale**2 * disc.q)
    flux = np.stack([layer.flux for layer in disc.layers]).astype(np.float32) * np.float32(share)
    origin = -(grid.size - 1) / 2 * grid.step
    _add_disc(
        canvas[:, rows, columns], np.concatenate([tables, tables[:, :, :1]], axis=2), flux,
        (origin + columns.start * grid.step - disc.x) / disc.scale,
        (origin + rows.start * grid.step - disc.y) / disc.scale,
        grid.step / disc.scale, fine, cos(disc.pa), sin(disc.pa), disc.q, disc.bend,
    )  # fmt: skip


def paint_spots(
    canvas: FloatArray, grid: Grid, x: FloatArray, y: FloatArray, sigma: FloatArray, flux: FloatArray
) -> None:
    """Add round Gaussians at x, y with widths sigma (n,) in arcsec and fluxes (n, B), integrated over each sample."""
    half = (grid.size - 1) / 2
    _add_spots(
        canvas, np.asarray(x, np.float64) / grid.step + half, np.asarray(y, np.float64) / grid.step + half,
        np.maximum(np.asarray(sigma, np.float64) / grid.step, 0.05), np.asarray(flux, np.float32),
    )  # fmt: skip


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def superposed(cos_u: FloatArray, sin_u: FloatArray, cos_v: FloatArray, sin_v: FloatArray) -> FloatArray:
    """Sum over waves k of cos(u[i, k] - v[j, k]), as (i, j); a plain loop, since BLAS threads fight the workers."""
    out = np.zeros((cos_u.shape[0], cos_v.shape[0]), np.float32)
    cos_t, sin_t = cos_v.T.copy(), sin_v.T.copy()
    for i in range(out.shape[0]):
        for k in range(cos_u.shape[1]):
            c, s = cos_u[i, k], sin_u[i, k]
            for j in range(out.shape[1]):
                out[i, j] += c * cos_t[k, j] + s * sin_t[k, j]
    return out


def _per_square_scale(brightness: FloatArray) -> FloatArray:
    """Brightness that sums to one over the disc's plane, per squared scale length."""
    radius, _ = mesh()
    total = float((brightness * radius**2).sum(dtype=np.float64)) * (_SPAN / (RADII - 1)) * (2 * pi / ANGLES)
    return np.asarray(brightness / max(total, 1e-30), np.float32)


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _add_disc(
    canvas: FloatArray, tables: FloatArray, flux: FloatArray, x0: float, y0: float, step: float, fine: int,
    cosine: float, sine: float, q: float, bend: float,
) -> None:  # fmt: skip
    """Interpolate the tables at every sample, `fine` by `fine` points each; lengths in scale lengths."""
    layers, radii, angles = tables.shape[0], tables.shape[1], tables.shape[2] - 1
    per_log, per_angle = (radii - 1) / _SPAN, angles / (2 * pi)
    log_inner, outer2 = log(_INNER), _OUTER**2
    for row in range(canvas.shape[1]):
        for column in range(canvas.shape[2]):
            for part in range(fine * fine):
                dx = x0 + (column + ((part % fine) + 0.5) / fine - 0.5) * step
                dy = y0 + (row + ((part // fine) + 0.5) / fine - 0.5) * step
                along = dx * cosine + dy * sine
                across = (dy * cosine - dx * sine - bend * along * along) / q
                r2 = along * along + across * across
                if r2 >= outer2:
                    continue
                place = max((0.5 * log(r2 + 1e-12) - log_inner) * per_log, 0.0)
                i = min(int(place), radii - 2)
                turn = atan2(across, along) * per_angle
                if turn < 0:
                    turn += angles
                j = min(int(turn), angles - 1)
                u, v = place - i, turn - j
                for k in range(layers):
                    value = (1 - u) * ((1 - v) * tables[k, i, j] + v * tables[k, i, j + 1]) + u * (
                        (1 - v) * tables[k, i + 1, j] + v * tables[k, i + 1, j + 1]
                    )
                    for b in range(canvas.shape[0]):
                        canvas[b, row, column] += flux[k, b] * value


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _add_spots(canvas: FloatArray, x: FloatArray, y: FloatArray, sigma: FloatArray, flux: FloatArray) -> None:
    """Gaussians in sample units, by differences of the error function along rows and columns."""
    size = canvas.shape[1]
    for k in range(len(x)):
        half = _SPOT_SIGMAS * sigma[k] + 1.0
        left, right = max(ceil(x[k] - half), 0), min(int(x[k] + half), size - 1)
        low, high = max(ceil(y[k] - half), 0), min(int(y[k] + half), size - 1)
        if left > right or low > high:
            continue
        scale = 1.0 / (sqrt(2.0) * sigma[k])
        wide = np.empty(right - left + 1, np.float32)
        before = erf((left - 0.5 - x[k]) * scale)
        for column in range(left, right + 1):
            after = erf((column + 0.5 - x[k]) * scale)
            wide[column - left] = 0.25 * (after - before)
            before = after
        before = erf((low - 0.5 - y[k]) * scale)
        for row in range(low, high + 1):
            after = erf((row + 0.5 - y[k]) * scale)
            for b in range(canvas.shape[0]):
                amount = flux[k, b] * (after - before)
                for column in range(left, right + 1):
                    canvas[b, row, column] += amount * wide[column - left]
            before = after
