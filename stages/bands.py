"""Filter names to wavelengths: the one home of what a band's name means."""

from __future__ import annotations

import re

# Effective wavelengths in nm of broad-band filters by their usual one- or two-letter names
# (SDSS/DES/CFHT optical: Fukugita et al. 1996; near infrared: Tokunaga & Vacca 2005; Euclid: Scaramella et al. 2022).
WAVELENGTH_NM: dict[str, float] = {
    "u": 355.0, "g": 475.0, "r": 622.0, "i": 763.0, "z": 905.0, "y": 1000.0,
    "b": 440.0, "v": 550.0, "j": 1250.0, "h": 1650.0, "k": 2200.0, "ks": 2150.0, "vis": 715.0,
    "blue": 475.0, "green": 622.0, "red": 763.0,  # planes of a colour composite whose filters are not named
}  # fmt: skip

_SPACE_FILTER = re.compile(r"^f(\d{3,4})(w|m|n|lp|x|w2)$")


def wavelength_nm(band: str) -> float:
    """Effective wavelength of a band in nm, NaN for a name not known.

    Takes survey spellings ("g.MP9401", "OCAM_g_SDSS", "z.00000") and space filters ("F814W": 814 nm, "F160W": 1600 nm
    because HST's infrared names count in 10 nm below 200, "F444W": 4440 nm because JWST's do above F850LP's range).
    """
    name = band.strip().lower()
    if name in WAVELENGTH_NM:
        return WAVELENGTH_NM[name]
    space = _SPACE_FILTER.match(name)
    if space:
        number = float(space.group(1))
        if number < 200 or number >= 1000:  # HST infrared (F105W-F160W), JWST MIRI (F1000W-F2550W)
            return number * 10.0
        return number * 10.0 if number in _NIRCAM_NUMBERS else number
    for part in re.split(r"[._\-\s]+", name):
        if part in WAVELENGTH_NM:
            return WAVELENGTH_NM[part]
    return float("nan")


_NIRCAM_NUMBERS = frozenset(
    int(n) for n in "200 210 212 250 277 300 322 323 335 356 360 405 410 430 444 460 466 470 480 560 770".split()
)
