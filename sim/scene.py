"""Parameters to noiseless light on a grid: profiles and lensed light, sampled finely only where light needs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.special import gamma as gamma_function

from sim.lensing.lens import Lens, PowerLaw
from stages.records import BoolArray, FloatArray

if TYPE_CHECKING:
    from sim.population import Sersic, Source

_FAINTEST_WING = 1e-5  # wings are painted down to this part of the brightness at the half-light radius
_STEPS_PER_SCALE = 2.0  # parts per scale length of the local profile when painted
_GENTLE = 0.18  # where a sample has this part of the steps that would cut it, nine of them follow from one
_RAYS_PER_SCALE = 2.5  # rays per scale length when lensed: midpoint rule, error below 1/300 of local light
_LAST_CUT = 6.0  # e-folds below the half-light radius beyond which a sample is not cut
_MAX_DEPTH = 6  # a sample is halved so often at most: 64 parts a side, only where a profile is steepest
_MAX_LEVELS = 3  # a sample of lensed light is cut into nine so often at most: 81 rays a side
_DARK = 14.0  # e-folds below the half-light radius beyond which a source gives no light
_NEGLIGIBLE = 2e-3  # light below this part of the brightest is not sampled finer


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
    return np.asarray(np.array([c.flux for c in components], float) / total[:, None])


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
    canvas = np.zeros((len(source.point_flux), grid.size, grid.size), np.float32)
    extent = max([_wing_radii(c.index) * c.radius + math.hypot(c.x, c.y) for c in source.light], default=0.0)
    if source.stamp is not None:
        extent = max(extent, source.stamp.reach_arcsec * source.stamp_scale + math.hypot(source.x, source.y))
    rows, columns = grid.window(0.0, 0.0, lens_reach(lens) + extent + 0.3)
    along, down = grid.axis[columns].astype(float), grid.axis[rows].astype(float)
    if not (len(along) and len(down)):
        return canvas
    y, x = np.meshgrid(down, along, indexing="ij")
    beta_x, beta_y = lens.source_position(x, y)
    spread = _spread(beta_x, beta_y).ravel()
    light = _SourceLight(source)
    image = np.zeros((len(canvas), *x.shape))
    side = grid.step
    x, y, beta_x, beta_y = x.ravel(), y.ravel(), beta_x.ravel(), beta_y.ravel()
    for level in range(_MAX_LEVELS + 1):
        value = light(beta_x, beta_y) * side**2
        split, compact = light.changes(beta_x, beta_y, spread, 3.0**level, value / side**2)
        if level == _MAX_LEVELS:
            split[:] = False
        if level == 0:
            image += np.where(split, 0.0, value).reshape(image.shape)
        else:
            place = (x[~split] - along[0]) / grid.step, (y[~split] - down[0]) / grid.step
            _deposit(image, *place, value[:, ~split], compact[~split])
        if not split.any():
            break
        offsets = np.array([(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]) * side / 3
        x = (x[split][:, None] + offsets[:, 0]).ravel()
        y = (y[split][:, None] + offsets[:, 1]).ravel()
        spread, side = np.repeat(spread[split] / 3, 9), side / 3
        beta_x, beta_y = lens.source_position(x, y)
    canvas[:, rows, columns] = image
    return canvas


def lens_reach(lens: Lens) -> float:
    """How far from the centre (arcsec) lensed light can be multiply imaged: twice the Einstein radii of all parts."""
    strengths = [p.theta_e if isinstance(p, PowerLaw) else p.b for p in lens.parts]
    return float(sum(2.0 * b + 0.5 * math.hypot(p.x, p.y) for b, p in zip(strengths, lens.parts, strict=True)))


def _wing_radii(index: float) -> float:
    """Half-light radii at which a source has fallen by e^-7 from its half-light radius, 15 at most."""
    return float(min((1 + 7 / (2 * index - 1 / 3)) ** index, 15.0))


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

    def changes(
        self, x: FloatArray, y: FloatArray, spread: FloatArray, samples: float, value: FloatArray
    ) -> tuple[BoolArray, FloatArray]:
        """Where (n,) the light changes too much over `spread` arcsec for one ray, and its share that is compact.

        samples : by how much the rays lie closer than the grid's samples; compact : see `_compact`.
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


def _spread(beta_x: FloatArray, beta_y: FloatArray) -> FloatArray:
    """How far (arcsec) a step of one sample moves in the source plane, the larger of the two directions."""
    if min(beta_x.shape) < 2:
        return np.full(beta_x.shape, 1.0)
    along = np.hypot(np.gradient(beta_x, axis=1), np.gradient(beta_y, axis=1))
    across = np.hypot(np.gradient(beta_x, axis=0), np.gradient(beta_y, axis=0))
    return np.asarray(np.maximum(along, across))


@njit(cache=True, fastmath=True)
def _compact(steepness):  # type: ignore[no-untyped-def]
    """Share of the light at a place that counts as a point for the grid: none below steepness 1, all above 2.5."""
    s = min(max((steepness - 1) / 1.5, 0.0), 1.0)
    return s * s * (3 - 2 * s)


@njit(cache=True, fastmath=True)
def _weights(place, out):  # type: ignore[no-untyped-def]
    """Shares (6,) of a point's light that the samples from floor(place) - 2 on get, along one axis.

    The adjoint of cubic interpolation, then (1, 22, 1) / 24: the first four moments are those of the mean over a
    sample's area, wherever in it the point lies, and what is narrower than a sample hardly aliases.
    """
    u = place - math.floor(place)
    a, b = -u * (u - 1) * (u - 2) / 6, (u + 1) * (u - 1) * (u - 2) / 2
    c, d = -(u + 1) * u * (u - 2) / 2, (u + 1) * u * (u - 1) / 6
    out[0] = a / 24
    out[1] = (22 * a + b) / 24
    out[2] = (a + 22 * b + c) / 24
    out[3] = (b + 22 * c + d) / 24
    out[4] = (c + 22 * d) / 24
    out[5] = d / 24


@njit(cache=True, fastmath=True)
def _share(stamp, x, y, light, across, down):  # type: ignore[no-untyped-def]
    """Share the light of a point at (x, y) samples, at most half a one from the middle, among a stamp's (7, 7)."""
    _weights(x, across)
    _weights(y, down)
    left, top = math.floor(x) + 1, math.floor(y) + 1
    for m in range(6):
        part = down[m] * light
        for n in range(6):
            stamp[top + m, left + n] += part * across[n]


@njit(cache=True, fastmath=True)
def _deposit(image, x, y, light, steepness):  # type: ignore[no-untyped-def]
    """Add light (B, n) at samples (x, y) to an image (B, rows, columns): what is compact is shared."""
    rows, columns = image.shape[1:]
    across, down = np.empty(6), np.empty(6)
    for k in range(x.shape[0]):
        compact = _compact(steepness[k])
        i, j = math.floor(y[k] + 0.5), math.floor(x[k] + 0.5)
        for band in range(image.shape[0]):
            image[band, i, j] += light[band, k] * (1 - compact)
        if compact == 0.0:
            continue
        _weights(x[k], across)
        _weights(y[k], down)
        left, top = math.floor(x[k]) - 2, math.floor(y[k]) - 2
        for m in range(max(0, -top), min(6, rows - top)):
            for n in range(max(0, -left), min(6, columns - left)):
                share = down[m] * across[n] * compact
                for band in range(image.shape[0]):
                    image[band, top + m, left + n] += light[band, k] * share


@njit(cache=True, fastmath=True)
def _paint(canvas, rows, flux, reach, step):  # type: ignore[no-untyped-def]
    size = canvas.shape[1]
    middle = (size - 1) / 2
    stack = np.empty((3 * _MAX_DEPTH + 4, 3))  # parts still to do: x, y, side
    stamp = np.empty((7, 7))
    across, down = np.empty(6), np.empty(6)
    for c in range(rows.shape[0]):
        x0, y0 = rows[c, 0], rows[c, 1]
        first_row = max(0, math.ceil((y0 - reach[c]) / step + middle))
        last_row = min(size - 1, math.floor((y0 + reach[c]) / step + middle))
        first_column = max(0, math.ceil((x0 - reach[c]) / step + middle))
        last_column = min(size - 1, math.floor((x0 + reach[c]) / step + middle))
        for i in range(first_row, last_row + 1, 3):
            for j in range(first_column, last_column + 1, 3):
                dy, dx = (i + 1 - middle) * step - y0, (j + 1 - middle) * step - x0
                if dx * dx + dy * dy > (reach[c] + 2 * step) ** 2:
                    continue
                whole = i + 2 < size and j + 2 < size
                if whole and _paint_block(canvas, rows[c], flux[c], i, j, dx, dy, step):
                    continue
                for m in range(i, min(i + 3, size)):
                    for n in range(j, min(j + 3, size)):
                        dy, dx = (m - middle) * step - y0, (n - middle) * step - x0
                        _paint_sample(canvas, rows[c], flux[c], m, n, dx, dy, step, stack, stamp, across, down)


@njit(cache=True, fastmath=True)
def _paint_block(canvas, row, flux, i, j, dx, dy, step):  # type: ignore[no-untyped-def]
    """Nine samples from the profile and its first two derivatives at their middle; False where it is too steep."""
    _, _, radius, q, cos, sin, power, b = row
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    r2 = q * u * u + v * v / q
    t = (r2 / (radius * radius)) ** power
    if _STEPS_PER_SCALE * step * max(power * b * t, 1.0) > _GENTLE * math.sqrt(q * r2):
        return False
    fall = b * power * t / r2
    bend = fall * (fall - (power - 1) / r2)
    curvature = 4 * bend * (q * q * u * u + v * v / (q * q)) - 2 * fall * (q + 1 / q)
    value = step * step * math.exp(-b * (t - 1))
    for m in range(3):
        for n in range(3):
            du = ((n - 1) * cos + (m - 1) * sin) * step
            dv = ((m - 1) * cos - (n - 1) * sin) * step
            slope = 2 * (q * u * du + v * dv / q)
            here = 1 - fall * (slope + q * du * du + dv * dv / q) + 0.5 * bend * slope * slope
            here = value * (here + curvature * step * step / 24)
            for band in range(canvas.shape[0]):
                canvas[band, i + m, j + n] += flux[band] * here
    return True


@njit(cache=True, fastmath=True)
def _paint_sample(canvas, row, flux, i, j, left, top, step, stack, stamp, across, down):  # type: ignore[no-untyped-def]
    """One sample, cut into quarters where the profile is steep."""
    size = canvas.shape[1]
    _, _, radius, q, cos, sin, power, b = row
    scale2 = 1.0 / (radius * radius)
    fine = _STEPS_PER_SCALE / math.sqrt(q)
    cusp = min(power * power, 0.2) * radius
    smallest = step / 2**_MAX_DEPTH
    stack[0] = (left, top, step)
    depth, value, spread = 1, 0.0, False
    while depth:
        depth -= 1
        dx, dy, side = stack[depth]
        u, v = dx * cos + dy * sin, dy * cos - dx * sin
        r2 = q * u * u + v * v / q
        t = (r2 * scale2) ** power
        near = max(math.sqrt(r2) - 0.7 * side / math.sqrt(q), cusp)
        matters = near < 4 * radius or b * (t - 1) < _LAST_CUT
        if matters and fine * side * max(power * b * t, 1.0) > near and side > smallest:
            if not spread:
                spread = True
                stamp[:] = 0.0
            for k in range(4):
                stack[depth] = (dx + side / 4 * (2 * (k & 1) - 1), dy + side / 4 * ((k & 2) - 1), side / 2)
                depth += 1
        else:  # mean over the part to fourth order: the middle and the curvature there
            fall = b * power * t / max(r2, 1e-12)
            bend = fall * (fall - (power - 1) / max(r2, 1e-12))
            curvature = 4 * bend * (q * q * u * u + v * v / (q * q)) - 2 * fall * (q + 1 / q)
            more = min(max(curvature * side * side / 24, -0.5), 0.5)
            part = side * side * math.exp(-b * (t - 1)) * (1 + more)
            if spread:
                steepness = fine * step * max(power * b * t, 1.0) / max(math.sqrt(r2), cusp)
                compact = _compact(steepness) * part
                _share(stamp, (dx - left) / step, (dy - top) / step, compact, across, down)
                part -= compact
            value += part
    if not spread:
        for band in range(canvas.shape[0]):
            canvas[band, i, j] += flux[band] * value
        return
    stamp[3, 3] += value
    for m in range(max(0, 3 - i), min(7, size + 3 - i)):
        for n in range(max(0, 3 - j), min(7, size + 3 - j)):
            for band in range(canvas.shape[0]):
                canvas[band, i + m - 3, j + n - 3] += flux[band] * stamp[m, n]


@njit(cache=True, fastmath=True)
def _evaluate(out, x, y, rows, peak):  # type: ignore[no-untyped-def]
    for c in range(rows.shape[0]):
        x0, y0, radius, q, cos, sin, power, b = rows[c]
        scale2 = 1.0 / (radius * radius)
        far = (1 + _DARK / b) ** (1 / power)
        for k in range(x.shape[0]):
            dx, dy = x[k] - x0, y[k] - y0
            along, across = dx * cos + dy * sin, dy * cos - dx * sin
            r2 = (q * along * along + across * across / q) * scale2
            if r2 > far:
                continue
            value = math.exp(-b * (r2**power - 1))
            for band in range(out.shape[0]):
                out[band, k] += peak[c, band] * value


@njit(cache=True, fastmath=True)
def _changes(split, steepness, x, y, spread, samples, rows, peak, negligible):  # type: ignore[no-untyped-def]
    for c in range(rows.shape[0]):
        x0, y0, radius, q, cos, sin, power, b = rows[c]
        fine = _RAYS_PER_SCALE / math.sqrt(q)
        cusp = min(2 * power * power, 0.4) * radius  # inside it a profile is flat, or holds little light
        depth = math.log(max(peak[c], 1e-300) / max(negligible, 1e-300))
        if depth <= -b:
            continue
        far = radius * (1 + depth / b) ** (0.5 / power)  # beyond it this component does not matter
        for k in range(x.shape[0]):
            dx, dy = x[k] - x0, y[k] - y0
            along, across = dx * cos + dy * sin, dy * cos - dx * sin
            r = math.sqrt(q * along * along + across * across / q)
            near = max(r - 0.7 * spread[k] / math.sqrt(q), cusp)
            if near > far:
                continue
            slope = max(2 * power * b * (near / radius) ** (2 * power), 1.0)
            split[k] |= fine * spread[k] * slope > near
            steepness[k] = max(steepness[k], fine * spread[k] * samples * slope / max(r, cusp))
