"""What a file's name says: which object, which band, and whether it is the image, its noise, its PSF or its mask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROLES = {
    "sci": "image", "img": "image", "image": "image", "drz": "image",
    "var": "variance", "variance": "variance", "rms": "rms", "err": "rms", "sigma": "rms", "noise": "rms",
    "wht": "weight", "weight": "weight", "ivar": "weight", "invvar": "weight",
    "psf": "psf", "mask": "mask", "dq": "mask", "flag": "mask", "flags": "mask",
}  # fmt: skip
FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fits.fz")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".hdf")
SIDE_SUFFIXES = (
    ".csv", ".txt", ".md", ".rst", ".json", ".yaml", ".yml", ".xml", ".vot", ".votable", ".reg", ".html", ".log",
    ".ecsv", ".parquet", ".py", ".sh", ".pdf", ".cat", ".dat", ".bib",
)  # fmt: skip

_GROUND_BAND = re.compile(r"^([ugrizyjhk]|ks|vis)$", re.IGNORECASE)
_SPACE_BAND = re.compile(r"^f\d{3,4}(w|m|n|lp|x|w2)$", re.IGNORECASE)
_EPOCH = re.compile(r"_\d{5}(\.\d+)?$")  # a modified Julian date, as Pan-STARRS cutouts carry


@dataclass(frozen=True)
class Name:
    """An object's name, its band ("" if not named) and the role of the file ("" if not named)."""

    object: str
    band: str
    role: str


def suffix_of(path: Path) -> str:
    """The ending that tells the format, lower case, compression included."""
    name = path.name.lower()
    return next((s for s in (".fits.gz", ".fit.gz", ".fits.fz") if name.endswith(s)), path.suffix.lower())


def stem_of(path: Path) -> str:
    """The name without the ending that tells the format."""
    suffix = suffix_of(path)
    return path.name[: len(path.name) - len(suffix)] if suffix else path.name


def parse(path: Path) -> Name:
    """Read OBJECT_BAND_ROLE.fits, OBJECT_ROLE.fits, OBJECT_BAND.fits and OBJECT/BAND_ROLE.fits.

    A space filter without a role is left in the object's name: such files are rarely on one grid.
    """
    words = stem_of(path).split("_")
    role = ROLES.get(words[-1].lower(), "")
    if role:
        words = words[:-1]
    elif "psf" in (w.lower() for w in words):
        return Name("_".join(words), "", "psf")
    band = ""
    if words and (_GROUND_BAND.match(words[-1]) or (role and _SPACE_BAND.match(words[-1]))):
        band = words[-1]
        words = words[:-1]
    name = "_".join(words)
    if band and role:
        name = _EPOCH.sub("", name)
    if not name and (band or role):
        name = path.parent.name
    return Name(name, band, role)
