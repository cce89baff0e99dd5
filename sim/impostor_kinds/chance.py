"""Stars and quasars that nothing lenses: alone, over a galaxy, and in the company that images keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.impostor_kinds.stage import Painted, Points, Stage, likeness
from sim.population import blue_galaxy, magnitude
from sim.populations.photometry import Colour

_CLOSEST = 0.35  # arcsec between points that a catalogue would list as two


def chance_points(s: Stage) -> Painted:
    """Two to four stars or quasars as far apart and as bright as images, with a galaxy between them or not.

    Colours are like (binary quasars, or stars of one type) or unlike; distances are those of a drawn lens's images, the
    directions are chance; in a third they stand at an image's place but for one.
    """
    rng = s.rng
    like = likeness(s, "quasar")
    has_galaxy = s.chance(0.65)
    if has_galaxy:
        galaxy = like.core if s.chance(0.8) else replace(like.core, flux=0.3 * like.core.flux)
        off = (0.0, 0.0) if s.chance(0.7) else (float(rng.normal(0, 0.4)), float(rng.normal(0, 0.4)))
        s.paint(replace(galaxy, x=off[0], y=off[1]))
    number = int(rng.choice([2, 3, 4], p=[0.4, 0.3, 0.3]))
    shared = _colour(s) if s.chance(0.5) else None
    kept = s.chance(1 / 3)
    bright = like.source.i_magnitude - 2.5 * np.log10(like.gain)
    points: Points = []
    for k in range(number):
        colour = _colour(s) if shared is None else shared + 0.03 * rng.normal(size=len(shared))
        m = float(bright[min(k, len(bright) - 1)] + rng.normal(0, 0.5))
        x, y = _apart(s, points, like.theta_e, like.angle[k] if kept and 0 < k < len(like.angle) else None)
        points.append((x, y, s.photometry.flux(m, colour)))
    return Painted(points, has_galaxy)


def star_galaxy(s: Stage) -> Painted:
    """A star, or two, over an early type or a disc."""
    rng = s.rng
    like = likeness(s)
    if s.chance(0.6):
        s.paint(like.core)
    else:
        m = magnitude(rng, s.prior.field_magnitude, 0.25) + 1.0
        s.paint(*blue_galaxy(rng, s.photometry, m, (0.0, 0.0), float(np.clip(rng.lognormal(-0.5, 0.4), 0.15, 2.0))))
    points: Points = []
    for _ in range(1 if s.chance(0.75) else 2):
        x, y = _apart(s, points, like.theta_e, None)
        faint = magnitude(rng, s.prior.field_magnitude, 0.25) + 2.0
        points.append((x, y, s.photometry.flux(faint, s.photometry.star(rng))))
    return Painted(points, True)


def star(s: Stage) -> Painted:
    """A lone star, at times with a faint galaxy or a fainter star beside it."""
    rng = s.rng
    m = float(rng.uniform(14.5, 22.5))
    points: Points = [(0.0, 0.0, s.photometry.flux(m, s.photometry.star(rng)))]
    if s.chance(0.25):
        xy = (float(rng.normal(0, 1.0)), float(rng.normal(0, 1.0)))
        s.paint(*blue_galaxy(rng, s.photometry, m + 2.0, xy, float(rng.uniform(0.3, 1.0))))
    if s.chance(0.25):
        second = s.photometry.flux(m + float(abs(rng.normal(0, 2.0))), s.photometry.star(rng))
        points.append((*_apart(s, points, 1.5, None), second))
    return Painted(points, False)


def quasar(s: Stage) -> Painted:
    """A lone quasar in its host."""
    rng = s.rng
    like = likeness(s, "quasar")
    m = like.source.i_magnitude - 2.5 * float(np.log10(like.gain[0]))
    radius = float(rng.uniform(0.2, 0.8))
    s.paint(*blue_galaxy(rng, s.photometry, m + float(rng.uniform(0.5, 3)), (0.0, 0.0), radius, like.source.z))
    return Painted([(0.0, 0.0, s.photometry.flux(m, s.photometry.quasar(rng, like.source.z)))], True)


def _colour(s: Stage) -> Colour:
    """Two in three are stars: at these magnitudes they outnumber quasars."""
    if s.chance(0.6):
        return s.photometry.star(s.rng)
    return s.photometry.quasar(s.rng, float(s.rng.uniform(*s.prior.z_source)))


def _apart(s: Stage, points: Points, distance: float, angle: float | None) -> tuple[float, float]:
    """A place at about this distance from the centre that is not on top of another point."""
    x = y = 0.0
    for _ in range(20):
        r = distance * float(np.exp(s.rng.normal(0, 0.25)))
        turn = s.angle() if angle is None else angle
        x, y = r * float(np.cos(turn)), r * float(np.sin(turn))
        if all(np.hypot(x - p[0], y - p[1]) > _CLOSEST for p in points):
            break
        angle = None
    return x, y
