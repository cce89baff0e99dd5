"""What a scene is made of, drawn from the priors in `configs/sim.yaml`: the names that the rest of `sim` uses."""

from sim.cosmology import einstein_radius_arcsec
from sim.deflectors import Deflector, deflector
from sim.galaxies import Sersic, blue_galaxy, disc_type, early_type, magnitude, moved
from sim.neighbours import neighbours
from sim.priors import DEFLECTOR_STRATA, SOURCE_STRATA, Population, Range
from sim.sources import Source, source

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
