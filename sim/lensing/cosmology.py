"""Distances of a flat universe (H0 = 70 km/s/Mpc, Omega_m = 0.3), tabulated once by astropy and interpolated."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from astropy.cosmology import FlatLambdaCDM

from stages.records import FloatArray

ARCSEC_PER_RADIAN = 206264.80624709636
Z_MAX = 7.0

_SPEED_OF_LIGHT_KM_S = 299792.458
_HUBBLE_KM_S_MPC, _OMEGA_M = 70.0, 0.3
_SIGMA_CRITICAL = 1.66292e18  # c^2 / (4 pi G) in solar masses per Mpc
_N = 1401


@lru_cache(maxsize=1)
def _comoving_mpc() -> tuple[FloatArray, FloatArray]:
    z = np.linspace(0.0, Z_MAX, _N)
    return z, np.asarray(FlatLambdaCDM(_HUBBLE_KM_S_MPC, _OMEGA_M).comoving_distance(z).value)


def comoving_mpc(z: npt.ArrayLike) -> FloatArray:
    """Comoving distance in Mpc; z up to 7."""
    grid, distance = _comoving_mpc()
    return np.asarray(np.interp(np.asarray(z, float), grid, distance))


def distance_modulus(z: npt.ArrayLike) -> FloatArray:
    """Distance modulus in magnitudes, z > 0."""
    return np.asarray(5 * np.log10(comoving_mpc(z) * (1 + np.asarray(z))) + 25)


def kpc_per_arcsec(z: npt.ArrayLike) -> FloatArray:
    """Proper transverse kpc that one arcsec subtends."""
    return np.asarray(comoving_mpc(z) / (1 + np.asarray(z)) * 1000.0 / ARCSEC_PER_RADIAN)


def volume_per_z(z: npt.ArrayLike) -> FloatArray:
    """Comoving volume per unit redshift and steradian in Mpc^3 (Hogg 1999, equation 28)."""
    expansion = np.sqrt(_OMEGA_M * (1 + np.asarray(z)) ** 3 + 1 - _OMEGA_M)
    return np.asarray(_SPEED_OF_LIGHT_KM_S / _HUBBLE_KM_S_MPC * comoving_mpc(z) ** 2 / expansion)


def lensing_efficiency(z_deflector: npt.ArrayLike, z_source: npt.ArrayLike) -> FloatArray:
    """D_ls / D_s; 0 for a source that is not behind the deflector."""
    lens, source = comoving_mpc(z_deflector), comoving_mpc(z_source)
    return np.asarray(np.clip(1 - lens / np.maximum(source, 1e-9), 0.0, None))


def einstein_radius_arcsec(
    dispersion_km_s: npt.ArrayLike, z_deflector: npt.ArrayLike, z_source: npt.ArrayLike
) -> FloatArray:
    """Einstein radius of a singular isothermal sphere, 4 pi (sigma/c)^2 D_ls/D_s."""
    ratio = np.asarray(dispersion_km_s) / _SPEED_OF_LIGHT_KM_S
    return np.asarray(4 * np.pi * ratio**2 * lensing_efficiency(z_deflector, z_source) * ARCSEC_PER_RADIAN)


def einstein_mass(theta_e_arcsec: float, z_deflector: float, z_source: float) -> float:
    """Solar masses projected within the Einstein radius, pi theta_E^2 D_l^2 Sigma_cr."""
    lens_mpc = float(comoving_mpc(z_deflector)) / (1 + z_deflector)
    angle = theta_e_arcsec / ARCSEC_PER_RADIAN
    return np.pi * angle**2 * _SIGMA_CRITICAL * lens_mpc / float(lensing_efficiency(z_deflector, z_source))
