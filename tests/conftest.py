"""Small simulated data sets that several tests share."""

from pathlib import Path

import pytest
import torch

from sim.generate import main as generate

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny labelled data sets, ground and space."""
    folder = tmp_path_factory.mktemp("data")
    for survey, n in (("des", 72), ("euclid_vis", 48)):
        arguments = ["--survey", survey, "--n", str(n), "--out", str(folder / survey), "--seed", "5", "--workers", "1"]
        assert generate(arguments) == 0
    return folder
