import csv
import math
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest

from stages.records import Candidate, Problem
from stages.report.tables import (
    CONTRACT_COLUMNS,
    TableError,
    candidates_schema,
    read_candidates,
    read_rows,
    to_table,
    write_candidates,
    write_problems,
)

HOSTILE_IDS = (
    "<script>alert(1)</script>",
    'a"b,c',
    "line\nbreak",
    "tab\there",
    "é ∑ 😀",
    "''",
    "=1+1",
    " padded ",
    "nan",
)


def row(id: str, score: float = math.nan, **more: object) -> Candidate:
    status = "ok" if math.isfinite(score) else "skipped"
    return Candidate(id=id, source=f"{id}.fits", status=status, reason="", score=score, **more)  # type: ignore[arg-type]


def written_csv(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "candidates.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_are_the_contract_in_its_order_then_the_rest_of_candidate(tmp_path: Path) -> None:
    table = write_candidates(to_table([row("a", 0.5)]), tmp_path)
    assert tuple(table.column_names[: len(CONTRACT_COLUMNS)]) == CONTRACT_COLUMNS
    rest = table.column_names[len(CONTRACT_COLUMNS) :]
    assert rest[:4] == ["deflector_x_pix", "deflector_y_pix", "missing_names", "theorem_sentence"]
    assert set(rest) == {f.name for f in fields(Candidate)} - set(CONTRACT_COLUMNS)
    assert list(written_csv(tmp_path)[0]) == table.column_names


def test_ranks_fall_with_score_then_follow_id_and_unscored_rows_come_last_in_id_order(tmp_path: Path) -> None:
    rows = [row("z"), row("b", 0.5), row("m", 0.9), row("a", 0.5), row("c"), row("n", -2.0)]
    table = write_candidates(to_table(rows), tmp_path)
    assert table["id"].to_pylist() == ["m", "a", "b", "n", "c", "z"]
    assert table["rank"].to_pylist() == [1, 2, 3, 4, 5, 6]


def test_order_does_not_depend_on_the_order_of_the_parts(tmp_path: Path) -> None:
    rows = [row(f"id{k:03d}", score=(k * 7 % 13) / 13) for k in range(40)]
    forward = pa.concat_tables([to_table(rows[:11]), to_table(rows[11:])])
    backward = pa.concat_tables([to_table(rows[11:][::-1]), to_table(rows[:11])])
    write_candidates(forward, tmp_path / "a")
    write_candidates(backward, tmp_path / "b")
    for name in ("candidates.csv", "candidates.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["candidates.csv", "candidates.parquet"])
def test_every_field_survives_a_round_trip(tmp_path: Path, name: str) -> None:
    rows = [
        row("lens", 0.12345678901234568, image_x_pix=(1.5, 1e-7, 1234567.25), image_y_pix=(2.0, math.nan, -3.0),
            image_confidence=(0.9, 0.8, 0.7), missing_names=("below_limit", "unexplained"), selected=True,
            n_images=3.0),
        row("empty", 0.1), row("skipped"),
    ]  # fmt: skip
    expected = write_candidates(to_table(rows), tmp_path)
    table = read_candidates(tmp_path / name)
    assert table.schema.equals(candidates_schema())
    assert repr(table.to_pylist()) == repr(expected.to_pylist())  # repr: NaN equals NaN


def test_candidates_come_back_from_their_table() -> None:
    rows = [row("a", 0.5, image_x_pix=(1.0, 2.0), missing_names=("below_limit",), selected=True), row("b")]
    assert repr(read_rows(to_table(rows))) == repr(rows)
    assert read_rows(to_table([])) == []


def test_list_cells_are_space_separated_and_absent_numbers_empty_in_csv(tmp_path: Path) -> None:
    write_candidates(to_table([row("a", 0.5, image_x_pix=(1.5, 2.0)), row("b")]), tmp_path)
    first, second = written_csv(tmp_path)
    assert first["image_x_pix"] == "1.5 2"
    assert (second["score"], second["image_x_pix"], second["status"]) == ("", "", "skipped")


@pytest.mark.parametrize("id", HOSTILE_IDS)
def test_hostile_ids_travel_unchanged(tmp_path: Path, id: str) -> None:
    write_candidates(to_table([row(id, 0.5)]), tmp_path)
    assert written_csv(tmp_path)[0]["id"] == id
    assert read_candidates(tmp_path)["id"].to_pylist() == [id]
    assert read_candidates(tmp_path / "candidates.csv")["id"].to_pylist() == [id]


def test_no_rows_give_a_header_and_an_empty_table(tmp_path: Path) -> None:
    write_candidates(to_table([]), tmp_path)
    assert (tmp_path / "candidates.csv").read_text().count("\n") == 1
    assert len(read_candidates(tmp_path)) == len(read_candidates(tmp_path / "candidates.csv")) == 0


def test_problems_keep_their_order_and_their_text(tmp_path: Path) -> None:
    problems = [
        Problem('b"1', "b.fits", "skipped", "unreadable", "Truncated, at byte 2880.\nCopy it again."),
        Problem("a", "a.fits", "degraded", "missing_band", "No g."),
    ]
    write_problems(problems, tmp_path)
    with (tmp_path / "problems.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [[p.id, p.source, p.status, p.reason, p.message] for p in problems]
    write_problems([], tmp_path)
    assert (tmp_path / "problems.csv").read_text() == "id,source,status,reason,message\n"


def test_a_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    write_problems([Problem("a", "a", "skipped", "empty", "")], tmp_path)
    before = (tmp_path / "problems.csv").read_bytes()
    with pytest.raises(AttributeError):
        write_problems([None], tmp_path)  # type: ignore[list-item]
    assert (tmp_path / "problems.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["problems.csv"]


def test_reading_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"No candidate table at .*candidates\.parquet\. Name a finished run"):
        read_candidates(tmp_path)
    (tmp_path / "candidates.parquet").write_bytes(b"not parquet")
    with pytest.raises(TableError, match=r"cannot be read as a candidate table"):
        read_candidates(tmp_path)
    (tmp_path / "other.csv").write_text("id,score\na,1\n")
    with pytest.raises(TableError, match=r"lacks the columns rank, source"):
        read_candidates(tmp_path / "other.csv")


def test_writing_names_the_columns_that_are_absent(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="lacks the columns score"):
        write_candidates(to_table([row("a", 0.5)]).drop_columns(["score"]), tmp_path)
