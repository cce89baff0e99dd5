"""Catalogues of objects on tiles: CSV, FITS or VOTable with x, y in pixels or ra, dec in degrees."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from astropy.table import Table

from stages.ingest.names import suffix_of
from stages.ingest.options import InputError

_NAMES = {
    "id": ("id", "name", "objid", "object_id", "source_id", "objname", "number"),
    "tile": ("tile", "file", "filename", "image", "path", "tile_id", "tilename"),
    "x": ("x", "x_pix", "xpix", "x_image"),
    "y": ("y", "y_pix", "ypix", "y_image"),
    "ra_deg": ("ra_deg", "ra", "raj2000", "alpha_j2000", "right_ascension"),
    "dec_deg": ("dec_deg", "dec", "dej2000", "decj2000", "delta_j2000", "declination"),
}


def read(path: Path) -> pd.DataFrame:
    """A catalogue with columns id, tile, x, y, ra_deg, dec_deg as far as it has them; raises InputError.

    x and y are 0-based pixel centres, except SExtractor's X_IMAGE and Y_IMAGE, which count from 1 and are converted.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such catalogue. Check --catalogue.")
    try:
        if suffix_of(path) == ".csv":
            table = pd.read_csv(path, dtype={"id": str, "ID": str, "tile": str}, comment="#", skipinitialspace=True)
        else:
            table = Table.read(path).to_pandas()
    except Exception as error:  # astropy and pandas raise errors of many kinds
        raise InputError(f"{path}: not a readable CSV, FITS or VOTable ({error}). Check the file.") from error
    lower = {str(c).strip().lower(): c for c in table.columns}
    out = pd.DataFrame(index=table.index)
    for name, spellings in _NAMES.items():
        found = next((s for s in spellings if s in lower), None)
        if found is None:
            continue
        column = table[lower[found]]
        if name in ("id", "tile"):
            out[name] = column.map(lambda v: v.decode() if isinstance(v, bytes) else str(v)).str.strip()
        else:
            out[name] = pd.to_numeric(column, errors="coerce") - (1 if found in ("x_image", "y_image") else 0)
    if not ({"x", "y"} <= set(out) or {"ra_deg", "dec_deg"} <= set(out)):
        raise InputError(f"{path}: has columns {sorted(lower)}. Give x and y (pixels) or ra and dec (degrees).")
    if out.empty:
        raise InputError(f"{path}: has no rows. Give a catalogue of the objects to look at.")
    if "id" not in out:
        out["id"] = [str(k) for k in range(len(out))]
    return out.reset_index(drop=True)
