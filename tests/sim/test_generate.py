"""Claims about data sets: reproducible bytes, twins, truth that fits the pixels."""

import json

import numpy as np
import pytest

from sim import generate
from sim.draw import SimConfig
from stages import config as configuration
from stages.dataset import DatasetError, read_manifest, read_shards, split_of


@pytest.fixture(scope="module")
def config():
    return configuration.load(SimConfig, configuration.CONFIG_DIR / "sim.yaml")


@pytest.fixture(scope="module")
def small(tmp_path_factory, config):
    out = tmp_path_factory.mktemp("data") / "des"
    small_shards = SimConfig(**{**vars(config), "shard_size": 12})
    generate.generate(small_shards, generate.load_survey("des"), 24, out, 3, 1)
    return out, small_shards


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(small, tmp_path):
    out, config = small
    generate.generate(config, generate.load_survey("des"), 24, tmp_path / "two", 3, 2)
    for name in ("shard-00000.npz", "shard-00001.npz", "shard-00000.parquet", "manifest.json"):
        assert (out / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_another_seed_gives_other_pixels(small, tmp_path):
    out, config = small
    generate.generate(config, generate.load_survey("des"), 12, tmp_path / "other", 4, 1)
    assert (out / "shard-00000.npz").read_bytes() != (tmp_path / "other" / "shard-00000.npz").read_bytes()


def test_an_interrupted_data_set_is_completed(small, tmp_path):
    out, config = small
    again = tmp_path / "again"
    generate.generate(config, generate.load_survey("des"), 24, again, 3, 1)
    (again / "shard-00001.npz").unlink()
    manifest = json.loads((again / "manifest.json").read_text())
    (again / "manifest.json").write_text(json.dumps(manifest | {"status": "unfinished"}))
    with pytest.raises(DatasetError, match="unfinished"):
        read_manifest(again)
    generate.generate(config, generate.load_survey("des"), 24, again, 3, 1)
    assert (again / "shard-00001.npz").read_bytes() == (out / "shard-00001.npz").read_bytes()


def test_a_folder_of_another_request_is_not_overwritten(small, capsys):
    out, _ = small
    assert generate.main(["--survey", "lsst", "--n", "2", "--out", str(out), "--workers", "1"]) == 2
    assert "Choose another --out" in capsys.readouterr().err


def test_a_twin_differs_from_its_lens_only_by_lensed_light(small):
    pairs = 0
    for shard in read_shards(small[0]):
        kinds = shard.truth["kind"].to_numpy()
        for k in np.flatnonzero(kinds == "twin"):
            lens, twin = shard.cutouts[k - 1], shard.cutouts[k]
            assert shard.truth["system"].iloc[k - 1] == shard.truth["system"].iloc[k]
            difference = (lens.flux - twin.flux)[lens.valid]
            assert difference.sum() > 0
            assert np.median(np.abs(difference)) < np.median(np.sqrt(lens.variance))
            pairs += 1
    assert pairs > 0


def test_truth_counts_are_odd_with_the_centre_unless_the_cusp_is_naked(small):
    for shard in read_shards(small[0]):
        for row in shard.truth[shard.truth["label"] == 1].itertuples():
            assert row.n_images_with_centre % 2 == 1
            assert len(row.image_x_pix) == row.n_images_with_centre


def test_non_lenses_have_no_arc_and_no_images(small):
    for shard in read_shards(small[0]):
        other = (shard.truth["label"] == 0).to_numpy()
        assert not shard.arc_mask[other].any()
        assert (shard.truth.loc[other, "n_images"] == 0).all()


def test_a_system_is_never_split(small):
    systems = np.concatenate([shard.truth["system"].to_numpy() for shard in read_shards(small[0])])
    part = split_of(systems)
    for system in np.unique(systems):
        assert len(set(part[systems == system])) == 1


@pytest.mark.parametrize("survey", ["cfhtls_composite", "lsst", "hst_acs", "euclid_vis", "jwst_nircam"])
def test_every_survey_draws(survey, tmp_path, config):
    generate.generate(config, generate.load_survey(survey), 4, tmp_path / survey, 1, 1)
    shard = next(read_shards(tmp_path / survey))
    assert len(shard.cutouts) == 4
    for cutout in shard.cutouts:
        assert np.isfinite(cutout.flux[cutout.valid]).all()
        assert cutout.valid.mean() > 0.5


def test_an_unknown_survey_says_what_to_do(tmp_path, capsys):
    assert generate.main(["--survey", "nowhere", "--n", "2", "--out", str(tmp_path / "x")]) == 2
    assert "Check the path" in capsys.readouterr().err
