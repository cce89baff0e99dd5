"""Candidates and problems as files: Parquet and CSV, written whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from stages.records import Candidate, Problem
from stages.report.atomic import replacing

CONTRACT_COLUMNS = (
    "rank", "id", "source", "ra_deg", "dec_deg", "status", "reason", "score", "p_lens", "p_lens_err", "selected",
    "morphology", "n_images", "image_x_pix", "image_y_pix", "image_confidence", "theorem_verdict", "theorem_p_value",
    "n_images_model", "parity_sum", "missing_x_pix", "missing_y_pix", "arc_score", "arc_coverage_deg",
    "arc_coverage_err_deg", "theta_e_arcsec", "theta_e_err_arcsec",
)  # fmt: skip
PROBLEM_COLUMNS = ("id", "source", "status", "reason", "message")
_ARROW_TYPES = {
    "str": pa.string(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "tuple[float, ...]": pa.list_(pa.float64()),
    "tuple[str, ...]": pa.list_(pa.string()),
}
_CSV_BATCH_ROWS = 65_536


class TableError(ValueError):
    """A candidate table is absent, unreadable or lacks columns."""


def candidates_schema() -> pa.Schema:
    """Columns of the candidate table: those of the run's contract in its order, then the others of `Candidate`."""
    types = {"rank": pa.int64()} | {f.name: _ARROW_TYPES[str(f.type)] for f in fields(Candidate)}
    extra = [name for name in types if name not in CONTRACT_COLUMNS]
    return pa.schema([(name, types[name]) for name in (*CONTRACT_COLUMNS, *extra)])


def to_table(candidates: Sequence[Candidate]) -> pa.Table:
    """Candidates in the order given, with the full schema and null ranks; parts made so can be concatenated."""
    schema = candidates_schema()
    columns = {
        name: [None] * len(candidates) if name == "rank" else [getattr(c, name) for c in candidates]
        for name in schema.names
    }
    return pa.table(columns, schema=schema)


def read_rows(table: pa.Table) -> list[Candidate]:
    """Candidates of a table's rows in its order, such as the best few hundred of a large one for the report."""
    names = [field.name for field in fields(Candidate)]
    rows: list[dict[str, Any]] = _conform(table, "the table").select(names).to_pylist()
    for row in rows:
        row.update({name: tuple(cell) for name, cell in row.items() if isinstance(cell, list)})
    return [Candidate(**row) for row in rows]


def ranked(table: pa.Table) -> pa.Table:
    """Sort by falling score, then id, then source; rows without a score come last. Ranks count from 1."""
    score = table["score"]
    keys = pa.table(
        {
            "score": pc.if_else(pc.is_nan(score), pa.scalar(None, pa.float64()), score),
            "id": table["id"],
            "source": table["source"],
        }
    )
    order = pc.sort_indices(keys, sort_keys=[("score", "descending"), ("id", "ascending"), ("source", "ascending")])
    best_first = table.take(order)
    return best_first.set_column(
        best_first.schema.get_field_index("rank"), "rank", pa.array(range(1, len(table) + 1), pa.int64())
    )


def write_candidates(table: pa.Table, run_dir: Path) -> pa.Table:
    """Rank a table of candidates and write `candidates.parquet` and `candidates.csv`.

    Parameters
    ----------
    table : pa.Table
        Rows in any order with `candidates_schema()`, as `to_table` makes them or parts of it concatenated.
    run_dir : Path
        Folder to write to; made if absent.

    Returns
    -------
    pa.Table
        The rows as written, best first, with ranks.

    Raises
    ------
    TableError
        If a column is absent.
    """
    best_first = ranked(_conform(table, "the table to write"))
    with replacing(run_dir / "candidates.parquet") as part:
        pq.write_table(best_first, part, compression="zstd")
    with replacing(run_dir / "candidates.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(best_first.column_names) + "\n")
        for batch in best_first.to_batches(max_chunksize=_CSV_BATCH_ROWS):
            lines = pc.binary_join_element_wise(*(_csv_cells(column) for column in batch.columns), ",")
            file.writelines(f"{line}\n" for line in lines.to_pylist())
    return best_first


def write_problems(problems: Iterable[Problem], run_dir: Path) -> None:
    """Write `problems.csv`, one row per problem in the order given; only the header where there is none."""
    with replacing(run_dir / "problems.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PROBLEM_COLUMNS)
        writer.writerows([getattr(problem, name) for name in PROBLEM_COLUMNS] for problem in problems)


def read_candidates(path: Path) -> pa.Table:
    """Read a run's candidates, with `candidates_schema()`.

    Parameters
    ----------
    path : Path
        A run's folder, its `candidates.parquet`, or its `candidates.csv`.

    Returns
    -------
    pa.Table
        The rows, best first.

    Raises
    ------
    TableError
        If the file is absent, is not a table, or lacks columns.
    """
    file = path / "candidates.parquet" if path.is_dir() else path
    if not file.is_file():
        raise TableError(f"No candidate table at {file}. Name a finished run's folder or its candidates.parquet.")
    try:
        table = _read_csv(file) if file.suffix.lower() == ".csv" else pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{file} cannot be read as a candidate table: {error}. Run the pipeline again.") from error
    return _conform(table, str(file))


def _conform(table: pa.Table, name: str) -> pa.Table:
    schema = candidates_schema()
    absent = [column for column in schema.names if column not in table.column_names]
    if absent:
        raise TableError(f"{name} lacks the columns {', '.join(absent)}. Write it with this version of the pipeline.")
    return table.select(schema.names).cast(schema)


def _csv_cells(column: pa.Array) -> pa.Array:
    """Text of a column: NaN and null empty, lists space-separated, quotes only where CSV needs them."""
    if pa.types.is_list(column.type):
        text = pc.binary_join(column.cast(pa.list_(pa.string())), " ")
    elif pa.types.is_boolean(column.type):
        text = pc.if_else(column, "True", "False")
    elif pa.types.is_floating(column.type):
        text = pc.if_else(pc.is_nan(column), "", column.cast(pa.string()))
    else:
        text = column.cast(pa.string())
    text = pc.fill_null(text, "")
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(text, '[",\r\n]'), quoted, text)


def _read_csv(path: Path) -> pa.Table:
    lists = {field.name: field.type for field in candidates_schema() if pa.types.is_list(field.type)}
    types = {field.name: pa.string() if field.name in lists else field.type for field in candidates_schema()}
    table = pacsv.read_csv(
        path,
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(column_types=types, strings_can_be_null=False, null_values=["", "nan"]),
    )
    for k, field in enumerate(table.schema):
        column = table[field.name]
        if field.name in lists:
            table = table.set_column(k, field.name, _split_lists(column, lists[field.name]))
        elif pa.types.is_floating(field.type):
            table = table.set_column(k, field.name, pc.fill_null(column, float("nan")))
    return table


def _split_lists(column: pa.ChunkedArray, target: pa.DataType) -> pa.Array:
    return pa.array([text.split() for text in column.to_pylist()], pa.list_(pa.string())).cast(target)
