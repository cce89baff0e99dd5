"""Parameters to noiseless light on a grid: Sersic profiles and lensed light, sampled finely only where light needs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.special import gamma as gamma_function

from sim.lens import Lens, PowerLaw
from stages.records import FloatArray

if TYPE_CHECKING:
    from sim.population import Sersic, Source

_FAINTEST_WING = 1e-4  # wings are painted down to this part of the brightness at the half-light radius
_STEPS_PER_SCALE = 2.5  # samples per scale length of the local profile: midpoint rule, error below 1/150 of local light
_MAX_DEPTH = 8  # a sample is halved so often at most: 256 parts a side, only where a profile is steepest
_MAX_LEVELS = 4  # a sample of lensed light is cut into nine so often at most: 81 rays a side
_NEGLIGIBLE = 3e-4  # light below this part of the brightest is not sampled finer


@dataclass(frozen=True)
class Grid:
    """Square grid centred on the object: `size` samples of `step` arcsec; sample (i, j) lies at arcsec x[i], y[j]."""

    size: int
    step: float

    @property
    def axis(self) -> FloatArray:
        """Sample positions along one axis in arcsec."""
        return ((np.arange(self.size) - (self.size - 1) / 2) * self.step).astype(np.float32)

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """Rows and columns within `reach` arcsec of a position."""

        def part(centre: float) -> slice:
            middle = centre / self.step + (self.size - 1) / 2
            half = reach / self.step
            return slice(int(np.clip(middle - half, 0, self.size)), int(np.clip(middle + half + 1, 0, self.size)))

        return part(y), part(x)


def profiles(components: Sequence[Sersic]) -> npt.NDArray[np.float64]:
    """Sersic parameters (n, 8): x, y, radius, q, cos pa, sin pa, 1 / (2 n), and b_n.

    b_n follows Ciotti & Bertin (1999, eq. 18).
    """
    n = np.array([c.index for c in components], float)
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)
    pa = np.array([c.pa for c in components], float)
    plain = np.array([(c.x, c.y, c.radius, c.q) for c in components], float).reshape(-1, 4)
    return np.column_stack([plain, np.cos(pa), np.sin(pa), 0.5 / n, b])


def peak_fluxes(components: Sequence[Sersic], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Surface brightness (n, B) at the half-light radius of each profile, in flux per square arcsec."""
    b, n = rows[:, 7], 0.5 / rows[:, 6]
    total = 2 * np.pi * n * rows[:, 2] ** 2 * np.exp(b) * b ** (-2 * n) * gamma_function(2 * n)
    return np.array([c.flux for c in components], float) / total[:, None]


def paint(canvas: FloatArray, grid: Grid, components: Sequence[Sersic], floor: FloatArray | float = 0.0) -> None:
    """Add profiles to a canvas (B, size, size) in flux per sample; each sample is a mean over its area.

    floor : flux per sample ((B,) or one number) below which a profile's wings are left out.
    """
    if not components:
        return
    rows = profiles(components)
    flux = peak_fluxes(components, rows)
    n, b = 0.5 / rows[:, 6], rows[:, 7]
    contrast = np.maximum((flux * grid.step**2 / np.maximum(floor, 1e-30)).max(axis=1), 1e-30)
    depth = np.clip(np.log(contrast), -0.9 * b, -np.log(_FAINTEST_WING))
    reach = np.minimum(rows[:, 2] / np.sqrt(rows[:, 3]) * (1 + depth / b) ** n, 60.0) + 2 * grid.step
    _paint(canvas, rows, flux, reach, grid.step)


def lensed_light(grid: Grid, lens: Lens, source: Source) -> FloatArray:
    """Lensed extended light of a source (B, size, size), in flux per sample; all bands share the rays.

    One ray goes through the middle of each sample. Where the source changes too much over what the sample's area maps
    to, the sample is cut into nine, and these again, so that each part is the mean over its area.
    """
    canvas = np.zeros((len(source.point_flux), grid.size, grid.size))
    extent = max([4.0 * c.radius + math.hypot(c.x, c.y) for c in source.light], default=0.0)
    if source.stamp is not None:
        extent = max(extent, source.stamp.reach_arcsec * source.stamp_scale + math.hypot(source.x, source.y))
    rows, columns = grid.window(0.0, 0.0, lens_reach(lens) + extent + 0.3)
    y, x = np.meshgrid(grid.axis[rows].astype(float), grid.axis[columns].astype(float), indexing="ij")
    if x.size == 0:
        return canvas.astype(np.float32)
    shape = x.shape
    beta_x, beta_y = lens.source_position(x, y)
    spread = _spread(beta_x, beta_y).ravel()
    light = _SourceLight(source)
    image = np.zeros((len(canvas), x.size))
    cell, side = np.arange(x.size), grid.step
    x, y, beta_x, beta_y = x.ravel(), y.ravel(), beta_x.ravel(), beta_y.ravel()
    for level in range(_MAX_LEVELS + 1):
        value = light(beta_x, beta_y)
        split = light.changes(beta_x, beta_y, spread, value) & (level < _MAX_LEVELS)
        for band, plane in enumerate(image):
            plane += np.bincount(cell[~split], value[band, ~split] * side**2, len(plane))
        if not split.any():
            break
        offsets = np.array([(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]) * side / 3
        x = (x[split][:, None] + offsets[:, 0]).ravel()
        y = (y[split][:, None] + offsets[:, 1]).ravel()
        cell, spread, side = np.repeat(cell[split], 9), np.repeat(spread[split] / 3, 9), side / 3
        beta_x, beta_y = lens.source_position(x, y)
    canvas[:, rows, columns] = image.reshape(-1, *shape)
    return canvas.astype(np.float32)


def lens_reach(lens: Lens) -> float:
    """How far from the centre (arcsec) lensed light can be multiply imaged: twice the Einstein radii of all parts."""
    strengths = [p.theta_e if isinstance(p, PowerLaw) else p.b for p in lens.parts]
    return float(sum(2.0 * b + 0.5 * math.hypot(p.x, p.y) for b, p in zip(strengths, lens.parts, strict=True)))


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
            _evaluate(out, x.ravel(), y.ravel(), self._rows, self._peak)
        if self._source.stamp is not None:
            out += self._source.stamp_light(x.ravel(), y.ravel())
        return out.reshape(self._n_bands, *x.shape)

    def changes(self, x: FloatArray, y: FloatArray, spread: FloatArray, value: FloatArray) -> npt.NDArray[np.bool_]:
        """Where (n,) the light changes too much over `spread` arcsec for one ray to stand for it."""
        out = np.zeros(x.size, np.bool_)
        if len(self._rows):
            self._brightest = max(self._brightest, float(value.max(initial=0.0)))
            _changes(out, x, y, spread, self._rows, self._peak.max(axis=1), _NEGLIGIBLE * self._brightest)
        stamp = self._source.stamp
        if stamp is not None:
            scale = self._source.stamp_scale
            near = np.hypot(x - self._source.x, y - self._source.y) < stamp.reach_arcsec * scale + spread
            out |= near & (spread > stamp.pixel_arcsec * scale)
        return out


def _spread(beta_x: FloatArray, beta_y: FloatArray) -> FloatArray:
    """How far (arcsec) a step of one sample moves in the source plane, the larger of the two directions."""
    if min(beta_x.shape) < 2:
        return np.full(beta_x.shape, 1.0)
    along = np.hypot(np.gradient(beta_x, axis=1), np.gradient(beta_y, axis=1))
    across = np.hypot(np.gradient(beta_x, axis=0), np.gradient(beta_y, axis=0))
    return np.asarray(np.maximum(along, across))


@njit(cache=True, fastmath=True)
def _paint(canvas, rows, flux, reach, step):  # type: ignore[no-untyped-def]
    size = canvas.shape[1]
    middle = (size - 1) / 2
    stack = np.empty((3 * _MAX_DEPTH + 4, 3))  # parts still to do: x, y, side
    for c in range(rows.shape[0]):
        x0, y0, radius, q, cos, sin, power, b = rows[c]
        first_row = max(0, int(math.ceil((y0 - reach[c]) / step + middle)))
        last_row = min(size - 1, int(math.floor((y0 + reach[c]) / step + middle)))
        first_column = max(0, int(math.ceil((x0 - reach[c]) / step + middle)))
        last_column = min(size - 1, int(math.floor((x0 + reach[c]) / step + middle)))
        scale2 = 1.0 / (radius * radius)
        fine = _STEPS_PER_SCALE / math.sqrt(q)
        cusp = min(2 * power * power, 0.3) * radius
        smallest = step / 2**_MAX_DEPTH
        for i in range(first_row, last_row + 1):
            for j in range(first_column, last_column + 1):
                stack[0] = ((j - middle) * step - x0, (i - middle) * step - y0, step)
                depth, value = 1, 0.0
                while depth:
                    depth -= 1
                    dx, dy, side = stack[depth]
                    along, across = dx * cos + dy * sin, dy * cos - dx * sin
                    r2 = q * along * along + across * across / q
                    t = (r2 * scale2) ** power
                    near = max(math.sqrt(r2) - 0.7 * side, cusp)
                    if fine * side * max(2 * power * b * t, 1.0) > near and side > smallest:
                        quarter = side / 4
                        for k in range(4):
                            stack[depth] = (dx + quarter * (2 * (k & 1) - 1), dy + quarter * ((k & 2) - 1), side / 2)
                            depth += 1
                    else:
                        value += side * side * math.exp(-b * (t - 1))
                for band in range(canvas.shape[0]):
                    canvas[band, i, j] += flux[c, band] * value


@njit(cache=True, fastmath=True)
def _evaluate(out, x, y, rows, peak):  # type: ignore[no-untyped-def]
    for c in range(rows.shape[0]):
        x0, y0, radius, q, cos, sin, power, b = rows[c]
        scale2 = 1.0 / (radius * radius)
        for k in range(x.shape[0]):
            dx, dy = x[k] - x0, y[k] - y0
            along, across = dx * cos + dy * sin, dy * cos - dx * sin
            exponent = -b * (((q * along * along + across * across / q) * scale2) ** power - 1)
            if exponent < -20.0:
                continue
            value = math.exp(exponent)
            for band in range(out.shape[0]):
                out[band, k] += peak[c, band] * value


@njit(cache=True, fastmath=True)
def _changes(out, x, y, spread, rows, peak, negligible):  # type: ignore[no-untyped-def]
    for c in range(rows.shape[0]):
        x0, y0, radius, q, cos, sin, power, b = rows[c]
        fine = _STEPS_PER_SCALE / math.sqrt(q)
        cusp = min(2 * power * power, 0.3) * radius  # inside it a profile is flat, or holds little light
        for k in range(x.shape[0]):
            if out[k]:
                continue
            dx, dy = x[k] - x0, y[k] - y0
            along, across = dx * cos + dy * sin, dy * cos - dx * sin
            r = math.sqrt(q * along * along + across * across / q)
            near = max(r - 0.7 * spread[k] / math.sqrt(q), cusp)
            t = (near / radius) ** (2 * power)
            steep = fine * spread[k] * max(2 * power * b * t, 1.0) > near
            out[k] = steep and peak[c] * math.exp(-b * (t - 1)) > negligible
