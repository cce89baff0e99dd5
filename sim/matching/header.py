"""What FITS headers say beyond `stages.ingest`: zero point, gain, saturation, telescope."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits

from stages.ingest.field import ReadError
from stages.ingest.fits_planes import load
from stages.ingest.listing import Entry

_ZERO_POINT_KEYS = (
    "MZP_AB",
    "MAGZP",
    "MAGZPT",
    "MAGZERO",
    "MAG_ZERO",
    "ZEROPNT",
    "ZEROPOIN",
    "ZPAB",
    "ABZP",
    "PHOTZP",
    "ZP",
)
_GAIN_KEYS = ("GAIN", "EGAIN", "GAINEFF", "CCDGAIN")
_SATURATION_KEYS = ("SATURATE", "SATURAT", "SATLEVEL")
_SPACE = ("HST", "JWST", "EUCLID", "ROMAN", "WFIRST")
_MIN_SKY, _MAX_SKY = 16.0, 34.0  # AB mag per arcsec2 of a plausible sky rms


@dataclass(frozen=True)
class Said:
    """By band, with the keyword that says it; telescope in upper case, "" if not named."""

    zero_point: dict[str, tuple[float, str]] = field(default_factory=dict)
    gain: dict[str, tuple[float, str]] = field(default_factory=dict)
    saturation: dict[str, tuple[float, str]] = field(default_factory=dict)
    telescope: str = ""


def said(entry: Entry, bands: tuple[str, ...], pixel_scale_arcsec: float) -> Said:
    """Read the headers of an entry's images; files that are not FITS say nothing."""
    found = Said()
    zero: dict[str, tuple[float, str]] = {}
    gain: dict[str, tuple[float, str]] = {}
    full: dict[str, tuple[float, str]] = {}
    telescope = ""
    for (band, role), paths in entry.files:
        if role not in ("", "image") or not paths[0].name.lower().endswith((".fits", ".fit", ".fts", ".gz", ".fz")):
            continue
        try:
            header = load(paths[0]).header
        except ReadError:
            continue
        telescope = telescope or _telescope(header)
        for k, name in enumerate(bands):
            if band and band != name:
                continue
            zero |= _named(name, zero_point(header, k, name, pixel_scale_arcsec))
            gain |= _named(name, _first(header, (f"GAIN_{name}", f"GAIN{k}", *_GAIN_KEYS), 1e-12))
            full |= _named(name, _first(header, _SATURATION_KEYS, 0.0))
    return Said(zero, gain, full, telescope) if zero or gain or full or telescope else found


def zero_point(header: fits.Header, index: int, band: str, pixel_scale_arcsec: float) -> tuple[float, str] | None:
    """AB magnitude of one flux unit and the keyword it comes from, None where the header does not say."""
    per_band = (f"MAGZP_{band}".upper()[:8], f"MAGZP{index}", f"ZP_{band}".upper()[:8], f"ZP{index}")
    found = _first(header, (*per_band, *_ZERO_POINT_KEYS), -5.0, 45.0)
    if found is not None:
        return found
    flux_mag0 = _number(header.get("FLUXMAG0"))  # LSST pipelines: counts of a source of magnitude 0
    if flux_mag0 > 0:
        return 2.5 * np.log10(flux_mag0), "FLUXMAG0"
    lam, pivot = _number(header.get("PHOTFLAM")), _number(header.get("PHOTPLAM"))
    if lam > 0 and pivot > 0:  # STScI's definition of the AB zero point
        return -2.5 * np.log10(lam) - 5 * np.log10(pivot) - 2.408, "PHOTFLAM, PHOTPLAM"
    unit = str(header.get("BUNIT", "")).strip().lower().replace(" ", "")
    if unit in ("nmgy", "nanomaggy", "nanomaggies"):
        return 22.5, "BUNIT"
    if unit in ("njy", "nanojansky"):
        return 31.4, "BUNIT"
    if unit in ("ujy", "microjansky"):
        return 23.9, "BUNIT"
    if unit == "mjy/sr":
        jansky = 1e6 * (pixel_scale_arcsec / 206264.806) ** 2
        return 8.90 - 2.5 * np.log10(jansky), "BUNIT"
    return None


def plausible(zero: float, sigma: float, pixel_scale_arcsec: float) -> bool:
    """Whether a zero point puts the sky's rms where telescopes have it."""
    surface = zero - 2.5 * np.log10(sigma / pixel_scale_arcsec)
    return bool(_MIN_SKY < surface < _MAX_SKY)


def _telescope(header: fits.Header) -> str:
    name = " ".join(str(header.get(k, "")) for k in ("TELESCOP", "SURVEY", "INSTRUME")).upper()
    return next((t for t in _SPACE if t in name), str(header.get("TELESCOP", "")).strip().upper())


def _first(header: fits.Header, keys: tuple[str, ...], low: float, high: float = np.inf) -> tuple[float, str] | None:
    for key in keys:
        value = _number(header.get(key))
        if low < value < high:
            return value, key
    return None


def _named(band: str, value: tuple[float, str] | None) -> dict[str, tuple[float, str]]:
    return {} if value is None else {band: value}


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
