"""Claims about the test that tells simulated from real: it finds what is wrong, and finds nothing where nothing is."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sim import realism
from sim.likeness.net import native_pixels
from sim.likeness.sample import RealismError, Sample, check_form, common, cut, halves, match, named, paired, sky_groups
from sim.likeness.score import Scores, forest_scores, separation, telling_features
from stages.survey import SurveyFacts
from tests.sim.sky import sky, write_real, write_simulated

RNG = np.random.default_rng


def sample(cutouts):
    form = pd.DataFrame({"invalid": np.zeros(len(cutouts))})
    return Sample(tuple(cutouts), tuple(c.source for c in cutouts), tuple("k" for _ in cutouts), form)


def judge(real, sim, seed=0):
    """The forest's verdict on two lists of cutouts, and which features tell."""
    options = realism._parser().parse_args(["--real", ".", "--sim", ".", "--out", ".", "--epochs", "0"])
    with ThreadPoolExecutor(1) as pool:
        c = realism.compare(sample(real), sample(sim), options, RNG(seed), pool)
    return c.found["features"], telling_features(c.table, c.label, c.groups)


# ---- what it must find


def test_real_against_real_is_not_told_apart():
    rng = RNG(1)
    whole = sample(sky(120, rng, per_group=3))
    first, second = halves(whole, rng)
    found, _ = judge(first.cutouts, second.cutouts)
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize(
    ("wrong", "family"),
    [({"noise": 0.35}, "noise"), ({"psf": 2.1}, ("profile", "shape")), ({"colour": 1.3}, "colour")],
    ids=["noise correlation", "psf", "colour"],
)
def test_what_is_wrong_is_found_and_named(wrong, family):
    found, ranking = judge(sky(50, RNG(2)), sky(70, RNG(3), **wrong, name="t"))
    assert found.low > 0.6
    assert ranking.index[0].startswith(family)
    assert ranking["sigma"].iloc[0] > 4


# ---- what it must not see


def test_paired_cutouts_share_their_masks():
    rng = RNG(4)
    real, sim = sky(30, rng), sky(70, rng, name="t")
    for c in real:
        c.valid[:, :, rng.integers(0, 5)] = False
    with ThreadPoolExecutor(1) as pool:
        left, right, n_real = paired(sample(real), sample(sim), rng, 100, pool)
    assert n_real == 30
    for a, b in zip(left.cutouts, right.cutouts, strict=False):
        assert np.array_equal(a.valid, b.valid)
        assert not a.valid.all()


def test_error_map_and_psf_of_a_file_are_not_shown():
    (c,) = sky(1, RNG(5))
    other = replace(c, variance=np.full_like(c.flux, 7.0), psf_fwhm_arcsec=np.ones(2))
    a, b = (native_pixels([cut(k, ("g", "i"), 15)]) for k in (c, other))
    assert np.array_equal(a, b)


def test_the_network_sees_pixels_that_no_interpolation_smoothed():
    (c,) = sky(1, RNG(6))
    moved = replace(c, xy_pix=c.xy_pix + 0.4, pixel_scale_arcsec=0.21)
    assert np.array_equal(native_pixels([c]), native_pixels([moved]))


def test_brightness_of_pairs_is_equal_and_no_simulated_cutout_serves_twice():
    rng = RNG(7)
    real, sim = rng.normal(1.2, 0.3, 40), rng.normal(1.0, 0.5, 400)
    left, right = match(real, sim, rng, 600)
    times = len(right) // len(left)
    assert len(right) == times * len(left) > 80
    assert len(set(right)) == len(right)
    assert np.abs(sim[right] - np.tile(real[left], times)).max() < 0.1


def test_nothing_matches_nothing():
    left, right = match(np.array([np.nan, 1.0]), np.array([3.0, np.nan]), RNG(0), 10)
    assert (len(left), len(right)) == (0, 0)


def test_bands_without_a_name_take_the_survey_s():
    (c,) = sky(1, RNG(16))
    facts = SurveyFacts("made", "ground", ("g", "i"), 0.2, {"g": 1.0, "i": 1.0}, {"g": 30.0, "i": 30.0})
    assert named(replace(c, bands=("", "")), facts).bands == ("g", "i")
    assert named(replace(c, bands=("r", "z")), facts).bands == ("r", "z")
    assert named(replace(c, bands=("", "")), None).bands == ("", "")


def test_halves_share_no_group():
    first, second = halves(sample(sky(20, RNG(8), per_group=4)), RNG(9))
    assert not set(first.groups) & set(second.groups)
    assert len(first.groups) + len(second.groups) == 20


def test_tiles_that_overlap_on_the_sky_are_one_group():
    a, b, c, d = sky(4, RNG(10))
    spots = ((a, 10.0), (b, 10.01), (c, 11.0))
    placed = [*(replace(k, ra_deg=ra, dec_deg=-5.0) for k, ra in spots), d]
    group = sky_groups(placed)
    assert group["s0"] == group["s1"] != group["s2"]
    assert group["s3"] == "s3"


# ---- intervals


def test_auc_is_that_of_scikit_learn():
    rng = RNG(11)
    label = rng.integers(0, 2, 200)
    value = np.round(rng.normal(size=200) + 0.7 * label, 1)
    found = separation(Scores(value[None], np.zeros((1, 200), int)), label, np.arange(200).astype(str), rng)
    assert found.auc == pytest.approx(roc_auc_score(label, value))


def test_an_offset_between_folds_neither_helps_nor_hurts():
    rng = RNG(12)
    label, fold = np.tile([0, 1], 100), np.repeat([0, 1], 100)
    value = rng.normal(size=200) + 0.5 * label
    names = np.arange(200).astype(str)
    plain, offset = (separation(Scores(v[None], fold[None]), label, names, RNG(1)) for v in (value, value + 50 * fold))
    assert plain == offset


def test_copies_within_a_group_do_not_narrow_the_interval():
    rng = RNG(13)
    label = np.repeat([0, 1], 40)
    value, names = rng.normal(size=80) + 0.5 * label, np.arange(80).astype(str)
    one = separation(Scores(value[None], np.zeros((1, 80), int)), label, names, RNG(2))
    copies = Scores(np.tile(value, 5)[None], np.zeros((1, 400), int))
    many = separation(copies, np.tile(label, 5), np.tile(names, 5), RNG(2))
    assert many.auc == pytest.approx(one.auc)
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.1)


def test_the_interval_of_a_null_comparison_holds_a_half_as_often_as_it_says():
    inside = 0
    for seed in range(60):
        rng = RNG(seed)
        label, names = np.repeat([0, 1], 60), np.repeat(np.arange(40), 3).astype(str)
        shared = np.repeat(rng.normal(size=(40, 4)), 3, axis=0)  # members of a group are alike
        table = pd.DataFrame(shared + 0.5 * rng.normal(size=(120, 4)), columns=list("abcd"))
        found = separation(_quick(table, label, names, seed), label, names, rng)
        inside += found.low <= 0.5 <= found.high
    assert inside >= 51  # 57 expected; the interval leaves the training's own chance out


def _quick(table, label, names, seed):
    """Linear discriminant in the same folds: the intervals are on trial, not the forest."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    from sim.likeness.score import folds

    value, fold = np.zeros((1, len(label))), np.zeros((1, len(label)), int)
    for k, (train, test) in enumerate(folds(label, names, seed)):
        model = LinearDiscriminantAnalysis().fit(table.iloc[train].to_numpy(), label[train])
        value[0, test], fold[0, test] = model.decision_function(table.iloc[test].to_numpy()), k
    return Scores(value, fold)


def test_no_group_is_in_training_and_test_at_once():
    label, names = np.repeat([0, 1], 60), np.repeat(np.arange(40), 3).astype(str)
    scores = forest_scores(pd.DataFrame({"x": np.arange(120.0)}), label, names, 0, repeats=2)
    for fold in scores.fold:
        assert all(len(set(fold[names == n])) == 1 for n in set(names))


# ---- refusals


def test_coarse_steps_on_one_side_are_refused():
    fine, coarse = pd.DataFrame({"distinct": [1.0, 0.99]}), pd.DataFrame({"distinct": [0.02, 0.03]})
    with pytest.raises(RealismError, match=r"the real pixels come in coarse steps.*Simulate the format"):
        check_form(coarse, fine)


def test_bands_and_size_must_overlap():
    (a,) = sky(1, RNG(14))
    with pytest.raises(RealismError, match=r"no band in common.*Give --survey"):
        common([a], [replace(a, bands=("J", "K"))])
    (small,) = sky(1, RNG(15), size=15)
    with pytest.raises(RealismError, match="Cut them larger"):
        common([small], [a])


# ---- the command


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("realism")
    write_real(folder / "real", sky(44, RNG(20)))
    write_simulated(folder / "good", sky(70, RNG(21), name="t"))
    write_simulated(folder / "bad", sky(60, RNG(22), noise=0.3, colour=1.4, name="t"))
    return folder


def command(folder, sim, *more):
    out = folder / f"out-{sim}"
    arguments = ["--real", str(folder / "real"), "--sim", str(folder / sim), "--out", str(out), "--workers", "1", *more]
    return realism.main(arguments), out


def test_the_gate_fails_a_wrong_simulation_and_names_what_is_wrong(folders, capsys):
    code, out = command(folders, "bad", "--max-auc", "0.7", "--epochs", "0")
    assert code == 1
    summary = json.loads((out / "realism.json").read_text())
    assert summary["auc"]["features"]["low"] > 0.7
    assert {row["family"] for row in summary["families"] if row["auc"] > 0.8} >= {"noise", "colour"}
    assert "exceeds 0.7" in capsys.readouterr().err


def test_the_gate_passes_a_right_simulation_and_the_page_shows_it(folders, capsys):
    code, out = command(folders, "good", "--max-auc", "0.75", "--epochs", "2", "--null")
    printed = capsys.readouterr().out
    assert code == 0, printed
    page = (out / "realism.html").read_text()
    assert page.count("<img") == 3
    assert "simulated against simulated" in page
    kinds = {row["kind"] for row in json.loads((out / "realism.json").read_text())["kinds"]}
    assert kinds == {"field", "twin"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--where", "kind == 'field'"), "Give --catalogue as well."),
        (("--sim-where", "nothing == 1"), "Use the columns"),
        (("--sim-where", "kind == 'absent'"), "Widen --where or --sim-where."),
        (("--limit", "5"), "Simulate more"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_to_do(folders, capsys, more, message):
    code, _ = command(folders, "good", "--epochs", "0", *more)
    assert code == 2
    assert message in capsys.readouterr().err
