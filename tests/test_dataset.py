"""Data sets on disk: what is written is read, and splits go by system."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.cache import cached
from stages.dataset import DatasetError, fingerprint, read_shard, read_shards, shards_to_test, split_of, write_shard
from stages.scaling import Frame, network_inputs


def test_splits_go_by_name_alone_and_have_their_shares() -> None:
    names = [f"system-{k}" for k in range(4000)]
    part = split_of(names)
    np.testing.assert_array_equal(part[::-1], split_of(names[::-1]))
    assert (part == "train").mean() == pytest.approx(0.8, abs=0.03)
    assert (part == "test").mean() == pytest.approx(0.1, abs=0.02)


def test_parts_are_the_same_on_every_machine_and_for_ever() -> None:
    """By hand: sha256 of "0:NAME", its first 8 hexadecimal digits as a share of 2**32."""
    assert hashlib.sha256(b"0:des-1-00000-0000").hexdigest()[:8] == "b053a8d3"
    assert split_of(["des-1-00000-0000"]).tolist() == ["train"]
    assert split_of([]).shape == (0,)


def test_what_is_written_is_read(data_dir: Path, tmp_path: Path) -> None:
    shard = next(read_shards(data_dir))
    cutout = shard.cutouts[0]
    valid, variance = cutout.valid.copy(), cutout.variance.copy()
    valid[0, 3:7, 5] = False
    variance[0, 3:7, 5] = np.nan
    shard = replace(shard, cutouts=(replace(cutout, valid=valid, variance=variance), *shard.cutouts[1:]))
    name = write_shard(tmp_path, 3, shard)
    back = read_shard(tmp_path, name)
    pd.testing.assert_frame_equal(back.truth, shard.truth)
    np.testing.assert_array_equal(back.arc_mask, shard.arc_mask)
    for one, other in zip(back.cutouts, shard.cutouts, strict=True):
        assert (one.id, one.bands, one.survey) == (other.id, other.bands, other.survey)
        assert one.pixel_scale_arcsec == other.pixel_scale_arcsec
        np.testing.assert_array_equal(one.flux, other.flux)
        np.testing.assert_array_equal(one.valid, other.valid)
        np.testing.assert_allclose(one.variance, other.variance, rtol=1e-6)
        np.testing.assert_allclose(one.psf_fwhm_arcsec, other.psf_fwhm_arcsec, rtol=1e-6)
        np.testing.assert_allclose(one.psf, other.psf, rtol=1e-3, atol=1e-6)
        assert one.psf.shape[0] == len(one.bands)
    before = (tmp_path / f"{name}.npz").read_bytes()
    write_shard(tmp_path, 3, shard)
    assert (tmp_path / f"{name}.npz").read_bytes() == before


def test_sets_made_before_psfs_were_kept_are_read(data_dir: Path, tmp_path: Path) -> None:
    name = write_shard(tmp_path, 0, next(read_shards(data_dir)))
    with np.load(tmp_path / f"{name}.npz") as data:
        old = {key: data[key] for key in data.files if key != "psf"}
    np.savez(tmp_path / f"{name}.npz", **old)
    assert read_shard(tmp_path, name).cutouts[0].psf.shape == (0, 0, 0)


def test_all_of_a_data_set_is_tested_on_unless_the_weights_learned_from_it(data_dir: Path) -> None:
    learned = fingerprint(data_dir)
    tested = {shard.cutouts[0].survey: (shard, rows) for shard, rows in shards_to_test(data_dir, {"a": learned["des"]})}
    shard, rows = tested["des"]
    assert 0 < len(rows) < len(shard.cutouts) / 2
    assert set(split_of(shard.truth["system"].iloc[rows].tolist())) == {"test"}
    shard, rows = tested["euclid_vis"]
    np.testing.assert_array_equal(rows, np.arange(len(shard.cutouts)))


def test_an_unfinished_data_set_is_not_read(data_dir: Path, tmp_path: Path) -> None:
    text = (data_dir / "des" / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace('"complete"', '"unfinished"'))
    with pytest.raises(DatasetError, match="again to complete it"):
        list(read_shards(tmp_path))


def test_a_fingerprint_tells_data_sets_apart(data_dir: Path) -> None:
    prints = fingerprint(data_dir)
    assert set(prints) == {"des", "euclid_vis"}
    assert prints["des"]["n"] == 72
    assert prints["des"]["manifest_sha256"] != prints["euclid_vis"]["manifest_sha256"]


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
