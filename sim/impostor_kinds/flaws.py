"""What no galaxy does: saturated stars, ghosts, trails, bleeding and one-band streaks at the object.

Light painted here passes through the PSF like any other; defects of single pixels are `sim/instrument/artefacts.py`.
"""

from __future__ import annotations

import numpy as np

from sim.impostor_kinds.interacting import strand
from sim.impostor_kinds.stage import Painted, Stage, likeness
from sim.impostor_kinds.strokes import Disc, Layer, mesh, paint_disc, paint_spots
from stages.records import FloatArray


def saturated_star(s: Stage) -> Painted:
    """A star far brighter than the detector holds, with its glare; alone or beside the object."""
    rng = s.rng
    beside = s.chance(0.4)
    flux = s.photometry.flux(float(rng.uniform(12.0, 16.5)), s.photometry.star(rng))
    r, angle = float(rng.uniform(2.0, 5.0)) if beside else 0.0, s.angle()
    x, y = r * float(np.cos(angle)), r * float(np.sin(angle))
    if beside:
        s.paint(likeness(s).core)
    _paint_glare(s, (x, y), float(rng.uniform(0.5, 2.5)), float(np.exp(rng.uniform(-6.5, -4.5))) * flux)
    return Painted([(x, y, flux)], beside)


def ghost(s: Stage) -> Painted:
    """A ghost ring: the out-of-focus pupil of a bright star, off-centre, over an early type or by itself."""
    rng = s.rng
    like = likeness(s, resolved=True)
    has_galaxy = s.chance(0.7)
    if has_galaxy:
        s.paint(like.core)
    size, hole = float(rng.uniform(0.8, 2.5)), float(rng.uniform(0.2, 0.85))
    radius = like.theta_e * size
    shift = radius * 0.4 * rng.normal(size=2)
    r, phi = mesh()
    soft = 0.05
    shade = 1 / ((1 + np.exp(np.minimum((r - 1) / soft, 50))) * (1 + np.exp((hole - r) / soft)))
    shade = shade * np.ones_like(phi) * (1 - 0.15 * (np.cos(2 * phi) ** 60))  # the vanes' shadow
    tint = _one_sided(s, like.lensed_flux) if s.chance(0.5) else like.lensed_flux
    layer = Layer(np.asarray(shade, np.float32), tint * size**2 * float(rng.uniform(0.7, 2.5)))
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
    """A galaxy in the column into which a saturated star bleeds (see `sim.instrument.artefacts.saturate`)."""
    rng = s.rng
    like = likeness(s)
    s.paint(like.core)
    x, y = like.theta_e * float(rng.normal(0, 1.0)), float(rng.choice([-1, 1])) * float(rng.uniform(2.5, 7.0))
    return Painted([(x, y, s.photometry.flux(float(rng.uniform(12.0, 15.0)), s.photometry.star(rng)))], True)


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
