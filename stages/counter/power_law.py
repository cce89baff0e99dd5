"""A cored elliptical power law: deflection, second derivatives and potential by quadrature along its ellipses.

In the frame of the major axis u, kappa = (3 - g) / 2 (theta_E^2 / (s^2 + q u^2 + v^2 / q))^((g - 1) / 2): lenstronomy's
`EPL` with a core. Integrals: Keeton (2001, astro-ph/0102341) eqs. 15-22. The variable along them is spaced as the
logarithm of the mass's radius, so that a small core costs no nodes.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from stages.counter.compiling import compiled

_NODES, _WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(48)[k] + (1.0 - k)) for k in range(2))


@compiled
def integrals(
    theta_e: float, q: float, core: float, slope: float, u: float, v: float
) -> tuple[float, float, float, float, float]:
    """Deflection (u, v) and second derivatives (uu, uv, vv) at (u, v) in the frame of the major axis."""
    power = 0.5 * (slope - 1.0)
    front = 0.5 * (3.0 - slope) * theta_e ** (2.0 * power)
    reach = core * core / (q * max(u * u + v * v, 1e-30) * q + 1e-30)
    span = log(1.0 + 1.0 / reach)
    j0, j1, k0, k1, k2 = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(_NODES)):
        far = reach * np.exp(span * _NODES[i])
        w = far - reach
        flat = 1.0 - (1.0 - q * q) * w
        inside = core * core + q * w * (u * u + v * v / flat)
        kappa = front * inside**-power
        slope_here = -power * q * kappa / inside * w
        step = _WEIGHTS[i] * span * far / sqrt(flat)
        j0 += step * kappa
        j1 += step * kappa / flat
        k0 += step * slope_here
        k1 += step * slope_here / flat
        k2 += step * slope_here / (flat * flat)
    return (
        q * u * j0, q * v * j1,
        2.0 * q * u * u * k0 + q * j0, 2.0 * q * u * v * k1, 2.0 * q * v * v * k2 + q * j1,
    )  # fmt: skip


@compiled
def potential_of(theta_e: float, q: float, core: float, slope: float, u: float, v: float) -> float:
    """Lensing potential at (u, v) in the frame of the major axis, up to a constant."""
    power = 0.5 * (slope - 1.0)
    front = 0.5 * (3.0 - slope) * theta_e ** (2.0 * power) / (q * (1.0 - power))
    reach = core * core / (q * max(u * u + v * v, 1e-30) * q + 1e-30)
    span, total = log(1.0 + 1.0 / reach), 0.0
    for i in range(len(_NODES)):
        far = reach * np.exp(span * _NODES[i])
        w = far - reach
        flat = 1.0 - (1.0 - q * q) * w
        inside = core * core + q * w * (u * u + v * v / flat)
        mass = front * (inside ** (1.0 - power) - core ** (2.0 - 2.0 * power))
        total += _WEIGHTS[i] * span * far / sqrt(flat) * mass / max(w, 1e-30)
    return 0.5 * q * total
