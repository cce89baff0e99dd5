"""Galaxies that others have disturbed: collisional and polar rings, mergers, tidal tails, shells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.impostor_kinds.discs import knots, spiral_arms, texture
from sim.impostor_kinds.stage import Likeness, Painted, Stage, likeness, young
from sim.impostor_kinds.strokes import Disc, Layer, mesh, paint_disc, paint_spots
from sim.population import Sersic, early_type, magnitude
from sim.populations.photometry import Colour
from stages.records import FloatArray

_GROWTH = (0.35, 0.35)  # mean and scatter of ln (size over Einstein radius): nearby galaxies are larger than arcs
_TAIL_RADII = (1.5, 4.0)  # half-light radii at which tails leave a galaxy, drawn from its outskirts; assumed
_SHELL_SHARE = (0.02, 0.1)  # of a galaxy's light in all its shells, a few per cent; assumed
_SPACING = 0.6  # spots along a strand lie this many of their sigmas apart


def collisional_ring(s: Stage) -> Painted:
    """A ring driven by a collision (Lynds & Toomre 1976): off its nucleus, knotty, lopsided, an intruder near."""
    rng = s.rng
    like = likeness(s, resolved=True)
    radius, young_flux = _grown(s, like)
    q, pa, side = float(rng.uniform(0.5, 1.0)), float(rng.uniform(0, np.pi)), s.angle()
    offset = radius * float(rng.uniform(0.05, 0.45))
    r, phi = mesh()
    at = 1 + float(rng.uniform(0, 0.15)) * np.cos(phi - side)
    width = float(rng.uniform(0.07, 0.2))
    wave = np.exp(-0.5 * (np.log(r / at) / width) ** 2) * np.exp(float(rng.uniform(0.1, 1.8)) * np.cos(phi - side))
    wave = wave * texture(rng, 0.5, 1.0, float(rng.uniform(0.5, 1.1)))
    inside = np.exp(-((r / 0.9) ** 3)) * texture(rng, 1.3, 1.0, 0.4)  # spokes, as in the Cartwheel
    x, y = -offset * np.cos(pa + side), -offset * np.sin(pa + side)
    in_knots = float(rng.uniform(0.1, 0.5))
    ring = np.asarray(wave, np.float32)
    disc = Disc(
        float(-x), float(-y), radius, q, pa,
        (Layer(ring, (1 - in_knots) * young_flux),
         Layer(np.asarray(inside, np.float32), float(rng.uniform(0.02, 0.2)) * like.core.flux)),
    )  # fmt: skip
    paint_disc(s.canvas, s.grid, disc)
    knots(s, disc, ring, in_knots * young_flux, int(rng.integers(6, 40)))
    nucleus = float(rng.uniform(0.2, 1.0)) * like.core.flux
    s.paint(replace(like.core, radius=like.core.radius * float(rng.uniform(0.3, 0.8)), flux=nucleus))
    if s.chance(0.75):
        _paint_intruder(s, like, radius)
    return Painted([], True)


def polar_ring(s: Stage) -> Painted:
    """A lenticular, nearly edge-on, with a ring of blue stars over its poles (Whitmore et al. 1990)."""
    rng = s.rng
    like = likeness(s, resolved=True)
    q = float(rng.uniform(0.25, 0.6))
    host = replace(like.core, q=q, index=float(rng.uniform(1.2, 3.5)), radius=0.7 * like.core.radius)
    s.paint(host)
    r, _ = mesh()
    width = float(rng.uniform(0.08, 0.3))
    ring = np.exp(-0.5 * (np.log(r) / width) ** 2) * texture(rng, 0.4, 1.0, float(rng.uniform(0.2, 0.8)))
    radius, young_flux = _grown(s, like)
    radius = max(radius, 0.8 * host.radius)
    turned = host.pa + np.pi / 2 + np.radians(12) * float(rng.normal())
    layer = Layer(np.asarray(ring, np.float32), young_flux)
    paint_disc(s.canvas, s.grid, Disc(0.0, 0.0, radius, float(rng.uniform(0.12, 0.6)), turned, (layer,)))
    return Painted([], True)


def merger(s: Stage) -> Painted:
    """Two or three nuclei in one disturbed envelope, red (dry) or blue with knots (wet)."""
    rng, p = s.rng, s.photometry
    like = likeness(s, resolved=True)
    wet = s.chance(0.55)
    m = magnitude(rng, s.prior.field_magnitude, 0.25) + 0.7
    z = float(rng.uniform(0.05, 0.6))
    main = replace(like.core, radius=0.6 * like.core.radius)
    if wet:
        radius = float(np.clip(main.radius, 0.2, 1.5))
        main = replace(main, index=1.3, flux=p.flux(m, p.star_forming(rng, None, z)), radius=radius)
    nuclei = [main]
    for _ in range(1 if s.chance(0.8) else 2):
        distance, angle = main.radius * float(rng.uniform(0.6, 2.5)) + 0.4, s.angle()
        share = float(rng.uniform(0.15, 0.9))
        second = replace(
            main, x=distance * float(np.cos(angle)), y=distance * float(np.sin(angle)), flux=share * main.flux,
            radius=main.radius * share**0.6, q=float(rng.uniform(0.5, 1.0)), pa=float(rng.uniform(0, np.pi)),
        )  # fmt: skip
        nuclei.append(second)
    s.paint(*nuclei)
    pale = nuclei[-1]
    envelope = replace(
        main, x=0.4 * pale.x, y=0.4 * pale.y, radius=2.0 * main.radius, index=1.0, q=float(rng.uniform(0.4, 0.9)),
        pa=float(rng.uniform(0, np.pi)), flux=float(rng.uniform(0.1, 0.5)) * main.flux,
    )  # fmt: skip
    s.paint(envelope)
    if wet:
        _paint_clumps(s, main, p.flux(m + 1.2, young(s, z)))
    sense = float(rng.choice([-1.0, 1.0]))
    for _ in range(int(rng.integers(0, 3))):
        _paint_tail(s, main, float(rng.uniform(0.03, 0.15)) * main.flux, sense)
    return Painted([], True)


def tidal_tails(s: Stage) -> Painted:
    """A galaxy with one or two long curved tails or a stream, blue or of its own colour, like thin arcs around it."""
    rng = s.rng
    like = likeness(s, resolved=True)
    disc_like = s.chance(0.5)
    core = replace(like.core, index=1.5, q=float(rng.uniform(0.4, 0.9))) if disc_like else like.core
    s.paint(core)
    number = 2 if s.chance(0.6) else 1
    blue = s.chance(0.5)
    flux = like.lensed_flux if blue else core.flux * float(rng.uniform(0.05, 0.25))
    reach = max(like.theta_e * float(rng.uniform(0.7, 1.4)), core.radius * float(rng.uniform(*_TAIL_RADII)))
    sense = float(rng.choice([-1.0, 1.0]))  # both trail
    for k in range(number):
        _paint_tail(s, replace(core, radius=reach), flux / number, sense, blue, turn=k * np.pi + core.pa)
    if s.chance(0.5):
        _paint_intruder(s, like, 1.5 * reach)
    return Painted([], True)


def shells(s: Stage) -> Painted:
    """An early type with shells of its colour: sharp outer edges, on the sides of one axis in turn (Quinn 1984)."""
    rng = s.rng
    like = likeness(s, resolved=True)
    host = like.core
    s.paint(host)
    r, phi = mesh()
    axis, opening = 0.0, float(rng.uniform(0.35, 0.9))
    radius, out = float(rng.uniform(0.7, 1.0)) * max(like.theta_e, 0.6 * host.radius), np.zeros((r.size, phi.size))
    scale = radius
    for k in range(int(rng.integers(2, 6))):
        across = np.mod(phi - axis - np.pi * (k % 2) + np.pi, 2 * np.pi) - np.pi
        edge, thick = radius / scale, float(rng.uniform(0.12, 0.3))
        beyond = np.exp(np.minimum((r - edge) / (0.02 * edge), 50))
        bright = np.exp(-np.clip(edge - r, 0, None) / (thick * edge)) / (1 + beyond)
        out += float(rng.uniform(0.5, 1.0)) * edge**-1.5 * bright * np.exp(-0.5 * (across / opening) ** 4)
        radius *= float(rng.uniform(1.15, 1.6))
    share = float(rng.uniform(*_SHELL_SHARE))
    colour = share * host.flux
    q, pa = float(rng.uniform(0.75, 1.0)), host.pa + 0.1 * float(rng.normal())
    paint_disc(s.canvas, s.grid, Disc(0.0, 0.0, scale, q, pa, (Layer(np.asarray(out, np.float32), colour),)))
    return Painted([], True)


def _grown(s: Stage, like: Likeness) -> tuple[float, FloatArray]:
    """Radius in arcsec and young flux (B,) of a ring of the images' surface brightness, as nearby ones are: larger."""
    size = float(np.exp(s.rng.normal(*_GROWTH)))
    return like.theta_e * size, np.asarray(like.lensed_flux * size**2 * float(s.rng.uniform(0.6, 1.6)))


def strand(s: Stage, x: FloatArray, y: FloatArray, sigma: FloatArray, flux: FloatArray, weight: FloatArray) -> None:
    """Paint a soft line through points x, y (n,) in order: spots of width sigma (n,) share flux (B,) by weight (n,)."""
    path = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    number = int(np.clip(path[-1] / (_SPACING * float(sigma.min()) + 1e-9), 8, 400))
    at = np.linspace(0, path[-1], number)
    bright = np.interp(at, path, weight)
    paint_spots(
        s.canvas, s.grid, np.interp(at, path, x), np.interp(at, path, y), np.interp(at, path, sigma),
        (bright / max(bright.sum(), 1e-30))[:, None] * flux,
    )  # fmt: skip


def _paint_tail(
    s: Stage, body: Sersic, flux: FloatArray, sense: float, clumpy: bool = False, turn: float | None = None
) -> None:
    """A tail that leaves a body at about its radius and uncurls to the left (sense 1) or right (-1); its end fades."""
    rng = s.rng
    t = np.linspace(0, 1, 60)
    start = s.angle() if turn is None else turn + 0.3 * float(rng.normal())
    swept = start + sense * float(rng.uniform(0.6, 2.1)) * t
    distance = body.radius * (float(rng.uniform(0.7, 1.1)) + float(rng.uniform(0.3, 2.2)) * t**1.5)
    sigma = body.radius * float(rng.uniform(0.05, 0.16)) * (0.7 + 0.8 * t)
    weight = np.exp(-t * float(rng.uniform(0, 2.5))) * np.clip((1 - t) / 0.25, 0, 1) * np.clip(t / 0.1, 0.2, 1)
    if clumpy:
        weight = weight * np.exp(0.6 * np.interp(t, np.linspace(0, 1, 12), rng.normal(size=12)))
    strand(s, body.x + distance * np.cos(swept), body.y + distance * np.sin(swept), sigma, flux, weight)


def _paint_clumps(s: Stage, body: Sersic, flux: FloatArray) -> None:
    """Starburst knots scattered over a wet merger."""
    disc = Disc(body.x, body.y, body.radius, float(s.rng.uniform(0.5, 1.0)), body.pa, ())
    knots(s, disc, spiral_arms(s.rng, inner=0.3), flux, int(s.rng.integers(4, 20)))


def _paint_intruder(s: Stage, like: Likeness, radius: float) -> None:
    """The companion that did it, of a third to a twentieth of the light, at one and a half to three radii."""
    rng, p = s.rng, s.photometry
    distance, angle = radius * float(rng.uniform(1.4, 3.0)), s.angle()
    xy = (distance * float(np.cos(angle)), distance * float(np.sin(angle)))
    found = early_type(rng, p, like.lens.z, 0.6 * like.lens.velocity_dispersion_km_s, xy)
    share = float(rng.uniform(0.05, 0.35))
    tint: Colour = found.flux / max(float(found.flux.sum()), 1e-30)
    s.paint(replace(found, flux=share * float(like.core.flux.sum()) * tint))
