"""Disc galaxies seen from above: spirals with arms of any number and pitch, bars, no bulge, and rings.

Half of them are as bright, as blue and as large as a lens: the bulge is a deflector's light and the arms or the ring
carry the flux of its images at their distance. The others follow the field's magnitudes and sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.impostor_kinds.stage import Painted, Stage, likeness, young
from sim.impostor_kinds.strokes import ANGLES, RADII, Disc, Layer, mesh, paint_disc, paint_spots, superposed
from sim.population import Sersic, magnitude
from sim.populations.photometry import Colour
from stages.records import FloatArray

_STEEPEST = 24.0  # rad per unit of ln radius: the finest winding that the mesh holds
_MODES = 24
_TRUNCATION = (2.6, 5.5)  # break of the disc in scale lengths (Pohlen & Trujillo 2006)


@dataclass(frozen=True, eq=False)
class Body:
    """Brightness and size of a disc galaxy: fluxes (B,), exponential scale in arcsec, redshift (None: unknown)."""

    young: FloatArray
    old: FloatArray
    bulge: Sersic
    scale: float
    colour: Colour


@dataclass(frozen=True)
class Tilt:
    """Inclination q = cos i and position angle of a disc."""

    q: float
    pa: float


def spiral(s: Stage) -> Painted:
    """A face-on to inclined spiral with a bulge: grand design, many-armed, one-armed or flocculent."""
    body, tilt = _body(s), _tilt(s)
    arms = spiral_arms(s.rng, inner=float(s.rng.uniform(0.15, 0.9)))
    _paint(s, body, tilt, arms)
    s.paint(body.bulge)
    return Painted([], True)


def barred_spiral(s: Stage) -> Painted:
    """A barred spiral: the arms start where the bar ends, at times from an inner ring."""
    rng = s.rng
    body, tilt = _body(s), _tilt(s)
    length, turn = float(rng.uniform(0.5, 1.5)), float(rng.uniform(0, np.pi))
    arms = spiral_arms(rng, inner=length, start=turn, number=2)
    if s.chance(0.4):
        arms = arms + float(rng.uniform(0.3, 1.0)) * ring(rng, length, float(rng.uniform(0.07, 0.15)))
    _paint(s, body, tilt, arms)
    _paint_bar(s, body, tilt, 0.9 * length, turn)
    s.paint(replace(body.bulge, radius=0.6 * body.bulge.radius, flux=0.6 * body.bulge.flux))
    return Painted([], True)


def bulgeless_spiral(s: Stage) -> Painted:
    """Arms without a bulge: a late-type or low-surface-brightness spiral, lopsided, its arms like detached arcs."""
    body, tilt = _body(s), _tilt(s)
    arms = spiral_arms(s.rng, inner=float(s.rng.uniform(0.1, 1.2)))
    _paint(s, replace(body, old=float(s.rng.uniform(0.05, 0.5)) * body.old), tilt, arms, lopsided=0.08)
    return Painted([], True)


def ring_galaxy(s: Stage) -> Painted:
    """A resonance ring: detached as Hoag's object, an inner ring round a bar, or an outer pseudo-ring of two arms."""
    rng = s.rng
    body, tilt = _body(s), _tilt(s)
    radius, width = float(rng.uniform(1.2, 2.4)), float(np.clip(rng.lognormal(np.log(0.11), 0.4), 0.05, 0.3))
    form = rng.choice(["detached", "barred", "pseudo"], p=[0.45, 0.3, 0.25])
    pattern = ring(rng, radius, width)
    if form == "detached":
        body = replace(body, old=float(rng.uniform(0.0, 0.15)) * body.old)
    if form == "pseudo":
        r, phi = mesh()
        turned = phi - 2.0 * rng.choice([-1, 1]) * np.log(r / radius) / np.tan(np.radians(rng.uniform(4, 12)))
        pattern = pattern * (0.3 + np.cos(turned + s.angle()) ** 2)
    if form != "detached" and s.chance(0.5):
        pattern = pattern + 0.3 * spiral_arms(rng, inner=radius, number=2)
    _paint(s, body, tilt, pattern)
    if form == "barred":
        _paint_bar(s, body, tilt, 0.9 * radius, float(rng.uniform(0, np.pi)))
    s.paint(body.bulge)
    return Painted([], True)


def spiral_arms(
    rng: np.random.Generator, inner: float, start: float | None = None, number: int | None = None
) -> FloatArray:
    """Brightness (RADII, ANGLES) of young stars in logarithmic arms that begin at `inner` scale lengths.

    Pitch angles as observed (Savchenko & Reshetnikov 2013: 5 to 35 degrees); the light along the arms is log-normal.
    """
    r, phi = mesh()
    u = np.log(r)
    pitch = np.radians(float(np.clip(rng.normal(17, 7), 6, 38)))
    turn = float(rng.choice([-1.0, 1.0]))
    flocculent = number is None and rng.random() < 0.25
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.08, 0.52, 0.17, 0.15, 0.08])) if number is None else number
    begin = rng.uniform(0, 2 * np.pi) if start is None else start
    wobble = rng.normal(0, 0.25) * np.sin(1.3 * u + rng.uniform(0, 6)) + rng.normal(0, 0.12) * np.sin(3.1 * u)
    winding = np.clip(count / np.tan(pitch), 0, _STEEPEST)
    phase = count * (phi - begin) - turn * winding * (u - np.log(inner)) + count * wobble
    sharp = float(np.exp(rng.uniform(np.log(0.8), np.log(7.0))))
    arms = np.ones_like(phase) if flocculent else np.exp(sharp * (np.cos(phase) - 1)) + rng.uniform(0.0, 0.12)
    if not flocculent and rng.random() < 0.35:  # the arms fork outwards
        fork = 1 / (1 + np.exp(-(r - rng.uniform(1.2, 2.5)) / 0.2))
        arms = arms + fork * rng.uniform(0.3, 0.8) * np.exp(sharp * (np.cos(phase + rng.uniform(1.5, 4.5)) - 1))
    uneven = 1 + rng.uniform(0, 0.6) * np.cos(phi - rng.uniform(0, 2 * np.pi))
    grain = texture(rng, pitch, turn, 1.3 if flocculent else float(rng.uniform(0.3, 0.9)))
    return np.asarray(_young_profile(rng, inner) * arms * uneven * grain, np.float32)


def ring(rng: np.random.Generator, radius: float, width: float) -> FloatArray:
    """Brightness of a ring at `radius` scale lengths; width: its Gaussian sigma in ln radius."""
    r, phi = mesh()
    uneven = 1 + rng.uniform(0, 0.5) * np.cos(phi - rng.uniform(0, 2 * np.pi))
    grain = texture(rng, np.radians(25), 1.0, float(rng.uniform(0.1, 0.9)))
    return np.asarray(np.exp(-0.5 * (np.log(r / radius) / width) ** 2) * uneven * grain, np.float32)


def texture(rng: np.random.Generator, pitch: float, turn: float, strength: float) -> FloatArray:
    """Log-normal clumpiness of mean about one, sheared along the arms: a sum of waves in ln radius and azimuth."""
    r, phi = mesh()
    order = rng.integers(1, 15, _MODES)
    angle = np.clip(pitch * np.exp(rng.normal(0, 0.35, _MODES)), 0.1, 1.4)
    wave = np.clip(order / np.tan(angle), 0, _STEEPEST) * turn
    height = np.sqrt(2 / _MODES) * strength
    inward = (np.log(r[:, 0])[:, None] * wave + rng.uniform(0, 2 * np.pi, _MODES)).astype(np.float32)
    around = (phi[0][:, None] * order).astype(np.float32)
    waves = superposed(np.cos(inward), np.sin(inward), np.cos(around), np.sin(around))
    return np.asarray(np.exp(np.float32(height) * waves - np.float32(0.5 * strength**2)))


def knots(s: Stage, disc: Disc, pattern: FloatArray, flux: FloatArray, number: int) -> None:
    """Paint star-forming knots of total flux (B,) where a pattern is bright; luminosities follow L^-1.8."""
    r, _ = mesh()
    chance = np.cumsum((pattern * r**2).ravel(), dtype=np.float64)
    cell = np.minimum(np.searchsorted(chance, s.rng.random(number) * chance[-1]), RADII * ANGLES - 1)
    radius = r[cell // ANGLES, 0] * np.exp(0.02 * s.rng.normal(size=number)) * disc.scale
    x, y = disc.place(radius, cell % ANGLES * (2 * np.pi / ANGLES))
    share = np.minimum((1 - s.rng.random(number)) ** -1.25, 40.0)
    sigma = disc.scale * 0.05 * np.exp(0.4 * s.rng.normal(size=number))
    paint_spots(s.canvas, s.grid, x, y, sigma, (share / share.sum())[:, None] * flux)


def _young_profile(rng: np.random.Generator, inner: float) -> FloatArray:
    r, _ = mesh()
    edge = rng.uniform(*_TRUNCATION)
    within = 1 / (1 + np.exp(-(r - 0.9 * inner) / (0.12 * inner)))
    return np.asarray(np.exp(-r / rng.uniform(1.0, 1.6) - (r / edge) ** 6) * within)


def _body(s: Stage) -> Body:
    rng, p = s.rng, s.photometry
    if s.chance(0.5):
        like = likeness(s, resolved=True)
        bulge = replace(like.core, radius=like.core.radius * float(rng.uniform(0.4, 1.0)))
        bulge = replace(bulge, flux=float(rng.uniform(0.25, 1.0)) * bulge.flux)
        scale = like.theta_e * float(rng.uniform(0.6, 1.3))
        share = float(rng.uniform(0.1, 0.9))
        return Body(like.lensed_flux, share * bulge.flux, bulge, scale, young(s))
    m = magnitude(rng, s.prior.field_magnitude, 0.25)
    scale = float(np.clip(rng.lognormal(np.log(1.0 * 10 ** (0.13 * (20 - m))), 0.3), 0.25, 3.0))
    in_bulge, in_arms = float(rng.beta(1.5, 4.0)), float(rng.uniform(0.25, 0.75))
    total, colour, z = 10 ** (-0.4 * m), young(s), float(rng.uniform(0.04, 0.5))
    faint = [float(-2.5 * np.log10(max(total * part, 1e-30))) for part in
             (in_bulge, (1 - in_bulge) * in_arms, (1 - in_bulge) * (1 - in_arms))]  # fmt: skip
    bulge = Sersic(
        0.0, 0.0, scale * float(rng.uniform(0.12, 0.5)), float(rng.uniform(1.0, 4.0)), float(rng.uniform(0.7, 1.0)),
        float(rng.uniform(0, np.pi)), p.flux(faint[0], p.early(rng, z)),
    )  # fmt: skip
    old = p.star_forming(rng, float(rng.uniform(0.5, 1.0)), z)
    return Body(p.flux(faint[1], colour), p.flux(faint[2], old), bulge, scale, colour)


def _tilt(s: Stage) -> Tilt:
    """Face-on discs more often than the sky has them: they are what is taken for rings."""
    return Tilt(float(max(s.rng.uniform(0.3, 1.0), s.rng.uniform(0.3, 1.0))), float(s.rng.uniform(0, np.pi)))


def _paint(s: Stage, body: Body, tilt: Tilt, pattern: FloatArray, lopsided: float = 0.03) -> None:
    """The smooth old disc with dust between the arms, the young stars, and their knots."""
    rng = s.rng
    r, _ = mesh()
    smooth = np.exp(-r - (r / rng.uniform(*_TRUNCATION)) ** 6)
    bright = pattern / max(float(pattern.max()), 1e-30)
    smooth = smooth * (1 + rng.uniform(0, 0.6) * np.roll(bright, int(rng.integers(-8, 9)), axis=1))
    in_knots = float(rng.uniform(0.03, 0.3))
    disc = Disc(
        0.0, 0.0, body.scale, tilt.q, tilt.pa,
        (Layer(np.asarray(smooth, np.float32), body.old), Layer(pattern, (1 - in_knots) * body.young)),
        lopsided * float(rng.normal()),
    )  # fmt: skip
    paint_disc(s.canvas, s.grid, disc)
    knots(s, disc, pattern, in_knots * body.young, int(rng.integers(4, 60)))


def _paint_bar(s: Stage, body: Body, tilt: Tilt, length: float, turn: float) -> None:
    """A bar in the disc's plane, blunt and half bright at about 0.7 of the `length` scale lengths where it ends."""
    r, phi = mesh()
    along, across = r * np.cos(phi - turn), r * np.sin(phi - turn) / float(s.rng.uniform(0.2, 0.4))
    bar = np.exp(-(((along**2 + across**2) / (0.8 * length) ** 2) ** float(s.rng.uniform(0.7, 1.5))))
    flux = float(s.rng.uniform(0.15, 0.5)) * (body.bulge.flux + body.old)
    layer = Layer(np.asarray(bar, np.float32), flux)
    paint_disc(s.canvas, s.grid, Disc(0.0, 0.0, body.scale, tilt.q, tilt.pa, (layer,)))
