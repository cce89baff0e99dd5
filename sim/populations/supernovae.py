"""Supernovae as point sources: rates, light curves and colours at a random day after explosion.

Type Ia: M_B = -19.3 at maximum, rms 0.25 with light-curve width; core collapse: the volume-limited mean of Richardson
et al. (2014), M_B = -17.0, rms 1.1. Both fade as the Ia template of Hsiao et al. (2007) in B and cool on the way;
magnitudes are B in the Vega system.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from sim.lensing.cosmology import distance_modulus, volume_per_z
from sim.populations.spectra import SUPERNOVA_TEMPERATURE_K, TEMPLATES, look_up, tables
from stages.records import FloatArray

TYPES = ("Ia", "CC")
ABSOLUTE_B, SIGMA_B = np.array([-19.3, -17.0]), np.array([0.25, 1.1])

_DAY = np.arange(-12.0, 41.0, 4.0)  # rest frame, from maximum in B
_CURVE_DAY = np.array([-15.0, -12.0, -8.0, -4.0, 0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0])
_CURVE_MAG = np.array([2.6, 1.6, 0.60, 0.13, 0.0, 0.16, 0.60, 1.12, 1.70, 2.25, 2.65, 3.05])
_COOLING_DAY, _COOLING_K = (
    np.array([-12.0, 0.0, 10.0, 20.0, 30.0]),
    np.array([13000.0, 11500.0, 9000.0, 6500.0, 5500.0]),
)


def fading(day: FloatArray) -> FloatArray:
    """Magnitudes below maximum in B, days from maximum in the rest frame."""
    return np.asarray(np.interp(day, _CURVE_DAY, _CURVE_MAG))


def temperature_k(day: FloatArray) -> FloatArray:
    """Colour temperature in K."""
    return np.asarray(np.interp(day, _COOLING_DAY, _COOLING_K))


def rates(z: FloatArray) -> FloatArray:
    """Observed rates (2, n) per redshift of Ia (Dilday et al. 2010, flat beyond z = 1) and core collapse, any unit.

    Core collapse follows star formation (Madau & Dickinson 2014, equation 15), 0.0068 per solar mass.
    """
    z = np.asarray(z)
    ia = 2.7e-5 * (1 + np.minimum(z, 1.0)) ** 2.1
    collapse = 0.0068 * 0.015 * (1 + z) ** 2.7 / (1 + ((1 + z) / 2.9) ** 5.6)
    return np.asarray(np.stack([ia, collapse]) * volume_per_z(z) / (1 + z))


def template_number(kelvin: FloatArray) -> FloatArray:
    """Number in `TEMPLATES` of a supernova of a temperature."""
    place = np.interp(kelvin, SUPERNOVA_TEMPERATURE_K, np.arange(len(SUPERNOVA_TEMPERATURE_K)))
    return np.asarray(TEMPLATES.index("sn5000") + place)


def apparent_i(absolute_b: FloatArray, day: FloatArray, z: FloatArray) -> FloatArray:
    """Apparent SDSS i of a supernova of this absolute B magnitude at maximum, on a day of its light curve."""
    table = tables(())
    correction = look_up(table.reference, template_number(temperature_k(day)), z, table.z)
    return np.asarray(absolute_b + fading(day) + distance_modulus(z) + correction)


def apparent_table(z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of each type and day (E) at redshifts (Z): weights (E, Z), mean i magnitudes (E, Z), their scatter (E,)."""
    day = np.tile(_DAY, 2)
    kind = np.repeat([0, 1], len(_DAY))
    mean = apparent_i(ABSOLUTE_B[kind][:, None] + np.zeros(len(z)), np.broadcast_to(day[:, None], (len(day), len(z))),
                      np.broadcast_to(z, (len(day), len(z))))  # fmt: skip
    return rates(z)[kind] / len(_DAY), mean, SIGMA_B[kind]


def draw(rng: np.random.Generator, z: float, limits: tuple[float, float]) -> tuple[str, float, float]:
    """Type, day and apparent magnitude of a supernova at a redshift, among those between two magnitudes."""
    weight, mean, sigma = apparent_table(np.array([z]))
    low, high = (ndtr((limit - mean[:, 0]) / sigma) for limit in limits)
    chance = weight[:, 0] * (high - low)
    if not chance.sum() > 1e-12 * weight.sum():  # none so bright at this redshift: the brightest there is
        best = int(mean[:, 0].argmin())
        return TYPES[best // len(_DAY)], float(np.tile(_DAY, 2)[best]), float(mean[best, 0])
    k = int(rng.choice(len(chance), p=chance / chance.sum()))
    m = mean[k, 0] + sigma[k] * ndtri(np.clip(low[k] + rng.random() * (high[k] - low[k]), 1e-12, 1 - 1e-12))
    return TYPES[k // len(_DAY)], float(np.tile(_DAY, 2)[k]), float(np.clip(m, *limits))
