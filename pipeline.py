"""The scan: read a survey, run the stages in order, write the ranked candidates.

    python pipeline.py --input SURVEY_DIR [--output RUN_DIR] [--catalogue FILE] [--survey NAME]

Every input object ends as one row of `candidates.csv` and `.parquet`; what was skipped or degraded is also in
`problems.csv`; `report/index.html` shows the best. Exit codes: 0 done, 2 the request cannot be carried out, 130 stopped
(the results so far are valid; `--resume` completes them).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from stages import config as configuration
from stages import weights
from stages.counter.priors import TheoremConfig
from stages.ingest import IngestOptions, InputError, Survey
from stages.prior import restated, restated_error, share
from stages.ranking import model as ranking
from stages.ranking.morphology import morphology
from stages.records import Candidate, CutoutBatch, Problem
from stages.report.arc_maps import ArcMap, write_arc_maps
from stages.report.catalogues import write_regions, write_votable
from stages.report.page import write_report
from stages.report.parts import Parts, could_be_shown
from stages.report.run_folder import RunError, describe, open_run, read_summary, versions, write_json
from stages.report.stamp import Stamp, make_stamp
from stages.report.tables import read_rows, to_table, write_candidates, write_problems
from stages.rows import row_of
from stages.survey import SurveyFacts
from stages.survey import read as read_survey

if TYPE_CHECKING:  # imported when they are loaded, so that --help need not wait for torch
    from stages.arcs import predict as arcs
    from stages.classifier import predict as classifier
    from stages.counter import predict as counter

STAGES = ("classifier", "counter", "arcs", "ranking")


@dataclass(frozen=True)
class PipelineConfig:
    """Settings of a scan, read from `configs/pipeline.yaml`.

    gate_p_lens : what the classifier gives more than this (at equal numbers of lenses and others), the later stages
    look at. prior : share of lenses at which
    p_lens is stated (score and gate do not depend on it); select_score : rows above this are selected; report_rows
    : rows shown on the page.
    """

    weights: dict[str, str]
    gate_p_lens: float = 0.2
    prior: float = 0.5
    select_score: float = 0.5
    arc_threshold: float = 0.5
    batch_size: int = 256
    cutout_arcsec: float = 12.0
    report_rows: int = 300
    theorem: TheoremConfig = field(default_factory=TheoremConfig)

    def __post_init__(self) -> None:
        absent = sorted(set(STAGES) - set(self.weights))
        if absent:
            raise ValueError(f"weights: no file for {absent}")
        if not 0 < self.prior < 1:
            raise ValueError(f"prior {self.prior}: expected a share between 0 and 1")


@dataclass(frozen=True, eq=False)
class Looked:
    """What the stages made of one batch, pictures of what passed the gate, arcs' maps, and each stage's seconds."""

    rows: list[Candidate]
    problems: list[Problem]
    stamps: dict[str, Stamp]
    maps: list[ArcMap]
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class Stages:
    """The trained stages of a run, how long each has taken, and the highest scores so far (`could_be_shown`)."""

    classifier: classifier.Predictor
    counter: counter.Predictor
    arcs: arcs.Predictor
    ranker: ranking.Ranker
    seconds: dict[str, float] = field(default_factory=dict)
    highest: list[float] = field(default_factory=list)

    @classmethod
    def load(cls, config: PipelineConfig, device: str) -> Stages:
        """Load every stage's weights onto a device."""
        from stages.arcs import predict as arcs
        from stages.classifier import predict as classifier
        from stages.counter import predict as counter

        path = {name: configuration.WEIGHTS_DIR / config.weights[name] for name in STAGES}
        return cls(
            classifier.load(path["classifier"], device),
            counter.load(path["counter"], device, config.theorem),
            arcs.load(path["arcs"], device),
            ranking.load(path["ranking"]),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(argv)
    try:
        return scan(options)
    except (InputError, RunError, configuration.ConfigError, weights.WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}. Free space or mend permissions, then run again with --resume.", file=sys.stderr)
        return 2


def scan(options: argparse.Namespace) -> int:
    """Carry out a scan; returns the exit code."""
    config = configuration.load(PipelineConfig, options.config)
    config = dataclasses.replace(
        config, batch_size=options.batch_size or config.batch_size, prior=options.prior or config.prior
    )
    ingest = IngestOptions(
        catalogue=options.catalogue,
        survey=load_survey(options.survey),
        cutout_arcsec=config.cutout_arcsec,
        batch_size=config.batch_size,
        workers=options.workers,
        limit=options.limit,
        survey_psf=True,
    )
    survey = Survey(options.input, ingest)
    run_dir = options.output or Path("runs") / f"{options.input.resolve().stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    check(config, options.device)
    parts = open_run(run_dir, request_of(options, config), options.resume)
    if (finished := read_summary(run_dir))["status"] == "complete":
        print(describe(finished, run_dir))
        return 0
    stopped, seconds = False, dict[str, float]()
    first = parts.count()
    try:
        with tqdm(total=len(survey), unit="cutout", desc="scan", disable=options.quiet) as bar:
            bar.update(min(first * config.batch_size, len(survey)))
            make = partial(looker, config, options.device, options.all, options.arc_maps)
            for index, looked in enumerate(survey.mapped(make, first), start=first):
                parts.write(index, looked.rows, looked.problems, looked.stamps, looked.maps)
                seconds = {name: seconds.get(name, 0.0) + value for name, value in looked.seconds.items()}
                bar.update(len(looked.rows) + len([p for p in looked.problems if not p.id]))
    except KeyboardInterrupt:
        stopped = True
    summary = finish(run_dir, parts, seconds, config, options, stopped)
    if not stopped:
        parts.clear()
    print(describe(summary, run_dir))
    return 130 if stopped else 0


def check(config: PipelineConfig, device: str) -> None:
    """Say before anything begins what cannot be used: weights that are absent or altered, a device that isn't there."""
    for name in STAGES:
        path = configuration.WEIGHTS_DIR / config.weights[name]
        ranking.load(path) if name == "ranking" else weights.load_card(path)
        if name == "classifier" and not weights.holds(path, "domain.limit"):
            print(
                f"note: {path}: out_of_domain is judged by seeing and pixel scale alone, as these weights do not know "
                "what their training data looked like. `python -m stages.classifier domain` tells them.",
                file=sys.stderr,
            )
    if device == "cuda":
        pick_device(device)


def looker(
    config: PipelineConfig, device: str, everything: bool, arc_maps: bool
) -> Callable[[Callable[[], CutoutBatch]], Looked]:
    """In each process once: load the stages, and give what passes a batch through them."""
    if parent_process() is not None:  # one of several processes: each keeps to its core
        import torch

        torch.set_num_threads(1)
    stages = Stages.load(config, pick_device(device))
    return partial(look, stages=stages, config=config, everything=everything, arc_maps=arc_maps)


def look(
    read: Callable[[], CutoutBatch], stages: Stages, config: PipelineConfig, everything: bool, arc_maps: bool
) -> Looked:
    """One batch through the stages: its rows in reading order, and its problems."""
    stages.seconds.clear()
    with timed(stages.seconds, "ingest"):
        batch = read()
    cutouts = batch.cutouts
    with timed(stages.seconds, "classifier"):
        first = stages.classifier.predict(cutouts)
    flagged = [c for c, p in zip(cutouts, first.p_lens, strict=True) if everything or p > config.gate_p_lens]
    with timed(stages.seconds, "counter"):
        counts = {c.id: c for c in stages.counter.predict(flagged)}
    with timed(stages.seconds, "arcs"):
        centres = [counts[c.id].deflector_xy_pix for c in flagged]
        found = {a.id: a for a in stages.arcs.predict(flagged, centres)}
    arcs = [c for c in flagged if found[c.id].score >= config.arc_threshold]
    with timed(stages.seconds, "counter"):
        peaks = {c.id: stages.counter.certify_arcs(c, counts[c.id], found[c.id]) for c in arcs}
    rows = [
        row_of(c, float(p), float(e), bool(odd), counts.get(c.id), found.get(c.id), peaks.get(c.id))
        for c, p, e, odd in zip(cutouts, first.p_lens, first.p_lens_err, first.out_of_domain, strict=True)
    ]
    rows = [dataclasses.replace(row, morphology=morphology(row, config.arc_threshold)) for row in rows]
    rows = [stated(row, config.prior) for row in rank(rows, stages.ranker, config)]
    shown = could_be_shown(rows, stages.highest, config.report_rows)
    stamps = {c.id: make_stamp(c, counts[c.id], found[c.id]) for c in flagged if c.id in shown}
    maps = [ArcMap.of(found[c.id], c) for c in arcs] if arc_maps else []
    degraded = [
        Problem(
            r.id,
            r.source,
            "degraded",
            r.reason,
            "Scored with what there was; see the reason codes in the documentation.",
        )
        for r in rows
        if r.status == "degraded"
    ]
    skipped = [Candidate(p.id, p.source, p.status, p.reason) for p in batch.problems if p.id]
    return Looked(rows + skipped, degraded + list(batch.problems), stamps, maps, dict(stages.seconds))


def rank(rows: list[Candidate], ranker: ranking.Ranker, config: PipelineConfig) -> list[Candidate]:
    """Rows with their fused score and whether they are selected."""
    scores = ranker.score(to_table(rows).to_pandas()) if rows else np.empty(0)
    return [
        dataclasses.replace(row, score=float(score), selected=bool(score > config.select_score))
        for row, score in zip(rows, scores, strict=True)
    ]


def stated(row: Candidate, prior: float) -> Candidate:
    """A row with its p_lens stated for a share of lenses."""
    p, error = np.array(row.p_lens), np.array(row.p_lens_err)
    return dataclasses.replace(row, p_lens=float(restated(p, prior)), p_lens_err=float(restated_error(p, error, prior)))


def finish(
    run_dir: Path, parts: Parts, seconds: dict[str, float], config: PipelineConfig, options: argparse.Namespace,
    stopped: bool,
) -> dict[str, Any]:  # fmt: skip
    """Merge the parts, write every table, the page and `run.json`; returns the latter."""
    table = write_candidates(parts.candidates(), run_dir)
    write_problems(parts.problems(), run_dir)
    write_regions(table, run_dir)
    write_votable(table, run_dir)
    if options.arc_maps:
        write_arc_maps(run_dir, parts.maps())
    status = Counter(table["status"].to_pylist())
    best = read_rows(table.slice(0, config.report_rows))
    scored = [row for row in best if row.status != "skipped"]
    summary = {
        "status": "partial" if stopped else "complete",
        "run_id": read_summary(run_dir)["run_id"],
        "request": request_of(options, config),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "configuration": configuration.to_mapping(config),
        "counts": {name: status.get(name, 0) for name in ("ok", "degraded", "skipped")}
        | {
            "read": len(table),
            "flagged": int(np.isfinite(table["arc_score"].to_numpy(zero_copy_only=False)).sum()),
            "selected": int(np.sum(table["selected"].to_numpy(zero_copy_only=False))),
        },
    }
    with timed(seconds, "report"):
        write_report(run_dir, scored, parts.stamps({row.id for row in scored}), summary)
    summary["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    write_json(run_dir / "run.json", summary)
    return summary


def request_of(options: argparse.Namespace, config: PipelineConfig) -> dict[str, Any]:
    """What determines a run's results: a resumed run must have the same."""
    files = {name: configuration.WEIGHTS_DIR / config.weights[name] for name in STAGES}
    return {
        "input": str(options.input.resolve()),
        "catalogue": str(options.catalogue.resolve()) if options.catalogue else None,
        "survey": options.survey,
        "all": options.all,
        "arc_maps": options.arc_maps,
        "limit": options.limit,
        "configuration": configuration.to_mapping(config),
        "weights": {name: {"file": path.name, "sha256": weights.sha256(path)} for name, path in files.items()},
    }


def load_survey(name: str | None) -> SurveyFacts | None:
    """A survey by name or by file; None leaves it to the files' headers."""
    if name is None:
        return None
    path = Path(name)
    known = configuration.CONFIG_DIR / "surveys" / f"{name}.yaml"
    return read_survey(path if path.suffix in (".yaml", ".yml") else known)


def pick_device(name: str) -> str:
    """The torch device for auto, cpu or cuda."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: torch sees no CUDA device here. Use --device cpu or auto.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


class timed:
    """Adds the wall time of a block to the seconds of a stage."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + time.perf_counter() - self.begun


def usable_cores() -> int:
    """Cores that this process may use, eight at most: each working process needs about a GiB of memory."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="oddlens", description="Rank strong-lens candidates in a survey folder.")
    parser.add_argument("--input", type=Path, required=True, help="survey folder (read recursively) or a single file")
    parser.add_argument("--output", type=Path, help="folder for the results (default: runs/NAME-TIME)")
    parser.add_argument("--catalogue", type=Path, help="CSV, FITS or VOTable with id, tile and x, y or ra, dec")
    parser.add_argument(
        "--survey", help="a name in configs/surveys, or a survey file, where the images don't say enough"
    )
    parser.add_argument("--config", type=Path, default=configuration.CONFIG_DIR / "pipeline.yaml")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--prior", type=share, help="share of lenses at which p_lens is stated, such as 1e-3")
    parser.add_argument("--all", action="store_true", help="run every stage on every cutout, whatever stage 1 says")
    parser.add_argument("--arc-maps", action="store_true", help="write arc_maps.fits: where lensed light is")
    parser.add_argument("--resume", action="store_true", help="complete a stopped run in --output")
    parser.add_argument("--limit", type=int, help="read only the first N objects")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes; 0 works in this one alone")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(argv)
    if options.resume and options.output is None:
        parser.error("--resume needs --output: name the folder of the run to complete")
    return options


if __name__ == "__main__":
    sys.exit(main())
