"""Can simulated be told from real? python sim/realism.py --real DIR --sim DIR --out DIR [--max-auc 0.6].

Reads real cutouts (any survey that `pipeline.py` reads) and a simulated data set, pairs them at equal brightness, and
asks two classifiers which is which, in cross-validation that never splits a tile or a simulated system: a forest on the
features of `sim/likeness/features.py`, and a small network on the pixels. An AUC of 0.5 means that nothing gives the
simulation away. Writes `realism.html` (pairs side by side, each feature's two distributions, what the data set holds)
and `realism.json`. The exit code is 1 where an AUC exceeds --max-auc, 2 where the request cannot be carried out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.likeness.features import features
from sim.likeness.sample import RealismError, Sample, halves, paired, read_samples
from sim.likeness.score import (
    Groups,
    Scores,
    Separation,
    by_family,
    by_kind,
    forest_scores,
    separation,
    telling_features,
)
from stages.dataset import DatasetError
from stages.ingest import InputError

_MIN_PAIRS = 12


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two samples paired at equal brightness, their features, and how well each classifier tells them apart.

    table : features of real then simulated cutouts; label : 0 real, 1 simulated; n_real : real cutouts before pairing.
    """

    real: Sample
    sim: Sample
    table: pd.DataFrame
    label: npt.NDArray[np.intp]
    groups: Groups
    scores: dict[str, Scores]
    found: dict[str, Separation]
    n_real: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        worst = run(options)
    except (RealismError, InputError, DatasetError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.max_auc is not None and worst > options.max_auc:
        print(f"AUC {worst:.3f} exceeds {options.max_auc}: mend what the page's first rows name.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="real cutouts, as for pipeline.py")
    parser.add_argument("--catalogue", type=Path, help="objects to cut from tiles (CSV with an id)")
    parser.add_argument("--where", help="which rows of the catalogue, a pandas query: \"kind == 'field'\"")
    parser.add_argument("--survey", help="facts that the files do not carry: a name or a survey file")
    parser.add_argument("--sim", type=Path, required=True, help="a data set of sim/generate.py")
    parser.add_argument("--sim-where", help="which simulated rows: \"kind in ['field', 'early_type']\"")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-invalid", type=float, default=0.02, help="leave out cutouts with more invalid pixels")
    parser.add_argument(
        "--mask-neighbours", type=float, metavar="ARCSEC",
        help="leave out what lies further from the object, on both sides, where the real cutouts have it masked",
    )  # fmt: skip
    parser.add_argument("--max-auc", type=float, help="fail above this AUC")
    parser.add_argument("--null", action="store_true", help="also compare halves of one kind with each other")
    parser.add_argument("--epochs", type=int, default=25, help="of the small network; 0 leaves it out")
    parser.add_argument("--limit", type=int, default=600, help="real cutouts at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    return parser


def run(options: argparse.Namespace) -> float:
    """Carry out the comparison, print and write it; returns the largest AUC."""
    from sim.likeness.page import write_page

    rng = np.random.default_rng(options.seed)
    with _pool(options.workers) as pool:
        real, sim, held = read_samples(options, pool)
        nulls = {}
        if options.null:
            for name, sample in (("real against real", real), ("simulated against simulated", sim)):
                try:
                    nulls[name] = compare(*halves(sample, rng), options, rng, pool).found
                except RealismError as error:
                    print(f"no comparison of {name}: {error}", file=sys.stderr)
        c = compare(real, sim, options, rng, pool)
    ranking = telling_features(c.table, c.label, c.groups)
    families = by_family(c.table, c.label, c.groups, options.seed, rng)
    kinds = by_kind(c.scores, (*c.real.kinds, *c.sim.kinds), c.label, c.groups, rng)
    form = pd.DataFrame({"real": c.real.form.median(), "simulated": c.sim.form.median()})
    _print(c, nulls, ranking, families, kinds)
    options.out.mkdir(parents=True, exist_ok=True)
    write_page(options.out / "realism.html", c, nulls, ranking, families, kinds, form, held)
    summary = {
        "real": str(options.real), "sim": str(options.sim), "seed": options.seed,
        "pairs": len(c.real.cutouts), "simulated_per_real": len(c.sim.cutouts) // len(c.real.cutouts),
        "unmatched_real": c.n_real - len(c.real.cutouts), "auc": {name: asdict(v) for name, v in c.found.items()},
        "null": {name: {which: asdict(v) for which, v in found.items()} for name, found in nulls.items()},
        "families": families.reset_index().to_dict("records"), "kinds": kinds.reset_index().to_dict("records"),
        "features": ranking.reset_index().to_dict("records"), "form": form.reset_index().to_dict("records"),
    }  # fmt: skip
    text = json.dumps(summary, indent=1, default=float).replace("NaN", "null")
    (options.out / "realism.json").write_text(text + "\n")
    print(f"page: {options.out / 'realism.html'}")
    return max(value.auc for value in c.found.values())


def _pool(workers: int) -> Executor:
    return ThreadPoolExecutor(1) if workers <= 1 else ProcessPoolExecutor(workers, get_context("spawn"))


def compare(
    real: Sample, sim: Sample, options: argparse.Namespace, rng: np.random.Generator, pool: Executor
) -> Comparison:
    """Pair two samples and let both classifiers judge them; raises RealismError where too few pairs are found."""
    n_all = len(real.cutouts)
    real, sim, n_real = paired(real, sim, rng, options.limit, pool)
    if len(real.cutouts) < _MIN_PAIRS:
        raise RealismError(
            f"only {len(real.cutouts)} of {n_all} real cutouts have a simulated one as bright: {_MIN_PAIRS} are "
            "needed. Simulate more (--n), choose the kinds that the real cutouts show (--sim-where), or mend the "
            "magnitudes in the configuration."
        )
    cutouts = [*real.cutouts, *sim.cutouts]
    table = pd.DataFrame(list(pool.map(features, cutouts, chunksize=16)))
    label = np.repeat([0, 1], [len(real.cutouts), len(sim.cutouts)])
    groups = np.array([*(f"real {g}" for g in real.groups), *(f"sim {g}" for g in sim.groups)])
    scores = {"features": forest_scores(table, label, groups, options.seed)}
    if options.epochs:
        from sim.likeness.net import network_scores  # torch is slow to import, and the worker processes do without

        scores["pixels"] = network_scores(cutouts, label, groups, options.epochs, options.seed)
    found = {name: separation(s, label, groups, rng) for name, s in scores.items()}
    return Comparison(real, sim, table, label, groups, scores, found, n_real)


def _print(
    c: Comparison, nulls: dict[str, dict[str, Separation]], ranking: pd.DataFrame, families: pd.DataFrame,
    kinds: pd.DataFrame,
) -> None:  # fmt: skip
    n = len(c.real.cutouts)
    print(
        f"{n} real cutouts, {len(c.sim.cutouts) // n} simulated of equal brightness for each; {c.n_real - n} unmatched"
    )
    for name, found in (("", c.found), *((f" {k}", v) for k, v in nulls.items())):
        for which, value in found.items():
            print(f"AUC {which}{name}: {value.auc:.3f} [{value.low:.3f}, {value.high:.3f}]")
    for title, frame in (
        ("AUC by family of features:", families),
        (
            "what gives the simulation away (AUC alone, sigma from 0.5; median real, median simulated):",
            ranking.head(12),
        ),
        ("AUC by kind of simulated cutout:", kinds),
    ):
        print(title)
        print(frame.to_string(float_format=lambda v: f"{v:.3f}"))


if __name__ == "__main__":
    sys.exit(main())
