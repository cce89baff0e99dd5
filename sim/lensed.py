"""Lensed extended light on a grid: rays only where the source is met, closer together only where its light needs it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from sim.lensing.kernels import bend, lens_map
from sim.lensing.lens import Lens
from sim.sersic import BLOCK, exp2, fall_block, log2, peak_fluxes, profiles
from sim.sharing import deposit
from stages.records import BoolArray, FloatArray

if TYPE_CHECKING:
    from sim.population import Source
    from sim.scene import Grid

_RAYS_PER_SCALE = 2.2  # rays per scale length of the local light
_NARROW = 2.5  # samples per scale length of the local light below which it begins to count as compact
_MAX_LEVELS = 3  # a sample is cut into nine so often at most: 81 rays a side
_DARK = 14.0  # e-folds below the half-light radius beyond which a source gives no light
_NEGLIGIBLE = 2e-3  # light below this part of the brightest is not sampled finer
_SQUARE = 8  # samples a side of the squares that are traced or left out as one
# Nine rays at the middles of ninths give the mean over their square to fourth order with these weights, mean 1.
_NINE = np.outer([3.0, 2.0, 3.0], [3.0, 2.0, 3.0]).ravel() * 9 / 64
_OFFSETS = np.array([(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]) / 3


def lensed_light(grid: Grid, lens: Lens, source: Source) -> FloatArray:
    """Lensed extended light of a source (B, size, size), in flux per sample; all bands share the rays.

    One ray goes through the middle of each sample; the curvature of the light from ray to ray makes its value the mean
    over the sample. Where the source changes too much over what the sample's area maps to, the sample is cut into nine,
    and these again.
    """
    canvas = np.zeros((len(source.point_flux), grid.size, grid.size), np.float32)
    found = _traced(grid, lens, source)
    if found is None:
        return canvas
    rows, columns, needed = found
    y, x = np.meshgrid(grid.axis[rows].astype(float), grid.axis[columns].astype(float), indexing="ij")
    left, top, side = x[0, 0], y[0, 0], grid.step
    beta_x, beta_y, light = np.full(x.shape, np.nan), np.full(x.shape, np.nan), _SourceLight(source)
    traced = _with_neighbours(needed)
    beta_x[traced], beta_y[traced] = lens.source_position(x[traced], y[traced])
    image = np.zeros((len(canvas), *x.shape))
    image[:, traced] = light(beta_x[traced], beta_y[traced])
    spread = _spread(beta_x, beta_y, needed)
    split, _ = light.changes(beta_x[needed], beta_y[needed], spread, 1.0, image)
    image = _means(image) * side**2
    cut = np.flatnonzero(needed)[split]
    image.reshape(len(canvas), -1)[:, cut] = 0.0
    x, y, spread = x.ravel()[cut], y.ravel()[cut], spread[split]
    for level in range(1, _MAX_LEVELS + 1):
        if not x.size:
            break
        x, y = ((v[:, None] + side * _OFFSETS[:, k]).ravel() for k, v in enumerate((x, y)))
        spread, side = np.repeat(spread / 3, 9), side / 3
        beta_x, beta_y = lens.source_position(x, y)
        value = light(beta_x, beta_y)
        split, steepness = light.changes(beta_x, beta_y, spread, 3.0**level, value)
        whole = np.asarray(~split.reshape(-1, 9).any(axis=1))
        if level == _MAX_LEVELS:
            split[:] = False
        value *= side**2 * np.where(whole[:, None], _NINE, 1.0).ravel()
        value[:, split] = 0.0
        deposit(image, (x - left) / grid.step, (y - top) / grid.step, value, steepness)
        x, y, spread = x[split], y[split], spread[split]
    canvas[:, rows, columns] = image
    return canvas


def _traced(grid: Grid, lens: Lens, source: Source) -> tuple[slice, slice, BoolArray] | None:
    """Rows and columns that hold all samples whose rays may meet the source, and which of these may (None: none)."""
    extent = max(
        [
            _wing_radii(c.index) * c.radius / math.sqrt(c.q) + math.hypot(c.x - source.x, c.y - source.y)
            for c in source.light
        ],
        default=0.0,
    )
    if source.stamp is not None:
        extent = max(extent, source.stamp.reach_arcsec * source.stamp_scale)
    squares = -(-grid.size // _SQUARE)
    met = np.zeros((squares, squares), np.bool_)
    start = float(grid.axis[0])
    _meet(met, *lens.packed, start, grid.step, source.x, source.y, extent)
    down, across = np.flatnonzero(met.any(axis=1)), np.flatnonzero(met.any(axis=0))
    if not down.size:
        return None
    rows, columns = (slice(k[0] * _SQUARE, min((k[-1] + 1) * _SQUARE, grid.size)) for k in (down, across))
    inner = met[down[0] : down[-1] + 1, across[0] : across[-1] + 1].repeat(_SQUARE, axis=0).repeat(_SQUARE, axis=1)
    return rows, columns, inner[: rows.stop - rows.start, : columns.stop - columns.start]


def _wing_radii(index: float) -> float:
    """Half-light radii at which a source has fallen by e^-7 from its half-light radius, 15 at most."""
    return float(min((1 + 7 / (2 * index - 1 / 3)) ** index, 15.0))


@njit(cache=True, error_model="numpy")
def _meet(met, frame, parts, terms, start, step, x, y, extent):  # type: ignore[no-untyped-def]
    """Mark the squares, `_SQUARE` samples a side, from which a ray may come within `extent` of (x, y).

    A square maps to within |A| h + 1/2 bend h^2 of its middle's ray, h its half diagonal, A the Jacobian there.
    """
    whole = 1
    while whole < met.shape[0]:
        whole *= 2
    stack = np.empty((3 * 16 + 4, 3), np.int64)  # row and column of the first square, and how many a side
    stack[0] = (0, 0, whole)
    depth = 1
    while depth:
        depth -= 1
        i, j, size = stack[depth]
        if i >= met.shape[0] or j >= met.shape[1]:
            continue
        half = 0.5 * _SQUARE * step * size
        px, py = start + 2 * half / size * j + half - 0.5 * step, start + 2 * half / size * i + half - 0.5 * step
        h = math.sqrt(2.0) * half
        ax, ay, xx, xy, yy = lens_map(frame, parts, terms, px, py, True)
        stretch = math.sqrt((1 - xx) ** 2 + 2 * xy * xy + (1 - yy) ** 2)
        away = math.hypot(px - ax - x, py - ay - y)
        if away > extent + h * (stretch + 0.5 * h * bend(frame, parts, px, py, h)):
            continue
        if size == 1:
            met[i, j] = True
            continue
        for k in range(4):
            stack[depth] = (i + size // 2 * (k >> 1), j + size // 2 * (k & 1), size // 2)
            depth += 1


def _with_neighbours(needed: BoolArray) -> BoolArray:
    """The samples and those beside them."""
    out = needed.copy()
    out[1:] |= needed[:-1]
    out[:-1] |= needed[1:]
    out[:, 1:] |= needed[:, :-1]
    out[:, :-1] |= needed[:, 1:]
    return out


@njit(cache=True, error_model="numpy")
def _means(values):  # type: ignore[no-untyped-def]
    """Means (B, ny, nx) over samples of what has these values at their middles: 1/24 of the second differences."""
    out = values.copy()
    for band in range(values.shape[0]):
        v = values[band]
        for i in range(1, v.shape[0] - 1):
            for j in range(1, v.shape[1] - 1):
                bend = (v[i, j + 1] + v[i, j - 1] + v[i + 1, j] + v[i - 1, j] - 4 * v[i, j]) / 24
                limit = 0.3 * abs(v[i, j])  # more is not a smooth light's
                out[band, i, j] += min(max(bend, -limit), limit)
    return out


@njit(cache=True, error_model="numpy")
def _spread(beta_x, beta_y, needed):  # type: ignore[no-untyped-def]
    """How far (arcsec) a step of one sample moves in the source plane, the larger of the two directions; (n,) needed.

    1 where there is but one row or column.
    """
    rows, columns = beta_x.shape
    out = np.ones(needed.sum())
    if min(rows, columns) < 2:
        return out
    k = 0
    for i in range(rows):
        up, down = max(i - 1, 0), min(i + 1, rows - 1)
        for j in range(columns):
            if needed[i, j]:
                left, right = max(j - 1, 0), min(j + 1, columns - 1)
                x, y = beta_x[i, right] - beta_x[i, left], beta_y[i, right] - beta_y[i, left]
                along = math.sqrt(x * x + y * y) / (right - left)
                x, y = beta_x[down, j] - beta_x[up, j], beta_y[down, j] - beta_y[up, j]
                out[k] = max(along, math.sqrt(x * x + y * y) / (down - up))
                k += 1
    return out


class _SourceLight:
    """Surface brightness (B, ...) of a source in its plane, and how finely it must be sampled."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._n_bands = len(source.point_flux)
        self._rows = profiles(source.light)
        self._peak = peak_fluxes(source.light, self._rows) if source.light else np.zeros((0, self._n_bands))
        self._brightest = 0.0

    def __call__(self, x: FloatArray, y: FloatArray) -> FloatArray:
        out = np.zeros((self._n_bands, x.size))
        if len(self._rows):
            _evaluate(out, x, y, self._rows, self._peak)
        if self._source.stamp is not None:
            out += self._source.stamp_light(x, y)
        return out

    def changes(
        self, x: FloatArray, y: FloatArray, spread: FloatArray, samples: float, value: FloatArray
    ) -> tuple[BoolArray, FloatArray]:
        """Where (n,) the light changes too much over `spread` arcsec for one ray, and its steepness.

        samples : by how much the rays lie closer than the grid's samples; steepness : see `sim.sharing.compact`.
        """
        split, steepness = np.zeros(x.size, np.bool_), np.zeros(x.size)
        if len(self._rows):
            self._brightest = max(self._brightest, float(value.max(initial=0.0)))
            least = _NEGLIGIBLE * self._brightest
            _changes(split, steepness, x, y, spread, samples, self._rows, self._peak.max(axis=1), least)
        stamp = self._source.stamp
        if stamp is not None:
            scale = self._source.stamp_scale
            near = np.hypot(x - self._source.x, y - self._source.y) < stamp.reach_arcsec * scale + spread
            split |= near & (spread > stamp.pixel_arcsec * scale)
        return split, steepness


@njit(cache=True, fastmath=True, error_model="numpy")
def _radii(x, y, start, row, r2):  # type: ignore[no-untyped-def]
    """Squares of the elliptical radii, in half-light radii, of a block of places; the smallest is returned."""
    x0, y0, radius, q, cos, sin, _, _ = row
    last = x.shape[0] - 1
    nearest = np.inf
    for j in range(BLOCK):  # a last, short block repeats its last place
        i = min(start + j, last)
        dx, dy = x[i] - x0, y[i] - y0
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        r2[j] = (q * along * along + across * across / q) / (radius * radius)
        nearest = min(nearest, r2[j])
    return nearest


@njit(cache=True, fastmath=True, error_model="numpy")
def _evaluate(out, x, y, rows, peak):  # type: ignore[no-untyped-def]
    r2, t, value = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for c in range(rows.shape[0]):
        power, b = rows[c, 6], rows[c, 7]
        far = (1 + _DARK / b) ** (1 / power)
        for start in range(0, x.shape[0], BLOCK):
            if _radii(x, y, start, rows[c], r2) > far:
                continue
            fall_block(r2, t, value, power, b, BLOCK)
            for band in range(out.shape[0]):
                for j in range(min(BLOCK, x.shape[0] - start)):
                    out[band, start + j] += peak[c, band] * value[j] if r2[j] <= far else 0.0


@njit(cache=True, fastmath=True, error_model="numpy")
def _changes(split, steepness, x, y, spread, samples, rows, peak, negligible):  # type: ignore[no-untyped-def]
    r2, steep, ratio = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for c in range(rows.shape[0]):
        _, _, radius, q, _, _, power, b = rows[c]
        root_q = math.sqrt(q)
        cusp = min(2 * power * power, 0.4)  # in half-light radii: inside it a profile is flat, or holds little light
        depth = math.log(max(peak[c], 1e-300) / max(negligible, 1e-300))
        if depth <= -b:
            continue
        far = (1 + min(depth, _DARK) / b) ** (0.5 / power)  # beyond it this component does not matter
        for start in range(0, x.shape[0], BLOCK):
            _radii(x, y, start, rows[c], r2)
            size = min(BLOCK, x.shape[0] - start)
            most = 0.0
            for j in range(size):
                moved = spread[start + j] / (root_q * radius)
                r = math.sqrt(r2[j])
                near = max(r - 0.7 * moved, cusp)
                slope = max(2 * power * b * exp2(power * log2(near * near)), 1.0)
                steep[j] = moved * slope / max(r, cusp) if near <= far else 0.0
                ratio[j] = moved * slope / near if near <= far else 0.0
                most = max(most, ratio[j])
            if most == 0.0:
                continue
            for j in range(size):
                split[start + j] |= _RAYS_PER_SCALE * ratio[j] > 1.0
                steepness[start + j] = max(steepness[start + j], _NARROW * samples * steep[j])
