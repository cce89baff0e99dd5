"""The report: one HTML file with its pictures inside, that opens by double-click without any network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

from stages.records import Candidate
from stages.report.atomic import replacing
from stages.report.stamp import Stamp

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def write_report(
    run_dir: Path, rows: Sequence[Candidate], stamps: Mapping[str, Stamp], summary: Mapping[str, object]
) -> Path:
    """Write `report/index.html`.

    Parameters
    ----------
    run_dir : Path
        The run's folder.
    rows : sequence of Candidate
        What to show: the first rows of the candidate table, so that their ranks, which count from 1, are the table's.
        A few hundred at most, because the page holds their pictures.
    stamps : mapping of id to Stamp
        Pictures; a row without one is shown without.
    summary : mapping
        What `run.json` holds. The header shows `input` (else `request.input`), `finished_at`, `run_id`, `counts` (name
        to number) and whether `status` is partial; everything, such as `versions`, `weights` and `seconds`, is in the
        run's details. Grades are kept in the browser under `run_id`; where it is absent, one is derived from the rows,
        so that grades do not outlive a change of the rows.

    Returns
    -------
    Path
        The page. The same input gives the same bytes.
    """
    data: dict[str, Json] = {
        "run_id": str(summary.get("run_id") or _fingerprint(rows)),
        "summary": _plain(summary),
        "rows": [_row(row, rank, stamps.get(row.id)) for rank, row in enumerate(rows, start=1)],
    }
    request = summary.get("request")
    name = summary.get("input") or (request.get("input") if isinstance(request, Mapping) else None) or "candidates"
    data["input"] = str(name)
    script, style = _packaged("report.js"), _packaged("report.css")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src '{_csp_hash(script)}'; style-src '{_csp_hash(style)}'"
    )
    parts = {
        "csp": policy,
        "title": html.escape(f"oddlens: {name}"),
        "css": style,
        "js": script,
        "data": _script_safe(data),
    }
    page = run_dir / "report" / "index.html"
    with replacing(page) as part:
        part.write_text(_fill(_packaged("template.html"), parts), encoding="utf-8", newline="\n")
    return page


def _row(row: Candidate, rank: int, stamp: Stamp | None) -> Json:
    record = {field.name: _plain(getattr(row, field.name)) for field in fields(Candidate)}
    return {"rank": rank, **record, "stamp": None if stamp is None else _stamp(stamp)}


def _stamp(stamp: Stamp) -> Json:
    record = {field.name: _plain(getattr(stamp, field.name)) for field in fields(Stamp) if field.name not in _NOT_PLAIN}
    return {**record, "image": f"data:{stamp.mime};base64,{base64.b64encode(stamp.image).decode('ascii')}"}


_NOT_PLAIN = ("id", "image", "mime")


def _plain(value: object) -> Json:
    """JSON's own types: not finite becomes null, tuples lists, anything else its text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    item = getattr(value, "item", None)  # numpy scalars
    return _plain(item()) if callable(item) else str(value)


def _script_safe(data: Json) -> str:
    """JSON that cannot end the script element that holds it, whatever the ids are."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _fingerprint(rows: Sequence[Candidate]) -> str:
    return hashlib.sha256("\n".join(f"{row.id} {row.score}" for row in rows).encode()).hexdigest()[:12]


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _packaged(name: str) -> str:
    return files("stages.report").joinpath(name).read_text(encoding="utf-8")


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """Put the parts in one pass, so that a part's own text is never taken for a placeholder."""
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        filled.append(parts[name] + rest)
    return "".join(filled)
