"""Every trained stage has the same four verbs: train, evaluate, load and predict, and the command line."""

import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.config import REPOSITORY, WEIGHTS_DIR
from stages.dataset import read_shards
from stages.weights import load_card

CONFIG = {
    "classifier": "width: 8\nworkers: 1\nmin_arc_snr: 0.0\nschedule: {steps: 2, batch_size: 16, check_steps: 2}\n",
    "counter": "width: 8\nworkers: 1\ntrain_pix: 128\nsecond_look_steps: 20\n"
    "schedule: {steps: 2, batch_size: 4, check_steps: 2}\n",
    "arcs": "width: 8\nworkers: 1\nmin_arc_snr: 0.0\nschedule: {steps: 2, batch_size: 8, check_steps: 2}\n",
}


def in_this_process(monkeypatch: pytest.MonkeyPatch, stage: str, *arguments: object) -> int:
    """`python -m stages.STAGE ARGUMENTS` without the seconds that a process takes to import torch."""
    monkeypatch.setattr(sys, "argv", [stage, *(str(a) for a in arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
    return int(stop.value.code or 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", CONFIG)
def test_four_verbs(
    stage: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG[stage])
    common = ["--data", str(data_dir), "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", "train", *common, "--config", str(config)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip().splitlines()[-1])
    assert path == tmp_path / f"{stage}.safetensors"
    assert path.with_suffix(".json").is_file()
    assert in_this_process(monkeypatch, stage, "evaluate", *common, "--weights", path) == 0
    assert "n_" in capsys.readouterr().out
    assert in_this_process(monkeypatch, stage, "predict", *common, "--weights", path) == 0
    table = pd.read_csv(tmp_path / f"{stage}-predictions.csv")
    ids = [c.id for shard in read_shards(data_dir) for c in shard.cutouts]
    assert table["id"].tolist() == ids
    if stage == "classifier":
        assert in_this_process(monkeypatch, stage, "predict", *common, "--weights", path, "--prior", "1e-3") == 0
        p, rare = table["p_lens"], pd.read_csv(tmp_path / f"{stage}-predictions.csv")["p_lens"]
        np.testing.assert_allclose(rare / (1 - rare), p / (1 - p) / 999, rtol=1e-6)
    predictor = import_module(f"stages.{stage}.predict").load(path, "cpu")
    cutouts = next(read_shards(data_dir)).cutouts[:2]
    unknown = np.full(2, np.nan)
    result = predictor.predict(cutouts, [unknown, unknown]) if stage == "arcs" else predictor.predict(cutouts)
    assert len(result.ids if stage == "classifier" else result) == 2


@pytest.mark.parametrize(
    ("stage", "verbs"), [("classifier", "join distil domain audit adapt"), ("counter", "calibrate"), ("arcs", "mean")]
)
def test_help_names_every_verb(
    stage: str, verbs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_this_process(monkeypatch, stage, "--help") == 0
    told = capsys.readouterr().out
    for verb in verbs.split():
        assert f"  `{verb} --" in told
        assert in_this_process(monkeypatch, stage, verb, "--help") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--data", "{tmp}/none", "--out", "{tmp}"], "sim/generate.py"),
        (["train", "--data", "{data}", "--out", "{tmp}", "--config", "{tmp}/none.yaml"], "cannot be read"),
        (["predict", "--data", "{data}", "--out", "{tmp}", "--weights", "{tmp}/none"], "no such weights"),
        (["evaluate", "--data", "{data}", "--weights", "{tmp}/none"], "no such weights"),
    ],
)
@pytest.mark.parametrize("stage", CONFIG)
def test_impossible_requests_are_one_clear_error(
    stage: str, arguments: list[str], says: str, data_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    filled = [a.format(tmp=tmp_path, data=data_dir) for a in arguments]
    assert in_this_process(monkeypatch, stage, *filled) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert says in errors[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", ["classifier", "arcs"])
def test_training_goes_on_from_weights_and_refuses_those_that_do_not_fit(
    stage: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG[stage] + f"start: {WEIGHTS_DIR / f'{stage}.safetensors'}\n")
    assert in_this_process(monkeypatch, stage, "train", "--data", data_dir, "--out", tmp_path, "--config", config) == 2
    assert "Set width" in capsys.readouterr().err
    width = load_card(WEIGHTS_DIR / f"{stage}.safetensors").config["width"]
    config.write_text(config.read_text().replace("width: 8", f"width: {width}"))
    assert in_this_process(monkeypatch, stage, "train", "--data", data_dir, "--out", tmp_path, "--config", config) == 0
    card, old = load_card(tmp_path / f"{stage}.safetensors"), load_card(WEIGHTS_DIR / f"{stage}.safetensors")
    assert set(card.data) == set(old.data) | {path.name for path in data_dir.iterdir()}
    assert card.config["start"] == f"{stage}.safetensors"  # no path of anybody's machine
