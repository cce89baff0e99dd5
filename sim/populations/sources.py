"""Draw sources: galaxies, quasars in their hosts and supernovae, where the lens makes more than one image of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.lensing.caustics import Caustics, caustics, inside
from sim.lensing.cosmology import distance_modulus
from sim.populations import supernovae
from sim.populations.counts import magnitudes_at
from sim.populations.deflectors import Deflector
from sim.populations.galaxies import Sersic, blue_galaxy, star_forming_radius
from sim.populations.photometry import Photometry
from sim.populations.priors import SOURCE_STRATA, Population, Range, choose
from stages.records import BoolArray, FloatArray

if TYPE_CHECKING:
    from sim.populations.real_galaxies import Stamps
    from sim.populations.stamp import Stamp

KINDS = ("galaxy", "quasar", "supernova")

_FEW, _MANY = 24, 96  # candidates: to find one that is multiply imaged, and to choose among strata
_HOST_FAINTEST = 28.0
_TRIES = 20


@dataclass(frozen=True, eq=False)
class Source:
    """What is lensed: extended light about (x, y) and a point of the given flux (B,) per band (zero: none), unlensed.

    stamp : a real galaxy in place of profiles, turned by stamp_pa, stamp_scale times as large, of flux stamp_flux (B,).
    point_xy : where the point lies, (x, y) where None is given; i_magnitude : of the galaxy or, if any, the point.
    boost : by what factor its strata over-represent it.
    """

    x: float
    y: float
    light: tuple[Sersic, ...]
    stamp: Stamp | None
    point_flux: FloatArray
    z: float
    kind: str
    i_magnitude: float
    boost: float = 1.0
    stamp_pa: float = 0.0
    stamp_scale: float = 1.0
    stamp_flux: FloatArray | None = None
    point_offset: tuple[float, float] = (0.0, 0.0)

    @property
    def point_xy(self) -> tuple[float, float]:
        """Where the point lies in the source plane, arcsec."""
        return self.x + self.point_offset[0], self.y + self.point_offset[1]

    @property
    def total_flux(self) -> FloatArray:
        """Flux (B,) of the extended light without lensing."""
        stamp = np.zeros_like(self.point_flux) if self.stamp_flux is None else self.stamp_flux
        return np.asarray(sum((c.flux for c in self.light), stamp))

    def stamp_light(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Surface brightness (B, ...) of the stamp per square arcsec at source-plane positions in arcsec."""
        if self.stamp is None or self.stamp_flux is None:
            return np.zeros((len(self.point_flux), *x.shape))
        shape = self.stamp.sample(x, y, self.x, self.y, self.stamp_pa, self.stamp_scale)
        return np.asarray(np.multiply.outer(self.stamp_flux, shape))


def source(
    rng: np.random.Generator, photometry: Photometry, prior: Population, lens: Deflector, kind: str = "galaxy",
    stamps: Stamps | None = None,
) -> Source:  # fmt: skip
    """A source at the lens's source redshift, of its kind's magnitudes and sizes; `stamps` replace its profiles."""
    z = lens.z_source
    limits = prior.source_limits(kind, photometry.depth_i)
    n = _MANY if prior.is_boosted(SOURCE_STRATA) else _FEW
    hosts, point, point_i = _magnitudes(rng, photometry, limits, z, kind, n)
    radius = star_forming_radius(rng, hosts, np.full(len(hosts), z))
    x, y, k, boost = _placed(rng, prior, lens, hosts, radius, limits[1], photometry.depth_i, kind)
    host_i, size = float(hosts[k]), float(radius[k])
    offset = (0.0, 0.0)
    if kind == "supernova":  # exponential disc: light within r follows a gamma law of the scale length
        r, angle = rng.gamma(2.0, size / 1.678), rng.uniform(0, 2 * np.pi)
        offset = (float(r * np.cos(angle)), float(r * np.sin(angle)))
        x, y = x - offset[0], y - offset[1]  # the point is what must be multiply imaged
    i_magnitude = host_i if point_i is None else point_i
    if stamps is None:
        light = blue_galaxy(rng, photometry, host_i, (x, y), size, z)
        return Source(x, y, light, None, point, z, kind, i_magnitude, boost, point_offset=offset)
    stamp = stamps.draw(rng, host_i)
    flux = photometry.flux(host_i, photometry.star_forming(rng, None, z))
    scale = float(np.clip(size / max(stamp.half_light_radius_arcsec, 1e-3), 0.2, 3.0))
    turn = float(rng.uniform(0, 2 * np.pi))
    return Source(x, y, (), stamp, point, z, kind, i_magnitude, boost, turn, scale, flux, offset)


def _magnitudes(
    rng: np.random.Generator, photometry: Photometry, limits: Range, z: float, kind: str, n: int
) -> tuple[FloatArray, FloatArray, float | None]:
    """Candidate magnitudes (n,) of the galaxy, flux (B,) of the point and its magnitude (None: no point)."""
    if kind == "galaxy":
        return magnitudes_at(rng, "galaxy", z, limits, n), np.zeros(len(photometry.bands)), None
    if kind == "quasar":
        point_i = float(magnitudes_at(rng, "quasar", z, limits, 1)[0])
        host, colour = _host_magnitude(rng, photometry, point_i, z), photometry.quasar(rng, z)
    elif kind == "supernova":
        _, day, point_i = supernovae.draw(rng, z, limits)
        colour = photometry.supernova(rng, z, float(supernovae.temperature_k(np.array(day))))
        host = float(magnitudes_at(rng, "galaxy", z, (limits[0], _HOST_FAINTEST), 1, -0.4)[0])  # as their light
    else:
        raise ValueError(f"source kind {kind!r}: expected one of {KINDS}")
    return np.full(n, host), photometry.flux(point_i, colour), point_i


def _placed(
    rng: np.random.Generator, prior: Population, lens: Deflector, host: FloatArray, radius: FloatArray, faint: float,
    depth_i: float, kind: str,
) -> tuple[float, float, int, float]:  # fmt: skip
    """Position, which candidate, and its boost: even over the source plane where (part of) it is multiply imaged."""
    found = caustics(lens.mass)
    margin = prior.source_reach_radii * radius if kind == "galaxy" else np.zeros_like(radius)
    reach = found.reach + float(margin.max())
    places, valid = np.zeros((2, len(host))), np.ones(len(host), bool)
    weights: FloatArray = np.ones(len(host))
    for _ in range(_TRIES):  # until a candidate is multiply imaged and in a stratum that is wanted
        places = rng.uniform(-reach, reach, (2, len(host)))
        member, valid = _regions(found, places, margin)
        if kind == "galaxy":
            member |= {"faint_source": host > faint - 1.0, "bright_source": host < depth_i - 2.0}
            member |= {"compact_source": radius < 0.15}
        boosts = prior.weights(member)
        weights = np.asarray(np.ones(len(host)) if boosts is None else boosts)
        if (weights * valid).any():
            break
    if not valid.any():
        return 0.0, 0.0, 0, 1.0
    chosen, boost = choose(rng, weights[valid])
    k = int(np.flatnonzero(valid)[chosen])
    return float(places[0, k]), float(places[1, k]), k, boost


def _regions(found: Caustics, places: FloatArray, margin: FloatArray) -> tuple[dict[str, BoolArray], BoolArray]:
    """Strata of source positions (2, n), and which of them a lens images more than once, at least in part."""
    x, y = places
    quad = inside(found.tangential, x, y)
    multiple = quad | inside(found.radial, x, y)
    # moved inwards by its margin, a source that is partly within is within
    shrink = 1 - margin / np.maximum(np.hypot(x, y), margin + 1e-9)
    partial = ~multiple & (margin > 0) & inside(found.radial, x * shrink, y * shrink)
    return {"quads": quad, "doubles": multiple & ~quad, "partial_arcs": partial}, multiple | partial


def _host_magnitude(rng: np.random.Generator, photometry: Photometry, point_i: float, z: float) -> float:
    """A quasar host's magnitude: brighter with the nucleus, M_host = -22.3 + 0.35 (M_nucleus + 23.5), rms 0.6.

    After Dunlop et al. (2003) and Falomo et al. (2014), with a young population that was brighter by 0.6 magnitudes per
    unit redshift.
    """
    nucleus = point_i - distance_modulus(z) + 1.25 * np.log10(1 + z)
    absolute = -22.3 + 0.35 * (nucleus + 23.5) - 0.6 * min(z, 2.0) + 0.6 * rng.normal()
    return float(photometry.apparent_i(absolute, z, "Sbc"))
