"""A deflector's mass from its light: redshift from the red sequence, dispersion from luminosity, shape from shape.

The relations are Bernardi et al. (2003a, b) for SDSS early types, magnitudes today in SDSS i for h = 0.7: a Gaussian
luminosity function, and with the correlation -0.78 of Table 1 <log10 sigma | M> = 2.20 - 0.103 (M_i + 21.53), rms 0.07.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sim.lensing.cosmology import einstein_radius_arcsec, volume_per_z
from sim.populations.photometry import Photometry
from sim.real_sky.deflector_light import Light
from stages.records import FloatArray

M_STAR_I, M_SIGMA = -21.53, 0.84
LOG_DISPERSION_STAR, LOG_DISPERSION_SLOPE, LOG_DISPERSION_RMS = 2.20, -0.103, 0.07
CALIBRATION_MAG = 0.04  # rms of zero points, apertures and seeing differences from band to band

_Z = np.arange(0.03, 1.3, 0.01)
_MAX_CHI2 = 9.0  # per degree of freedom: 3 sigma
_MIN_DISPERSION_KM_S = 150.0  # theta_E 0.35 arcsec for a distant source
_TYPICAL_Z_SOURCE = 2.0


@dataclass(frozen=True, eq=False)
class Mass:
    """What the light says of the mass: a posterior of redshift (Z,), and the absolute magnitude at each.

    z, dispersion_km_s : their medians; log_dispersion_rms : scatter of log10 dispersion at a redshift.
    """

    z_weight: FloatArray
    absolute_i: FloatArray
    z: float
    dispersion_km_s: float

    def draw(self, rng: np.random.Generator, power: float = 0.0) -> tuple[float, float]:
        """A redshift and a velocity dispersion in km/s, weighted by that power of the dispersion."""
        mean = log_dispersion(self.absolute_i)
        weight = self.z_weight * 10 ** (power * (mean - mean[np.argmax(self.z_weight)]))
        k = int(rng.choice(len(_Z), p=weight / weight.sum()))
        shift = power * np.log(10) * LOG_DISPERSION_RMS**2  # of a lognormal that is weighted by a power
        z = float(_Z[k] + 0.01 * (rng.random() - 0.5))
        return z, 10 ** float(mean[k] + shift + LOG_DISPERSION_RMS * rng.normal())

    def theta_e_arcsec(self) -> float:
        """Einstein radius at the medians, for a source at redshift 2."""
        return float(einstein_radius_arcsec(self.dispersion_km_s, self.z, _TYPICAL_Z_SOURCE))


def log_dispersion(absolute_i: FloatArray) -> FloatArray:
    """Mean log10 of the velocity dispersion in km/s."""
    return np.asarray(LOG_DISPERSION_STAR + LOG_DISPERSION_SLOPE * (absolute_i - M_STAR_I))


def estimate(light: Light, photometry: Photometry) -> Mass | str:
    """The mass of a galaxy, or the reason why it is none that lenses visibly.

    Redshift: likelihood of the colours on the red sequence times volume and luminosity function; without colours
    (one band) the apparent magnitude alone.
    """
    colour, absolute_of, inverse = _sequence(photometry)
    good = light.aperture_flux > 2 * light.aperture_error
    if not good.any():
        return "too_faint"
    observed = photometry.magnitude(np.maximum(light.aperture_flux, 0.2 * light.aperture_error))
    error = 1.086 * light.aperture_error / np.maximum(light.aperture_flux, 2 * light.aperture_error)
    inverse = np.linalg.inv(inverse + np.diag(error**2 + CALIBRATION_MAG**2))
    residual = observed - colour  # (Z, B)
    ones = inverse.sum()
    aperture_i = (residual @ inverse.sum(axis=0)) / ones
    chi2 = np.einsum("zb,bc,zc->z", residual, inverse, residual) - ones * aperture_i**2
    freedom = len(observed) - 1
    if freedom and chi2.min() > _MAX_CHI2 * freedom:
        return "not_red"
    total_i = aperture_i - 2.5 * np.log10(light.total_share)
    absolute = total_i - absolute_of
    log_weight = -chi2 / 2 + np.log(volume_per_z(_Z)) - 0.5 * ((absolute - M_STAR_I) / M_SIGMA) ** 2
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    middle = int(np.searchsorted(np.cumsum(weight), 0.5))
    dispersion = 10 ** float(log_dispersion(absolute[middle]))
    if dispersion < _MIN_DISPERSION_KM_S:
        return "low_mass"
    return Mass(weight, absolute, float(_Z[middle]), dispersion)


@lru_cache(maxsize=8)
def _sequence(photometry: Photometry) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The red sequence: colours (Z, B), apparent less absolute i magnitude (Z,), covariance of its scatter (B, B)."""
    colour = photometry.colours(np.zeros(len(_Z)), _Z)
    apparent = photometry.apparent_i(np.zeros(len(_Z)), _Z)
    drawn = photometry.early_many(np.random.default_rng(0), np.full(2000, 0.5))
    covariance = np.atleast_2d(np.cov(drawn.T))
    return colour, apparent, covariance
