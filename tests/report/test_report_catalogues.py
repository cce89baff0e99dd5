from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from stages.records import Candidate
from stages.report.catalogues import write_regions, write_votable
from stages.report.tables import ranked, to_table


def rows() -> list[Candidate]:
    return [
        Candidate("J1 {x}\n", "a.fits", "ok", "", 150.25, -2.5, 0.9, selected=True, theta_e_arcsec=1.25,
                  image_x_pix=(1.0, 2.5), image_y_pix=(3.0, 4.0)),
        Candidate("<J2 & co>", "b.fits", "ok", "", 10.0, 20.0, 0.8, selected=True),
        Candidate("nowhere\x00", "c.fits", "ok", "", score=0.7, selected=True),
        Candidate("not selected", "d.fits", "ok", "", 11.0, 20.0, 0.6),
    ]  # fmt: skip


def test_regions_hold_selected_rows_with_a_position_and_text_that_ds9_can_read(tmp_path: Path) -> None:
    write_regions(ranked(to_table(rows())), tmp_path)
    lines = (tmp_path / "candidates.reg").read_text().splitlines()
    assert lines[0] == "# Region file format: DS9 version 4.1"
    assert lines[3] == "icrs"
    assert lines[4:] == [
        "circle(150.2500000,-2.5000000,1.250\") # text={1: J1  x  }",
        "circle(10.0000000,20.0000000,3.000\") # text={2: <J2 & co>}",
    ]  # fmt: skip


def test_votable_holds_selected_rows_with_units_and_ucds(tmp_path: Path) -> None:
    write_votable(ranked(to_table(rows())), tmp_path)
    table = Table.read(tmp_path / "candidates.vot", format="votable")
    assert len(table) == 3
    assert list(table["rank"]) == [1, 2, 3]
    assert str(table["id"][1]) == "<J2 & co>"
    assert (str(table["ra_deg"].unit), str(table["theta_e_arcsec"].unit)) == ("deg", "arcsec")
    assert table["ra_deg"].meta["ucd"] == "pos.eq.ra;meta.main"
    assert float(table["theta_e_arcsec"][0]) == pytest.approx(1.25)
    assert [float(x) for x in str(table["image_x_pix"][0]).split()] == [1.0, 2.5]
    assert np.isnan(np.ma.filled(table["p_lens"], np.nan)).all()


def test_nothing_selected_gives_files_without_rows(tmp_path: Path) -> None:
    for candidates in ([], rows()[3:]):
        table = ranked(to_table(candidates))
        write_regions(table, tmp_path)
        write_votable(table, tmp_path)
        assert "circle" not in (tmp_path / "candidates.reg").read_text()
        assert len(Table.read(tmp_path / "candidates.vot", format="votable")) == 0
