"""Sersic profiles as arrays of numbers, and their values at many places at once.

The exponential and the logarithm are polynomials over the bits of a number: the compiler then takes several places in
one vector register, which it cannot do with the C library's functions. Their relative error is below 1e-7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic
from scipy.special import gamma as gamma_function

if TYPE_CHECKING:
    from sim.population import Sersic

_LOG2_E = 1.4426950408889634
_MANTISSA, _ROOT_HALF = (1 << 52) - 1, 0x3FE6A09E667F3BCD  # of a double: its lower bits, and the bits of sqrt(1/2)
BLOCK = 64  # places that go through each step together


def b_n(index: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The b of exp(-b (r / radius)^(1/n)) that makes `radius` hold half of the light (Ciotti & Bertin 1999, eq. 18)."""
    n = np.asarray(index, float)
    return np.asarray(2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2))


def profiles(components: Sequence[Sersic]) -> npt.NDArray[np.float64]:
    """Sersic parameters (n, 8): x, y, radius, q, cos pa, sin pa, 1 / (2 n), and b_n."""
    n = np.array([c.index for c in components], float)
    b = b_n(n)
    pa = np.array([c.pa for c in components], float)
    plain = np.array([(c.x, c.y, c.radius, c.q) for c in components], float).reshape(-1, 4)
    return np.column_stack([plain, np.cos(pa), np.sin(pa), 0.5 / n, b])


def peak_fluxes(components: Sequence[Sersic], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Surface brightness (n, B) at the half-light radius of each profile, in flux per square arcsec."""
    b, n = rows[:, 7], 0.5 / rows[:, 6]
    total = 2 * np.pi * n * rows[:, 2] ** 2 * np.exp(b) * b ** (-2 * n) * gamma_function(2 * n)
    return np.asarray(np.array([c.flux for c in components], float) / total[:, None])


@intrinsic  # type: ignore[untyped-decorator]
def _to_bits(typing_context: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _from_bits(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit(cache=True, fastmath=True, error_model="numpy")
def exp2(x):  # type: ignore[no-untyped-def]
    """2^x, for x up to 1000; 0 to all purposes below -1000."""
    x = max(x, -1000.0)
    whole = np.floor(x + 0.5)
    f = x - whole  # within 1/2: Taylor series of 2^f
    p = 1.5252733804059841e-05 * f + 0.00015403530393381608
    p = ((p * f + 0.0013333558146428443) * f + 0.009618129107628477) * f + 0.05550410866482158
    p = ((p * f + 0.2402265069591007) * f + 0.6931471805599453) * f + 1.0
    return _from_bits(_to_bits(p) + (np.int64(np.int32(whole)) << 52))


@njit(cache=True, fastmath=True, error_model="numpy")
def log2(x):  # type: ignore[no-untyped-def]
    """Binary logarithm of a number above 0; about -1023 at 0."""
    bits = _to_bits(x) - _ROOT_HALF
    power = float(np.int32(bits >> 52))
    m = _from_bits((bits & _MANTISSA) + _ROOT_HALF)  # from sqrt(1/2) to sqrt(2)
    s = (m - 1.0) / (m + 1.0)
    z = s * s  # 2 artanh(s) / ln 2
    series = ((0.3205988979754 * z + 0.4121985831111) * z + 0.5770780163556) * z + 0.9617966939260
    return power + s * (series * z + 2.8853900817779268)


@njit(cache=True, fastmath=True, error_model="numpy")
def fall_block(x, t, value, power, b, count):  # type: ignore[no-untyped-def]
    """Of `count` places x = (r / radius)^2: t = x^power and value = exp(-b (t - 1)), 1 at the half-light radius."""
    for j in range(count):
        t[j] = exp2(power * log2(x[j]))
    for j in range(count):
        value[j] = exp2(b * _LOG2_E * (1.0 - t[j]))
