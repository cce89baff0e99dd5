"""Every trained stage has the same four verbs: train, evaluate, load and predict, and the command line."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.config import REPOSITORY
from stages.dataset import read_shards

CONFIG = {
    "classifier": "width: 8\nworkers: 1\nmin_arc_snr: 0.0\nschedule: {steps: 2, batch_size: 16, check_steps: 2}\n",
    "counter": "width: 8\nworkers: 1\nepochs: 1\nbatch_size: 8\ntrain_pix: 128\n",
    "arcs": "width: 8\nworkers: 1\nmin_arc_snr: 0.0\nschedule: {steps: 2, batch_size: 8, check_steps: 2}\n",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", CONFIG)
def test_four_verbs(stage: str, data_dir: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG[stage])

    def command(verb: str, *more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", f"stages.{stage}", verb, "--data", str(data_dir), "--out", str(tmp_path), *more],
            cwd=REPOSITORY, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    path = Path(command("train", "--config", str(config)).strip().splitlines()[-1])
    assert path == tmp_path / f"{stage}.safetensors"
    assert path.with_suffix(".json").is_file()
    assert "n_" in command("evaluate", "--weights", str(path))
    command("predict", "--weights", str(path))
    table = pd.read_csv(tmp_path / f"{stage}-predictions.csv")
    ids = [c.id for shard in read_shards(data_dir) for c in shard.cutouts]
    assert table["id"].tolist() == ids
    predictor = import_module(f"stages.{stage}.predict").load(path, "cpu")
    cutouts = next(read_shards(data_dir)).cutouts[:2]
    unknown = np.full(2, np.nan)
    result = predictor.predict(cutouts, [unknown, unknown]) if stage == "arcs" else predictor.predict(cutouts)
    assert len(result.ids if stage == "classifier" else result) == 2


@pytest.mark.parametrize("stage", CONFIG)
def test_absent_data_is_one_clear_error(stage: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", "train", "--data", str(tmp_path / "none"), "--out", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "sim/generate.py" in done.stderr
