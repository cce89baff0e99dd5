"""Measure a survey from its own cutouts: python sim/match.py --survey-dir DIR --out configs/surveys/mine.yaml.

No labels are needed. Measured, each with its error: pixel scale, PSF (from stars, else as delivered) and its scatter,
its kernel by band where enough stars are drawn better by it than by a Moffat (FITS beside the file, `psf_files`),
noise, its autocorrelation and Poisson gain, zero points and colours of field galaxies, density of neighbours, noise and
shift of colour composites, the softening of their stretch by their stars, all of the stretch with --pair. Writes the
survey file, which `sim/generate.py --survey` and `pipeline.py --survey` take, and a picture of every fit beside it.
What could not be measured is said, with what was taken instead and what to do. The exit code is 2 where the request
cannot be carried out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.matching.facts import Match, combine
from sim.matching.image import ImageStats, measure_entry
from sim.matching.stretch import StretchError, fit_pair
from sim.matching.wanting import MatchError
from sim.matching.written import checked, write_kernels
from stages import config as configuration
from stages.ingest import IngestOptions, InputError
from stages.ingest.field import ReadError
from stages.ingest.listing import Entry, entries
from stages.ingest.pictures import survey_by_name
from stages.ingest.stream import leave_ctrl_c
from stages.survey import SurveyFacts

_SHOWN_PROBLEMS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--survey-dir", type=Path, required=True, help="real cutouts, as for pipeline.py")
    parser.add_argument("--out", type=Path, required=True, help="survey file to write (YAML)")
    parser.add_argument("--catalogue", type=Path, help="names the tiles to measure (CSV with id and tile)")
    parser.add_argument("--survey", help="facts to fall back on: a name or a survey file")
    parser.add_argument("--pair", type=Path, nargs=4, metavar=("FITS_R", "FITS_G", "FITS_B", "PICTURE"),
                        help="images and the colour picture made of them, to fit its stretch")  # fmt: skip
    parser.add_argument("--limit", type=int, default=300, help="images at most, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)
    try:
        match = run(options)
    except KeyboardInterrupt:
        print("error: stopped; nothing was written. Run again.", file=sys.stderr)
        return 130
    except (MatchError, StretchError, InputError, ReadError, configuration.ConfigError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    report(match, options.out)
    return 0


def run(options: argparse.Namespace) -> Match:
    """Measure and write; raises the errors that `main` turns into one line."""
    _writable(options.out)
    if options.limit < 1 or options.workers < 1:
        raise MatchError("--limit and --workers must be 1 or more. Correct them.")
    base = None if options.survey is None else _base(options.survey)
    rng = np.random.default_rng(options.seed)
    pair = fit_pair(options.pair, rng) if options.pair is not None else None
    chosen, n = choose(options, rng)
    if base is None and all(e.path.suffix.lower() in (".png", ".jpg", ".jpeg") for e in chosen if e.files):
        base = next((facts for e in chosen if e.files and (facts := survey_by_name(e.path)) is not None), None)
    if pair is not None and base is not None:
        base = replace(base, stretch=pair.stretch)
    images: list[ImageStats] = []
    problems: list[tuple[str, str, str]] = []
    for got in measured(chosen, options, base):
        for one in got:
            (images if isinstance(one, ImageStats) else problems).append(one)  # type: ignore[arg-type]
    if not images:
        why = f" The first: {problems[0][0]}: {problems[0][2]}" if problems else ""
        raise MatchError(f"{options.survey_dir}: none of {len(chosen)} images could be measured.{why}")
    match = combine(images, base, options.out.stem, pair, rng)
    if n > len(chosen):
        match.found.notes.append(f"{len(chosen)} of {n} images were measured. Raise --limit for smaller errors.")
    for name, reason, message in problems[:_SHOWN_PROBLEMS]:
        match.found.notes.append(f"{name}: left out ({reason}). {message}")
    if len(problems) > _SHOWN_PROBLEMS:
        match.found.notes.append(f"{len(problems)} files were left out in all. Run pipeline.py to list them.")
    match.facts["measured"]["notes"] = list(match.found.notes)
    write_kernels(match.facts, match.found, match.images, match.kernels, options.out)
    checked(match.facts)
    text = yaml.safe_dump(_plain(match.facts), sort_keys=False, default_flow_style=None, width=118, allow_unicode=True)
    options.out.write_text(text)
    from sim.matching.page import draw

    draw(match, options.out.with_suffix(".png"))
    return match


def choose(options: argparse.Namespace, rng: np.random.Generator) -> tuple[list[Entry], int]:
    """At most `limit` images at random, each tile once, and how many there are; a reservoir: memory does not grow."""
    if not options.survey_dir.exists():
        raise InputError(f"{options.survey_dir}: no such file or folder. Check --survey-dir.")
    catalogue = options.catalogue.absolute() if options.catalogue is not None else None
    kept: list[Entry] = []
    n, last = 0, ""
    for entry in entries(options.survey_dir.absolute(), IngestOptions(catalogue=catalogue, batch_size=64)):
        if entry.kind == "side" or (entry.kind == "tile" and entry.source == last):
            continue
        last = entry.source
        entry = _whole(entry)
        if len(kept) < options.limit:
            kept.append(entry)
        elif (k := int(rng.integers(0, n + 1))) < options.limit:
            kept[k] = entry
        n += 1
    if not kept:
        raise InputError(
            f"{options.survey_dir}: holds no image. Give a folder with FITS, PNG, JPEG, npy, npz or HDF5 files."
        )
    return kept, n


def _whole(entry: Entry) -> Entry:
    """A catalogue's tile as an image of its own."""
    if entry.kind != "tile":
        return entry
    picture = entry.path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff")
    kind = "picture" if picture else "fits" if entry.files[0][0] == ("", "") else "bands"
    return replace(entry, kind=kind, ids=(Path(entry.source).stem,), xy_pix=None, radec_deg=None)


def measured(
    chosen: Sequence[Entry], options: argparse.Namespace, base: SurveyFacts | None
) -> Iterator[list[ImageStats | tuple[str, str, str]]]:
    """Statistics of each entry, in order, from worker processes."""
    ingest = IngestOptions(survey=base, workers=options.workers)
    seeds = [options.seed + 1000 + k for k in range(len(chosen))]
    bar = tqdm(total=len(chosen), unit="image", desc="measure", disable=None)
    workers = options.workers if len(chosen) > 8 else 0
    with bar:
        if workers < 2:
            for entry, seed in zip(chosen, seeds, strict=True):
                yield measure_entry(entry, ingest, base, seed)
                bar.update()
            return
        pool = ProcessPoolExecutor(workers, get_context("spawn"), leave_ctrl_c)
        waiting: list[Future[list[ImageStats | tuple[str, str, str]]]] = []
        try:
            waiting = [pool.submit(measure_entry, e, ingest, base, s) for e, s in zip(chosen, seeds, strict=True)]
            for future in waiting:
                yield future.result()
                bar.update()
        except BrokenProcessPool as error:
            raise MatchError(
                "a measuring process was killed, most likely for memory. Lower --workers and run again."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def report(match: Match, out: Path) -> None:
    """Print what was found and what was not."""
    for quantity, by in match.found.values.items():
        for band, value in by.items():
            print(f"{quantity}{'' if band == 'all' else '.' + band}: {value}")
    for note in match.found.notes:
        print(f"note: {note}")
    print(f"survey file: {out}\npicture of the fits: {out.with_suffix('.png')}")


def _base(name: str) -> SurveyFacts:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = configuration.CONFIG_DIR / "surveys" / f"{name}.yaml"
        if not path.exists():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
            raise MatchError(f"--survey {name}: not known. Give a survey file or one of {known}.")
    return configuration.load(SurveyFacts, path)


def _writable(out: Path) -> None:
    """Fail before the work, not after it."""
    if out.suffix not in (".yaml", ".yml"):
        raise MatchError(f"--out {out}: a survey file ends in .yaml. Name it so.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        before = out.exists()
        with out.open("a"):
            pass
        if not before:
            out.unlink()
    except OSError as error:
        raise MatchError(f"--out {out}: cannot be written ({error.strerror}). Choose another --out.") from error


def _plain(value: Any) -> Any:
    """numpy's numbers and tuples as YAML knows them."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
