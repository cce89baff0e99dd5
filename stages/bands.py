"""Filter names to wavelengths: the one home of what a band's name means."""

from __future__ import annotations

import re

# Effective wavelengths in nm of broad-band filters by their usual one- or two-letter names
# (SDSS/DES/CFHT optical: Fukugita et al. 1996; near infrared: Tokunaga & Vacca 2005; Euclid: Scaramella et al. 2022).
WAVELENGTH_NM: dict[str, float] = {
    "u": 355.0, "g": 475.0, "r": 622.0, "i": 763.0, "z": 905.0, "y": 1000.0,
    "b": 440.0, "v": 550.0, "j": 1250.0, "h": 1650.0, "k": 2200.0, "ks": 2150.0, "vis": 715.0,
    "f062": 620.0, "f087": 870.0, "f106": 1060.0, "f129": 1290.0, "f146": 1460.0, "f158": 1580.0, "f184": 1840.0,
    "f213": 2130.0,  # Roman names have no letter behind
    "blue": 475.0, "green": 622.0, "red": 763.0,  # planes of a colour composite whose filters are not named
}  # fmt: skip

_SPACE_FILTER = re.compile(r"^f(\d{3,4})(w|m|n|lp|x|w2)$")
_JWST_BELOW_1000 = frozenset(  # the ones that count in 10 nm; HST's F200LP, F300X and F300W are in nm
    "f200w f210m f212n f250m f277w f300m f322w2 f323n f335m f356w f360m f380m f405n f410m f430m f444w f460m f466n "
    "f470n f480m f560w f770w".split()
)


def wavelength_nm(band: str) -> float:
    """Effective wavelength of a band in nm, NaN for a name not known.

    Takes survey spellings ("g.MP9401", "OCAM_g_SDSS", "z.00000", "g'"), space filters ("F814W": 814 nm, "F160W":
    1600 nm because HST's infrared names count in 10 nm below 200, "F444W": 4440 nm because JWST's do) and filters named
    with their wheel or instrument ("CLEAR1L; F814W", "ACS_F814W"): the first part that is known counts.
    """
    name = band.strip().lower()
    parts = (_one_word(part) for part in (name, *re.split(r"[^a-z0-9]+", name)))
    return next((wavelength for wavelength in parts if wavelength is not None), float("nan"))


def _one_word(name: str) -> float | None:
    if name in WAVELENGTH_NM:
        return WAVELENGTH_NM[name]
    space = _SPACE_FILTER.match(name)
    if space is None:
        return None
    number = float(space.group(1))
    tens = number < 200 or number >= 1000 or name in _JWST_BELOW_1000  # HST infrared, JWST MIRI, JWST
    return number * 10.0 if tens else number
