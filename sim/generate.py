"""Make a labelled data set: python sim/generate.py --survey des --n 10000 --out data/des --seed 1 --workers 2.

On real sky: --backgrounds DIR paints lensed light on the galaxies of your own cutouts, --sky DIR whole simulated
objects on empty places of your own images; --unpainted DIR takes your own objects as they are for non-lenses. Real
galaxies as sources: --source-galaxies.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import platform
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.draw import Drawn, Ingredients, SimConfig, draw_pair
from sim.populations.real_galaxies import Stamps
from sim.real_sky.backgrounds import BackgroundOptions, Backgrounds
from sim.real_sky.empty import EmptySky
from sim.real_sky.unpainted import Unpainted
from stages import __version__
from stages import config as configuration
from stages.dataset import Shard, write_shard
from stages.survey import SurveyFacts
from stages.survey import read as read_survey

_LIBRARIES = ("numpy", "scipy", "numba", "astropy", "galsim", "lenstronomy")


@dataclass(frozen=True)
class Given:
    """Folders that the drawing uses beside the configuration.

    part : of `stages.dataset.PARTS`, which the whole data set is to be; "" leaves it to the systems' names.
    """

    source_galaxies: Path | None = None
    backgrounds: BackgroundOptions | None = None
    sky: BackgroundOptions | None = None
    unpainted: BackgroundOptions | None = None
    part: str = ""

    def request(self) -> dict[str, Any]:
        """What of it identifies a data set."""
        out = {} if self.source_galaxies is None else {"source_galaxies": str(self.source_galaxies)}
        real = {"backgrounds": self.backgrounds, "sky": self.sky, "unpainted": self.unpainted}
        out |= {"part": self.part} if self.part else {}
        return out | {name: options.request() for name, options in real.items() if options is not None}


@dataclass(frozen=True)
class Job:
    """One shard to make."""

    survey: SurveyFacts
    config: SimConfig
    given: Given
    seed: int
    index: int
    n: int
    out: Path


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code (2: the request cannot be carried out)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=configuration.CONFIG_DIR / "sim.yaml")
    parser.add_argument("--survey", required=True, help="a name in configs/surveys, or a survey file")
    parser.add_argument("--n", type=int, required=True, help="number of cutouts")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--source-galaxies", type=Path, help="folder in the GalSim real-galaxy format")
    parser.add_argument("--backgrounds", type=Path, help="real cutouts or tiles to paint on, as for pipeline.py")
    parser.add_argument(
        "--sky", type=Path, help="real images on whose empty places whole simulated objects are painted"
    )
    parser.add_argument("--unpainted", type=Path, help="real objects as they are, assumed no lenses; at most --n")
    parser.add_argument("--catalogue", type=Path, help="objects to cut from tiles in --backgrounds; places in --sky")
    parser.add_argument("--exclude", type=Path, help="known candidates in real images: a file of ids or ra, dec")
    parser.add_argument("--resume", action="store_true", help="go on with a stopped data set")
    parser.add_argument("--preview", action="store_true", help="write contact sheets per class and stratum")
    options = parser.parse_args(argv)
    try:
        survey = load_survey(options.survey)
        generate(
            configuration.load(SimConfig, options.config), survey, options.n, options.out, options.seed,
            options.workers, given(options, survey), options.resume,
        )  # fmt: skip
        if options.preview:
            from sim.preview import write_sheets

            print(f"contact sheets: {write_sheets(options.out)}")
    except KeyboardInterrupt:
        print("Stopped. The same command with --resume goes on from here.", file=sys.stderr)
        return 130
    except BrokenProcessPool:
        print(
            "error: a worker was killed, most likely for memory. Run again with --resume and fewer --workers.",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        print(f"error: {error}" + (". Free some space and run again with --resume." if full else ""), file=sys.stderr)
        return 2
    return 0


def load_survey(name: str) -> SurveyFacts:
    """A survey by the name of its file in configs/surveys, or by a path."""
    path = Path(name)
    known = configuration.CONFIG_DIR / "surveys" / f"{name}.yaml"
    return read_survey(path if path.suffix in (".yaml", ".yml") else known)


def given(options: argparse.Namespace, survey: SurveyFacts) -> Given:
    """The folders named on the command line; raises ValueError for ones that cannot be used."""
    folders = {name: getattr(options, name) for name in ("backgrounds", "sky", "unpainted")}
    chosen = [name for name, path in folders.items() if path is not None]
    if not chosen and (options.catalogue or options.exclude):
        raise ValueError("--catalogue and --exclude belong to real images. Give --backgrounds, --sky or --unpainted.")
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join('--' + name for name in chosen)}: give one of them for each data set.")
    sources, catalogue, exclude = (
        None if path is None else path.absolute()
        for path in (options.source_galaxies, options.catalogue, options.exclude)
    )
    real = {name: BackgroundOptions(folders[name].absolute(), survey, catalogue, exclude) for name in chosen}
    return Given(sources, real.get("backgrounds"), real.get("sky"), real.get("unpainted"))


def generate(
    config: SimConfig, survey: SurveyFacts, n: int, out: Path, seed: int, workers: int, given: Given | None = None,
    resume: bool = False,
) -> None:  # fmt: skip
    """Write a data set of `n` cutouts; the same arguments give the same bytes, whatever the workers.

    With `resume`, shards that are already there are kept. Raises ValueError for a request that cannot be carried out.
    """
    if n < 1 or workers < 1:
        raise ValueError(f"n = {n}, workers = {workers}: both must be at least 1. Give larger numbers.")
    given = given or Given()
    request = {
        "survey": survey.name,
        "n": n,
        "seed": seed,
        "facts": configuration.to_mapping(survey),
        "config": configuration.to_mapping(config),
        "given": given.request(),
        "versions": versions(),
    }
    chosen = ingredients(given)  # refuse what cannot be read before any worker starts
    if chosen.backgrounds is not None:
        print(f"backgrounds: {chosen.backgrounds.report()}")
    if chosen.unpainted is not None:
        print(f"objects: {chosen.unpainted.report()}")
        n = min(n, len(chosen.unpainted))
    if chosen.sky is not None:
        print(f"sky: {chosen.sky.report()}; PSF from {chosen.sky.psf_source}")
    if chosen.stamps is not None:
        print(f"source galaxies: {chosen.stamps.report()}")
    _begin(out, request, resume)
    jobs = [
        Job(survey, config, given, seed, k, min(config.shard_size, n - k * config.shard_size), out)
        for k in range(-(-n // config.shard_size))
    ]
    todo = [job for job in jobs if not _complete(job)]
    with tqdm(total=n, initial=n - sum(job.n for job in todo), unit="cutout", desc=survey.name) as bar:
        for done in _run(todo, workers):
            bar.update(done)
    shards = [_entry(out, job) for job in jobs]
    digest = hashlib.sha256("".join(s["sha256"] + s["truth_sha256"] for s in shards).encode()).hexdigest()
    _write_json(out / "manifest.json", request | {"status": "complete", "shards": shards, "fingerprint": digest})


def versions() -> dict[str, str]:
    """What the pixels depend on beside the request."""
    return {"oddlens": __version__, "python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


@lru_cache(maxsize=1)
def ingredients(given: Given) -> Ingredients:
    """Open the folders that are drawn from, once in a process."""
    return Ingredients(
        None if given.source_galaxies is None else Stamps(given.source_galaxies),
        None if given.backgrounds is None else Backgrounds(given.backgrounds),
        None if given.sky is None else EmptySky(given.sky),
        None if given.unpainted is None else Unpainted(given.unpainted),
    )


def make_shard(job: Job) -> int:
    """Draw and write one shard; each pair has a random stream of its own. Returns the number of cutouts."""
    drawn: list[Drawn] = []
    found = ingredients(job.given)
    if found.unpainted is not None:
        first = job.index * job.config.shard_size
        drawn = [Drawn(*found.unpainted[k]) for k in range(first, first + job.n)]
        return _write(job, drawn)
    for pair in range(-(-job.n // 2)):
        rng = np.random.default_rng([job.seed, job.index, pair, *job.survey.name.encode()])
        name = f"{job.survey.name}-{job.seed}-{job.index:05d}-{pair:04d}"
        drawn += draw_pair(rng, job.survey, job.config, name, found)
    return _write(job, drawn[: job.n])


def _write(job: Job, drawn: list[Drawn]) -> int:
    truth = pd.DataFrame([d.row for d in drawn])
    if job.given.part:
        truth["part"] = job.given.part
    write_shard(job.out, job.index, Shard(tuple(d.cutout for d in drawn), truth, np.stack([d.arc_mask for d in drawn])))
    return job.n


def _run(jobs: list[Job], workers: int) -> Iterator[int]:
    if workers == 1:
        yield from map(make_shard, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _quiet) as pool:
        waiting: set[Future[int]] = set()
        for job in jobs:  # no more than are worked on: Ctrl-C waits for these alone
            waiting.add(pool.submit(make_shard, job))
            if len(waiting) == workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in as_completed(waiting))


def _quiet() -> None:
    """Leave Ctrl-C to the main process: a shard that is begun is finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _begin(out: Path, request: dict[str, Any], resume: bool) -> None:
    """Create the folder, or check that what lies in it was begun by the same request."""
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / "manifest.json"
    plain = json.loads(json.dumps(request))
    if manifest.is_file():
        old = json.loads(manifest.read_text())
        differ = sorted(key for key in plain if old.get(key) != plain[key])
        if differ:
            raise ValueError(f"{out}: holds a data set with other {', '.join(differ)}. Choose another --out.")
        if old["status"] == "unfinished" and not resume:
            raise ValueError(f"{out}: holds a stopped data set of the same request. Add --resume to go on with it.")
    elif any(out.glob("shard-*")):
        raise ValueError(f"{out}: holds shards without a manifest. Choose another --out.")
    _write_json(manifest, request | {"status": "unfinished", "shards": []})
    for left in out.glob(".shard-*"):
        left.unlink()


def _complete(job: Job) -> bool:
    """The pixels are renamed into place after the truth is written, so their presence means both are whole."""
    return (job.out / f"shard-{job.index:05d}.npz").is_file()


def _entry(out: Path, job: Job) -> dict[str, Any]:
    name = f"shard-{job.index:05d}"
    pixels, truth = (_sha256(out / f"{name}.{ending}") for ending in ("npz", "parquet"))
    return {"name": name, "n": job.n, "sha256": pixels, "truth_sha256": truth}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
