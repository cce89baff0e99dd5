"""The training loop: resumed runs are the same runs, rotations undo each other, calibration recovers a known map."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.arcs.model import ArcsConfig
from stages.training import (
    Schedule,
    answer,
    begun_with,
    blend,
    dihedral,
    dihedral_positions,
    fast_arithmetic,
    fit,
    learning_rate,
    platt,
    undihedral,
)
from stages.weights import WeightsError


@pytest.mark.parametrize("k", range(8))
def test_positions_move_with_the_pixels(k: int) -> None:
    plane = torch.zeros(1, 80, 80)
    plane[0, 21, 53] = 1  # y, x
    moved = dihedral_positions(torch.tensor([[53.0, 21.0]]), k, 80)[0]
    assert dihedral(plane, k)[0, int(moved[1]), int(moved[0])] == 1


@pytest.mark.parametrize("k", range(8))
def test_undihedral_undoes_dihedral(k: int) -> None:
    x = torch.arange(2 * 5 * 5).reshape(2, 5, 5)
    assert torch.equal(undihedral(dihedral(x, k), k), x)


def test_the_eight_turns_are_eight() -> None:
    x = torch.arange(9).reshape(3, 3)
    assert len({tuple(dihedral(x, k).flatten().tolist()) for k in range(8)}) == 8


class Stop(Exception):
    pass


def run(out: Path, stop_at: int | None = None, seed: int = 1, told: dict[str, str] | None = None) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 1))
    step = 0

    def loss_of(model: nn.Module, rng: np.random.Generator, _: int) -> Tensor:
        nonlocal step
        step += 1
        if stop_at is not None and step > stop_at:
            raise Stop
        x = torch.from_numpy(rng.normal(size=(16, 3)).astype(np.float32))
        result: Tensor = ((model(x)[:, 0] - x.sum(1)) ** 2).mean()
        return result

    schedule = Schedule(steps=20, check_steps=5, warmup_steps=3, learning_rate=0.01)
    return fit(
        net, loss_of, lambda m, _: {"weight": float(next(m.parameters()).detach().sum())}, schedule, out, "toy",
        seed, told,
    )  # fmt: skip


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole").state_dict()
    with pytest.raises(Stop):
        run(tmp_path / "parts", stop_at=12)
    resumed = run(tmp_path / "parts").state_dict()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    schedule = Schedule(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(schedule, k) for k in range(100)]
    assert rates[0] < 0.2
    assert max(rates) > 0.9
    assert rates[-1] < 0.01


def test_platt_recovers_a_known_map() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 20000)
    label = (rng.random(20000) < 1 / (1 + np.exp(-(1.5 * logit - 0.7)))).astype(int)
    slope, offset = platt(logit, label, balanced=False)
    assert slope == pytest.approx(1.5, rel=0.06)
    assert offset == pytest.approx(-0.7, abs=0.08)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    one, other = run(tmp_path / "one").state_dict(), run(tmp_path / "two", seed=2).state_dict()
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(WeightsError, match="seed 1"):
        run(tmp_path, seed=2)
    run(tmp_path / "told", told={"data des": "aa", "width": "24"})
    run(tmp_path / "told", told={"data des": "aa", "width": "24"})
    with pytest.raises(WeightsError, match="begun with data des aa"):
        run(tmp_path / "told", told={"data des": "bb", "width": "24"})
    with pytest.raises(WeightsError, match="begun with data lsst absent"):
        run(tmp_path / "told", told={"data des": "aa", "data lsst": "cc", "width": "24"})
    other, schedule = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1)), Schedule(40, check_steps=10)
    with pytest.raises(WeightsError, match="another network"):
        fit(other, lambda n, r, s: n(torch.zeros(2, 3)).sum(), lambda n, s: {"a": 0.0}, schedule, tmp_path, "toy", 1)


def test_a_training_may_go_on_for_longer_but_not_otherwise(data_dir: Path) -> None:
    first, longer, wider = (
        begun_with(c, data_dir)
        for c in (ArcsConfig(), ArcsConfig(schedule=Schedule(steps=9), workers=7), ArcsConfig(width=9))
    )
    assert first == longer
    assert first | {"width": "9"} == wider != first


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    whole = run(tmp_path).state_dict()
    again = run(tmp_path, stop_at=0).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_the_average_trails_the_network(tmp_path: Path) -> None:
    """After n steps of a constant pull the mean lies between where it began and where the network is."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    schedule = Schedule(steps=30, warmup_steps=1, learning_rate=0.1, weight_decay=0.0, ema=0.9, check_steps=30)
    average = fit(
        net, lambda m, *_: (m(torch.ones(1, 1)) - 100.0).square().sum(), lambda *_: {}, schedule, tmp_path, "a", 0
    )
    mean, last = float(next(average.parameters()).detach()), float(net.weight.detach())
    assert 0.5 * last < mean < last


def test_curves_are_written_at_every_check(tmp_path: Path) -> None:
    run(tmp_path)
    rows = (tmp_path / "toy.csv").read_text().splitlines()
    assert rows[0] == "step,seconds,loss,weight"
    assert [row.split(",")[0] for row in rows[1:]] == ["5", "10", "15", "20"]
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_patience_keeps_the_best_and_stops(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    figures = iter([1.0, 3.0, 2.0, 2.5, 9.0])
    seen: list[Tensor] = []

    def validate(model: nn.Module, _: int) -> dict[str, float]:
        seen.append(next(model.parameters()).detach().clone())
        return {"watched": next(figures)}

    schedule = Schedule(steps=50, check_steps=10, warmup_steps=1, learning_rate=0.05, patience=2)
    best = fit(net, lambda m, r, _: m(torch.ones(4, 2)).square().mean(), validate, schedule, tmp_path, "toy", 1)
    assert len(seen) == 4  # two checks after the best, and no more
    assert torch.equal(next(best.parameters()), seen[1])


def test_blending_is_the_mean_of_parameters_and_statistics() -> None:
    old, new = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    new[1].running_mean += 1.0
    want = {key: 0.75 * value + 0.25 * old.state_dict()[key] for key, value in new.state_dict().items()}
    blend(new, old.state_dict(), 0.25)
    torch.testing.assert_close(new[0].weight, want["0.weight"])
    torch.testing.assert_close(new[1].running_mean, torch.full((2,), 0.75))


@pytest.mark.parametrize(("able", "half"), [({"avx512_bf16": True}, True), ({"avx2": True}, False), ({}, False)])
def test_only_processors_with_bfloat16_use_it(
    able: dict[str, bool], half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    layer = torch.nn.Conv2d(1, 4, 3)
    with torch.inference_mode(), fast_arithmetic(torch.device("cpu")):
        said = layer(torch.ones(1, 1, 8, 8))
    assert said.dtype == (torch.bfloat16 if half else torch.float32)
    assert answer(layer, torch.ones(1, 1, 8, 8)).dtype == said.dtype
