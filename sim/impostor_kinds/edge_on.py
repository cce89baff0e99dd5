"""Edge-on discs: straight or warped, with bulge and dust lane; alone, or tangential beside an early type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import cos, exp, log, sin

import numba
import numpy as np

from sim.impostor_kinds.stage import Painted, Stage, likeness, young
from sim.population import Sersic, magnitude
from sim.populations.photometry import Colour
from sim.scene import Grid
from stages.records import FloatArray

_REACH = 6.0  # scale lengths or heights, beyond which nothing is painted
_FINEST = 0.5  # scale heights between samples
_I_PER_REDDENING = 1.9  # A_i / E(B-V) (Cardelli, Clayton & Mathis 1989)


@dataclass(frozen=True, eq=False)
class EdgeOn:
    """A disc seen from its plane: exponential along, sech^2 across (van der Kruit & Searle 1981).

    length, height : scales in arcsec; warp_s, warp_u : how far the plane has moved, in scale lengths, one scale length
    beyond `flat` of them: to opposite sides at the two ends (S), or to the same side (U); flux (B,) without dust.
    depth (B,) : optical depth of the lane through the centre; lane : its offset across in scale heights.
    """

    x: float
    y: float
    length: float
    height: float
    pa: float
    flux: FloatArray
    depth: FloatArray
    lane: float = 0.0
    warp_s: float = 0.0
    warp_u: float = 0.0
    flat: float = 0.5


def paint_edge_on(canvas: FloatArray, grid: Grid, disc: EdgeOn) -> None:
    """Add an edge-on disc to a canvas (B, size, size) in flux per sample."""
    ends = _REACH * disc.length
    rows, columns = grid.window(disc.x, disc.y, ends)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    fine = int(np.clip(np.ceil(grid.step / (_FINEST * disc.height)), 1, 6))
    share = grid.step**2 / (fine**2 * 2 * disc.length * _along_integral() * 2 * disc.height)
    origin = -(grid.size - 1) / 2 * grid.step
    _add(
        canvas[:, rows, columns], (disc.flux * share).astype(np.float32), disc.depth.astype(np.float32),
        origin + columns.start * grid.step - disc.x, origin + rows.start * grid.step - disc.y, grid.step, fine,
        cos(disc.pa), sin(disc.pa), disc.length, disc.height, disc.lane, disc.warp_s, disc.warp_u, disc.flat,
    )  # fmt: skip


def edge_on(s: Stage) -> Painted:
    """A lone edge-on galaxy: from a thin bulgeless needle to a lenticular, dusty or not, warped like a bow at times."""
    m = magnitude(s.rng, s.prior.field_magnitude, 0.25) + 0.5
    length = float(np.clip(s.rng.lognormal(np.log(0.9 * 10 ** (0.12 * (20 - m))), 0.35), 0.25, 3.0))
    colour = s.photometry.star_forming(s.rng, None, float(s.rng.uniform(0.03, 0.5)))
    _paint_galaxy(s, (0.0, 0.0), m, length, s.angle(), colour)
    return Painted([], True)


def tangential(s: Stage) -> Painted:
    """An early type with one or two edge-on neighbours as far, as bright and lying as arcs do."""
    rng, p = s.rng, s.photometry
    like = likeness(s)
    s.paint(*like.lens.light)
    i_band = like.source.i_magnitude - 2.5 * np.log10(like.gain)
    for k in range(1 if len(like.gain) == 1 or s.chance(0.7) else 2):
        distance = float(np.maximum(like.distance[k], like.theta_e) * rng.uniform(0.9, 1.5))
        angle = s.angle()
        length = float(np.clip(like.theta_e * rng.uniform(0.2, 0.6), 0.12, 1.2))
        colour = young(s) if s.chance(0.7) else p.star_forming(rng)
        xy = (distance * float(np.cos(angle)), distance * float(np.sin(angle)))
        _paint_galaxy(s, xy, float(i_band[k]), length, angle + np.pi / 2 + 0.12 * float(rng.normal()), colour)
    return Painted([], True)


def _paint_galaxy(
    s: Stage, xy: tuple[float, float], i_magnitude: float, length: float, pa: float, colour: Colour
) -> None:
    """An edge-on disc with the bulge, dust and warp that such discs have."""
    rng, p = s.rng, s.photometry
    in_bulge = float(rng.beta(0.8, 4.0))
    dust = float(rng.gamma(2.0, 0.25)) if s.chance(0.7) else 0.0  # E(B-V) through the lane
    reddening = p.redder(colour, dust) - colour + _I_PER_REDDENING * dust
    warped = s.chance(0.35)
    disc = EdgeOn(
        *xy, length, length * float(rng.uniform(0.07, 0.25)), pa,
        (1 - in_bulge) * p.flux(i_magnitude, colour), np.clip(reddening / 1.086, 0, 8), float(rng.normal(0, 0.5)),
        float(rng.normal(0, 0.03)) if warped else 0.0, float(rng.normal(0, 0.03)) if warped else 0.0,
        float(rng.uniform(0.0, 1.5)),
    )  # fmt: skip
    paint_edge_on(s.canvas, s.grid, disc)
    bulge = p.flux(i_magnitude, p.redder(colour, float(rng.uniform(0.0, 0.3))))
    round_part = Sersic(*xy, length * float(rng.uniform(0.12, 0.35)), float(rng.uniform(1, 3)), 0.7, pa, bulge)
    s.paint(replace(round_part, flux=in_bulge * bulge))


@lru_cache(maxsize=1)
def _along_integral() -> float:
    """Integral from zero of x K1(x) as `_add` writes it, in scale lengths."""
    x = np.linspace(0, _REACH, 6001)
    return float(np.trapezoid(np.exp(-x) * np.sqrt(1 + np.pi / 2 * x), x))


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _add(
    canvas: FloatArray, flux: FloatArray, depth: FloatArray, x0: float, y0: float, step: float, fine: int,
    cosine: float, sine: float, length: float, height: float, lane: float, warp_s: float, warp_u: float, flat: float,
) -> None:  # fmt: skip
    """Sum of `fine` by `fine` points in each sample; x K1(x), a disc edge-on, as exp(-x) sqrt(1 + pi x / 2)."""
    dusty = depth.max() > 0.0
    for row in range(canvas.shape[1]):
        for column in range(canvas.shape[2]):
            for part in range(fine * fine):
                dx = x0 + (column + ((part % fine) + 0.5) / fine - 0.5) * step
                dy = y0 + (row + ((part // fine) + 0.5) / fine - 0.5) * step
                along = (dx * cosine + dy * sine) / length
                r = abs(along)
                beyond = max(r - flat, 0.0)
                moved = (warp_u + (warp_s if along > 0 else -warp_s)) * beyond * beyond * length
                across = (dy * cosine - dx * sine - moved) / height
                if r > 6.0 or abs(across) > 9.0:
                    continue
                t = exp(-abs(across))
                value = exp(-r + 0.5 * log(1 + 1.5708 * r)) * 4 * t * t / (1 + t * t) ** 2
                screen = 0.7 * exp(-r / 1.3 - (across - lane) * (across - lane) / 0.16) if dusty else 0.0
                for b in range(canvas.shape[0]):
                    canvas[b, row, column] += flux[b] * value * (exp(-depth[b] * screen) if dusty else 1.0)
