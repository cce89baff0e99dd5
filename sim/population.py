"""What a scene is made of, drawn from the priors in `configs/sim.yaml`: the names that the rest of `sim` uses."""

from sim.lensing.cosmology import einstein_radius_arcsec
from sim.populations.deflectors import Deflector, deflector
from sim.populations.galaxies import Sersic, blue_galaxy, disc_type, early_type, magnitude, moved
from sim.populations.neighbours import neighbours
from sim.populations.priors import DEFLECTOR_STRATA, SOURCE_STRATA, Population, Range
from sim.populations.sources import Source, source

__all__ = [
    "DEFLECTOR_STRATA",
    "SOURCE_STRATA",
    "Deflector",
    "Population",
    "Range",
    "Sersic",
    "Source",
    "blue_galaxy",
    "deflector",
    "disc_type",
    "early_type",
    "einstein_radius_arcsec",
    "magnitude",
    "moved",
    "neighbours",
    "source",
]
