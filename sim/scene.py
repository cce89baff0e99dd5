"""The grid that scenes are painted on, and profiles painted on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.painting import paint_profiles
from sim.sersic import peak_fluxes, profiles
from stages.records import FloatArray

if TYPE_CHECKING:
    from sim.population import Sersic

_FAINTEST_WING = 1e-5  # wings are painted down to this part of the brightness at the half-light radius
_FARTHEST_ARCSEC = 60.0


@dataclass(frozen=True)
class Grid:
    """Square grid centred on the object: `size` samples of `step` arcsec; sample (i, j) lies at arcsec x[i], y[j]."""

    size: int
    step: float

    @property
    def axis(self) -> FloatArray:
        """Sample positions along one axis in arcsec."""
        return ((np.arange(self.size) - (self.size - 1) / 2) * self.step).astype(np.float32)

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """Rows and columns within `reach` arcsec of a position."""

        def part(centre: float) -> slice:
            middle = centre / self.step + (self.size - 1) / 2
            half = reach / self.step
            return slice(int(np.clip(middle - half, 0, self.size)), int(np.clip(middle + half + 1, 0, self.size)))

        return part(y), part(x)


def paint(canvas: FloatArray, grid: Grid, components: Sequence[Sersic], floor: FloatArray | float = 0.0) -> None:
    """Add profiles to a canvas (B, size, size) in flux per sample; each sample is a mean over its area.

    floor : flux per sample ((B,) or one number) below which a profile's wings are left out.
    """
    if not components:
        return
    components = [part for c in components for part in c.parts()]
    rows = profiles(components)
    flux = peak_fluxes(components, rows)
    n, b = 0.5 / rows[:, 6], rows[:, 7]
    strength = np.maximum((flux / np.maximum(floor, 1e-30)).max(axis=1), 1e-30)
    depth = np.clip(np.log(strength * grid.step**2), -0.9 * b, -np.log(_FAINTEST_WING))
    reach = np.minimum((1 + depth / b) ** n, _FARTHEST_ARCSEC / rows[:, 2])
    paint_profiles(canvas, rows, flux, reach, strength, grid.step)
