"""The contract of a run, on small surveys made here."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import pipeline
from sim.export import export
from stages.config import CONFIG_DIR, REPOSITORY

CONTRACT = (
    "rank id source ra_deg dec_deg status reason score p_lens p_lens_err selected morphology n_images image_x_pix "
    "image_y_pix image_confidence theorem_verdict theorem_p_value n_images_model parity_sum missing_x_pix "
    "missing_y_pix arc_score arc_coverage_deg arc_coverage_err_deg theta_e_arcsec theta_e_err_arcsec"
).split()


@pytest.fixture(scope="module")
def survey(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    export(data_dir, folder, limit=24)
    (folder / "truth.csv").unlink()
    (folder / "des" / "broken.fits").write_bytes(b"SIMPLE  = nonsense")
    (folder / "des" / "empty.fits").write_bytes(b"")
    return folder


def run(*arguments: object) -> int:
    return pipeline.main([str(a) for a in (*arguments, "--quiet", "--device", "cpu")])


@pytest.fixture(scope="module")
def whole(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert run("--input", survey, "--output", out, "--all", "--batch-size", 7, "--workers", 0) == 0
    return out


def test_contract(whole: Path, survey: Path) -> None:
    rows = pd.read_csv(whole / "candidates.csv", dtype={"id": str})
    table = pd.read_parquet(whole / "candidates.parquet")
    assert [c for c in rows.columns if c in CONTRACT] == CONTRACT
    assert list(table.columns) == list(rows.columns)
    assert sorted(rows["id"]) == sorted(p.stem for p in survey.rglob("*.fits"))
    assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
    scored = rows[rows["status"] != "skipped"]
    assert scored["score"].is_monotonic_decreasing
    assert scored["p_lens"].between(0, 1).all()
    assert scored["arc_score"].notna().all()
    assert set(rows.loc[rows["status"] == "skipped", "id"]) == {"broken", "empty"}
    with_images = table[table["n_images"] > 0].iloc[0]
    assert len(with_images["image_x_pix"]) == with_images["n_images"]
    as_text = rows.set_index("id").loc[with_images["id"], "image_x_pix"]
    np.testing.assert_allclose([float(v) for v in str(as_text).split()], with_images["image_x_pix"], atol=1e-3)


def test_arc_maps_lie_where_the_table_says(survey: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    rest = ("--all", "--batch-size", 7, "--workers", 0, "--arc-maps")
    assert run("--input", survey, "--output", out, *rest) == 0
    rows = pd.read_parquet(out / "candidates.parquet").set_index("id")
    assert not (whole / "arc_maps.fits").exists()
    with fits.open(out / "arc_maps.fits") as maps:
        maps.verify("exception")
        assert {m.name for m in maps[1:]} == set(rows.index[rows["arc_score"] >= 0.5])
        for one in maps[1:]:
            assert one.data.min() >= 0
            assert one.data.max() <= 1
            y, x = np.nonzero(one.data > 0.5)
            if not len(x):
                continue
            to_pixels = WCS(one.header)
            px, py = (v - 1 for v in to_pixels.pixel_to_world_values(x, y))
            row = rows.loc[one.name]
            centre = np.array([row["deflector_x_pix"], row["deflector_y_pix"]])
            if np.isfinite(centre).all() and row["n_arcs"] == 1 and row["n_counter_images"] == 0:
                angle = np.degrees(np.arctan2(py.mean() - centre[1], px.mean() - centre[0]))
                assert abs((angle - row["arc_angle_deg"][0] + 180) % 360 - 180) < 30 or row["arc_extent_deg"][0] > 180


def test_problems_run_and_report(whole: Path) -> None:
    problems = pd.read_csv(whole / "problems.csv")
    assert {"broken", "empty"} <= set(problems["id"])
    assert problems["reason"].notna().all()
    summary = json.loads((whole / "run.json").read_text())
    assert summary["status"] == "complete"
    assert (
        summary["counts"]["read"]
        == summary["counts"]["ok"] + summary["counts"]["degraded"] + summary["counts"]["skipped"]
    )
    assert set(summary["request"]["weights"]) == {"classifier", "counter", "arcs", "ranking"}
    assert all(len(w["sha256"]) == 64 for w in summary["request"]["weights"].values())
    page = (whole / "report" / "index.html").read_text().replace("http://www.w3.org", "")
    assert "http://" not in page
    assert "https://" not in page


def test_the_prior_restates_p_lens_and_nothing_else(whole: Path, survey: Path, tmp_path: Path) -> None:
    rest = ("--all", "--batch-size", 7, "--workers", 0)
    assert run("--input", survey, "--output", tmp_path / "run", "--prior", "1e-3", *rest) == 0
    even, rare = (pd.read_parquet(r / "candidates.parquet").set_index("id") for r in (whole, tmp_path / "run"))
    odds = even["p_lens"] / (1 - even["p_lens"]) / 999
    np.testing.assert_allclose(rare["p_lens"][even.index], odds / (1 + odds), rtol=1e-9)
    pd.testing.assert_frame_equal(*(t.drop(columns=["p_lens", "p_lens_err"]) for t in (even, rare)))


def test_weights_that_know_no_appearance_are_named(
    survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ("--input", survey, "--limit", 1, "--workers", 0)
    old = REPOSITORY / "benchmarks" / "cross_fit" / "scan-half0.yaml"
    assert run(*rest, "--output", tmp_path / "old", "--config", old) == 0
    assert "out_of_domain is judged by seeing and pixel scale alone" in capsys.readouterr().err
    assert run(*rest, "--output", tmp_path / "new") == 0
    assert "out_of_domain" not in capsys.readouterr().err


def test_processes_make_the_same_rows(whole: Path, survey: Path, tmp_path: Path) -> None:
    assert run("--input", survey, "--output", tmp_path / "run", "--all", "--batch-size", 7, "--workers", 2) == 0
    one, two = (pd.read_parquet(r / "candidates.parquet").set_index("id") for r in (whole, tmp_path / "run"))
    assert set(one.index) == set(two.index)
    for name in ("p_lens", "arc_score", "n_images", "score"):  # threads change sums, in bfloat16 by more
        np.testing.assert_allclose(two[name][one.index], one[name], atol=5e-3)
    counts = [json.loads((r / "run.json").read_text())["counts"] for r in (whole, tmp_path / "run")]
    assert counts[0] == counts[1]


def test_gate_leaves_later_stages_empty_and_says_so(survey: Path, tmp_path: Path) -> None:
    config = tmp_path / "pipeline.yaml"
    text = (REPOSITORY / "configs" / "pipeline.yaml").read_text().replace("gate_p_lens: 0.2", "gate_p_lens: 1.0")
    config.write_text(text)
    assert run("--input", survey, "--output", tmp_path / "run", "--config", config, "--workers", 0) == 0
    rows = pd.read_csv(tmp_path / "run" / "candidates.csv")
    assert rows["arc_score"].isna().all()
    assert (rows["theorem_verdict"] == "not_run").all()
    assert rows.loc[rows["status"] != "skipped", "score"].notna().all()


def test_interrupted_run_is_valid_and_resumes_to_the_same_candidates(survey: Path, whole: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "pipeline.py", "--input", str(survey), "--output", str(tmp_path / "run"), "--all",
        "--batch-size", "2", "--workers", "0", "--quiet", "--device", "cpu",
    ]  # fmt: skip
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are deaf to Ctrl-C
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not list((tmp_path / "run").rglob("*.parquet")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--resume" in out
    assert "Traceback" not in err
    stopped = pd.read_csv(tmp_path / "run" / "candidates.csv")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "partial"
    full = pd.read_csv(whole / "candidates.csv")
    assert 0 < len(stopped) < len(full)
    done = subprocess.run([*command, "--resume"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # `whole` was made in this process, where other tests change the number of threads and with it the rounding of sums
    never_stopped = [str(tmp_path / "never") if part == str(tmp_path / "run") else part for part in command]
    subprocess.run(never_stopped, cwd=REPOSITORY, capture_output=True, check=True)
    for name in ("candidates.csv", "candidates.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "never" / name).read_bytes()
    assert not (tmp_path / "run" / "parts").exists()
    again = subprocess.run([*command, "--resume"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert again.stdout.startswith("complete:")


def test_positions_are_in_the_input_files_own_frame(tmp_path: Path) -> None:
    """Four points on a large file: the cutout is a part of it, the table's pixels are the file's."""
    truth = np.array([[190.0, 203.0], [212.0, 205.0], [201.0, 192.0], [200.0, 214.0]])
    y, x = np.mgrid[0:401, 0:403]
    image = sum(200 * np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / 1.6**2) for a, b in truth)
    image = image + np.random.default_rng(2).normal(0, 1, image.shape)
    folder = tmp_path / "survey"
    folder.mkdir()
    fits.PrimaryHDU(image.astype(np.float32), fits.Header({"PIXSCALE": 0.1, "SEEING": 0.37})).writeto(folder / "q.fits")
    assert run("--input", folder, "--output", tmp_path / "run", "--all") == 0
    row = pd.read_parquet(tmp_path / "run" / "candidates.parquet").iloc[0]
    found = np.column_stack([row["image_x_pix"], row["image_y_pix"]])
    for position in truth:
        assert np.hypot(*(found - position).T).min() < 0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--input", "{tmp}/absent"], "no such file or folder"),
        (["--input", "{tmp}"], "holds no image"),
        (["--input", "{survey}", "--output", "/proc/oddlens"], "cannot be written"),
        (["--input", "{survey}", "--survey", "nosuch"], "cannot be read"),
        (["--input", "{survey}", "--catalogue", "{tmp}/none.csv"], "no such catalogue"),
    ],
)
def test_impossible_request_is_one_clear_error(
    arguments: list[str], says: str, survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [a.format(tmp=tmp_path, survey=survey) for a in arguments]
    if "--output" not in filled:
        filled += ["--output", str(tmp_path / "run")]
    assert run(*filled) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1


def test_a_survey_file_with_an_absent_psf_is_one_clear_error(
    survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, des = tmp_path / "mine.yaml", CONFIG_DIR / "surveys" / "des.yaml"
    mine.write_text(des.read_text() + "psf_files: {g: psfs/g.fits}\n")
    assert run("--input", survey, "--output", tmp_path / "run", "--survey", mine) == 2
    assert f"{tmp_path / 'psfs' / 'g.fits'}: no such PSF file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_finished_folder_is_not_overwritten(whole: Path, survey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (whole / "candidates.csv").read_bytes()
    assert run("--input", survey, "--output", whole) == 2
    assert "--resume" in capsys.readouterr().err
    assert (whole / "candidates.csv").read_bytes() == before
