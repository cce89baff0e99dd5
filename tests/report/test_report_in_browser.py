"""The page in a real browser, from disk and without a network; skipped where there is no chromium."""

import csv
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.records import Candidate
from stages.report.page import write_report
from stages.report.stamp import make_stamp

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[dev]'")
HOSTILE_ID = "\"'><img src=x onerror=\"document.title='owned'\"></script>,=1"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Any]:
    binary = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium or chromedriver on PATH: apt-get install -y chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1400,900"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield session
    session.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, scene: Callable[..., Any]) -> str:
    """Write a page of twelve objects, one with a hostile id, one masked, and a skipped one without a picture."""
    scenes = [scene(seed=k, id=f"obj{k:02d}" if k else HOSTILE_ID, kind=("quad", "ring", "none")[k % 3], masked=k == 4)
              for k in range(12)]  # fmt: skip
    rows = sorted((s.candidate for s in scenes), key=lambda row: -row.score)
    rows.append(Candidate("broken", "broken.fits", "skipped", "unreadable"))
    stamps = {s.cutout.id: make_stamp(s.cutout, s.image_count, s.arc_score) for s in scenes}
    summary = {
        "run_id": "browser test",
        "input": "survey",
        "counts": {"skipped": 1, "read": 13},
        "status": "partial",
        "finished_at": "2026-11-24T11:40:00+00:00",
        "seconds": {"read": 1.5},
    }
    return write_report(tmp_path_factory.mktemp("run"), rows, stamps, summary).as_uri()


@pytest.fixture
def page(browser: Any, report: str) -> Iterator[Any]:
    """Open the page without grades, and afterwards hold that it logged no error and asked for nothing but itself."""
    browser.get(report)
    browser.execute_script("localStorage.clear()")
    browser.get_log("performance")  # what the browser's own start page asked for
    browser.refresh()
    yield browser
    errors = [entry["message"] for entry in browser.get_log("browser")]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert errors == []
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} <= {report}


def press(browser: Any, keys: str) -> None:
    browser.switch_to.active_element.send_keys(keys)


def texts(browser: Any, selector: str) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )
    return found


def shown_ids(browser: Any) -> list[str]:
    found: list[str] = browser.execute_script("return [...document.querySelectorAll('.card')].map(e => e.title)")
    return found


def choose(browser: Any, id: str, value: str) -> None:
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change'))", id, value,
    )  # fmt: skip


def test_every_row_has_a_card_and_the_best_is_open(page: Any) -> None:
    assert len(shown_ids(page)) == 13
    assert shown_ids(page)[-1] == "broken"
    assert texts(page, "#detail h2") == shown_ids(page)[:1]
    assert len(texts(page, ".stage .o-image")) == 3
    assert "3 / 5" in texts(page, ".numbers dd")
    assert "a smooth lens makes five" in texts(page, ".theorem p")[0]


def test_the_header_tells_of_the_run(page: Any) -> None:
    assert texts(page, "#run-line") == ["partial run · survey · 2026-11-24 11:40:00 UTC · run browser test"]
    assert texts(page, "#counts div") == ["read13", "skipped1"]
    page.find_element("id", "run-button").click()
    assert "1.50 s" in texts(page, "#run dd")


def test_pictures_are_decoded(page: Any) -> None:
    address = page.execute_script("return document.querySelector('.stage image').getAttribute('href')")
    size = page.execute_async_script(
        "const i = new Image(), done = arguments[1]; i.onload = () => done([i.width, i.height]);"
        "i.onerror = () => done(null); i.src = arguments[0]", address,
    )  # fmt: skip
    assert size == [57, 51]


def test_a_hostile_id_is_shown_as_text(page: Any) -> None:
    assert HOSTILE_ID in shown_ids(page)
    choose(page, "filter-text", "onerror")
    assert texts(page, "#detail h2") == [HOSTILE_ID]
    assert page.title == "oddlens: survey"


def test_rows_sort_by_any_number_with_absent_ones_last_either_way(page: Any) -> None:
    choose(page, "sort-key", "theta_e_arcsec")
    values = page.execute_script("return visible.map(k => ROWS[k].theta_e_arcsec)")
    known = [v for v in values if v is not None]
    assert known == sorted(known, reverse=True)
    assert values[len(known) :] == [None] * (13 - len(known))
    page.find_element("id", "sort-direction").click()
    values = page.execute_script("return visible.map(k => ROWS[k].score === null)")
    choose(page, "sort-key", "id")
    assert shown_ids(page)[-1] == "obj11"
    choose(page, "sort-key", "score")
    page.find_element("id", "sort-direction").click()
    assert shown_ids(page)[-1] == "broken"


def test_filters_narrow_what_is_shown_and_reset_brings_it_back(page: Any) -> None:
    for id, value, n in (("filter-verdict", "=supports", 4), ("filter-status", "=skipped", 1),
                         ("filter-morphology", "=arc", 4), ("filter-score", "0.5", 8), ("filter-text", "BROK", 1),
                         ("filter-text", "nothing like it", 0)):  # fmt: skip
        choose(page, id, value)
        assert len(shown_ids(page)) == n, (id, value)
        page.find_element("id", "filter-clear").click()
        assert len(shown_ids(page)) == 13


def test_a_grade_survives_a_reload_and_is_exported(page: Any, downloads: Path) -> None:
    first, second = shown_ids(page)[:2]
    press(page, "a")
    press(page, "j")
    press(page, "x")
    page.refresh()
    assert texts(page, ".card .grade") == ["A", "X"]
    press(page, "e")
    deadline = time.monotonic() + 10
    while not (found := list(downloads.glob("*.csv"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found[0].name == "oddlens-grades-browser_test.csv"
    rows = list(csv.DictReader(io.StringIO(found[0].read_text("utf-8"))))
    assert list(rows[0]) == ["id", "grade", "rank", "score", "graded_at"]
    assert [(r["id"], r["grade"], r["rank"]) for r in rows] == [(first, "A", "1"), (second, "X", "2")]
    assert HOSTILE_ID in (first, second)


def test_exported_grades_can_be_imported(page: Any) -> None:
    press(page, "b")
    text = page.execute_script("return gradesCsv()")
    press(page, "u")
    assert texts(page, ".card .grade") == []
    page.execute_script("importGrades(arguments[0])", text.replace("\n", "\r\n") + "gone,A,1,0.5,\n")
    assert texts(page, ".card .grade") == ["B"]
    assert texts(page, "#toast") == ["1 grades read, 1 lines name no candidate of this page"]


def test_keys_move_by_column_and_row_and_leave_typing_alone(page: Any) -> None:
    ids = shown_ids(page)
    columns = page.execute_script("return columns()")
    for keys, at in (
        ("j", 1),
        ("\ue015", 1 + columns),
        ("\ue012", columns),
        ("k", columns - 1),
        ("\ue010", 12),
        ("j", 12),
    ):
        press(page, keys)
        assert texts(page, "#detail h2") == [ids[at]]
    press(page, "/")
    press(page, "a")
    assert texts(page, ".card .grade") == []


def test_auto_next_moves_on_after_a_grade_also_when_the_graded_card_is_filtered_out(page: Any) -> None:
    ids = shown_ids(page)
    press(page, "n")
    press(page, "a")
    assert texts(page, "#detail h2") == [ids[1]]
    choose(page, "filter-grade", "none")
    press(page, "c")
    assert texts(page, "#detail h2") == [ids[2]]
    assert shown_ids(page) == ids[2:]
    press(page, "n")
    press(page, "x")
    assert texts(page, "#detail h2") == [ids[3]]


def test_o_hides_the_overlays_and_shows_them_again(page: Any) -> None:
    visible = "return getComputedStyle(document.querySelector('.stage .g-images')).display"
    assert page.execute_script(visible) != "none"
    press(page, "o")
    assert page.execute_script(visible) == "none"
    assert not page.find_element("id", "toggle-overlays").is_selected()
    page.find_element("id", "toggle-overlays").click()
    assert page.execute_script(visible) != "none"


def test_help_opens_and_closes_and_takes_the_keys(page: Any) -> None:
    press(page, "?")
    assert page.find_element("id", "help").is_displayed()
    press(page, "a")
    page.find_element("css selector", "#help button").click()
    assert not page.find_element("id", "help").is_displayed()
    assert texts(page, ".card .grade") == []


def test_a_run_without_candidates_says_so(browser: Any, tmp_path: Path) -> None:
    browser.get(write_report(tmp_path, [], {}, {"counts": {"read": 0}}).as_uri())
    assert texts(browser, "#grid strong") == ["No candidates"]
    press(browser, "j")
    press(browser, "a")
    assert browser.get_log("browser") == []
