"""Priors of a survey's scenes, read from `populations` in `configs/sim.yaml`, and the knob that boosts a stratum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from stages.records import FloatArray

Range = tuple[float, float]

DEFLECTOR_STRATA: dict[str, str] = {
    "early": "a single early-type deflector",
    "discs": "a disc deflector",
    "groups": "a deflector with satellites",
    "pairs": "two deflectors of like mass",
    "small_theta_e": "the galaxy's own Einstein radius below 0.7 arcsec",
    "large_theta_e": "the galaxy's own Einstein radius above 1.8 arcsec",
    "low_z_deflector": "deflector below redshift 0.25",
    "high_z_deflector": "deflector above redshift 0.7",
    "high_z_source": "source above redshift 2.5",
}
SOURCE_STRATA: dict[str, str] = {
    "quads": "source's centre within the tangential caustic",
    "doubles": "source's centre multiply imaged outside of the tangential caustic",
    "partial_arcs": "source's centre beyond the caustics, part of its light within",
    "faint_source": "galaxy within a magnitude of the faint limit",
    "bright_source": "galaxy more than two magnitudes brighter than the survey's depth",
    "compact_source": "half-light radius below 0.15 arcsec",
}
_POSITIVE = ("z_deflector", "velocity_dispersion_km_s", "theta_e_arcsec", "z_source")
_SHARES = (
    "disc_fraction", "group_fraction", "pair_fraction", "subhalo_fraction", "subhalo_mass_fraction", "crowded_fraction",
)  # fmt: skip


@dataclass(frozen=True)
class Population:
    """Priors of one survey's scenes; ranges are (low, high); magnitudes AB in SDSS i.

    z_deflector, velocity_dispersion_km_s, theta_e_arcsec, z_source : within which lenses are drawn; their numbers
    follow from velocity dispersion function, volume, cross-section and source counts (`sim.populations.deflectors`).
    disc_fraction, group_fraction, pair_fraction : shares of lenses; the others are single early types. Discs: Turner,
    Ostriker & Gott (1984), Moeller et al. (2007); groups: Oguri (2006), Treu et al. (2009).
    group_halo : by how much a group's halo widens the Einstein radius of its main galaxy; groups with arcs beyond 3
    arcsec need 2 and more (More et al. 2012).
    slope_mean, slope_sigma : three-dimensional slope of the mass (Auger et al. 2010).
    core_arcsec, core_sigma_ln : median and logarithmic scatter of the radius of the uniform core.
    misalignment_deg, axis_ratio_sigma : scatter of mass about light (Koopmans et al. 2006; Bolton et al. 2008).
    shear_sigma, foreground_shear_sigma : per Rayleigh law (Keeton, Kochanek & Seljak 1997; Fleury et al. 2021).
    subhalo_fraction : share of deflectors with subhaloes; subhalo_mass_fraction : of their convergence at theta_E in
    subhaloes (Dalal & Kochanek 2002; Hsueh et al. 2020).
    source_magnitude, quasar_magnitude, supernova_magnitude : limits before lensing; the faint one moves in to the
    survey's depth plus source_beyond_depth_mag where that is brighter (magnification brings those up).
    source_reach_radii : half-light radii by which a source's centre may lie beyond the caustics.
    neighbour_magnitude : likewise, with neighbour_beyond_depth_mag; field_magnitude : of central non-lenses.
    crowded_fraction : share of ordinary galaxies that have a bright early type of a group 3 to 9 arcsec away.
    overdensity_sigma : natural-log scatter of the number density of neighbours from field to field.
    strata : by how much a stratum's draws are over-weighted; see DEFLECTOR_STRATA and SOURCE_STRATA. Factors multiply
    where strata overlap; 1, or a name left out, is the natural proportion. What was over-drawn is recorded (`boost`).
    """

    z_deflector: Range = (0.08, 1.3)
    velocity_dispersion_km_s: Range = (100.0, 420.0)
    theta_e_arcsec: Range = (0.3, 4.0)
    z_source: Range = (0.3, 5.0)
    disc_fraction: float = 0.10
    group_fraction: float = 0.18
    pair_fraction: float = 0.04
    group_halo: Range = (1.0, 1.7)
    slope_mean: float = 2.08
    slope_sigma: float = 0.16
    core_arcsec: float = 0.02
    core_sigma_ln: float = 0.5
    misalignment_deg: float = 8.0
    axis_ratio_sigma: float = 0.10
    shear_sigma: float = 0.05
    foreground_shear_sigma: float = 0.01
    subhalo_fraction: float = 0.3
    subhalo_mass_fraction: float = 0.006
    source_magnitude: Range = (18.0, 28.0)
    quasar_magnitude: Range = (17.0, 25.0)
    supernova_magnitude: Range = (18.0, 26.0)
    source_beyond_depth_mag: float = 0.5
    source_reach_radii: float = 0.5
    neighbour_magnitude: Range = (16.5, 28.0)
    neighbour_beyond_depth_mag: float = 2.0
    field_magnitude: Range = (17.0, 21.5)
    crowded_fraction: float = 0.15
    overdensity_sigma: float = 0.5
    strata: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [*_range_faults(self), *_number_faults(self)]
        unknown = sorted(set(self.strata) - set(DEFLECTOR_STRATA) - set(SOURCE_STRATA))
        if unknown:
            faults.append(f"strata {unknown}: expected some of {[*DEFLECTOR_STRATA, *SOURCE_STRATA]}")
        wrong = {name: w for name, w in self.strata.items() if not 0 <= w <= 100}
        if wrong:
            faults.append(f"strata {wrong}: expected factors of 0 to 100")
        if faults:
            raise ValueError("; ".join(faults))

    def source_limits(self, kind: str, depth_i: float) -> Range:
        """Bright and faint limit before lensing of a kind of source (galaxy, quasar, supernova) in a survey."""
        low, high = getattr(self, "source_magnitude" if kind == "galaxy" else f"{kind}_magnitude")
        return low, max(min(high, depth_i + self.source_beyond_depth_mag), low + 0.5)

    def neighbour_limits(self, depth_i: float) -> Range:
        """Bright and faint limit of unrelated galaxies in a survey."""
        low, high = self.neighbour_magnitude
        return low, max(min(high, depth_i + self.neighbour_beyond_depth_mag), low + 0.5)

    def weights(self, member: Mapping[str, npt.NDArray[np.bool_]]) -> FloatArray | None:
        """Weights (n,) of candidates that belong to strata by name, or None where no stratum is boosted."""
        factors = [np.where(member[name], w, 1.0) for name, w in self.strata.items() if name in member and w != 1]
        return np.prod(factors, axis=0) if factors else None

    def is_boosted(self, names: Mapping[str, str]) -> bool:
        """Whether any of these strata has a factor other than 1."""
        return any(self.strata.get(name, 1.0) != 1 for name in names)


def choose(rng: np.random.Generator, weights: FloatArray) -> tuple[int, float]:
    """One of n candidates in proportion to its weight, and by what factor it is over-represented.

    The factor is its weight over the candidates' mean: an average over draws weighted by 1 / factor has exactly the
    natural expectation (Rubin 1988). All weights zero: any, factor 1.
    """
    total = weights.sum()
    if total <= 0:
        return int(rng.integers(len(weights))), 1.0
    k = int(np.searchsorted(np.cumsum(weights), rng.random() * total, side="right"))
    k = min(k, int(np.flatnonzero(weights)[-1]))
    return k, float(weights[k] * len(weights) / total)


def _range_faults(p: Population) -> list[str]:
    faults = []
    for spec in fields(p):
        value = getattr(p, spec.name)
        if not isinstance(value, tuple | list):
            continue
        if len(value) != 2 or not value[0] < value[1]:
            faults.append(f"{spec.name} {list(value)}: expected [low, high] with low < high")
        elif spec.name in _POSITIVE and not value[0] > 0:
            faults.append(f"{spec.name} {list(value)}: expected numbers above 0")
        elif spec.name.endswith("magnitude") and not (value[0] >= 5 and value[1] <= 35):
            faults.append(f"{spec.name} {list(value)}: expected AB magnitudes of 5 to 35")
        elif spec.name in ("z_deflector", "z_source") and value[1] > 6.5:
            faults.append(f"{spec.name} {list(value)}: expected redshifts up to 6.5")
    return faults


def _number_faults(p: Population) -> list[str]:
    faults = [f"{name} {getattr(p, name)}: expected 0 to 1" for name in _SHARES if not 0 <= getattr(p, name) <= 1]
    if not p.disc_fraction + p.group_fraction + p.pair_fraction <= 1:
        faults.append("disc_fraction + group_fraction + pair_fraction: expected at most 1")
    limits = {
        "slope_mean": (1.3, 2.7), "slope_sigma": (0, 0.5), "core_arcsec": (1e-4, 0.3), "core_sigma_ln": (0, 2),
        "misalignment_deg": (0, 90), "axis_ratio_sigma": (0, 0.5), "shear_sigma": (0, 0.3),
        "foreground_shear_sigma": (0, 0.2), "source_beyond_depth_mag": (-5, 5), "source_reach_radii": (0, 3),
        "neighbour_beyond_depth_mag": (-5, 5), "overdensity_sigma": (0, 3),
    }  # fmt: skip
    for name, (low, high) in limits.items():
        if not low <= getattr(p, name) <= high:
            faults.append(f"{name} {getattr(p, name)}: expected {low} to {high}")
    if p.group_halo[0] < 1:
        faults.append(f"group_halo {list(p.group_halo)}: expected 1 or more")
    if p.theta_e_arcsec[0] < 0.1:
        faults.append(f"theta_e_arcsec {list(p.theta_e_arcsec)}: expected 0.1 arcsec or more")
    return faults
