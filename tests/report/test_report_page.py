import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.records import Candidate
from stages.report.page import write_report
from stages.report.stamp import make_stamp

HOSTILE_IDS = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{js}}",
    "&lt;",
    "\u2028",
)


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.S)
    assert found
    data: dict[str, Any] = json.loads(found.group(1))
    return data


@pytest.mark.parametrize("id", HOSTILE_IDS)
def test_an_id_cannot_leave_its_data(tmp_path: Path, id: str) -> None:
    row = Candidate(id, f"{id}.fits", "ok", id, score=0.5, theorem_sentence=id)
    page = write_report(tmp_path, [row], {}, {"input": id, "run_id": "r"})
    assert data_of(page)["rows"][0]["id"] == id
    text = page.read_text("utf-8")
    assert len(re.findall(r"<script", text)) == 2
    assert "<img" not in text


def test_the_page_names_no_address_and_forbids_all_but_its_own_parts(tmp_path: Path, scene: Callable[..., Any]) -> None:
    made = scene()
    page = write_report(tmp_path, [made.candidate], {made.cutout.id: make_stamp(made.cutout)}, {})
    text = page.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|src=\"[^d]|url\(", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy.group(1).startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy.group(1)


def test_absent_numbers_are_null_and_rows_without_picture_are_kept(tmp_path: Path) -> None:
    page = write_report(
        tmp_path, [Candidate("a", "a.fits", "skipped", "unreadable")], {}, {"seconds": {"read": float("nan")}}
    )
    data = data_of(page)
    assert (data["rows"][0]["score"], data["rows"][0]["stamp"], data["rows"][0]["rank"]) == (None, None, 1)
    assert data["summary"]["seconds"]["read"] is None


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, scene: Callable[..., Any]) -> None:
    made = scene(masked=True)
    stamps = {made.cutout.id: make_stamp(made.cutout, made.image_count, made.arc_score)}
    summary = {"run_id": "x", "counts": {"read": 1}}
    first = write_report(tmp_path / "a", [made.candidate], stamps, summary).read_bytes()
    assert write_report(tmp_path / "b", [made.candidate], stamps, summary).read_bytes() == first


def test_a_run_without_id_gets_one_from_its_rows(tmp_path: Path) -> None:
    one = data_of(write_report(tmp_path / "a", [Candidate("a", "", "ok", "", score=0.5)], {}, {}))["run_id"]
    two = data_of(write_report(tmp_path / "b", [Candidate("b", "", "ok", "", score=0.5)], {}, {}))["run_id"]
    assert len(one) == len(two) == 12
    assert one != two


def test_no_rows_give_a_page(tmp_path: Path) -> None:
    assert data_of(write_report(tmp_path, [], {}, {}))["rows"] == []
