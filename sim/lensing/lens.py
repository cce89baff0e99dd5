"""Mass of a deflector: elliptical power laws with cores, subhaloes, external shear and foreground shear.

All of it is analytic: deflection, Jacobian, potential (formulae and sources: `sim.lensing.kernels`). Angles in arcsec,
x right, y up; position angles in radians from x towards y; shear has lenstronomy's sign (`SHEAR`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import hypot, isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from sim.lensing.kernels import COLUMNS, MAX_TERMS, SUBHALO, fill_power_law, hessian_many, potential_many
from sim.lensing.rays import deflect_many

Floats = npt.NDArray[np.floating[Any]]
Packed = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]


class LensError(ValueError):
    """A mass model that no galaxy can have."""


def _refuse(model: object, faults: Mapping[str, bool]) -> None:
    """Raise one error that names every fault."""
    found = [fault for fault, bad in faults.items() if bad]
    if found:
        raise LensError(f"{model}: {'; '.join(found)}. Change these parameters")


@dataclass(frozen=True)
class PowerLaw:
    """Elliptical power law of three-dimensional slope gamma', uniform inside of its core.

    kappa(R) = (3 - gamma') / 2 (b / R)^(gamma' - 1) with R^2 = q u^2 + v^2 / q in the frame of the major axis (u, v):
    `theta_e` and `core` are elliptical radii R, in arcsec, of ellipses with the area of a circle of that radius.

    Parameters
    ----------
    theta_e : Einstein radius: the mean convergence inside of R = theta_e is 1, whatever the core. arcsec.
    slope : gamma', 2 isothermal; 1 < slope < 3.
    q : axis ratio of the mass, 0.05-1.
    pa : position angle of the major axis, radians.
    x, y : centre, arcsec.
    core : radius inside of which the convergence is uniform, < theta_e; 0 gives lenstronomy's singular `EPL`. arcsec.
    """

    theta_e: float
    slope: float = 2.0
    q: float = 1.0
    pa: float = 0.0
    x: float = 0.0
    y: float = 0.0
    core: float = 0.0

    def __post_init__(self) -> None:
        _refuse(
            self,
            {
                "theta_e must be a positive number of arcsec": not 0 < self.theta_e < float("inf"),
                "slope must lie between 1 and 3": not 1 < self.slope < 3,
                "q must be an axis ratio of 0.05 to 1": not 0.05 <= self.q <= 1,
                "core must be at least 0 and smaller than theta_e, arcsec": not 0 <= self.core < self.theta_e,
                "pa, x and y must be finite": not all(map(isfinite, (self.pa, self.x, self.y))),
            },
        )

    def scaled(self, factor: float) -> PowerLaw:
        """The same mass with its convergence times a factor, as before a source at another redshift.

        Raises LensError where the core would reach beyond the Einstein radius.
        """
        t = self.slope - 1

        def strength(theta_e: float) -> float:
            return float(theta_e**t / (1 - 0.5 * t * (self.core / theta_e) ** (2 - t)))

        wanted, largest = factor * strength(self.theta_e), 2 * self.theta_e * max(factor, 1.0) ** (1 / t)
        smallest = 1e-6 * self.theta_e if self.core == 0 else self.core * (1 + 1e-9)
        if not strength(smallest) < wanted:
            raise LensError(f"{self}: with {factor} of its convergence the core is no smaller than theta_e. Scale less")
        return replace(self, theta_e=float(brentq(lambda r: strength(r) - wanted, smallest, largest, xtol=1e-12)))


@dataclass(frozen=True)
class Subhalo:
    """Circular pseudo-Jaffe profile, kappa = b / 2 [1 / sqrt(core^2 + r^2) - 1 / sqrt(truncation^2 + r^2)].

    `b` is its Einstein radius were it singular and not truncated; lenstronomy's `PJAFFE` with Ra = core,
    Rs = truncation. All in arcsec.
    """

    b: float
    x: float
    y: float
    core: float
    truncation: float

    def __post_init__(self) -> None:
        _refuse(
            self,
            {
                "b must be a positive number of arcsec": not 0 < self.b < float("inf"),
                "core must be at least 0 and smaller than truncation, arcsec": not 0 <= self.core < self.truncation,
                "x, y and truncation must be finite": not all(map(isfinite, (self.x, self.y, self.truncation))),
            },
        )


@dataclass(frozen=True, eq=False)
class Lens:
    """All of the mass; the first part is the main one.

    Parameters
    ----------
    parts : power laws and subhaloes, added in one plane.
    gamma1, gamma2 : external shear about the centre of the main part, potential g1 (x^2 - y^2) / 2 + g2 x y.
    foreground1, foreground2 : shear Gamma_od of the line of sight between observer and deflector in the minimal model
        of Fleury, Larena & Uzan (2021, JCAP 08, 024): psi_eff(theta) = psi((1 - Gamma_od) theta) for all parts
        jointly, theta from the centre of the main part. `gamma` is then the model's Gamma_LOS.
    """

    parts: tuple[PowerLaw | Subhalo, ...]
    gamma1: float = 0.0
    gamma2: float = 0.0
    foreground1: float = 0.0
    foreground2: float = 0.0

    def __post_init__(self) -> None:
        if not self.parts or not isinstance(self.parts[0], PowerLaw):
            raise LensError(f"parts is {self.parts}: the first part must be a PowerLaw. Give the main deflector first")
        shears = {"external": (self.gamma1, self.gamma2), "foreground": (self.foreground1, self.foreground2)}
        _refuse(self, {f"the {k} shear must be weaker than 0.5": not hypot(*g) < 0.5 for k, g in shears.items()})

    @property
    def main(self) -> PowerLaw:
        """The first part."""
        assert isinstance(self.parts[0], PowerLaw)
        return self.parts[0]

    @property
    def theta_e(self) -> float:
        """Einstein radius of the main part, arcsec."""
        return self.main.theta_e

    @cached_property
    def packed(self) -> Packed:
        """What the kernels read: frame (6,), parts (n, columns), series (n, terms)."""
        x0, y0 = self.main.x, self.main.y
        parts, terms = np.zeros((len(self.parts), COLUMNS)), np.empty((len(self.parts), MAX_TERMS))
        for i, part in enumerate(self.parts):
            row = parts[i]
            if isinstance(part, PowerLaw):
                fill_power_law(row, terms[i], part.theta_e, part.slope, part.q, part.pa, part.core)
            else:
                row[0], row[3], row[4], row[5] = SUBHALO, part.b, part.core, part.truncation
            row[1], row[2] = part.x - x0, part.y - y0
        return np.array([x0, y0, self.gamma1, self.gamma2, self.foreground1, self.foreground2]), parts, terms

    def scaled(self, factor: float) -> Lens:
        """The same mass and external shear with all deflections in its plane times a factor; see `PowerLaw.scaled`."""
        parts = tuple(
            part.scaled(factor) if isinstance(part, PowerLaw) else replace(part, b=factor * part.b)
            for part in self.parts
        )
        return replace(self, parts=parts, gamma1=factor * self.gamma1, gamma2=factor * self.gamma2)

    def deflection(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Deflection angles in arcsec at positions of any shape; float32 in, float32 out, else float64."""
        xs, ys, shape = _flat(x, y)
        ax, ay = np.empty_like(xs), np.empty_like(xs)
        deflect_many(*self.packed, xs, ys, ax, ay)
        return ax.reshape(shape), ay.reshape(shape)

    def source_position(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Where the rays through (x, y) meet the source plane, arcsec."""
        ax, ay = self.deflection(x, y)
        return np.asarray(x, ax.dtype) - ax, np.asarray(y, ay.dtype) - ay

    def hessian(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
        """Second derivatives xx, xy, yy of the potential."""
        xs, ys, shape = _flat(x, y, np.float64)
        out = np.empty((xs.size, 3))
        hessian_many(*self.packed, xs, ys, out)
        return out[:, 0].reshape(shape), out[:, 1].reshape(shape), out[:, 2].reshape(shape)

    def jacobian(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
        """Derivatives a11, a12 = a21, a22 of the source position by the image position."""
        xx, xy, yy = self.hessian(x, y)
        return 1 - xx, -xy, 1 - yy

    def magnification(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
        """Signed magnification 1 / det A; its sign is the parity."""
        a11, a12, a22 = self.jacobian(x, y)
        with np.errstate(divide="ignore"):  # infinite on a critical curve
            return np.asarray(1 / (a11 * a22 - a12**2))

    def potential(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
        """Lensing potential, arcsec^2, up to a constant of the lens."""
        xs, ys, shape = _flat(x, y, np.float64)
        out = np.empty(xs.size)
        potential_many(*self.packed, xs, ys, out)
        return out.reshape(shape)

    def fermat(self, x: npt.ArrayLike, y: npt.ArrayLike, sx: float, sy: float) -> Floats:
        """Fermat potential (theta - beta)^2 / 2 - psi, arcsec^2, up to a constant of the lens."""
        dx, dy = np.asarray(x, np.float64) - sx, np.asarray(y, np.float64) - sy
        return np.asarray(0.5 * (dx**2 + dy**2) - self.potential(x, y))


def _flat(x: npt.ArrayLike, y: npt.ArrayLike, dtype: Any = None) -> tuple[Floats, Floats, tuple[int, ...]]:
    """Positions as flat contiguous arrays of one float type, and their common shape."""
    xs, ys = np.broadcast_arrays(np.asarray(x), np.asarray(y))
    if dtype is None:
        dtype = np.float32 if xs.dtype == ys.dtype == np.float32 else np.float64
    return np.ascontiguousarray(xs, dtype).ravel(), np.ascontiguousarray(ys, dtype).ravel(), xs.shape
