"""Claims about data sets: reproducible bytes, twins, truth that fits the pixels, runs that were cut off."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import psutil
import pytest

from sim import generate
from sim.draw import SimConfig
from stages import config as configuration
from stages.config import REPOSITORY
from stages.dataset import TRUTH_COLUMNS, DatasetError, read_manifest, read_shards, split_of

NEW_SURVEYS = ("kids", "hsc", "legacy", "panstarrs", "sdss", "euclid_nisp", "hst_wfc3", "roman")
OLD_SURVEYS = ("cfhtls", "cfhtls_composite", "lsst", "hst_acs", "euclid_vis", "jwst_nircam")


@pytest.fixture(scope="module")
def config():
    return replace(configuration.load(SimConfig, configuration.CONFIG_DIR / "sim.yaml"), shard_size=12)


def make(config, out, n=24, seed=3, workers=1, survey="des", resume=False):
    generate.generate(config, generate.load_survey(survey), n, out, seed, workers, resume=resume)
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory, config):
    return make(config, tmp_path_factory.mktemp("data") / "des")


@pytest.fixture(scope="module")
def lenses(small):
    """Rows of every lens, with its cutout, its twin's, its mask and its survey."""
    found = []
    for shard in read_shards(small):
        for k in np.flatnonzero(shard.truth["label"].to_numpy() == 1):
            found.append((shard.truth.iloc[k], shard.cutouts[k], shard.cutouts[k + 1], shard.arc_mask[k]))
    assert found
    return found


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(small, config, tmp_path):
    two = make(config, tmp_path / "two", workers=2)
    for path in small.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_another_seed_gives_other_pixels(small, config, tmp_path):
    other = make(config, tmp_path / "other", n=12, seed=4)
    assert (small / "shard-00000.npz").read_bytes() != (other / "shard-00000.npz").read_bytes()


def test_a_stopped_data_set_is_completed_only_when_asked(small, config, tmp_path):
    again = make(config, tmp_path / "again")
    (again / "shard-00001.npz").unlink()
    (again / ".shard-00001.npz").write_bytes(b"half a shard")
    manifest = json.loads((again / "manifest.json").read_text())
    (again / "manifest.json").write_text(json.dumps(manifest | {"status": "unfinished"}))
    with pytest.raises(DatasetError, match="unfinished"):
        read_manifest(again)
    with pytest.raises(ValueError, match="Add --resume"):
        make(config, again)
    make(config, again, resume=True)
    assert (again / "shard-00001.npz").read_bytes() == (small / "shard-00001.npz").read_bytes()
    assert not (again / ".shard-00001.npz").exists()


def test_a_full_disk_leaves_a_set_that_can_be_resumed(config, small, tmp_path, monkeypatch, capsys):
    out, real = tmp_path / "full", generate.write_shard

    def full(folder, index, shard):
        if index == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(folder, index, shard)

    monkeypatch.setattr(generate, "write_shard", full)
    monkeypatch.setattr(generate.configuration, "load", lambda cls, path, load=configuration.load: (
        config if cls is SimConfig else load(cls, path)))  # fmt: skip
    arguments = ["--survey", "des", "--n", "24", "--out", str(out), "--seed", "3", "--workers", "1"]
    assert generate.main(arguments) == 2
    assert "Free some space and run again with --resume" in capsys.readouterr().err
    monkeypatch.setattr(generate, "write_shard", real)
    assert generate.main([*arguments, "--resume"]) == 0
    assert (out / "shard-00001.npz").read_bytes() == (small / "shard-00001.npz").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_worker_is_reported_and_leaves_a_set_that_can_be_resumed(tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "sim/generate.py", "--survey", "des", "--n", "4096", "--out", str(out)]
    run = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    children = wait_for_workers(run.pid)
    os.kill(children[-1], signal.SIGKILL)
    assert run.communicate(timeout=300)[1].count("--resume") == 1
    assert run.returncode == 2
    assert json.loads((out / "manifest.json").read_text())["status"] == "unfinished"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_stops_with_a_message_and_leaves_a_set_that_can_be_resumed(tmp_path):
    out = tmp_path / "stopped"
    command = [sys.executable, "sim/generate.py", "--survey", "des", "--n", "4096", "--out", str(out)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are deaf to Ctrl-C
    run = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    wait_for_workers(run.pid)
    run.send_signal(signal.SIGINT)
    assert "--resume goes on from here" in run.communicate(timeout=300)[1]
    assert run.returncode == 130
    assert json.loads((out / "manifest.json").read_text())["status"] == "unfinished"


def wait_for_workers(pid):
    """Process ids of the drawing processes, once both are there."""
    for _ in range(2400):
        children = psutil.Process(pid).children()
        workers = [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
        if len(workers) == 2:
            return workers
        time.sleep(0.1)
    raise AssertionError("no workers started")


def test_a_folder_of_another_request_is_not_overwritten(small, capsys):
    assert generate.main(["--survey", "lsst", "--n", "2", "--out", str(small), "--workers", "1"]) == 2
    message = capsys.readouterr().err
    assert "survey" in message
    assert "Choose another --out" in message


def test_a_manifest_names_what_the_pixels_depend_on(small):
    manifest = read_manifest(small)
    assert {"numpy", "lenstronomy", "oddlens"} <= set(manifest["versions"])
    assert manifest["seed"] == 3
    assert manifest["config"]["shard_size"] == 12
    assert len(manifest["fingerprint"]) == 64


def test_a_twin_differs_from_its_lens_only_by_lensed_light(lenses):
    for row, lens, twin, _ in lenses:
        difference = (lens.flux - twin.flux)[lens.valid]
        assert difference.sum() > 0, row["id"]
        assert np.median(np.abs(difference)) < np.median(np.sqrt(lens.variance))
        assert np.array_equal(lens.valid, twin.valid)
        assert np.array_equal(lens.xy_pix, twin.xy_pix)
        assert np.array_equal(lens.psf_fwhm_arcsec, twin.psf_fwhm_arcsec)


def test_parities_sum_to_one_and_images_come_in_order_of_arrival(lenses):
    for row, *_ in lenses:
        assert row["parity_sum"] == 1 == sum(row["image_parity"])
        assert row["n_images_with_centre"] % 2 == 1
        assert list(row["image_delay_arcsec2"]) == sorted(row["image_delay_arcsec2"])
        assert row["image_kind"][0] == "minimum"
        assert np.array_equal(np.array(row["image_kind"]) == "saddle", np.array(row["image_parity"]) < 0)


def test_the_lensed_light_lies_where_the_arc_mask_is(lenses):
    for _, lens, twin, mask in lenses:
        if mask.any():
            excess = np.nansum((lens.flux - twin.flux) / np.sqrt(lens.variance), axis=0)
            assert excess[mask].mean() > 2 * abs(excess[~mask].mean())


def test_truth_has_the_columns_that_are_documented(small):
    for shard in read_shards(small):
        assert list(shard.truth) == sorted(shard.truth, key=list(shard.truth).index)
        assert set(shard.truth) == set(TRUTH_COLUMNS)
        for text in shard.truth["drawn"]:
            assert isinstance(json.loads(text), dict)


def test_what_was_drawn_is_recorded(lenses):
    for row, *_ in lenses:
        drawn = json.loads(row["drawn"])
        assert drawn["deflector"]["mass"]["parts"][0]["theta_e"] == pytest.approx(row["theta_e_arcsec"], rel=1e-4)
        assert len(drawn["sources"]) == row["n_sources"]


def test_non_lenses_have_no_arc_and_no_images(small):
    for shard in read_shards(small):
        other = (shard.truth["label"] == 0).to_numpy()
        assert not shard.arc_mask[other].any()
        assert (shard.truth.loc[other, "n_images"] == 0).all()


def test_a_system_is_never_split(small):
    systems = np.concatenate([shard.truth["system"].to_numpy() for shard in read_shards(small)])
    part = split_of(systems)
    for system in np.unique(systems):
        assert len(set(part[systems == system])) == 1


@pytest.mark.parametrize("survey", [*OLD_SURVEYS, *NEW_SURVEYS])
def test_every_survey_draws(survey, tmp_path, config):
    shard = next(read_shards(make(config, tmp_path / survey, n=4, seed=1, survey=survey)))
    assert len(shard.cutouts) == 4
    for cutout in shard.cutouts:
        assert np.isfinite(cutout.flux[cutout.valid]).all()
        assert cutout.valid.mean() > 0.5


def test_an_unknown_survey_says_what_to_do(tmp_path, capsys):
    assert generate.main(["--survey", "nowhere", "--n", "2", "--out", str(tmp_path / "x")]) == 2
    assert "Check the path" in capsys.readouterr().err


def test_every_fault_of_a_configuration_is_named_with_its_unit(tmp_path, capsys):
    bad = tmp_path / "sim.yaml"
    bad.write_text("centring_arcsec: -1\nshard_size: 7\nimpostors: {dragon: 1}\nquasar_fraction: 2\n")
    assert generate.main(["--config", str(bad), "--survey", "des", "--n", "2", "--out", str(tmp_path / "x")]) == 2
    message = capsys.readouterr().err
    for fault in ("centring_arcsec -1", "arcsec", "shard_size 7", "dragon", "quasar_fraction 2"):
        assert fault in message
    assert not (tmp_path / "x").exists()


def test_catalogue_without_backgrounds_is_refused(tmp_path, capsys):
    arguments = ["--survey", "des", "--n", "2", "--out", str(tmp_path / "x"), "--catalogue", "list.csv"]
    assert generate.main(arguments) == 2
    assert "Give --backgrounds" in capsys.readouterr().err
