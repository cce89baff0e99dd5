"""The selected candidates for other tools: a DS9 region file and a VOTable."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from astropy.io.votable import writeto
from astropy.io.votable.tree import VOTableFile
from astropy.table import Column, Table

from stages.report.atomic import replacing

_DEFAULT_RADIUS_ARCSEC = 3.0
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_UNITS = {"deg": "deg", "arcsec": "arcsec", "pix": "pix"}
_UCDS = {"id": "meta.id;meta.main", "ra_deg": "pos.eq.ra;meta.main", "dec_deg": "pos.eq.dec;meta.main"}


def write_regions(table: pa.Table, run_dir: Path) -> None:
    """Write `candidates.reg` for DS9: a circle per selected candidate with a sky position, labelled rank and id.

    The radius is the Einstein radius, 3 arcsec where it is unknown.
    """
    rows = table.filter(pc.fill_null(table["selected"], False)).to_pylist()
    placed = [row for row in rows if math.isfinite(row["ra_deg"]) and math.isfinite(row["dec_deg"])]
    lines = [
        "# Region file format: DS9 version 4.1",
        f"# oddlens: {len(placed)} of {len(rows)} selected candidates have a sky position",
        "global color=cyan width=2",
        "icrs",
    ]
    for row in placed:
        theta_e = row["theta_e_arcsec"]
        radius = theta_e if math.isfinite(theta_e) and theta_e > 0 else _DEFAULT_RADIUS_ARCSEC
        label = re.sub(r"[{}\x00-\x1f\x7f]", " ", f"{row['rank']}: {row['id']}")  # braces delimit DS9 text
        lines.append(f'circle({row["ra_deg"]:.7f},{row["dec_deg"]:.7f},{radius:.3f}") # text={{{label}}}')
    with replacing(run_dir / "candidates.reg") as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_votable(table: pa.Table, run_dir: Path) -> None:
    """Write `candidates.vot` (VOTable): the selected candidates, all columns with units, lists space-separated."""
    chosen = table.filter(pc.fill_null(table["selected"], False))
    votable = Table()
    for field in chosen.schema:
        votable[field.name] = _column(chosen[field.name], field)
    with replacing(run_dir / "candidates.vot") as part:
        document = VOTableFile.from_table(votable)
        for column in document.get_first_table().fields:
            column.ucd = _UCDS.get(column.ID)
        writeto(document, str(part))


def _column(values: pa.ChunkedArray, field: pa.Field) -> Column:
    if pa.types.is_list(field.type):
        return Column([" ".join(str(v) for v in cell) for cell in values.to_pylist()], dtype=str)
    if pa.types.is_string(field.type):
        return Column([_NOT_XML.sub(" ", text) for text in values.to_pylist()], dtype=str)
    unit = _UNITS.get(field.name.rsplit("_", 1)[-1])
    return Column(values.to_pylist(), dtype=field.type.to_pandas_dtype(), unit=unit)
