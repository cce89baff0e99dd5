"""Ordinary galaxies in misleading company: early types alone, with unlensed blue galaxies, in groups, with dwarfs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.impostor_kinds.stage import Likeness, Painted, Stage, likeness, young
from sim.population import Sersic, blue_galaxy, deflector, early_type, moved
from sim.populations.counts import galaxy_magnitudes
from sim.populations.neighbours import field_galaxies

_MIN_BLUE, _MAX_BLUE = 0.06, 1.2  # arcsec: half-light radii of painted companions


def early(s: Stage) -> Painted:
    """A lone early type, drawn as the deflectors are, companions included."""
    s.paint(*deflector(s.rng, s.photometry, s.prior).light)
    return Painted([], True)


def blend(s: Stage) -> Painted:
    """A deflector with unlensed blue galaxies in place of a source's images: the strongest impostor.

    As many as the images are, at their distances, with their fluxes and areas; only directions and shapes are chance:
    random angles in two of three, else all on one side. In half they share one colour, as images do.
    """
    like = likeness(s)
    s.paint(*like.lens.light)
    number = len(like.gain) if s.chance(0.6) else int(s.rng.integers(1, len(like.gain) + 1))
    same = s.chance(0.5)
    side = s.angle() if s.chance(1 / 3) else None
    for k in range(number):
        angle = s.angle() if side is None else side + 0.5 * float(s.rng.normal())
        distance = float(like.distance[k] * s.rng.uniform(0.85, 1.25)) + 0.05
        _paint_blue(s, like, k, (distance * np.cos(angle), distance * np.sin(angle)), same)
    return Painted([], True)


def blue_group(s: Stage) -> Painted:
    """Two to six blue galaxies of one redshift around a red one, near enough to make a broken ring of chance."""
    rng = s.rng
    like = likeness(s)
    s.paint(like.core)
    start, number = s.angle(), int(rng.integers(2, 7))
    ringed = s.chance(0.5)
    for k in range(number):
        angle = start + 2 * np.pi * (k + 0.35 * float(rng.normal())) / number if ringed else s.angle()
        distance = like.theta_e * float(np.exp(rng.normal(0.2, 0.25)))
        k_image = int(rng.integers(len(like.gain)))
        _paint_blue(s, like, k_image, (distance * np.cos(angle), distance * np.sin(angle)), True)
    return Painted([], True)


def red_group(s: Stage) -> Painted:
    """Two to six early types of one redshift within a few arcsec, and now and then a blue galaxy between them."""
    rng = s.rng
    like = likeness(s)
    s.paint(like.core)
    for _ in range(int(rng.integers(1, 6))):
        distance, angle = float(rng.uniform(0.8, 4.5)), s.angle()
        dispersion = like.lens.velocity_dispersion_km_s * float(rng.uniform(0.45, 1.0))
        xy = (distance * float(np.cos(angle)), distance * float(np.sin(angle)))
        s.paint(early_type(rng, s.photometry, like.lens.z, dispersion, xy))
    if s.chance(0.4):
        _paint_blue(s, like, 0, (float(rng.normal(0, 2.0)), float(rng.normal(0, 2.0))), False)
    return Painted([], True)


def dwarf_satellites(s: Stage) -> Painted:
    """A bright galaxy with three to ten faint, diffuse dwarfs of its own redshift around it."""
    rng, p = s.rng, s.photometry
    like = likeness(s)
    s.paint(like.core)
    total = float(like.core.flux.sum())
    for _ in range(int(rng.integers(3, 11))):
        distance, angle = like.theta_e * float(rng.uniform(0.6, 3.5)), s.angle()
        tint = p.flux(22.0, young(s, like.lens.z) if s.chance(0.5) else p.early(rng, like.lens.z))
        flux = total * 10 ** (-0.4 * float(rng.uniform(3.0, 6.0))) * tint / float(tint.sum())
        radius = like.core.radius * float(rng.uniform(0.1, 0.35))
        dwarf = Sersic(
            distance * float(np.cos(angle)), distance * float(np.sin(angle)), float(np.clip(radius, 0.06, 0.8)),
            float(rng.uniform(0.6, 1.4)), float(rng.uniform(0.5, 1.0)), float(rng.uniform(0, np.pi)), flux,
        )  # fmt: skip
        s.paint(dwarf)
    return Painted([], True)


def field(s: Stage) -> Painted:
    """An ordinary galaxy at the centre, as the counts have them, beside a bright group at times."""
    rng = s.rng
    m = galaxy_magnitudes(rng, 1, *s.prior.field_magnitude)
    s.paint(*field_galaxies(rng, s.photometry, m, np.zeros(1), np.zeros(1)))
    if s.chance(s.prior.crowded_fraction):
        r, angle = float(rng.uniform(3.0, 9.0)), s.angle()
        s.paint(*(moved(c, r * np.cos(angle), r * np.sin(angle)) for c in deflector(rng, s.photometry, s.prior).light))
    return Painted([], True)


def _paint_blue(s: Stage, like: Likeness, k: int, xy: tuple[float, float], same: bool) -> None:
    """An unlensed blue galaxy with the flux and the area of image k; `same`: the source itself, else one like it."""
    rng, gain = s.rng, float(like.gain[k])
    if same:
        turn = s.angle()
        for c in like.source.light:
            s.paint(_turned(c, like.source.x, like.source.y, xy, float(np.sqrt(gain)), turn, gain))
        return
    radius = like.source.light[0].radius * float(np.sqrt(gain) * np.exp(rng.normal(0, 0.25)))
    m = like.source.i_magnitude - 2.5 * float(np.log10(gain)) + 0.4 * float(rng.normal())
    s.paint(*blue_galaxy(rng, s.photometry, m, xy, float(np.clip(radius, _MIN_BLUE, _MAX_BLUE)), like.source.z))


def _turned(
    c: Sersic, x0: float, y0: float, xy: tuple[float, float], stretch: float, turn: float, gain: float
) -> Sersic:
    """A source's component enlarged and turned about the source's centre, and put at xy."""
    dx, dy = stretch * (c.x - x0), stretch * (c.y - y0)
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    return replace(
        c, x=xy[0] + dx * cos - dy * sin, y=xy[1] + dx * sin + dy * cos,
        radius=c.radius * stretch, pa=c.pa + turn, flux=c.flux * gain,
    )  # fmt: skip
