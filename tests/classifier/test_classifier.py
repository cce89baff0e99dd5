"""Stage 1's promises on cutouts that lack something."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from scipy.stats import spearmanr

from sim.generate import main as generate
from stages import weights
from stages.classifier.adapt import keep_first_look
from stages.classifier.distil import distil, succeed
from stages.classifier.join import join
from stages.classifier.model import FRAME, ClassifierConfig
from stages.classifier.predict import Predictor, load, upright
from stages.classifier.train import train
from stages.config import WEIGHTS_DIR
from stages.dataset import DatasetError, read_shards
from stages.records import Cutout
from stages.scaling import network_inputs
from stages.training import Schedule, dihedral
from stages.weights import WeightsError

WEIGHTS = WEIGHTS_DIR / "classifier.safetensors"
TINY = ClassifierConfig(
    members=1, width=8, min_arc_snr=0.0, workers=1, schedule=Schedule(steps=3, batch_size=8, check_steps=2)
)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared to the last digits is computed in float32, on every processor."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)


def test_a_validation_set_of_its_own_may_be_smaller_than_what_trains(data_dir: Path, tmp_path: Path) -> None:
    """Hard non-lenses are mined from what trains, figures come from what validates, which stops the training."""
    config = replace(
        TINY, validation=str(data_dir / "euclid_vis"),
        schedule=Schedule(steps=40, batch_size=4, learning_rate=1e-9, check_steps=2, patience=2),
    )  # fmt: skip
    path = train(config, data_dir, tmp_path)
    mined = pd.read_csv(next(tmp_path.glob("classifier-0-mined-2.csv")))
    assert set(mined["survey"]) == {"des", "euclid_vis"}
    curve = pd.read_csv(tmp_path / "classifier-0.csv")
    assert curve["step"].max() < 40
    assert weights.load_card(path).metrics["validation"]["auroc"] > 0


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load(WEIGHTS)


@pytest.fixture(scope="module")
def cutouts(data_dir: Path) -> list[Cutout]:
    return list(next(read_shards(data_dir)).cutouts[:24])


def test_probabilities_do_not_depend_on_the_batch(predictor: Predictor, cutouts: list[Cutout]) -> None:
    together = predictor.predict(cutouts)
    alone = [predictor.predict([c]).p_lens[0] for c in cutouts]
    np.testing.assert_allclose(together.p_lens, alone, atol=1e-5)
    assert together.ids == tuple(c.id for c in cutouts)
    assert ((together.p_lens > 0) & (together.p_lens < 1)).all()


def test_the_same_cutout_twice_scores_the_same(predictor: Predictor, cutouts: list[Cutout]) -> None:
    first, second = predictor.predict(cutouts[:6]), predictor.predict(cutouts[:6])
    np.testing.assert_array_equal(first.p_lens, second.p_lens)
    np.testing.assert_array_equal(first.p_lens_err, second.p_lens_err)


@pytest.mark.parametrize(
    "turn",
    [
        lambda a: np.rot90(a, 1, (1, 2)),
        lambda a: a[:, ::-1, ::-1],
        lambda a: a[:, ::-1],
        lambda a: a.transpose(0, 2, 1),
    ],
)
def test_a_turned_or_mirrored_cutout_scores_the_same(
    predictor: Predictor, cutouts: list[Cutout], turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Centred on the middle of its pixels."""
    middle = (np.array(cutouts[0].flux.shape[:0:-1]) - 1) / 2
    upright = [replace(c, xy_pix=middle) for c in cutouts]
    turned = [
        replace(c, flux=turn(c.flux).copy(), variance=turn(c.variance).copy(), valid=turn(c.valid).copy())
        for c in upright
    ]
    before, after = predictor.predict(upright), predictor.predict(turned)
    assert (before.p_lens > 0.2).sum() > 5
    np.testing.assert_allclose(after.p_lens, before.p_lens, atol=2e-3)


def test_bfloat16_changes_little(predictor: Predictor, cutouts: list[Cutout], monkeypatch: pytest.MonkeyPatch) -> None:
    before = predictor.predict(cutouts).p_lens
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    after = predictor.predict(cutouts).p_lens
    assert 0 < np.abs(after - before).max() < 0.03


def test_blind_cutouts_are_out_of_domain(predictor: Predictor, cutouts: list[Cutout]) -> None:
    blind = replace(cutouts[0], valid=np.zeros_like(cutouts[0].valid))
    result = predictor.predict([blind, cutouts[0]])
    assert result.out_of_domain.tolist() == [True, False]
    assert np.isfinite(result.p_lens).all()
    p = result.p_lens[0]
    assert result.p_lens_err[0] >= p * (1 - p)  # nothing was seen: as wide as a probability can be


def test_training_again_gives_the_same_weights(data_dir: Path, tmp_path: Path, cutouts: list[Cutout]) -> None:
    one, other = (train(TINY, data_dir, tmp_path / name) for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    card = weights.load_card(one)
    assert set(card.data) == {"des", "euclid_vis"}
    low, high = card.domain["resolution_arcsec"]
    assert low < 0.3 < 0.7 < high  # Euclid's sharpness to the Dark Energy Survey's
    assert np.isfinite(load(one).predict(cutouts).p_lens).all()


def test_joined_members_say_what_they_said_apart(data_dir: Path, tmp_path: Path, cutouts: list[Cutout]) -> None:
    eight = replace(TINY, members=1, width=8)
    apart = [train(replace(eight, network=name), data_dir, tmp_path / name) for name in ("compact", "polar")]
    joined = load(join(apart, data_dir, tmp_path))
    seen = network_inputs(cutouts, FRAME)
    pixels, conditions = torch.from_numpy(seen.pixels), torch.from_numpy(seen.conditions)
    with torch.inference_mode():
        for path, member in zip(apart, joined.members, strict=True):
            alone = load(path)
            want = alone.slope * alone.members[0](pixels, conditions) + alone.offset
            np.testing.assert_allclose(member(pixels, conditions), want, atol=0.03)  # weights are kept as fp16
    mixed = replace(eight, members=2, networks=("compact", "polar"), start=str(tmp_path / "classifier.safetensors"))
    further = load(train(replace(mixed, seed=2), data_dir, tmp_path / "further"))
    assert [m.n_views for m in further.members] == [m.n_views for m in joined.members] == [4, 1]
    sure = replace(joined, first=replace(joined.first, cut=-np.inf), offset=50.0)  # seen from every side there is
    np.testing.assert_allclose(sure.predict(cutouts).p_lens, 1, atol=1e-6)


def test_members_can_be_chosen_and_count_twice(data_dir: Path, tmp_path: Path, cutouts: list[Cutout]) -> None:
    apart = Schedule(12, 8, learning_rate=0.05, warmup_steps=1, ema=0.0, check_steps=12)
    both = train(replace(TINY, members=2, schedule=apart), data_dir, tmp_path / "both")
    state, card = weights.load(both)
    weights.save(both, state | {"calibration": torch.tensor([2.0, 0.5], dtype=torch.float64)}, card)
    chosen = load(join([both], data_dir, tmp_path / "chosen", [1, 0, 1]))
    pixels, conditions = inputs(cutouts)
    with torch.inference_mode():
        own = [2 * net(pixels, conditions) + 0.5 for net in load(both).members]
        votes = [net(pixels, conditions) for net in chosen.members]
    np.testing.assert_allclose(votes, [own[1], own[0], own[1]], atol=0.03)  # weights are kept as fp16
    assert float((own[0] - own[1]).abs().max()) > 0.06
    with pytest.raises(WeightsError, match="there are 0 to 1"):
        join([both], data_dir, tmp_path / "none", [2])


def test_networks_of_different_widths_cannot_be_joined(data_dir: Path, tmp_path: Path) -> None:
    apart = [train(replace(TINY, members=1, width=w), data_dir, tmp_path / str(w)) for w in (8, 12)]
    with pytest.raises(WeightsError, match="same width"):
        join(apart, data_dir, tmp_path)


def test_training_goes_on_from_weights(data_dir: Path, tmp_path: Path, cutouts: list[Cutout]) -> None:
    first = train(replace(TINY, members=1), data_dir, tmp_path / "first")
    still = Schedule(**{**vars(TINY.schedule), "steps": 1, "learning_rate": 0.0})
    second = train(replace(TINY, members=1, start=str(first), schedule=still), data_dir, tmp_path / "second")
    np.testing.assert_allclose(load(second).predict(cutouts).p_lens, load(first).predict(cutouts).p_lens, atol=0.05)


def test_too_small_a_data_set_says_what_to_do(tmp_path: Path) -> None:
    assert generate(["--survey", "des", "--n", "4", "--out", str(tmp_path / "four"), "--workers", "1"]) == 0
    with pytest.raises(DatasetError, match="Simulate more"):
        train(TINY, tmp_path / "four", tmp_path)


def test_empty(predictor: Predictor) -> None:
    assert predictor.predict([]).p_lens.shape == (0,)


def test_pixels_under_the_mask_do_not_matter(predictor: Predictor, cutouts: list[Cutout]) -> None:
    valid = cutouts[0].valid.copy()
    valid[:, :15] = False
    masked = replace(cutouts[0], valid=valid)
    wild = replace(masked, flux=np.where(valid, masked.flux, 1e6).astype(np.float32))
    np.testing.assert_array_equal(predictor.predict([masked]).p_lens, predictor.predict([wild]).p_lens)


def test_a_missing_band_widens_the_error(predictor: Predictor, cutouts: list[Cutout]) -> None:
    lacking = []
    for cutout in cutouts:
        valid = cutout.valid.copy()
        valid[0] = False
        lacking.append(replace(cutout, valid=valid))
    assert np.isfinite(predictor.predict(lacking).p_lens).all()
    one_look = replace(predictor, first=replace(predictor.first, cut=np.inf))  # where members disagree less by chance
    full, less = one_look.predict(cutouts), one_look.predict(lacking)
    between = np.minimum(full.p_lens, less.p_lens) > 0.1
    assert between.sum() > 5
    in_logit = [(r.p_lens_err / (r.p_lens * (1 - r.p_lens)))[between] for r in (full, less)]  # p itself differs
    assert (in_logit[1] > 1.05 * in_logit[0]).all()


def test_unlike_seeing_is_said(predictor: Predictor, cutouts: list[Cutout]) -> None:
    blurred = replace(cutouts[0], psf_fwhm_arcsec=np.full(len(cutouts[0].bands), 4.0))
    assert predictor.predict([cutouts[0], blurred]).out_of_domain.tolist() == [False, True]


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    for suffix in ("safetensors", "json"):
        (tmp_path / f"classifier.{suffix}").write_bytes((WEIGHTS_DIR / f"classifier.{suffix}").read_bytes())
    with (tmp_path / "classifier.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsError, match="differs from the file its card describes"):
        load(tmp_path / "classifier.safetensors")


def test_a_first_look_learns_the_ensemble_and_sends_it_what_may_be_a_lens(data_dir: Path, tmp_path: Path) -> None:
    ensemble = train(replace(TINY, members=2), data_dir, tmp_path / "ensemble")
    state, card = weights.load(ensemble)
    answer = mean_logit(load(ensemble), [c for shard in read_shards(data_dir) for c in shard.cutouts])
    decided = torch.tensor([4 / answer.std(), -4 * np.median(answer) / answer.std()], dtype=torch.float64)
    weights.save(ensemble, state | {"calibration": decided}, card)
    how = replace(TINY, network="mobilenet_v3_small", schedule=Schedule(steps=2, batch_size=8, check_steps=2))
    both = load(distil(ensemble, how, data_dir, tmp_path / "both"))
    cutouts = list(next(read_shards(data_dir)).cutouts[:12])
    everything = replace(both, first=replace(both.first, cut=-np.inf)).predict(cutouts).p_lens
    nothing = replace(both, first=replace(both.first, cut=np.inf)).predict(cutouts).p_lens
    logit = both._first_look(*inputs(cutouts))
    np.testing.assert_allclose(nothing, 1 / (1 + np.exp(-logit)), atol=1e-6)
    np.testing.assert_allclose(everything, voted(both, cutouts), atol=1e-5)
    assert both.first.net is not both.members[0]
    alone = train(replace(TINY, members=2, start=str(ensemble)), data_dir, tmp_path / "alone")
    keep_first_look(tmp_path / "both" / "classifier.safetensors", alone)
    kept = load(alone)._first_look(*inputs(cutouts))
    np.testing.assert_allclose(kept, logit, atol=1e-6)
    assert weights.load_card(tmp_path / "both" / "classifier.safetensors").metrics["first_look"]["kept"] > 0.99


def test_a_successor_answers_as_the_ensemble_does_whatever_the_labels_say(data_dir: Path, tmp_path: Path) -> None:
    state, card = weights.load(train(replace(TINY, members=2), data_dir, tmp_path / "ensemble"))
    last = [f"member{k}.head.3.{name}" for k in (0, 1) for name in ("weight", "bias")]
    contrary = state | {key: -state[key] for key in last}
    cutouts = list(next(read_shards(data_dir)).cutouts)
    how = replace(TINY, width=8, schedule=Schedule(60, 32, 0.01, warmup_steps=5, ema=0.9, check_steps=60))
    for name, teacher in (("alike", state), ("contrary", contrary)):
        told = tmp_path / name / "told.safetensors"
        weights.save(told, teacher, card)
        answer = mean_logit(load(told), cutouts)
        sharp = torch.tensor([4 / answer.std(), -4 * np.median(answer) / answer.std()], dtype=torch.float64)
        weights.save(told, teacher | {"calibration": sharp}, card)
        made = succeed(told, how, data_dir, tmp_path / name)
        assert spearmanr(mean_logit(load(made), cutouts), answer).statistic > 0.5, name
        assert weights.load_card(made).config["members"] == 1
        assert weights.load_card(made).metrics["successor-0"]["rank_correlation"] > 0.3


def mean_logit(predictor: Predictor, cutouts: list[Cutout]) -> np.ndarray:
    """Of all members, before calibration, as the cutouts lie."""
    with torch.inference_mode():
        return np.mean([net(*inputs(cutouts)).double().numpy() for net in predictor.members], axis=0)


def voted(predictor: Predictor, cutouts: list[Cutout]) -> np.ndarray:
    """Probabilities of everything seen again, network by network and turn by turn."""
    pixels, conditions = inputs(cutouts)
    first = (predictor.first.net, predictor.first.slope, predictor.first.offset)
    voters = [first, *((net, predictor.slope, predictor.offset) for net in predictor.members)]
    with torch.inference_mode():
        logits = np.array([
            [slope * net(dihedral(pixels, k), conditions).double().numpy() + offset for k in range(4)]
            for net, slope, offset in voters
        ])  # fmt: skip
    one = np.mean([logits[0, [0, 2]].mean(axis=0), *(own[v % 4] for v, own in enumerate(logits) if v)], axis=0)
    return expit(np.where(one > 0, logits.mean(axis=(0, 1)), one))


def test_what_is_likely_is_seen_from_every_side(predictor: Predictor, cutouts: list[Cutout]) -> None:
    eager = replace(predictor, first=replace(predictor.first, cut=-np.inf))
    p = eager.predict(cutouts).p_lens
    assert 0 < (p > 0.5).sum() < len(p)
    np.testing.assert_allclose(p, voted(eager, cutouts), atol=1e-5)


def inputs(cutouts: list[Cutout]) -> tuple[torch.Tensor, torch.Tensor]:
    seen = network_inputs(cutouts, FRAME)
    return upright(torch.from_numpy(seen.pixels)), torch.from_numpy(seen.conditions)
