"""What an impostor is painted with, and the lens that it takes its brightness, colours and sizes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim import images
from sim.photometry import Colour, Photometry
from sim.population import Deflector, Population, Sersic, Source, deflector, source
from sim.scene import Grid, paint
from stages.records import FloatArray

Points = list[tuple[float, float, FloatArray]]

_MOST_MAGNIFIED = 12.0  # an extended source is never magnified more than about this
_FAINTEST = 0.2  # images magnified less are lost under the deflector
_TRIES = 3  # the brightest of so many draws is taken: `Selection` keeps the lenses whose arcs can be seen


@dataclass(frozen=True, eq=False)
class Stage:
    """What an impostor is painted with: the canvas (B, size, size) is changed in place."""

    rng: np.random.Generator
    canvas: FloatArray
    grid: Grid
    photometry: Photometry
    prior: Population

    def paint(self, *components: Sersic) -> None:
        """Add Sersic profiles to the canvas."""
        paint(self.canvas, self.grid, components)

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return bool(self.rng.random() < p)

    def angle(self) -> float:
        """Any direction, in rad."""
        return float(self.rng.uniform(0, 2 * np.pi))


@dataclass(frozen=True, eq=False)
class Painted:
    """Point sources added, and whether a galaxy at the centre could pass for a deflector."""

    points: Points
    has_galaxy: bool


@dataclass(frozen=True, eq=False)
class Likeness:
    """A lens that is not painted: the images (n,) of its source, brightest first, lend an impostor their numbers.

    distance : arcsec from the deflector; angle : rad; gain : unsigned magnification.
    """

    lens: Deflector
    source: Source
    distance: FloatArray
    angle: FloatArray
    gain: FloatArray

    @property
    def theta_e(self) -> float:
        """Einstein radius in arcsec."""
        return float(self.lens.mass.theta_e)

    @property
    def core(self) -> Sersic:
        """The main deflector's light, as one profile at the centre."""
        return replace(self.lens.light[0], x=0.0, y=0.0)

    @property
    def lensed_flux(self) -> FloatArray:
        """Flux (B,) of the extended images together."""
        return np.asarray(self.source_flux * self.gain.sum())

    @property
    def source_flux(self) -> FloatArray:
        """Flux (B,) of the extended source without lensing."""
        return np.asarray(sum((c.flux for c in self.source.light), np.zeros_like(self.source.point_flux)))


def likeness(s: Stage, kind: str = "galaxy") -> Likeness:
    """A lens drawn from the lenses' own priors, with the images of its source's centre."""
    return max((_draw(s, kind) for _ in range(_TRIES)), key=lambda e: float((e.source_flux * e.gain.sum()).sum()))


def _draw(s: Stage, kind: str) -> Likeness:
    lens = deflector(s.rng, s.photometry, s.prior)
    drawn = source(s.rng, s.photometry, s.prior, lens, kind)
    found = images.solve(lens.mass, drawn.x, drawn.y)
    gain = np.minimum(np.abs(found.magnification), _MOST_MAGNIFIED)
    order = np.argsort(-gain)
    order = order[(gain[order] > _FAINTEST) | (np.arange(len(order)) == 0)]
    x, y = found.x[order], found.y[order]
    return Likeness(lens, drawn, np.hypot(x, y), np.arctan2(y, x), gain[order])


def young(s: Stage, z: float | None = None) -> Colour:
    """Colours of star-forming arms, rings and dwarfs: mostly blue, and as often those of a distant source."""
    return s.photometry.star_forming(s.rng, float(s.rng.beta(1.2, 4.0)), z if s.chance(0.5) else None)


def passive(s: Stage) -> Colour:
    """Colours of an early type at a deflector's redshift."""
    return s.photometry.early(s.rng, float(s.rng.uniform(*s.prior.z_deflector)))


def projected(length: float, axis_ratio: float, turn: float, q: float, pa: float) -> tuple[float, float, float]:
    """An ellipse in a disc's plane seen on the sky: (geometric mean radius, axis ratio, position angle).

    length : its major axis; turn : rad from the disc's major axis; q, pa : of the disc.
    """
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shape = spin @ np.diag([length**2, (axis_ratio * length) ** 2]) @ spin.T * np.array([[1.0, q], [q, q * q]])
    values, vectors = np.linalg.eigh(shape)
    minor, major = np.sqrt(np.maximum(values, 1e-12))
    return float(np.sqrt(minor * major)), float(minor / major), float(pa + np.arctan2(vectors[1, 1], vectors[0, 1]))
