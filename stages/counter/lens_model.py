"""A cored ellipsoid with external shear and perhaps a satellite: deflection, Jacobian, magnification, arrival time.

Conventions are lenstronomy's (`NIE` + `SHEAR`, shear about the deflector). In the frame of the major axis u,
kappa = theta_E / 2 / sqrt(s^2 + q u^2 + v^2 / q), e = (1 - q) / (1 + q), (e1, e2) = e (cos 2 phi, sin 2 phi).
Formulae: Kormann, Schneider & Bartelmann (1994, A&A 284, 285) and Keeton (2001, astro-ph/0102341) eqs. 33-35. Other
slopes than the isothermal one are sums of these (`stages.counter.power_law`). A satellite is a cored isothermal sphere.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan, atan2, atanh, cos, hypot, log, log1p, sin, sqrt

import numpy as np
import numpy.typing as npt

from stages.counter.compiling import compiled
from stages.counter.power_law import deflection_of, isothermal_terms, second_of

Array = npt.NDArray[np.float64]
Frame = tuple[float, float, float, float, float, float, float, float, float, float, float, float, float, Array]
ISOTHERMAL = 2.0
_SLOPES = (1.2, 2.8)
_N_PLAIN = 8  # parameters of an isothermal ellipsoid with shear; more follow for a slope and a satellite


@compiled
def frame(p: Array) -> Frame:
    """Constants of one model from `LensModel.as_array`, of which the first eight may do.

    (b, q, eps, s, cos phi, sin phi, gamma1, gamma2, slope), of the satellite Einstein radius, place from the
    deflector and core, and the isothermal terms (2, k) of another slope.
    """
    e = min(hypot(p[1], p[2]), 0.98)
    q = min((1.0 - e) / (1.0 + e), 1.0 - 1e-7)
    phi = 0.5 * atan2(p[2], p[1])
    s = max(p[7], 1e-10) / sqrt(q)
    b, eps = p[0] * sqrt(q), sqrt(1.0 - q * q)
    if len(p) == _N_PLAIN:
        return b, q, eps, s, cos(phi), sin(phi), p[3], p[4], ISOTHERMAL, 0.0, 0.0, 0.0, 1.0, np.empty((2, 0))
    x, y = p[10] - p[5], p[11] - p[6]
    terms = isothermal_terms(p[0], q, s * sqrt(q), p[8]) if p[8] != ISOTHERMAL else np.empty((2, 0))
    return b, q, eps, s, cos(phi), sin(phi), p[3], p[4], p[8], p[9], x, y, max(p[12], 1e-10), terms


@compiled
def deflect(f: Frame, x: float, y: float) -> tuple[float, float]:
    """Deflection at (x, y) from the deflector's centre, arcsec; Keeton (2001) eqs. 34, 35."""
    b, q, eps, s, c, n, g1, g2, slope, b2, x2, y2, s2, terms = f
    u, v = c * x + n * y, c * y - n * x
    if slope == ISOTHERMAL:
        psi = sqrt(q * q * (s * s + u * u) + v * v)
        below = psi + q * q * s
        au = b / eps * atan(eps * u / (psi + s))
        av = 0.5 * b / eps * log((below + eps * v) / (below - eps * v))  # atanh, twice as fast
    else:
        au, av = deflection_of(terms, q, eps, u, v)
    ax, ay = c * au - n * av + g1 * x + g2 * y, n * au + c * av + g2 * x - g1 * y
    if b2 > 0.0:
        dx, dy = x - x2, y - y2
        below = sqrt(s2 * s2 + dx * dx + dy * dy) + s2
        ax, ay = ax + b2 * dx / below, ay + b2 * dy / below
    return ax, ay


@compiled
def hessian(f: Frame, x: float, y: float) -> tuple[float, float, float]:
    """Second derivatives (xx, xy, yy) of the potential at (x, y) from the centre."""
    b, q, eps, s, c, n, g1, g2, slope, b2, x2, y2, s2, terms = f
    u, v = c * x + n * y, c * y - n * x
    if slope == ISOTHERMAL:
        psi = sqrt(q * q * (s * s + u * u) + v * v)
        below = (psi + s) ** 2 + eps * eps * u * u
        uu = b * (psi + s - q * q * u * u / psi) / below
        uv = -b * u * v / (psi * below)
        vv = b / psi - uu  # trace is 2 kappa = b / psi
    else:
        uu, uv, vv = second_of(terms, q, eps, u, v)
    xx = c * c * uu - 2.0 * c * n * uv + n * n * vv + g1
    yy = n * n * uu + 2.0 * c * n * uv + c * c * vv - g1
    xy = c * n * (uu - vv) + (c * c - n * n) * uv + g2
    if b2 > 0.0:
        dx, dy = x - x2, y - y2
        root = sqrt(s2 * s2 + dx * dx + dy * dy)
        first = b2 / (root + s2)
        second = first / (root * (root + s2))
        xx, xy, yy = xx + first - second * dx * dx, xy - second * dx * dy, yy + first - second * dy * dy
    return xx, xy, yy


@compiled
def determinant(f: Frame, x: float, y: float) -> float:
    """Determinant of the lens map's Jacobian, 1 / magnification."""
    xx, xy, yy = hessian(f, x, y)
    return (1.0 - xx) * (1.0 - yy) - xy * xy


@compiled
def potential(f: Frame, x: float, y: float) -> float:
    """Lensing potential at (x, y) from the centre, arcsec^2, up to a constant; Keeton (2001) eq. 33."""
    b, q, eps, s, c, n, g1, g2, slope, b2, x2, y2, s2, terms = f
    u, v = c * x + n * y, c * y - n * x
    out = 0.5 * g1 * (x * x - y * y) + g2 * x * y
    for k in range(max(terms.shape[1], 1)):
        if slope != ISOTHERMAL:
            b, s = terms[0, k], terms[1, k]
        psi = sqrt(q * q * (s * s + u * u) + v * v)
        out += b / eps * (u * atan(eps * u / (psi + s)) + v * atanh(eps * v / (psi + q * q * s)))
        risen = (q * q * u * u + v * v) / (psi + q * s) * (psi + (2.0 + q) * s) + eps * eps * u * u
        out -= 0.5 * b * s * log1p(risen / ((1.0 + q) * s) ** 2)  # 0 at the centre, exact for wide cores too
    if b2 > 0.0:
        root = sqrt(s2 * s2 + (x - x2) ** 2 + (y - y2) ** 2)
        out += b2 * (root - s2 * log(root + s2))
    return out


@compiled
def _deflect_many(p: Array, xy: Array) -> Array:
    f, out = frame(p), np.empty_like(xy)
    for i in range(len(xy)):
        out[i, 0], out[i, 1] = deflect(f, xy[i, 0] - p[5], xy[i, 1] - p[6])
    return out


@compiled
def _hessian_many(p: Array, xy: Array) -> Array:
    f, out = frame(p), np.empty((len(xy), 3))
    for i in range(len(xy)):
        out[i, 0], out[i, 1], out[i, 2] = hessian(f, xy[i, 0] - p[5], xy[i, 1] - p[6])
    return out


@compiled
def _potential_many(p: Array, xy: Array) -> Array:
    f, out = frame(p), np.empty(len(xy))
    for i in range(len(xy)):
        out[i] = potential(f, xy[i, 0] - p[5], xy[i, 1] - p[6])
    return out


def _points(xy: npt.ArrayLike) -> Array:
    return np.ascontiguousarray(np.asarray(xy, dtype=np.float64).reshape(-1, 2))


@dataclass(frozen=True)
class LensModel:
    """Cored elliptical power law + external shear, and perhaps a satellite.

    Parameters
    ----------
    theta_e_arcsec : Einstein radius of the singular model, intermediate-axis (product-average) convention.
    e1, e2 : ellipticity of the mass, (1 - q) / (1 + q) times (cos 2 phi, sin 2 phi), |e| < 1.
    gamma1, gamma2 : external shear, potential gamma1 (x^2 - y^2) / 2 + gamma2 x y about the deflector.
    x_arcsec, y_arcsec : the deflector's centre.
    core_arcsec : core radius s; 0 gives the singular SIE to within 1e-10 arcsec.
    slope : of the mass's density, rho ~ r^-slope; 2 is isothermal. Others hold to 12 Einstein radii from the deflector.
    satellite : Einstein radius, x, y and core in arcsec of a cored isothermal sphere in the same plane, or none.
    """

    theta_e_arcsec: float
    e1: float = 0.0
    e2: float = 0.0
    gamma1: float = 0.0
    gamma2: float = 0.0
    x_arcsec: float = 0.0
    y_arcsec: float = 0.0
    core_arcsec: float = 0.01
    slope: float = ISOTHERMAL
    satellite: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if not _SLOPES[0] <= self.slope <= _SLOPES[1]:
            raise ValueError(f"slope {self.slope}: expected {_SLOPES[0]} to {_SLOPES[1]}")
        if self.satellite is not None and not (self.satellite[0] > 0 and self.satellite[3] >= 0):
            raise ValueError(f"satellite {self.satellite}: expected a positive Einstein radius and a core of 0 or more")
        if not (self.theta_e_arcsec > 0 and self.core_arcsec >= 0 and self.e1**2 + self.e2**2 < 1):
            raise ValueError(f"{self}: expected theta_e_arcsec > 0, core_arcsec >= 0 and |e| < 1. Check the parameters")

    def as_array(self) -> Array:
        """(13,) parameters in the order of the fields, for the compiled kernels; (8,) where the rest is plain."""
        shape = (self.theta_e_arcsec, self.e1, self.e2, self.gamma1, self.gamma2)
        plain = (*shape, self.x_arcsec, self.y_arcsec, self.core_arcsec)
        if self.slope == ISOTHERMAL and self.satellite is None:
            return np.array(plain)
        return np.array([*plain, self.slope, *(self.satellite or (0.0, self.x_arcsec, self.y_arcsec, 1.0))])

    def deflection(self, xy_arcsec: npt.ArrayLike) -> Array:
        """(n, 2) deflection angles in arcsec at (n, 2) positions."""
        return _deflect_many(self.as_array(), _points(xy_arcsec))

    def ray_shoot(self, xy_arcsec: npt.ArrayLike) -> Array:
        """(n, 2) source-plane positions, beta = theta - alpha(theta)."""
        return _points(xy_arcsec) - self.deflection(xy_arcsec)

    def jacobian(self, xy_arcsec: npt.ArrayLike) -> Array:
        """(n, 2, 2) derivative of the source position by the image position, A = 1 - hessian of the potential."""
        xx, xy, yy = _hessian_many(self.as_array(), _points(xy_arcsec)).T
        return np.stack([np.stack([1 - xx, -xy], -1), np.stack([-xy, 1 - yy], -1)], -2)

    def magnification(self, xy_arcsec: npt.ArrayLike) -> Array:
        """(n,) signed magnification 1 / det A; its sign is the parity."""
        xx, xy, yy = _hessian_many(self.as_array(), _points(xy_arcsec)).T
        with np.errstate(divide="ignore"):  # infinite on a critical curve
            return np.asarray(1.0 / ((1 - xx) * (1 - yy) - xy**2))

    def arrival_time(self, xy_arcsec: npt.ArrayLike, source_xy_arcsec: npt.ArrayLike) -> Array:
        """(n,) Fermat potential (theta - beta)^2 / 2 - psi, arcsec^2, up to a constant of the model."""
        xy = _points(xy_arcsec)
        return np.asarray(0.5 * ((xy - _points(source_xy_arcsec)) ** 2).sum(1) - _potential_many(self.as_array(), xy))

    def to_lenstronomy(self) -> tuple[list[str], list[dict[str, float]]]:
        """Profile names and keyword arguments for `lenstronomy.LensModel.lens_model.LensModel`.

        Slopes other than 2 become an `EPL`, which has no core.
        """
        main = {"theta_E": self.theta_e_arcsec, "e1": self.e1, "e2": self.e2}
        main |= {"center_x": self.x_arcsec, "center_y": self.y_arcsec}
        main |= {"s_scale": self.core_arcsec} if self.slope == ISOTHERMAL else {"gamma": self.slope}
        shear = {"gamma1": self.gamma1, "gamma2": self.gamma2, "ra_0": self.x_arcsec, "dec_0": self.y_arcsec}
        names, arguments = ["NIE" if self.slope == ISOTHERMAL else "EPL", "SHEAR"], [main, shear]
        if self.satellite is None:
            return names, arguments
        theta_e, x, y, core = self.satellite
        sphere = {"theta_E": theta_e, "e1": 0.0, "e2": 0.0, "center_x": x, "center_y": y, "s_scale": core}
        return [*names, "NIE"], [*arguments, sphere]
