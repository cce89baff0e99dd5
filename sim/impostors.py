"""What fools finders: each function paints one kind of non-lens and returns its point sources and main position.

Colours, magnitudes and sizes come from the same priors as the lenses', so that only the morphology tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.population import (
    Photometry,
    Population,
    Sersic,
    blue_colour,
    blue_galaxy,
    deflector,
    early_colour,
    early_type,
    magnitude,
    moved,
    star_colour,
)
from sim.scene import Grid, paint
from stages.records import FloatArray

Points = list[tuple[float, float, FloatArray]]


@dataclass(frozen=True, eq=False)
class Stage:
    """What an impostor is painted with: the canvas (B, size, size) is changed in place."""

    rng: np.random.Generator
    canvas: FloatArray
    grid: Grid
    photometry: Photometry
    prior: Population


@dataclass(frozen=True, eq=False)
class Painted:
    """Point sources added, and whether a galaxy at the centre could pass for a deflector."""

    points: Points
    has_galaxy: bool


def early(s: Stage) -> Painted:
    """A lone early type, drawn as the deflectors are, companions included."""
    paint(s.canvas, s.grid, deflector(s.rng, s.photometry, s.prior).light)
    return Painted([], True)


def blend(s: Stage) -> Painted:
    """An early type with one to four unlensed blue galaxies where arcs would be, some edge-on and tangential."""
    lens = deflector(s.rng, s.photometry, s.prior)
    paint(s.canvas, s.grid, lens.light)
    for _ in range(int(s.rng.choice([1, 1, 1, 2, 2, 3, 4]))):
        r, angle = lens.theta_e * s.rng.uniform(0.7, 2.0), s.rng.uniform(0, 2 * np.pi)
        xy = (r * np.cos(angle), r * np.sin(angle))
        m = magnitude(s.rng, s.prior.source_magnitude) - 2.5 * np.log10(s.rng.uniform(1.5, 8.0))
        radius = float(np.clip(s.rng.lognormal(np.log(0.35), 0.4), 0.08, 1.0))
        parts = blue_galaxy(s.rng, s.photometry, m, xy, radius)
        if s.rng.random() < 0.35:
            parts = tuple(Sersic(p.x, p.y, p.radius * 1.5, p.index, 0.2, angle + np.pi / 2, p.flux) for p in parts[:1])
        paint(s.canvas, s.grid, parts)
    return Painted([], True)


def spiral(s: Stage) -> Painted:
    """A face-on to inclined spiral, with or without a bulge and a bar, arms blue on a redder disc."""
    _disc(s, ring=False)
    return Painted([], True)


def ring_galaxy(s: Stage) -> Painted:
    """A ring or collisional-ring galaxy: a blue or grey ring round a red core that may sit off its centre."""
    _disc(s, ring=True)
    return Painted([], True)


def _disc(s: Stage, ring: bool) -> None:
    rng, grid = s.rng, s.grid
    m = magnitude(rng, s.prior.field_magnitude, 0.2)
    scale = float(np.clip(rng.lognormal(np.log(1.3 * 10 ** (0.12 * (20 - m))), 0.3), 0.3, 3.5))
    q, pa = rng.uniform(0.45, 1.0), rng.uniform(0, np.pi)
    x, y = np.meshgrid(grid.axis, grid.axis)
    along, across = x * np.cos(pa) + y * np.sin(pa), (y * np.cos(pa) - x * np.sin(pa)) / q
    r, phi = np.hypot(along, across), np.arctan2(across, along)
    z = rng.uniform(0.05, 0.6)
    if ring:
        radius, width = scale * rng.uniform(1.0, 1.8), rng.uniform(0.12, 0.35)
        pattern = np.exp(-0.5 * ((r / radius - 1) / width) ** 2) * _knots(rng, phi)
        disc_share = rng.uniform(0.0, 0.4)
    else:
        m_arms, pitch = int(rng.choice([1, 2, 2, 2, 3, 4])), np.radians(rng.uniform(8, 30))
        phase = m_arms * (phi - np.log(np.maximum(r, 0.02) / scale) / np.tan(pitch) + rng.uniform(0, 2 * np.pi))
        sharp = rng.uniform(1.0, 5.0)
        inner = 1 / (1 + np.exp(-(r - rng.uniform(0.2, 1.0) * scale) / (0.1 * scale)))
        pattern = np.exp(-r / scale) * inner * np.exp(sharp * (np.cos(phase) - 1)) * _knots(rng, phi)
        disc_share = rng.uniform(0.15, 0.6)
    arms = s.photometry.flux(m, blue_colour(rng, rng.uniform(0.0, 0.5)))
    old = s.photometry.flux(m, blue_colour(rng, rng.uniform(0.5, 1.0)))
    disc = np.exp(-r / scale)
    s.canvas[:] += (1 - disc_share) * arms[:, None, None] * pattern / pattern.sum()
    s.canvas[:] += disc_share * old[:, None, None] * disc / disc.sum()
    if rng.random() < 0.9:
        core = s.photometry.flux(m + rng.uniform(-0.7, 2.0), early_colour(z, rng))
        offset = scale * (0.35 if ring and rng.random() < 0.3 else 0.02) * rng.normal(size=2)
        paint(
            s.canvas,
            grid,
            [
                Sersic(
                    offset[0],
                    offset[1],
                    scale * rng.uniform(0.15, 0.5),
                    rng.uniform(1, 4),
                    rng.uniform(0.6, 1),
                    pa,
                    core,
                )
            ],
        )
    if not ring and rng.random() < 0.35:
        bar = s.photometry.flux(m + rng.uniform(0.8, 2.0), early_colour(z, rng))
        paint(s.canvas, grid, [Sersic(0, 0, scale * rng.uniform(0.4, 0.9), 0.6, 0.25, rng.uniform(0, np.pi), bar)])


def _knots(rng: np.random.Generator, phi: FloatArray) -> FloatArray:
    """Brightness along an arm or ring: a smooth random modulation in azimuth."""
    out = np.ones_like(phi)
    for order in range(1, 7):
        out += rng.uniform(0, 0.35) * np.cos(order * phi + rng.uniform(0, 2 * np.pi))
    return np.clip(out, 0.05, None)


def merger(s: Stage) -> Painted:
    """Two or three galaxies in contact with tidal tails or shells."""
    rng, grid = s.rng, s.grid
    z, m = rng.uniform(0.1, 0.7), magnitude(rng, s.prior.field_magnitude, 0.2)
    red = rng.random() < 0.5
    for k in range(int(rng.integers(2, 4))):
        r, angle = (0.0 if k == 0 else rng.uniform(0.6, 2.8)), rng.uniform(0, 2 * np.pi)
        colour = early_colour(z, rng) if red else blue_colour(rng)
        flux = s.photometry.flux(m + (0.0 if k == 0 else rng.uniform(0, 2)), colour)
        size = float(np.clip(rng.lognormal(np.log(0.6), 0.4), 0.15, 2.0))
        part = Sersic(r * np.cos(angle), r * np.sin(angle), size, rng.uniform(1, 4), rng.uniform(0.4, 1), angle, flux)
        paint(s.canvas, grid, [part])
    x, y = np.meshgrid(grid.axis, grid.axis)
    for _ in range(int(rng.integers(1, 4))):
        radius, start, length = rng.uniform(1.0, 4.0), rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2.5)
        cx, cy = rng.normal(0, 0.7 * radius, 2)
        r, phi = np.hypot(x - cx, y - cy), np.mod(np.arctan2(y - cy, x - cx) - start, 2 * np.pi)
        drift = radius * (1 + rng.uniform(-0.5, 0.5) * phi)
        tail = np.exp(-0.5 * ((r - drift) / rng.uniform(0.15, 0.45)) ** 2) * np.exp(-phi / length) * (phi < 2 * length)
        if tail.sum() > 0:
            tint = early_colour(z, rng) if red else blue_colour(rng)
            s.canvas[:] += s.photometry.flux(m + rng.uniform(1.5, 3.5), tint)[:, None, None] * tail / tail.sum()
    return Painted([], True)


def edge_on(s: Stage) -> Painted:
    """An edge-on or very elongated galaxy, straight where an arc would bend."""
    rng = s.rng
    m = magnitude(rng, s.prior.field_magnitude, 0.2) + 0.5
    pa, q = rng.uniform(0, np.pi), rng.uniform(0.1, 0.3)
    radius = float(np.clip(rng.lognormal(np.log(1.2), 0.4), 0.3, 3.0))
    disc = Sersic(0, 0, radius, 1.0, q, pa, s.photometry.flux(m, blue_colour(rng)))
    bulge = Sersic(0, 0, 0.2 * radius, 3.0, 0.7, pa, s.photometry.flux(m + rng.uniform(0.5, 3), early_colour(0.3, rng)))
    paint(s.canvas, s.grid, [disc, bulge])
    return Painted([], True)


def group(s: Stage) -> Painted:
    """Several red galaxies of one redshift, and blue ones scattered around them."""
    rng = s.rng
    z = rng.uniform(*s.prior.z_deflector)
    for k in range(int(rng.integers(2, 6))):
        spread = 0.0 if k == 0 else 2.5
        paint(
            s.canvas,
            s.grid,
            [early_type(rng, s.photometry, z, rng.uniform(150, 300), _near(rng, spread))],
        )
    for _ in range(int(rng.integers(0, 5))):
        m = magnitude(rng, s.prior.neighbour_magnitude)
        paint(s.canvas, s.grid, blue_galaxy(rng, s.photometry, m, _near(rng, 3.0), rng.uniform(0.15, 0.6)))
    return Painted([], True)


def _near(rng: np.random.Generator, spread: float) -> tuple[float, float]:
    x, y = rng.normal(0, 1, 2)
    return spread * x, spread * y


def chance_points(s: Stage) -> Painted:
    """Two to four stars or unlensed quasars together, like or unlike in colour, with a galaxy between them or not."""
    rng = s.rng
    has_galaxy = rng.random() < 0.7
    if has_galaxy:
        paint(s.canvas, s.grid, deflector(rng, s.photometry, s.prior).light[:1])
    like = blue_colour(rng, rng.uniform(0, 0.6)) if rng.random() < 0.5 else None
    m0 = magnitude(rng, s.prior.quasar_magnitude) - 1.0
    points: Points = []
    for _ in range(int(rng.integers(2, 5))):
        r, angle = rng.uniform(0.4, 2.6), rng.uniform(0, 2 * np.pi)
        colour = star_colour(rng) if like is None else like
        points.append((r * np.cos(angle), r * np.sin(angle), s.photometry.flux(m0 + abs(rng.normal(0, 1.2)), colour)))
    return Painted(points, has_galaxy)


def star(s: Stage) -> Painted:
    """A star, often bright enough to saturate, alone or over a faint galaxy."""
    rng = s.rng
    m = rng.uniform(13.5, 22.0)
    if rng.random() < 0.3:
        paint(s.canvas, s.grid, blue_galaxy(rng, s.photometry, m + 2, _near(rng, 1.0), rng.uniform(0.3, 1.0)))
    return Painted([(0.0, 0.0, s.photometry.flux(m, star_colour(rng)))], False)


def quasar(s: Stage) -> Painted:
    """A lone quasar in its host."""
    rng = s.rng
    m = magnitude(rng, s.prior.quasar_magnitude) - 1.0
    paint(s.canvas, s.grid, blue_galaxy(rng, s.photometry, m + rng.uniform(0.5, 3), (0.0, 0.0), rng.uniform(0.2, 0.8)))
    return Painted([(0.0, 0.0, s.photometry.flux(m, blue_colour(rng, 0.3)))], True)


def field(s: Stage) -> Painted:
    """An ordinary galaxy of the field at the centre, of any colour and brightness, beside a bright group at times."""
    rng = s.rng
    m = magnitude(rng, s.prior.field_magnitude) + rng.uniform(0, 3.0)
    if rng.random() < 0.4:
        z = 0.05 + 0.85 * rng.random() ** (1 / 3)  # equal numbers per volume
        paint(s.canvas, s.grid, [early_type(rng, s.photometry, z, rng.uniform(90, 260))])
    else:
        radius = float(np.clip(rng.lognormal(np.log(0.45 * 10 ** (0.1 * (21 - m))), 0.35), 0.08, 3.0))
        paint(s.canvas, s.grid, blue_galaxy(rng, s.photometry, m, (0.0, 0.0), radius))
    if rng.random() < s.prior.crowded_fraction:
        r, angle = rng.uniform(3.0, 9.0), rng.uniform(0, 2 * np.pi)
        lens = deflector(rng, s.photometry, s.prior)
        paint(s.canvas, s.grid, [moved(part, r * np.cos(angle), r * np.sin(angle)) for part in lens.light])
    return Painted([], True)


KINDS: dict[str, Callable[[Stage], Painted]] = {
    "early_type": early,
    "blend": blend,
    "spiral": spiral,
    "ring_galaxy": ring_galaxy,
    "merger": merger,
    "edge_on": edge_on,
    "group": group,
    "chance_points": chance_points,
    "star": star,
    "quasar": quasar,
    "field": field,
}
