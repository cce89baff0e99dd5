"""Adapt the classifier to a survey of one's own, without labels: painted lenses, own objects, a check on held-out sky.

`sim/own_sky.py` makes labelled data from the survey's images, in three parts that share no place on the sky. The
members go on from their present weights on the first, are calibrated on the second, and before and after are compared
on the third. What is worse there is written as refused.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import yaml

from stages import config as configuration
from stages.augment import augment
from stages.cache import Cached, cached
from stages.classifier.adapt_check import AdaptError, Check, compare, held_out, probabilities
from stages.classifier.model import FRAME, ClassifierConfig
from stages.classifier.networks import Classifier, build, logits_of
from stages.classifier.train import train, usable
from stages.config import REPOSITORY, WEIGHTS_DIR
from stages.dataset import DatasetError
from stages.training import Schedule, answer
from stages.weights import WeightsError, load_card, save
from stages.weights import load as load_state

DONE, ERROR, REFUSED, STOPPED = 0, 2, 3, 130
_DATA_SHARE = 0.35  # of the time
_RESERVE = 0.08  # of the time, for what takes longer than measured
_LEAST_STEPS, _MOST_STEPS, _CHECKS = 20, 1500, 3


@dataclass(frozen=True)
class Request:
    """What is asked for: see the command line. learning_rate, batch_size, smallest : settings nobody needs to know."""

    survey_dir: Path
    out: Path
    survey: str | None = None
    catalogue: Path | None = None
    exclude: Path | None = None
    weights: Path = WEIGHTS_DIR / "classifier.safetensors"
    minutes: float = 25.0
    seed: int = 1
    workers: int = 2
    learning_rate: float = 2e-4
    batch_size: int = 96
    smallest: int = 64

    def asked(self) -> dict[str, Any]:
        """What of it a stopped adaptation must have in common to go on."""
        plain = {k: str(v.absolute()) if isinstance(v, Path) else v for k, v in vars(self).items()}
        del plain["out"], plain["workers"]
        return plain | {"weights_sha256": load_card(self.weights).sha256}


def adapt(request: Request, run: Callable[[Sequence[str]], int] | None = None) -> tuple[Path, Check]:
    """Carry out a request; returns the weights and the check, whose `faults` say whether they are refused.

    The weights are `OUT/classifier.safetensors`, or `OUT/classifier-refused.safetensors`. `run` carries out the
    arguments of sim/own_sky.py, in a process of its own by default. Raises AdaptError, DatasetError or WeightsError.
    """
    begun = time.perf_counter()
    plan = Plan.open(request)
    data = request.out / "data"
    if "data_seconds" not in plan.done:
        code = (run or own_sky)(_own_sky_arguments(request, data))
        if code:
            raise Ended(code)
        plan.note(data_seconds=time.perf_counter() - begun)
    truth = held_out(data, load_card(request.weights))
    if "before_seconds" not in plan.done:
        start = time.perf_counter()
        np.save(request.out / "before.npy", probabilities(request.weights, data, truth["row"].to_numpy()))
        plan.note(before_seconds=time.perf_counter() - start)
    config = settings(request)
    work = request.out / "training"
    seen = cached(data, FRAME, work / "cache", request.workers)
    if min(len(rows) for rows in usable(seen, config, "validation")) < 5:
        raise AdaptError(
            "fewer than 5 visible lenses or others could be made on the sky that calibrates. Give more images, or more "
            "--minutes, and another --out."
        )
    if "steps" not in plan.done:
        spent = max(plan.done["data_seconds"] + plan.done["before_seconds"], time.perf_counter() - begun)
        left = 60 * request.minutes * (1 - _RESERVE) - spent - 1.5 * plan.done["before_seconds"]
        plan.note(steps=affordable_steps(config, seen, left))
    made = train(replace(config, schedule=schedule(request, int(plan.done["steps"]))), data, work)
    keep_first_look(request.weights, made)
    after = probabilities(made, data, truth["row"].to_numpy())
    check = compare(truth, np.load(request.out / "before.npy"), after, request.seed)
    return _write(request, made, check), check


class Ended(Exception):
    """The making of the data ended with an exit code, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, eq=False)
class Plan:
    """What a folder was begun with and how far it is, in `plan.json`."""

    path: Path
    asked: dict[str, Any]
    done: dict[str, float]

    @classmethod
    def open(cls, request: Request) -> Plan:
        """Begin, or go on with what was begun; raises AdaptError for a folder of another request, or not writable."""
        path, asked = request.out / "plan.json", request.asked()
        try:
            request.out.mkdir(parents=True, exist_ok=True)
            old = json.loads(path.read_text()) if path.is_file() else None
            if old is not None and old["asked"] != asked:
                differ = sorted(k for k in asked if old["asked"].get(k) != asked[k])
                raise AdaptError(f"{request.out}: begun with other {', '.join(differ)}. Choose another --out.")
            plan = cls(path, asked, {} if old is None else old["done"])
            plan.note()
        except OSError as error:
            raise AdaptError(f"{request.out}: cannot be written ({error.strerror}). Choose another --out.") from error
        return plan

    def note(self, **figures: float) -> None:
        """Remember what is done."""
        self.done.update(figures)
        partial = self.path.with_suffix(".tmp")
        partial.write_text(json.dumps({"asked": self.asked, "done": self.done}, indent=1) + "\n")
        partial.replace(self.path)


def own_sky(arguments: Sequence[str]) -> int:
    """Run sim/own_sky.py; stages share with the simulator data on disk alone."""
    return subprocess.run([sys.executable, str(REPOSITORY / "sim" / "own_sky.py"), *arguments], check=False).returncode


def _own_sky_arguments(r: Request, data: Path) -> list[str]:
    options = {
        "--survey-dir": r.survey_dir, "--out": data, "--survey": r.survey, "--catalogue": r.catalogue,
        "--exclude": r.exclude, "--minutes": f"{_DATA_SHARE * r.minutes:.4g}", "--seed": r.seed, "--workers": r.workers,
        "--smallest": r.smallest,
    }  # fmt: skip
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def settings(request: Request) -> ClassifierConfig:
    """Those of the weights, to go on from them member by member."""
    config = configuration.from_mapping(ClassifierConfig, load_card(request.weights).config, str(request.weights))
    return replace(
        config, start=str(request.weights), seed=config.members * request.seed, workers=request.workers, validation="",
        schedule=schedule(request, _LEAST_STEPS),
    )  # fmt: skip


def schedule(request: Request, steps: int) -> Schedule:
    """Short and slow; the average forgets within a fifth of the steps."""
    return Schedule(
        steps, request.batch_size, request.learning_rate, warmup_steps=max(1, steps // 10), ema=1 - 5 / max(steps, 50),
        check_steps=max(1, math.ceil(steps / _CHECKS)),
    )  # fmt: skip


def affordable_steps(config: ClassifierConfig, data: Cached, seconds: float) -> int:
    """Steps of each member for which there is time, by timing a few; raises AdaptError where there is not."""
    rows = np.arange(min(config.schedule.batch_size, len(data.truth)))
    kinds = [config.network_of(member) for member in range(config.members)]
    part = data.truth["part"]
    steps_s, checks_s = 0.0, 0.0
    for kind in set(kinds):
        net = build(kind, config.width, config.dropout).to(memory_format=torch.channels_last)
        step_s, look_s = timed(net, config, data, rows)
        steps_s += kinds.count(kind) * step_s
        n_looks = _CHECKS * (part != "test").sum() + net.n_views * (part == "validation").sum()
        checks_s += kinds.count(kind) * look_s * n_looks
    steps = int((seconds - checks_s) / steps_s)
    if steps < _LEAST_STEPS:
        raise AdaptError(
            f"{seconds:.0f} s are left for training, which is {max(steps, 0)} steps of {steps_s:.2f} s for all "
            f"{config.members} members: too few. Give more --minutes and another --out."
        )
    print(f"{min(steps, _MOST_STEPS)} steps of {steps_s:.2f} s for all {config.members} members")
    return min(steps, _MOST_STEPS)


def timed(net: Classifier, config: ClassifierConfig, data: Cached, rows: npt.NDArray[np.intp]) -> tuple[float, float]:
    """Seconds that a step of training and a look at one cutout take."""
    rng = np.random.default_rng(0)
    for k in range(5):
        if k == 2:  # the first are slower
            start = time.perf_counter()
        pixels = torch.from_numpy(data.pixels[rows].astype(np.float32))
        pixels, conditions, _ = augment(pixels, torch.from_numpy(data.conditions[rows]), config.augmentation, rng)
        logit = answer(net, pixels.contiguous(memory_format=torch.channels_last), conditions)
        F.binary_cross_entropy_with_logits(logit.float(), torch.zeros(len(rows))).backward()  # type: ignore[no-untyped-call]
    step_s = (time.perf_counter() - start) / 3 * config.schedule.batch_size / len(rows)
    start = time.perf_counter()
    logits_of(net, data, rows, 1)
    return step_s, (time.perf_counter() - start) / len(rows)


def keep_first_look(start: Path, made: Path) -> None:
    """Give trained weights the first look of those they went on from, if these have one."""
    state, card = load_state(start)
    if not card.config.get("first"):
        return
    new, new_card = load_state(made)
    new |= {key: value for key, value in state.items() if key.startswith("first")}
    kept = {key: card.config[key] for key in ("first", "first_width")}
    save(made, new, replace(new_card, config=new_card.config | kept, sha256=""))


def _write(request: Request, made: Path, check: Check) -> Path:
    """The trained weights under a name that says whether they may be used, with a card that says where from."""
    state, card = load_state(made)
    parent = load_card(request.weights)
    refused = bool(check.faults())
    data = parent.data | {
        f"own/{name}": print_ for name, print_ in card.data.items() if parent.data.get(name) != print_
    }
    data |= {"parent": {"file": request.weights.name, "sha256": parent.sha256}}
    told = {
        "n_lenses": check.n_lenses, "n_others": check.n_others, "n_places": check.n_places, "before": check.before,
        "after": check.after, "difference_95": {name: list(ends) for name, ends in check.interval.items()},
        "refused": check.faults(),
    }  # fmt: skip
    notes = f"Adapted to {request.survey_dir.name} without labels; for that survey alone. {card.notes}"
    path = request.out / f"classifier{'-refused' if refused else ''}.safetensors"
    metrics_ = card.metrics | {"held_out_sky": told}
    config = card.config | {"start": ""}  # a path of this machine; "parent" says it
    save(path, state, replace(card, config=config, data=data, metrics=metrics_, notes=notes, sha256=""))
    return path


def command(argv: Sequence[str]) -> int:
    """`adapt --survey-dir DIR --out DIR ...`: go on from weights on your own images, without labels.

    Returns 0, 2 for an error, 3 for a refusal, 130 if stopped.
    """
    parser = argparse.ArgumentParser(prog="python -m stages.classifier adapt", description=__doc__.splitlines()[0])
    parser.add_argument("--survey-dir", type=Path, required=True, help="your cutouts or tiles, as for pipeline.py")
    parser.add_argument("--survey", help="a name in configs/surveys or a survey file; else by bands and pixels")
    parser.add_argument("--catalogue", type=Path, help="objects on your tiles")
    parser.add_argument("--exclude", type=Path, help="known candidates: a file of ids or ra, dec")
    parser.add_argument("--weights", type=Path, default=Request.weights)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0, help="about how long all may take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(max(1, min(options.workers, os.cpu_count() or 1)))
    try:
        request = Request(**vars(options))
        if request.minutes <= 0 or request.workers < 1 or request.seed < 0:
            raise AdaptError("--minutes and --workers must be above 0, --seed 0 or above. Give other numbers.")
        path, check = adapt(request)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return STOPPED
    except Ended as end:
        return end.code
    except (AdaptError, DatasetError, WeightsError, configuration.ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ERROR
    return report(path, check)


def report(path: Path, check: Check) -> int:
    """Print what came out; returns the exit code."""
    print("\n".join(check.lines()))
    if check.faults():
        print(
            f"refused: worse on held-out sky ({'; '.join(check.faults())}). Go on with the weights that you have. More "
            f"images or more --minutes may help; what was trained is in {path} for a look.",
            file=sys.stderr,
        )
        return REFUSED
    scan = yaml.safe_load((configuration.CONFIG_DIR / "pipeline.yaml").read_text())
    scan["weights"]["classifier"] = str(path.absolute())
    path.with_name("pipeline.yaml").write_text(yaml.safe_dump(scan, sort_keys=False))
    print(f"{path}\nTo use it: python pipeline.py --input YOUR_SURVEY --config {path.with_name('pipeline.yaml')}")
    return DONE
