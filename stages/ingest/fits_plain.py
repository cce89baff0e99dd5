"""Plain FITS images, read by cfitsio in a quarter of astropy's time; what is not plain is left to astropy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fitsio

from stages.records import FloatArray

Header = Mapping[str, Any]  # as astropy's, which has the same get, in and []
_PLAIN_NAME = re.compile(r"[\w./ -]+\.fits?", re.IGNORECASE)  # in others cfitsio sees filters and compression
_SCALED = frozenset(("BSCALE", "BZERO", "BLANK", "ZIMAGE"))
_LONG = frozenset(("CONTINUE", "HIERARCH"))
_REMARKS = frozenset(("COMMENT", "HISTORY"))
_MOST_PIXELS = 2**27  # larger ones are tiles


@dataclass(frozen=True, eq=False)
class Unit:
    """One header-data unit: its name, its header, its image (None without one), and whether it is a table."""

    name: str
    header: Header
    plane: FloatArray | None
    table: bool = False


def plain_units(path: Path) -> list[Unit] | None:
    """Units of a file that holds unscaled images and nothing else, to its last byte; None of any other file."""
    if not _PLAIN_NAME.fullmatch(str(path)):
        return None
    try:
        size = path.stat().st_size
        with fitsio.FITS(str(path)) as units:
            out = [unit for opened in units if (unit := _unit(opened)) is not None]
            whole = len(out) == len(units) and units[-1].get_offsets()["data_end"] == size
    except (OSError, ValueError, TypeError, KeyError, IndexError, MemoryError):
        return None
    return out if whole else None


def _unit(unit: Any) -> Unit | None:
    """One unit, None where it isn't plain."""
    if unit.get_exttype() != "IMAGE_HDU" or unit.is_compressed():
        return None
    header: dict[str, Any] = {}
    for card in unit.read_header_list():
        name, value = card["name"], card["value"]
        if not name or name in _REMARKS:
            continue
        if name in _SCALED or name in _LONG or not isinstance(value, (str, int, float, bool)):
            return None
        header.setdefault(name, value)
    n = 1
    for side in unit.get_dims() if unit.has_data() else ():
        n *= side
    if n > _MOST_PIXELS:
        return None
    return Unit(str(header.get("EXTNAME", "")).strip(), header, unit.read() if unit.has_data() else None)
