"""Make a labelled data set: python sim/generate.py --survey des --n 10000 --out data/des --seed 1 --workers 2."""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.draw import SimConfig, draw_pair
from stages import config as configuration
from stages.dataset import Shard, write_shard
from stages.survey import SurveyFacts


@dataclass(frozen=True)
class Job:
    """One shard to make."""

    survey: SurveyFacts
    config: SimConfig
    seed: int
    index: int
    n: int
    out: Path


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code (2: the request cannot be carried out)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=configuration.CONFIG_DIR / "sim.yaml")
    parser.add_argument("--survey", required=True, help="a name in configs/surveys, or a survey file")
    parser.add_argument("--n", type=int, required=True, help="number of cutouts")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)
    try:
        generate(
            configuration.load(SimConfig, options.config), load_survey(options.survey),
            options.n, options.out, options.seed, options.workers,
        )  # fmt: skip
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def load_survey(name: str) -> SurveyFacts:
    """A survey by the name of its file in configs/surveys, or by a path."""
    path = Path(name)
    known = configuration.CONFIG_DIR / "surveys" / f"{name}.yaml"
    return configuration.load(SurveyFacts, path if path.suffix in (".yaml", ".yml") else known)


def generate(config: SimConfig, survey: SurveyFacts, n: int, out: Path, seed: int, workers: int) -> None:
    """Write a data set of `n` cutouts; the same arguments give the same bytes, whatever the workers, and resume."""
    if n < 1 or workers < 1:
        raise ValueError(f"n = {n}, workers = {workers}: both must be at least 1. Give larger numbers.")
    request = {
        "survey": survey.name,
        "n": n,
        "seed": seed,
        "facts": configuration.to_mapping(survey),
        "config": configuration.to_mapping(config),
    }
    _begin(out, request)
    jobs = [
        Job(survey, config, seed, k, min(config.shard_size, n - k * config.shard_size), out)
        for k in range(-(-n // config.shard_size))
    ]
    todo = [job for job in jobs if not _complete(job)]
    with tqdm(total=n, initial=n - sum(job.n for job in todo), unit="cutout", desc=survey.name) as bar:
        for done in _run(todo, workers):
            bar.update(done)
    shards = [_entry(out, job) for job in jobs]
    _write_json(out / "manifest.json", request | {"status": "complete", "shards": shards})


def make_shard(job: Job) -> int:
    """Draw and write one shard; each pair has a random stream of its own. Returns the number of cutouts."""
    drawn = []
    for pair in range(-(-job.n // 2)):
        rng = np.random.default_rng([job.seed, job.index, pair, *job.survey.name.encode()])
        drawn += draw_pair(rng, job.survey, job.config, f"{job.survey.name}-{job.seed}-{job.index:05d}-{pair:04d}")
    drawn = drawn[: job.n]
    truth = pd.DataFrame([d.row for d in drawn])
    write_shard(job.out, job.index, Shard(tuple(d.cutout for d in drawn), truth, np.stack([d.arc_mask for d in drawn])))
    return job.n


def _run(jobs: list[Job], workers: int) -> Iterator[int]:
    if workers == 1:
        yield from map(make_shard, jobs)
        return
    with get_context("spawn").Pool(
        workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        yield from pool.imap_unordered(make_shard, jobs)


def _begin(out: Path, request: dict[str, Any]) -> None:
    """Create the folder, or check that what lies in it was begun by the same request."""
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / "manifest.json"
    plain = json.loads(json.dumps(request))
    if manifest.is_file():
        old = json.loads(manifest.read_text())
        if {key: old.get(key) for key in plain} != plain:
            raise ValueError(
                f"{out}: holds a data set of another survey, seed, size or configuration. Choose another --out."
            )
    _write_json(manifest, request | {"status": "unfinished", "shards": []})


def _complete(job: Job) -> bool:
    """The pixels are renamed into place after the truth is written, so their presence means both are whole."""
    return (job.out / f"shard-{job.index:05d}.npz").is_file()


def _entry(out: Path, job: Job) -> dict[str, Any]:
    name = f"shard-{job.index:05d}"
    with (out / f"{name}.npz").open("rb") as file:
        return {"name": name, "n": job.n, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
