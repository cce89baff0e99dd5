"""The training loop that the torch stages share: AdamW, cosine schedule, EMA, clipping, checkpoints, CSV of curves."""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from stages.config import to_mapping
from stages.curves import draw
from stages.dataset import fingerprint
from stages.weights import WeightsError

Net = TypeVar("Net", bound=nn.Module)
_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # what a processor calls it
_MAY_CHANGE = ("schedule.steps", "workers")  # while a training is stopped
LEAST_WIDTH = 8  # channels: torch writes beyond its memory with fewer, on processors without AVX-512 (seen in 2.14)
N_DIHEDRAL = 8  # rotations by quarters of a turn, with and without a reflection


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn: `steps` of `batch_size`, a checkpoint and a validation every `check_steps`.

    patience : checks without a better validation after which to stop and keep the best network; 0 always goes to the
    end and keeps the last.
    """

    steps: int = 6000
    batch_size: int = 128
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    ema: float = 0.995
    clip: float = 2.0
    check_steps: int = 500
    patience: int = 0


def device_of(net: nn.Module) -> torch.device:
    """Where a network lies."""
    return next(net.parameters(), torch.empty(0)).device


def answer(net: nn.Module, *inputs: Tensor) -> Any:
    """What a network that learns says, where it lies and in bfloat16 if that is fast there, of tensors from anywhere.

    A processor without bfloat16 only imitates it, many times as slowly.
    """
    device = device_of(net)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu" or _has_bfloat16()):
        return net(*(tensor.to(device, non_blocking=True) for tensor in inputs))


def fast_arithmetic(device: torch.device) -> torch.autocast:
    """A context in which convolutions on a processor that has bfloat16 use it, in half the time, for what is trained.

    Elsewhere nothing changes. A logit changes by about 0.005.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu" and _has_bfloat16())


def _has_bfloat16() -> bool:
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(able.get(name) for name in _BFLOAT16)


def fit(
    net: Net,
    loss_of: Callable[[Net, np.random.Generator, int], Tensor],
    validate: Callable[[Net, int], dict[str, float]],
    schedule: Schedule,
    out: Path,
    name: str,
    seed: int,
    told: Mapping[str, str] | None = None,
) -> Net:
    """Train a network, where it lies, and return its exponential moving average on the CPU.

    `loss_of` draws a step's batch and returns its loss; `validate` returns figures of the averaged network after so
    many steps, first the one that early stopping watches (larger is better). A run that was stopped goes on from its
    last checkpoint `out/NAME.checkpoint`; raises WeightsError where that is of another network, of another seed or of
    what `told` says otherwise (`begun_with`). The curves are in `out/NAME.csv` and `out/NAME.png`.
    """
    told = {"seed": str(seed)} | dict(told or {})
    out.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(net).eval()
    optimiser = torch.optim.AdamW(net.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay)
    checkpoint, first = out / f"{name}.checkpoint", 0
    best: dict[str, Any] = {"figure": -math.inf, "average": average.state_dict(), "ago": 0}
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=device_of(net), weights_only=False)
        try:
            net.load_state_dict(saved["net"])
            average.load_state_dict(saved["average"])
        except RuntimeError as error:
            raise WeightsError(
                f"{checkpoint}: begun with another network. Choose another --out, or delete it."
            ) from error
        begun = {"seed": "unknown"} | saved.get("told", {})
        other = [f"{key} {begun.get(key, 'absent')}" for key, value in told.items() if begun.get(key) != value]
        if other:
            raise WeightsError(f"{checkpoint}: begun with {', '.join(other)}. Choose another --out, or delete it.")
        optimiser.load_state_dict(saved["optimiser"])
        first, best = int(saved["step"]), saved["best"]
    running, begun = math.nan, time.perf_counter()
    with tqdm(total=schedule.steps, initial=first, desc=name, unit="step", mininterval=5) as bar:
        for step in range(first, schedule.steps):
            if schedule.patience and best["ago"] >= schedule.patience:
                break
            rng = np.random.default_rng([seed, step])  # a stream of its own for each step: resuming changes nothing
            torch.manual_seed(int(rng.integers(2**31)))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(schedule, step)
            net.train()
            loss = loss_of(net, rng, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), schedule.clip)
            optimiser.step()
            _average(average, net, min(schedule.ema, (step + 1) / (step + 20)))
            running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
            bar.update(1)
            if (step + 1) % schedule.check_steps == 0 or step + 1 == schedule.steps:
                figures = validate(average, step + 1)
                bar.set_postfix({k: f"{v:.3f}" for k, v in figures.items()})
                log_row(out / f"{name}.csv", {"step": step + 1, "seconds": round(time.perf_counter() - begun, 1),
                                           "loss": round(running, 5)} | figures)  # fmt: skip
                draw(out / f"{name}.csv")
                best = _better(best, next(iter(figures.values()), math.nan), average)
                state = {
                    "net": net.state_dict(),
                    "average": average.state_dict(),
                    "step": step + 1,
                    "best": best,
                    "told": told,
                }
                torch.save(state | {"optimiser": optimiser.state_dict()}, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
    if schedule.patience:
        average.load_state_dict(best["average"])
    return average.cpu()


def begun_with(config: Any, data_dir: Path) -> dict[str, str]:
    """What a stopped training may not go on without: its settings, by name, and its data sets' hashes.

    How many steps and processes there are may change.
    """
    settings = {key: value for key, value in _flat(to_mapping(config)).items() if key not in _MAY_CHANGE}
    data = {f"data {name}": entry["manifest_sha256"][:12] for name, entry in fingerprint(data_dir).items()}
    return settings | data


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        out |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: str(value)}
    return out


def _better(best: dict[str, Any], figure: float, average: nn.Module) -> dict[str, Any]:
    """The best check so far and how many checks ago it was."""
    if figure > best["figure"]:
        return {"figure": figure, "average": copy.deepcopy(average.state_dict()), "ago": 0}
    return best | {"ago": best["ago"] + 1}


def learning_rate(schedule: Schedule, step: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    warm = min(1.0, (step + 1) / max(schedule.warmup_steps, 1))
    return schedule.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))


def dihedral(x: Tensor, k: int) -> Tensor:
    """The k-th of the eight rotations and reflections of planes (..., S, S); `undihedral` undoes it."""
    turned = torch.rot90(x, k % 4, (-2, -1))
    return turned.flip(-1) if k >= 4 else turned


def dihedral_positions(xy: Tensor, k: int, size: int) -> Tensor:
    """Where `dihedral` moves positions (N, 2) = (x, y) of a plane of side `size`."""
    x, y = xy[:, 0], xy[:, 1]
    for _ in range(k % 4):
        x, y = y, size - 1 - x
    return torch.stack([size - 1 - x if k >= 4 else x, y], 1)


def undihedral(x: Tensor, k: int) -> Tensor:
    """The inverse of `dihedral`."""
    return torch.rot90(x.flip(-1) if k >= 4 else x, -(k % 4), (-2, -1))


def blend(net: nn.Module, state: dict[str, Tensor], share: float) -> None:
    """Move a network to the mean of its own parameters and of `share` of those it went on from.

    What further training on one kind of data costs on others is then mostly kept (Wortsman et al. 2022).
    """
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                value.lerp_(state[key].to(value), share)


def platt(logit: np.ndarray[Any, Any], label: np.ndarray[Any, Any], balanced: bool = True) -> tuple[float, float]:
    """Slope and offset that calibrate logits (Platt 1999), at equal prior or (not `balanced`) at the sample's own."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e3, class_weight="balanced" if balanced else None).fit(logit[:, None], label)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _average(average: nn.Module, net: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.mul_(decay).add_(value, alpha=1 - decay)
            else:
                mean.copy_(value)


def log_row(path: Path, row: dict[str, Any]) -> None:
    """Add a line to a CSV, with a header where it is new."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
