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
from stages.ingest.names import ROLES
from stages.records import FloatArray

_SMALL_IMAGES = 4  # this many unnamed images of one file are objects of their own


@dataclass(frozen=True, eq=False)
class Planes:
    """What one file holds, by role; header of its image."""

    images: list[FloatArray]
    header: fits.Header
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
    data = _bytes(path)
    images: list[FloatArray] = []
    other: dict[str, FloatArray] = {}
    header, integers, tables, unnamed = None, False, 0, 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", AstropyWarning)
        warnings.simplefilter("always", VerifyWarning)
        try:
            with fits.open(io.BytesIO(data), lazy_load_hdus=False) as units:
                for unit in units:
                    if isinstance(unit, (fits.BinTableHDU, fits.TableHDU)) and not isinstance(unit, fits.CompImageHDU):
                        tables += 1
                        continue
                    if unit.data is None:
                        header = header if header is not None else unit.header
                        continue
                    role = ROLES.get(unit.name.lower(), "image")
                    plane = np.asarray(unit.data)
                    if role != "image":
                        other[role] = _native(plane)
                        continue
                    if not images:
                        header = unit.header if unit.header.get("NAXIS", 0) else header
                        header = _merged(units[0].header, unit.header)
                        integers = plane.dtype.kind in "iu" and "BSCALE" not in unit.header
                    images.append(_native(plane))
                    unnamed += unit.name == "" or unit.name == "PRIMARY"
        except ReadError:
            raise
        except Exception as error:  # astropy raises nearly anything on mutated headers
            raise ReadError(
                _why(said, data), f"{type(error).__name__}: {error}. Copy or make the file anew."
            ) from error
        if not images and any("truncated" in str(w.message).lower() for w in said):
            raise ReadError("truncated", "The file ends early. Copy it again.")
    if not images or header is None:
        if tables:
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


def _merged(primary: fits.Header, own: fits.Header) -> fits.Header:
    """An extension's header with what only the primary says."""
    merged = own.copy()
    for card in primary.cards:
        if (
            card.keyword
            and card.keyword not in merged
            and card.keyword not in ("COMMENT", "HISTORY", "EXTEND", "SIMPLE")
        ):
            merged.append(card)
    return merged
