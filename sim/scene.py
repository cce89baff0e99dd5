"""Parameters to noiseless light and lensing truth: the only place that imports lenstronomy's light and ray tracing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver
from lenstronomy.Util.param_util import phi_q2_ellipticity
from scipy.optimize import root
from scipy.special import gamma as gamma_function

from sim.population import Deflector, Sersic, Source
from stages.records import FloatArray

_CORE_ARCSEC = 0.02  # the core that gives the truth its central image
_MAX_RADII = 12.0  # a profile is painted out to this many half-light radii


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


@dataclass(frozen=True, eq=False)
class Images:
    """Images of a point at the source's centre, relative to the deflector, in arcsec; the central one last if any.

    magnification : signed, its sign is the parity. n_without_centre counts those a singular lens has.
    """

    x: FloatArray
    y: FloatArray
    magnification: FloatArray
    n_without_centre: int


def sersic(component: Sersic, x: FloatArray, y: FloatArray, softening: float) -> FloatArray:
    """Sersic profile of unit flux, per square arcsec (Sersic 1968; b_n of Ciotti & Bertin 1999)."""
    n, q, radius = float(component.index), float(component.q), float(component.radius)
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)
    cos, sin = float(np.cos(component.pa)), float(np.sin(component.pa))  # Python floats keep single precision
    dx, dy = x - float(component.x), y - float(component.y)
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    r2 = q * along**2 + across**2 / q + softening**2
    total = float(2 * np.pi * n * radius**2 * np.exp(b) * b ** (-2 * n) * gamma_function(2 * n))
    return np.asarray(np.exp(-b * ((r2 / radius**2) ** (0.5 / n) - 1)) / total)


def paint(canvas: FloatArray, grid: Grid, components: Sequence[Sersic]) -> None:
    """Add profiles to a canvas (B, size, size) in flux per sample."""
    axis = grid.axis
    for c in components:
        reach = min(_MAX_RADII * c.radius * max(1.0, c.index / 2), 60.0) + 2 * grid.step
        rows, columns = grid.window(c.x, c.y, reach)
        x, y = axis[columns][None, :], axis[rows][:, None]
        profile = sersic(c, x, y, 0.3 * grid.step) * grid.step**2
        canvas[:, rows, columns] += c.flux.astype(np.float32)[:, None, None] * profile


def lensed_light(grid: Grid, lens: Deflector, source: Source) -> FloatArray:
    """Lensed extended light of a source (B, size, size), in flux per sample."""
    canvas = np.zeros((len(source.point_flux), grid.size, grid.size), np.float32)
    reach = 2.2 * lens.theta_e + max((3.0 * c.radius for c in source.light), default=0.0) + 0.5
    rows, columns = grid.window(0.0, 0.0, reach)
    x, y = np.meshgrid(grid.axis[columns], grid.axis[rows])
    model, arguments = _singular(lens)
    beta_x, beta_y = model.ray_shooting(x.ravel(), y.ravel(), arguments)
    beta_x = beta_x.reshape(x.shape).astype(np.float32)
    beta_y = beta_y.reshape(x.shape).astype(np.float32)
    for c in source.light:
        profile = sersic(c, beta_x, beta_y, 0.05 * grid.step) * grid.step**2
        canvas[:, rows, columns] += c.flux.astype(np.float32)[:, None, None] * profile
    return canvas


def images(lens: Deflector, source: Source) -> Images:
    """Every image of the source's centre: lenstronomy's analytical solver, and the centre of a slightly cored lens."""
    model, arguments = _singular(lens)
    x, y = LensEquationSolver(model).image_position_from_source(
        source.x, source.y, arguments, solver="analytical", magnification_limit=1e-6
    )
    x, y = np.atleast_1d(x), np.atleast_1d(y)
    mu = np.atleast_1d(model.magnification(x, y, arguments))
    if len(x) % 2:  # a naked cusp or a single image: a core adds no centre
        return Images(x, y, mu, len(x))
    cored = LensModel(["NIE", "SHEAR"])
    nie = {**arguments[0], "s_scale": _CORE_ARCSEC}
    start = -np.array([source.x, source.y]) * _CORE_ARCSEC / lens.theta_e

    def miss(theta: FloatArray) -> FloatArray:
        return np.asarray(
            np.subtract(cored.ray_shooting(theta[0], theta[1], [nie, arguments[1]]), (source.x, source.y))
        )

    centre = root(miss, start).x
    mu_centre = float(cored.magnification(centre[0], centre[1], [nie, arguments[1]]))
    return Images(np.append(x, centre[0]), np.append(y, centre[1]), np.append(mu, mu_centre), len(x))


def _singular(lens: Deflector) -> tuple[LensModel, list[dict[str, Any]]]:
    e1, e2 = phi_q2_ellipticity(lens.pa, lens.q)
    return LensModel(["SIE", "SHEAR"]), [
        {"theta_E": lens.theta_e, "e1": e1, "e2": e2, "center_x": 0.0, "center_y": 0.0},
        {"gamma1": lens.gamma1, "gamma2": lens.gamma2, "ra_0": 0.0, "dec_0": 0.0},
    ]
