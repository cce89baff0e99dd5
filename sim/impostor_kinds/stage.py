"""What an impostor is painted with, and the lens that it takes its brightness, colours and sizes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.lensing import images
from sim.population import Deflector, Population, Sersic, Source, deflector, source
from sim.populations.photometry import Colour, Photometry
from sim.scene import Grid, paint
from stages.records import FloatArray

Points = list[tuple[float, float, FloatArray]]

_MOST_MAGNIFIED = 12.0  # an extended source is never magnified more than about this
_FAINTEST = 0.2  # images magnified less are lost under the deflector
_TRIES = 12
_MIN_SNR = 18.0  # of all images together: about what `Selection` keeps of the lenses
_MIN_THETA_E = 0.6  # Einstein radius over seeing: about what `Selection` keeps
_SAMPLES = 7.0  # of the fine grid to the FWHM, where the seeing is not given
_CLEAR = 0.3  # lensed over deflector light, in the band where that is largest, above which nothing hides the arcs
_RESOLVED = 2.5  # both this much larger where the shape is what fools
_RESOLVED_ARCSEC = 0.6  # and at least so large: structure of nearby galaxies, however sharp the image


@dataclass(frozen=True, eq=False)
class Stage:
    """What an impostor is painted with: the canvas (B, size, size) is changed in place.

    seeing_arcsec : median FWHM that it will be seen with; None takes it from the grid's step.
    """

    rng: np.random.Generator
    canvas: FloatArray
    grid: Grid
    photometry: Photometry
    prior: Population
    seeing_arcsec: float | None = None

    @property
    def seeing(self) -> float:
        """FWHM in arcsec."""
        return _SAMPLES * self.grid.step if self.seeing_arcsec is None else self.seeing_arcsec

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
        return np.asarray(self.source.total_flux * self.gain.sum())


def likeness(s: Stage, kind: str = "galaxy", resolved: bool = False) -> Likeness:
    """A lens drawn from the lenses' own priors, large and bright enough to be seen, with its source's images.

    kind : of the source; resolved : large and bright enough for its arcs to be told from a blur.
    """
    best, highest, more = None, -1.0, _RESOLVED if resolved else 1.0
    for _ in range(_TRIES):
        lens = _early_deflector(s, max(more * _MIN_THETA_E * s.seeing, _RESOLVED_ARCSEC if resolved else 0.0))
        drawn = source(s.rng, s.photometry, s.prior, lens, kind)
        snr = _snr(s, drawn)
        if best is not None and snr * _MOST_MAGNIFIED < more * _MIN_SNR:
            continue
        found = _images(lens, drawn)
        if snr * found.gain.sum() > highest:
            best, highest = found, float(snr * found.gain.sum())
        if snr * found.gain.sum() > more * _MIN_SNR and s.chance(_stands_out(found)):
            return found
    assert best is not None
    return best


def _stands_out(found: Likeness) -> float:
    """Chance that images are seen against the deflector: lenses that are kept have bluer sources and more light."""
    if found.source.point_flux.any():
        return 1.0
    share = float((found.lensed_flux / np.maximum(found.core.flux, 1e-30)).max())
    return min(1.0, float(np.sqrt(share / _CLEAR)))


def _early_deflector(s: Stage, theta_e_arcsec: float) -> Deflector:
    """A deflector that is no disc, of this Einstein radius or more where the priors have any such."""
    for _ in range(4 * _TRIES):
        lens = deflector(s.rng, s.photometry, s.prior)
        if lens.kind != "disc" and lens.mass.theta_e >= theta_e_arcsec:
            break
    return lens


def _snr(s: Stage, drawn: Source) -> float:
    """Signal to noise of the unlensed source in its best band: a point, or a galaxy spread over its own size."""
    is_point = bool(drawn.point_flux.any())
    flux = drawn.point_flux if is_point else drawn.total_flux
    noise = 0.2 * 10.0 ** (-0.4 * (s.photometry.depth - s.photometry.zero_point))  # depths are 5 sigma
    radius = 0.0 if is_point else drawn.light[0].radius
    return float((flux / noise).max() / np.hypot(1.0, 2 * radius / s.seeing))


def _images(lens: Deflector, drawn: Source) -> Likeness:
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
