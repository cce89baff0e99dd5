"""Adapting to a survey of one's own: what is written, what is refused, and what is kept apart."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from sim import own_sky
from sim.generate import load_survey
from stages import weights
from stages.cache import cached
from stages.classifier import adapt as module
from stages.classifier import adapt_check
from stages.classifier.adapt import Request, adapt, affordable_steps, command, report, settings
from stages.classifier.adapt_check import FIGURES, AdaptError, Check, compare, held_out
from stages.classifier.model import FRAME, ClassifierConfig
from stages.classifier.predict import load
from stages.classifier.train import usable
from stages.config import WEIGHTS_DIR
from stages.dataset import read_shards
from stages.weights import load_card, save

ARGUMENTS = {"minutes": 0.01, "smallest": 24, "workers": 1, "batch_size": 16}


def made_already(_: Sequence[str]) -> int:
    raise AssertionError("the data were made already")


@pytest.fixture(scope="module")
def survey_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve fields of noise with two galaxies, as the Dark Energy Survey's pixels."""
    folder, facts = tmp_path_factory.mktemp("survey"), load_survey("des")
    y, x = np.indices((91, 91))
    for k in range(12):
        rng = np.random.default_rng(k)
        planes = []
        for band, colour in (("g", 0.4), ("r", 0.8), ("i", 1.0)):
            blob = 400 * np.exp(-np.hypot(x - 45, y - 45) / 3) + 300 * np.exp(-np.hypot(x - 12, y - 70) / 3)
            planes.append(colour * blob + facts.sky_sigma[band] * rng.normal(size=blob.shape))
        header = fits.Header({"BANDS": "gri", "PIXSCALE": 0.263})
        fits.writeto(folder / f"field{k}.fits", np.array(planes, np.float32), header)
    return folder


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights with a card that leaves out no lens for its size: tiny data hold few clear ones."""
    state, card = weights.load(WEIGHTS_DIR / "classifier.safetensors")
    path = tmp_path_factory.mktemp("lenient") / "classifier.safetensors"
    save(
        path, state, replace(card, config=card.config | {"min_theta_e_seeing": 0.0, "max_arc_contrast": 1e6}, sha256="")
    )
    return path


@pytest.fixture(scope="module")
def begun(survey_dir: Path, lenient: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the data are made and the training is not: stopped twice, once within the data."""
    out = tmp_path_factory.mktemp("begun") / "out"
    request = Request(survey_dir, out, weights=lenient, **ARGUMENTS)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapt_check, "LEAST_LENSES", 2)
        patch.setattr(adapt_check, "LEAST_OTHERS", 8)
        patch.setattr(module, "train", stopped)
        write = own_sky._write
        patch.setattr(own_sky, "_write", lambda *a: stopped() if a[2] == "sky-train" else write(*a))
        with pytest.raises(module.Ended) as end:
            adapt(request, own_sky.main)
        assert end.value.code == module.STOPPED
        before = {p: p.stat().st_mtime_ns for p in out.rglob("shard-*")}
        assert before
        patch.setattr(own_sky, "_write", write)
        patch.setattr(module, "affordable_steps", lambda *_: 3)
        with pytest.raises(KeyboardInterrupt):
            adapt(request, own_sky.main)
        assert {p: p.stat().st_mtime_ns for p in before} == before
    return out


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def request_(begun: Path, survey_dir: Path, lenient: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.setattr(adapt_check, "LEAST_LENSES", 2)
    monkeypatch.setattr(adapt_check, "LEAST_OTHERS", 8)
    return Request(survey_dir, copytree(begun, tmp_path / "out"), weights=lenient, **ARGUMENTS)  # type: ignore[arg-type]


def test_a_stopped_adaptation_goes_on_and_its_card_says_where_the_weights_are_from(
    request_: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    path, check = adapt(request_, made_already)
    card, parent = load_card(path), load_card(request_.weights)
    assert (path.name == "classifier.safetensors") == (not check.faults())
    assert card.data["parent"] == {"file": "classifier.safetensors", "sha256": parent.sha256}
    assert {"own/sky-train", "own/objects-test", "own/plain-train"} <= set(card.data)
    told = card.metrics["held_out_sky"]
    assert (told["before"], told["after"], told["refused"]) == (check.before, check.after, check.faults())
    assert check.before["auroc"] > 0.6
    cutouts = next(read_shards(request_.out / "data")).cutouts[:8]
    assert len(load(path).members) == len(load(request_.weights).members)
    assert np.isfinite(load(path).predict(cutouts).p_lens).all()
    assert report(path, check) == (module.REFUSED if check.faults() else module.DONE)
    assert "held-out sky" in capsys.readouterr().out
    assert adapt(request_, made_already)[1] == check  # all is done: nothing changes


def test_networks_that_forget_are_refused(
    request_: Request, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = module.train

    def forget(config: ClassifierConfig, data: Path, out: Path) -> Path:
        path = train(config, data, out)
        state, card = weights.load(path)
        save(path, state | {"calibration": -state["calibration"]}, card)  # lenses are others, and others lenses
        return path

    monkeypatch.setattr(module, "train", forget)
    path, check = adapt(request_, made_already)
    assert check.faults()
    assert path.name == "classifier-refused.safetensors"
    assert not (request_.out / "classifier.safetensors").exists()
    assert load_card(path).metrics["held_out_sky"]["refused"]
    assert report(path, check) == module.REFUSED
    told = capsys.readouterr().err
    assert "refused" in told
    assert "before" in told


def test_held_out_and_training_places_are_never_the_same(begun: Path) -> None:
    truth = pd.concat([shard.truth for shard in read_shards(begun / "data")])
    own = truth[truth["system"].str.startswith("des:")]
    assert own.groupby("system")["part"].nunique().max() == 1
    assert set(own["part"]) == {"train", "validation", "test"}
    assert set(truth.loc[~truth["system"].str.startswith("des:"), "part"]) == {"train"}
    seen = cached(begun / "data", FRAME, begun / "training" / "cache", 1).truth
    assert (seen["part"].to_numpy() == truth["part"].to_numpy()).all()


def test_the_check_holds_twins_real_objects_and_lenses_that_can_be_seen(request_: Request) -> None:
    chosen = held_out(request_.out / "data", load_card(request_.weights))
    truth = pd.concat([s.truth for s in read_shards(request_.out / "data")]).query("part == 'test'")
    rows = truth.iloc[chosen["row"]]
    assert (rows["label"].to_numpy() == chosen["label"].to_numpy()).all()
    assert set(rows.loc[rows["label"] == 0, "kind"]) == {"twin", "sky"}
    galaxies = rows[rows["kind"] == "lens_galaxy"]
    assert (galaxies["arc_snr"] >= 35).all()


def scored(shift: float, n: int = 400) -> tuple[pd.DataFrame, np.ndarray]:
    """Lenses and others of 40 places; the larger `shift`, the better they are told apart."""
    rng = np.random.default_rng(1)
    label = np.arange(n) % 2
    truth = pd.DataFrame({"label": label, "system": [f"s{k % 40 // 2}" for k in range(n)]})
    logit = shift * (label - 0.5) + rng.normal(size=n)
    return truth, 1 / (1 + np.exp(-shift * logit))


@pytest.mark.parametrize(("after", "refused"), [(1.5, False), (2.5, False), (0.7, True)])
def test_only_what_is_worse_is_refused(after: float, refused: bool) -> None:
    truth, before = scored(1.5)
    check = compare(truth, before, scored(after)[1], 1)
    assert bool(check.faults()) == refused
    low, high = check.interval["auroc"]
    assert low <= check.after["auroc"] - check.before["auroc"] <= high


def test_a_calibration_that_is_clearly_worse_is_refused() -> None:
    truth, before = scored(1.5)
    odds = (before / (1 - before)) ** 4
    check = compare(truth, before, odds / (1 + odds), 1)
    assert [fault.split()[0] for fault in check.faults()] == ["calibration_error"]


def test_figures_that_cannot_be_told_are_refused() -> None:
    nan = dict.fromkeys(FIGURES, float("nan"))
    assert len(Check(0, 0, 0, nan, nan, nan, {}).faults()) == 3


def test_the_schedule_is_as_long_as_there_is_time(
    begun: Path, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = cached(begun / "data", FRAME, begun / "training" / "cache", 1)
    config = settings(request_)
    with pytest.raises(AdaptError, match="more --minutes"):
        affordable_steps(config, seen, 0.0)
    assert affordable_steps(config, seen, 1e9) == 1500
    ticks = count()  # a clock by which three steps, and looking at 16 cutouts, take a second
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    part = seen.truth["part"]
    looks = 3 * (part != "test").sum() + 4 * (part == "validation").sum()
    assert affordable_steps(config, seen, config.members * (looks / 16 + 100.5 / 3)) == 100


def test_impossible_requests_are_one_clear_error(
    begun: Path, survey_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    cases = [
        (["--out", str(tmp_path / "file")], "cannot be written"),
        (["--out", str(begun)], "Choose another --out"),
        (["--out", str(tmp_path / "a"), "--minutes", "0"], "above 0"),
        (["--out", str(tmp_path / "b"), "--weights", str(tmp_path / "none")], "no such weights"),
    ]
    for arguments, says in cases:
        assert command(["--survey-dir", str(survey_dir), *arguments]) == module.ERROR
        assert says in capsys.readouterr().err


def test_the_makers_own_error_ends_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert (
        command(["--survey-dir", str(tmp_path / "empty"), "--out", str(tmp_path / "out"), "--survey", "des"])
        == module.ERROR
    )
    assert "holds no image" in capfd.readouterr().err


def test_a_faint_lens_takes_its_own_twin_with_it_and_nothing_else_of_the_place(begun: Path) -> None:
    seen = cached(begun / "data", FRAME, begun / "training" / "cache", 1)
    rows = [("a-0-lens", 1, 5.0), ("a-0-twin", 0, 0.0), ("a-1-lens", 1, 90.0), ("a-1-twin", 0, 0.0), ("tile", 0, 0.0)]
    truth = pd.DataFrame(rows, columns=["id", "label", "arc_snr"]).assign(
        system="s", part="train", arc_contrast=1.0, theta_e_arcsec=1.0, seeing_arcsec=0.7
    )
    truth["kind"] = np.where(truth["label"] == 1, "lens_galaxy", "twin")
    lenses, others = usable(replace(seen, truth=truth), ClassifierConfig(min_arc_snr=35.0))
    assert (lenses.tolist(), others.tolist()) == ([2], [3, 4])


def test_lenses_that_look_like_lone_objects_can_be_left_out_with_their_twins(begun: Path) -> None:
    seen = cached(begun / "data", FRAME, begun / "training" / "cache", 1)
    rows = [
        ("s-0-lens", "lens_galaxy", 1, 1.5, 1.0), ("s-0-twin", "twin", 0, np.nan, 0.0),
        ("s-1-lens", "lens_galaxy", 1, 0.5, 1.0), ("s-1-twin", "twin", 0, np.nan, 0.0),  # smaller than the seeing
        ("s-2-lens", "lens_galaxy", 1, 1.5, 9.0), ("s-2-twin", "twin", 0, np.nan, 0.0),  # no deflector to be seen
        ("s-3-lens", "lens_quasar", 1, 0.5, 0.0), ("s-3-twin", "twin", 0, np.nan, 0.0),
        ("s-4-lens", "lens_quasar", 1, 1.5, 0.0), ("s-4-twin", "twin", 0, np.nan, 0.0),
    ]  # fmt: skip
    truth = pd.DataFrame(rows, columns=["id", "kind", "label", "theta_e_arcsec", "arc_contrast"])
    seen = replace(seen, truth=truth.assign(system="s", part="train", arc_snr=90.0, seeing_arcsec=0.7))
    every, _ = usable(seen, ClassifierConfig())
    assert every.tolist() == [0, 2, 4, 6, 8]
    lenses, others = usable(seen, ClassifierConfig(min_theta_e_seeing=1.0, max_arc_contrast=4.0))
    assert (lenses.tolist(), others.tolist()) == ([0, 8], [1, 9])
