"""What no galaxy does: saturated stars, ghosts, trails, bleeding and one-band streaks at the place of the object.

Light painted here passes through the PSF like any other; defects of single pixels are `sim/artefacts.py`.
"""

from __future__ import annotations

import numpy as np

from sim.interacting import strand
from sim.population import magnitude
from sim.stage import Painted, Points, Stage, likeness
from sim.strokes import Disc, Layer, mesh, paint_disc, paint_spots
from stages.records import FloatArray


def saturated_star(s: Stage) -> Painted:
    """A star far brighter than the detector holds, its glare and its bleeding column; alone or beside the object."""
    rng = s.rng
    beside = s.chance(0.4)
    flux = s.photometry.flux(float(rng.uniform(10.5, 14.5)), s.photometry.star(rng))
    r, angle = float(rng.uniform(2.0, 5.0)) if beside else 0.0, s.angle()
    x, y = r * float(np.cos(angle)), r * float(np.sin(angle))
    if beside:
        s.paint(likeness(s).core)
    _paint_glare(s, (x, y), float(rng.uniform(0.5, 2.5)), float(np.exp(rng.uniform(-6.5, -4.5))) * flux)
    if s.chance(0.5):
        reach = float(rng.uniform(1.0, 8.0))
        _paint_column(s, x, y, reach, float(np.exp(rng.uniform(-6, -3.5))) * flux)
    return Painted([(x, y, flux)], beside)


def ghost(s: Stage) -> Painted:
    """A ghost ring: the out-of-focus pupil of a bright star, off-centre, over an early type or by itself."""
    rng = s.rng
    like = likeness(s)
    has_galaxy = s.chance(0.7)
    if has_galaxy:
        s.paint(like.core)
    radius, hole = like.theta_e * float(rng.uniform(0.8, 2.0)), float(rng.uniform(0.2, 0.85))
    shift = radius * 0.4 * rng.normal(size=2)
    r, phi = mesh()
    soft = 0.05
    shade = 1 / ((1 + np.exp((r - 1) / soft)) * (1 + np.exp((hole - r) / soft)))
    shade = shade * np.ones_like(phi) * (1 - 0.15 * (np.cos(2 * phi) ** 60))  # the vanes' shadow
    tint = _one_sided(s, like.lensed_flux) if s.chance(0.5) else like.lensed_flux
    layer = Layer(np.asarray(shade, np.float32), tint * float(rng.uniform(0.5, 1.5)))
    at = shift if has_galaxy else np.zeros(2)
    pa = s.angle()
    paint_disc(s.canvas, s.grid, Disc(float(at[0]), float(at[1]), radius, float(rng.uniform(0.85, 1.0)), pa, (layer,)))
    return Painted([], has_galaxy)


def trail(s: Stage) -> Painted:
    """A satellite's or meteor's trail through or past a galaxy, in one band or in all, steady or glinting."""
    rng = s.rng
    like = likeness(s)
    s.paint(like.core)
    angle, miss = s.angle(), like.theta_e * float(rng.normal(0, 0.8))
    half = 0.75 * s.grid.size * s.grid.step
    t = np.linspace(-half, half, 80)
    x, y = t * np.cos(angle) - miss * np.sin(angle), t * np.sin(angle) + miss * np.cos(angle)
    weight = np.ones(80) if s.chance(0.7) else 1 + 0.7 * np.sin(t * float(rng.uniform(0.5, 4)) + s.angle())
    flux = like.lensed_flux * float(np.exp(rng.uniform(0.5, 2.5)))
    if s.chance(0.75):
        flux = _one_sided(s, flux)
    strand(s, x, y, np.full(80, float(rng.uniform(0.05, 0.35))), flux, weight)
    return Painted([], True)


def streak(s: Stage) -> Painted:
    """A short streak of one band near a galaxy: an asteroid, an unrejected cosmic ray or a glint."""
    rng = s.rng
    like = likeness(s)
    s.paint(like.core)
    for _ in range(1 if s.chance(0.7) else 2):
        r, angle, turn = like.theta_e * float(rng.uniform(0.5, 2.0)), s.angle(), s.angle()
        half = float(rng.uniform(0.1, 1.2))
        t = np.linspace(-half, half, 12)
        bend = float(rng.normal(0, 0.08)) * (t / half) ** 2
        x = r * np.cos(angle) + t * np.cos(turn) - bend * np.sin(turn)
        y = r * np.sin(angle) + t * np.sin(turn) + bend * np.cos(turn)
        sigma = np.full(12, float(rng.uniform(0.03, 0.15)))
        strand(s, x, y, sigma, _one_sided(s, like.lensed_flux) * float(rng.uniform(0.3, 1.2)), np.ones(12))
    return Painted([], True)


def bleed(s: Stage) -> Painted:
    """A column of charge from a bright star outside the frame, crossing beside a galaxy."""
    rng = s.rng
    like = likeness(s)
    s.paint(like.core)
    x = float(rng.choice([-1, 1])) * like.theta_e * float(rng.uniform(0.3, 2.0))
    flux = s.photometry.flux(magnitude(rng, s.prior.field_magnitude) - 1.0, s.photometry.star(rng))
    _paint_column(s, x, 0.0, 0.75 * s.grid.size * s.grid.step, _one_sided(s, flux) if s.chance(0.5) else flux)
    points: Points = []
    return Painted(points, True)


def _one_sided(s: Stage, flux: FloatArray) -> FloatArray:
    """The flux of one band only, since only one exposure has it; of all bands where there is but one."""
    only = np.zeros_like(flux)
    band = int(s.rng.integers(len(flux)))
    only[band] = flux[band]
    return only


def _paint_glare(s: Stage, xy: tuple[float, float], sigma: float, flux: FloatArray) -> None:
    """A faint wide glow in three steps, as reflections in the corrector leave it."""
    wide = sigma * np.array([1.0, 2.0, 4.0])
    share = np.array([0.5, 0.3, 0.2])
    paint_spots(s.canvas, s.grid, np.full(3, xy[0]), np.full(3, xy[1]), wide, share[:, None] * flux)


def _paint_column(s: Stage, x: float, y: float, reach: float, flux: FloatArray) -> None:
    """A straight line along a column of the detector (up or across, by the survey's orientation)."""
    t = np.linspace(-reach, reach, 40)
    width = np.full(40, float(s.rng.uniform(0.3, 0.8)) * 2 * s.grid.step)
    fade = np.clip((1 - np.abs(t) / reach) / 0.1, 0.05, 1)
    strand(s, np.full(40, x), y + t, width, flux, fade)
