"""Spectra through filter curves: magnitudes of every kind of object in a survey's bands, tabulated over redshift.

Spectra are f_nu on one rest-frame wavelength grid. Galaxies: Coleman, Wu & Weedman (1980) templates extended by
Bolzonella et al. (2000), as GalSim ships them; passive evolution of early types as measured by Bernardi et al. (2003,
part III: brighter by Q z magnitudes, Q falling from g to z). Quasars: continuum and lines of Vanden Berk et al. (2001).
Supernovae: black bodies with an ultraviolet deficit. Hydrogen between the galaxies: Madau (1995).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sim.lensing.cosmology import Z_MAX
from stages.records import FloatArray

REFERENCE = "sedpy:sdss_i0"  # the band that colours are relative to
TEMPLATES = ("early", "starburst", "Im", "Scd", "Sbc", "dusty", "quasar", "sn5000", "sn7000", "sn10000", "sn14000")
STAR_FORMING = slice(1, 6)  # in order of redness
SUPERNOVA_TEMPERATURE_K = np.array([5000.0, 7000.0, 10000.0, 14000.0])

_REST_NM = np.geomspace(9.2, 6000.0, 4000)
_Z = np.linspace(0.0, Z_MAX, 281)
_POINTS = 81  # samples of a filter curve
_B_VEGA_TO_AB = -0.10
# Brightening of a passive galaxy, magnitudes per unit redshift by rest wavelength (Bernardi et al. 2003, part III, for
# griz: 1.15, 0.85, 0.75, 0.60); below 400 nm set so that the red sequence to z = 1 comes out as observed.
_PASSIVE_NM = np.array([150.0, 240.0, 312.0, 345.0, 390.0, 469.0, 617.0, 748.0, 893.0, 2200.0])
_PASSIVE_Q = np.array([1.60, 1.60, 0.95, 1.50, 1.40, 1.15, 0.85, 0.75, 0.60, 0.50])
# Lines of quasars: wavelength nm, equivalent width nm, Gaussian width nm (Vanden Berk et al. 2001, Table 2)
_QUASAR_LINES = np.array(
    [[121.6, 9.3, 1.9], [139.8, 0.8, 1.4], [154.9, 2.4, 1.4], [190.9, 2.1, 2.3], [279.8, 3.2, 3.5], [434.0, 1.3, 2.0],
     [486.1, 4.6, 4.0], [500.7, 1.3, 0.6], [656.3, 19.5, 4.7]]
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Curve:
    """A filter: wavelengths in nm, and photon response of any scale."""

    wavelength_nm: FloatArray
    response: FloatArray

    @property
    def pivot_nm(self) -> float:
        """Pivot wavelength (Tokunaga & Vacca 2005, equation A11)."""
        w, t = self.wavelength_nm, self.response
        return float(np.sqrt(np.trapezoid(t * w, w) / np.trapezoid(t / w, w)))


@dataclass(frozen=True, eq=False)
class Tables:
    """Magnitudes of TEMPLATES, less distance modulus and absolute magnitude in the rest frame.

    z : (Z,) equally spaced from 0; reference (T, Z) in the SDSS i band; colour (T, Z, B) in each band less that. The
    absolute magnitude is that in SDSS i today (before passive evolution); for supernovae in B (Vega). pivot_nm : (B,).
    """

    z: FloatArray
    reference: FloatArray
    colour: FloatArray
    pivot_nm: FloatArray


def curve(name: str) -> Curve:
    """A filter curve by "sedpy:NAME", "speclite:NAME" or "box:NM" (20% wide); ValueError for a name not known."""
    library, _, key = name.partition(":")
    try:
        if library == "sedpy":
            from sedpy.observate import Filter

            loaded = Filter(key)
            wavelength_nm, response = np.asarray(loaded.wavelength) / 10, np.asarray(loaded.transmission)
        elif library == "speclite":
            from speclite.filters import load_filter

            loaded = load_filter(key)
            wavelength_nm, response = np.asarray(loaded.wavelength) / 10, np.asarray(loaded.response)
        elif library == "box":
            wavelength_nm, response = float(key) * np.array([0.9, 1.1]), np.ones(2)
        else:
            raise ValueError(f"no filter library {library!r}")
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"filter {name!r} cannot be read ({error}). Name it sedpy:NAME or speclite:NAME.") from error
    seen = np.flatnonzero(response > 1e-3 * response.max())
    ends = wavelength_nm[[seen[0], seen[-1]]]
    grid = np.linspace(ends[0], ends[1], _POINTS)
    return Curve(grid, np.interp(grid, wavelength_nm, response))


def ab_magnitude(wavelength_nm: FloatArray, f_nu: FloatArray, band: Curve) -> float:
    """AB magnitude of f_nu (erg/s/cm^2/Hz) as a photon counter sees it."""
    weight = band.response / band.wavelength_nm
    seen = np.interp(band.wavelength_nm, wavelength_nm, f_nu)
    mean = np.trapezoid(seen * weight, band.wavelength_nm) / np.trapezoid(weight, band.wavelength_nm)
    return float(-2.5 * np.log10(mean) - 48.6)


@lru_cache(maxsize=64)
def tables(filters: tuple[str, ...]) -> Tables:
    """Magnitudes of every template in these filters."""
    curves = [curve(name) for name in filters]
    spectra = np.array(list(_templates().values()))
    in_bands = np.zeros((len(spectra), len(_Z), len(curves)))
    for k, band in enumerate(curves):
        in_bands[..., k] = _redshifted(spectra, band)
    reference = _redshifted(spectra, curve(REFERENCE))
    zero = reference[:, 0].copy()
    first_sn = TEMPLATES.index("sn5000")
    zero[first_sn:] = _redshifted(spectra[first_sn:], curve("sedpy:bessell_B"))[:, 0] - _B_VEGA_TO_AB
    pivots = np.array([band.pivot_nm for band in curves])
    return Tables(_Z, reference - zero[:, None], in_bands - reference[..., None], pivots)


def look_up(table: FloatArray, row: npt.ArrayLike, z: npt.ArrayLike, grid: FloatArray) -> FloatArray:
    """Bilinear in template number and redshift, any shape (...): table (T, Z) or (T, Z, B) to (...) or (..., B)."""
    row, z = np.asarray(row, float), np.asarray(z, float)
    i = np.minimum(row.astype(np.intp), table.shape[0] - 2)
    place = np.minimum(z / grid[1], len(grid) - 1.001)
    j = place.astype(np.intp)
    a, b = row - i, place - j
    if table.ndim == 3:
        a, b = a[..., None], b[..., None]
    low = (1 - b) * table[i, j] + b * table[i, j + 1]
    high = (1 - b) * table[i + 1, j] + b * table[i + 1, j + 1]
    return np.asarray(low + a * (high - low))


def look_up_one(table: FloatArray, row: float, z: float, grid: FloatArray) -> FloatArray:
    """`look_up` of one object, ten times as fast."""
    i = min(int(row), table.shape[0] - 2)
    place = min(z / float(grid[1]), len(grid) - 1.001)
    j = int(place)
    a, b = row - i, place - j
    low = table[i, j] if b == 0 else (1 - b) * table[i, j] + b * table[i, j + 1]
    if a == 0:
        return np.asarray(low)
    return np.asarray((1 - a) * low + a * ((1 - b) * table[i + 1, j] + b * table[i + 1, j + 1]))


def _redshifted(spectra: FloatArray, band: Curve) -> FloatArray:
    """Magnitudes (T, Z) of spectra (T, W) moved to each redshift and seen through intergalactic hydrogen."""
    weight = band.response / band.wavelength_nm
    weight = weight / weight.sum()
    out = np.empty((len(spectra), len(_Z)))
    for k, z in enumerate(_Z):
        rest = band.wavelength_nm / (1 + z)
        seen = np.array([np.interp(np.log(rest), np.log(_REST_NM), s) for s in spectra])
        quiet = np.interp(rest, _PASSIVE_NM, _PASSIVE_Q)
        seen[0] *= 10 ** (0.4 * quiet * (z if z < 1 else 1 + 0.6 * (z - 1)))
        through = np.exp(-_hydrogen(band.wavelength_nm, float(z)))
        out[:, k] = -2.5 * np.log10(np.maximum((seen * weight * through).sum(axis=1), 1e-12) * (1 + z))
    return out


def _templates() -> dict[str, FloatArray]:
    """f_nu of each template on the rest-frame grid, near 1 at 760 nm."""
    galaxies = {name: _coleman(name) for name in ("E", "Im", "Scd", "Sbc")}
    found = {
        "early": galaxies["E"],
        "starburst": galaxies["Im"] * (_REST_NM / 500.0) ** -0.5,
        "Im": galaxies["Im"],
        "Scd": galaxies["Scd"],
        "Sbc": galaxies["Sbc"],
        "dusty": galaxies["Sbc"] * 10 ** (-0.4 * 0.2 * attenuation(_REST_NM)),
        "quasar": _quasar(),
    } | {f"sn{t:.0f}": _supernova(t) for t in SUPERNOVA_TEMPERATURE_K}
    return {name: found[name] / np.interp(760.0, _REST_NM, found[name]) for name in TEMPLATES}


def _coleman(name: str) -> FloatArray:
    from galsim import meta_data

    angstrom, f_lambda = np.loadtxt(Path(meta_data.share_dir) / "SEDs" / f"CWW_{name}_ext.sed", unpack=True)
    f_nu = f_lambda * angstrom**2
    inside = np.interp(_REST_NM, angstrom / 10, f_nu)
    beyond = np.maximum(_REST_NM / (angstrom[-1] / 10), 1.0) ** -2.0  # the Rayleigh-Jeans tail of old stars
    return np.asarray(inside * beyond)


def _quasar() -> FloatArray:
    """Continuum nu^-0.44 (the red steepening of the composite is its hosts'), hot dust beyond 1 micron, and lines."""
    continuum = (_REST_NM / 500.0) ** 0.44 * np.maximum(_REST_NM / 1000.0, 1.0) ** 1.0
    lines = np.ones_like(_REST_NM)
    for centre, width, sigma in _QUASAR_LINES:
        lines += width / (sigma * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((_REST_NM - centre) / sigma) ** 2)
    return np.asarray(continuum * lines)


def _supernova(temperature_k: float) -> FloatArray:
    """A black body whose light below 400 nm falls as the square of the wavelength (line blanketing)."""
    x = 1.4387769e7 / (_REST_NM * temperature_k)
    return np.asarray(_REST_NM**-3 / np.expm1(np.minimum(x, 600.0)) * np.minimum(_REST_NM / 400.0, 1.0) ** 2)


def attenuation(wavelength_nm: FloatArray) -> FloatArray:
    """A(lambda) / E(B-V) of starburst galaxies (Calzetti et al. 2000, equation 4), 0 beyond 2.2 microns."""
    micron = np.clip(np.asarray(wavelength_nm) / 1000.0, 0.12, 2.2)
    blue = 2.659 * (-2.156 + 1.509 / micron - 0.198 / micron**2 + 0.011 / micron**3) + 4.05
    red = 2.659 * (-1.857 + 1.040 / micron) + 4.05
    return np.asarray(np.clip(np.where(micron < 0.63, blue, red), 0.0, None))


def _hydrogen(observed_nm: FloatArray, z: float) -> FloatArray:
    """Mean optical depth of the Lyman series and continuum (Madau 1995, equations 15 and footnote 3)."""
    depth = np.zeros_like(observed_nm)
    for line_nm, amount in ((121.567, 3.6e-3), (102.572, 1.7e-3), (97.254, 1.2e-3), (94.974, 9.3e-4)):
        depth += np.where(observed_nm < line_nm * (1 + z), amount * (observed_nm / line_nm) ** 3.46, 0.0)
    xc, xe = np.maximum(observed_nm / 91.2, 1.0), 1 + z
    continuum = 0.25 * xc**3 * (xe**0.46 - xc**0.46) + 9.4 * xc**1.5 * (xe**0.18 - xc**0.18)
    continuum += -0.7 * xc**3 * (xc**-1.32 - xe**-1.32) - 0.023 * (xe**1.68 - xc**1.68)
    return np.asarray(depth + np.where(observed_nm < 91.2 * xe, np.clip(continuum, 0, None), 0.0))
