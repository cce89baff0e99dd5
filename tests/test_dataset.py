"""Data sets on disk: what is written is read, and splits go by system."""

from pathlib import Path

import numpy as np
import pytest

from stages.cache import cached
from stages.dataset import DatasetError, read_shards, split_of
from stages.scaling import Frame, network_inputs


def test_splits_go_by_name_alone_and_have_their_shares() -> None:
    names = [f"system-{k}" for k in range(4000)]
    part = split_of(names)
    np.testing.assert_array_equal(part[::-1], split_of(names[::-1]))
    assert (part == "train").mean() == pytest.approx(0.8, abs=0.03)
    assert (part == "test").mean() == pytest.approx(0.1, abs=0.02)


def test_lens_and_twin_are_never_parted(data_dir: Path) -> None:
    for shard in read_shards(data_dir):
        parts = shard.truth.assign(part=split_of(shard.truth["system"].tolist())).groupby("system")["part"].nunique()
        assert (parts == 1).all()
        assert shard.truth.groupby("system")["label"].count().max() == 2


def test_cache_holds_what_the_transform_gives(data_dir: Path, tmp_path: Path) -> None:
    frame = Frame(32, 0.25)
    data = cached(data_dir, frame, tmp_path, workers=1)
    shards = list(read_shards(data_dir))
    assert len(data.truth) == sum(len(s.cutouts) for s in shards)
    np.testing.assert_allclose(data.pixels[:5], network_inputs(shards[0].cutouts[:5], frame).pixels, atol=2e-3)
    lens = np.flatnonzero(data.truth["arc_snr"] > 60)
    assert (np.asarray(data.mask[lens]).sum(axis=(1, 2)) > 0).all()
    twins = np.flatnonzero(data.truth["kind"] == "twin")
    assert np.asarray(data.mask[twins]).sum() == 0
    again = cached(data_dir, frame, tmp_path, workers=1)
    np.testing.assert_array_equal(again.pixels[3], data.pixels[3])


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"sim/generate\.py"):
        list(read_shards(tmp_path))
