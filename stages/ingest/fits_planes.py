"""The planes of one FITS file, sorted by role; whatever the file does, the error has a reason."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.utils.exceptions import AstropyWarning

from stages.ingest.field import ReadError
from stages.ingest.fits_plain import Header, Unit, plain_units
from stages.ingest.names import ROLES
from stages.records import FloatArray

_SMALL_IMAGES = 4  # this many unnamed images of one file are objects of their own


@dataclass(frozen=True, eq=False)
class Planes:
    """What one file holds, by role; header of its image."""

    images: list[FloatArray]
    header: Header
    other: dict[str, FloatArray] = field(default_factory=dict)
    integers: bool = False
    objects: bool = False

    @property
    def n_bands(self) -> int:
        """Number of planes of the object's image."""
        first = self.images[0]
        return len(self.images) if len(self.images) > 1 else (len(first) if first.ndim == 3 else 1)


def load(path: Path) -> Planes:
    """Read every image of a file into memory, sorted by role; raises ReadError with the reason."""
    units = plain_units(path)
    return _sorted(_units(path) if units is None else units)


def _units(path: Path) -> list[Unit]:
    """Units of any file that astropy can read."""
    data = _bytes(path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", AstropyWarning)
        warnings.simplefilter("always", VerifyWarning)
        try:
            with fits.open(io.BytesIO(data), lazy_load_hdus=False) as opened:
                units = [_unit(unit) for unit in opened]
        except Exception as error:  # astropy raises nearly anything on mutated headers
            raise ReadError(
                _why(said, data), f"{type(error).__name__}: {error}. Copy or make the file anew."
            ) from error
        pictures = [u for u in units if u.plane is not None and _role(u) == "image"]
        if not pictures and any("truncated" in str(w.message).lower() for w in said):
            raise ReadError("truncated", "The file ends early. Copy it again.")
    return units


def _unit(unit: Any) -> Unit:
    if isinstance(unit, (fits.BinTableHDU, fits.TableHDU)) and not isinstance(unit, fits.CompImageHDU):
        return Unit(unit.name, unit.header, None, table=True)
    return Unit(unit.name, unit.header, None if unit.data is None else np.asarray(unit.data))


def _role(unit: Unit) -> str:
    return ROLES.get(unit.name.lower(), "image")


def _sorted(units: Sequence[Unit]) -> Planes:
    """Planes by role; raises ReadError where no image is among them."""
    images: list[FloatArray] = []
    other: dict[str, FloatArray] = {}
    header: Header | None = None
    integers, unnamed = False, 0
    for unit in units:
        if unit.plane is None:
            header = header if header is not None or unit.table else unit.header
            continue
        role = _role(unit)
        if role != "image":
            other[role] = _native(unit.plane)
            continue
        if not images:
            header = _merged(units[0].header, unit.header)
            integers = unit.plane.dtype.kind in "iu" and "BSCALE" not in unit.header
        images.append(_native(unit.plane))
        unnamed += unit.name == "" or unit.name == "PRIMARY"
    if not images or header is None:
        if any(unit.table for unit in units):
            raise ReadError(
                "no_image", "A table without an image. If it lists objects on tiles, give it as --catalogue."
            )
        raise ReadError("no_image", "No image in the file. Check how it was made.")
    return Planes(images, header, other, integers, objects=len(images) >= _SMALL_IMAGES and unnamed == len(images))


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReadError("unreadable", f"{error.strerror}. Check the file's permissions and the disk.") from error
    if not data:
        raise ReadError("empty_file", "The file has no bytes. Copy or make it anew.")
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except EOFError as error:
            raise ReadError("truncated", "The compressed file ends early. Copy it again.") from error
        except (OSError, zlib.error) as error:
            raise ReadError("unreadable", f"{error}. Copy the compressed file again.") from error
    if not data.startswith(b"SIMPLE"):
        raise ReadError("wrong_type", "Not a FITS file, whatever its name says. Check how it was made.")
    return data


def _why(said: Sequence[warnings.WarningMessage], data: bytes) -> str:
    cut = any("truncated" in str(w.message).lower() for w in said) or len(data) % 2880
    return "truncated" if cut else "unreadable"


def _native(plane: Any) -> FloatArray:
    if plane.dtype.kind not in "fiub":
        raise ReadError("wrong_type", f"An image of {plane.dtype}. Expected numbers.")
    return np.asarray(plane, dtype=np.float32)


def _merged(primary: Header, own: Header) -> Header:
    """An extension's header with what only the primary says."""
    if not isinstance(primary, fits.Header) or not isinstance(own, fits.Header):
        return {**primary, **own}
    merged: Any = own.copy()
    for card in primary.cards:
        if (
            card.keyword
            and card.keyword not in merged
            and card.keyword not in ("COMMENT", "HISTORY", "EXTEND", "SIMPLE")
        ):
            merged.append(card)
    whole: Header = merged
    return whole
