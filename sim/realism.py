"""Can simulated be told from real? python sim/realism.py --real DIR --sim DIR --out DIR [--max-auc 0.6].

Reads real cutouts (any survey that `pipeline.py` reads) and a simulated data set, pairs them at equal brightness, and
asks two classifiers which is which, in cross-validation that never splits a tile or a simulated system: a forest on the
features of `sim/features.py`, and a small network on the pixels. An AUC of 0.5 means that nothing gives the simulation
away. Writes `realism.html` (pairs side by side, each feature's two distributions, what the data set holds) and
`realism.json`. The exit code is 1 where an AUC exceeds --max-auc, 2 where the request cannot be carried out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.features import brightness, features
from sim.generate import load_survey
from stages import metrics
from stages.dataset import DatasetError, read_shards
from stages.ingest import IngestOptions, InputError, Survey
from stages.records import Cutout, FloatArray

_MATCH_DEX = 0.1  # a pair's brightness over noise differs by less
_MIN_PAIRS = 20
_FOLDS = 4
_SCALE_TOLERANCE = 0.05

IntArray = npt.NDArray[np.intp]


class RealismError(ValueError):
    """Samples that cannot be compared; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Sample:
    """N cutouts of one size and the same bands, their groups (never split) and their kinds."""

    cutouts: tuple[Cutout, ...]
    groups: tuple[str, ...]
    kinds: tuple[str, ...]

    def take(self, index: Sequence[int] | IntArray) -> Sample:
        """Some of the cutouts."""
        return Sample(
            tuple(self.cutouts[k] for k in index), tuple(self.groups[k] for k in index),
            tuple(self.kinds[k] for k in index),
        )  # fmt: skip


@dataclass(frozen=True)
class Separation:
    """How well one classifier tells simulated from real: AUC with its 95% interval, over out-of-fold scores."""

    auc: float
    low: float
    high: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="real cutouts, as for pipeline.py")
    parser.add_argument("--catalogue", type=Path, help="objects to cut from tiles (CSV with an id)")
    parser.add_argument("--where", help="which rows of the catalogue, a pandas query: \"kind == 'field'\"")
    parser.add_argument("--survey", help="facts that the files do not carry: a name or a survey file")
    parser.add_argument("--sim", type=Path, required=True, help="a data set of sim/generate.py")
    parser.add_argument("--sim-where", help="which simulated rows: \"kind in ['field', 'early_type']\"")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-invalid", type=float, default=0.02, help="leave out cutouts with more invalid pixels")
    parser.add_argument("--max-auc", type=float, help="fail above this AUC")
    parser.add_argument("--epochs", type=int, default=25, help="of the small network; 0 leaves it out")
    parser.add_argument("--limit", type=int, default=600, help="pairs at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)
    try:
        worst = compare(options)
    except (RealismError, InputError, DatasetError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(options.max_auc is not None and worst > options.max_auc)


def compare(options: argparse.Namespace) -> float:
    """Carry out the comparison, print and write it; returns the larger of the two AUCs."""
    from sim.realism_page import write_page

    real, sim, held = read_pair(options)
    rng = np.random.default_rng(options.seed)
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        bright = [np.array(list(pool.map(brightness, s.cutouts, chunksize=16))) for s in (real, sim)]
        left, right = match(*bright, rng, options.limit)
        if len(left) < _MIN_PAIRS:
            raise RealismError(
                f"only {len(left)} of {len(real.cutouts)} real cutouts have a simulated one as bright: {_MIN_PAIRS} are "
                "needed. Simulate more (--n), or mend the magnitudes in the configuration."
            )
        real, sim = real.take(left), sim.take(right)
        table = pd.DataFrame(list(pool.map(features, (*real.cutouts, *sim.cutouts), chunksize=16)))
    label = np.repeat([0, 1], len(left))
    groups = np.array([*(f"real {g}" for g in real.groups), *(f"sim {g}" for g in sim.groups)])
    scores = {"features": forest_scores(table, label, groups, options.seed)}
    if options.epochs:
        from sim.realism_net import network_scores

        scores["pixels"] = network_scores([*real.cutouts, *sim.cutouts], label, groups, options.epochs, options.seed)
    found = {name: separation(score, label, rng) for name, score in scores.items()}
    ranking = telling_features(table, label)
    for name, value in found.items():
        print(f"AUC {name}: {value.auc:.3f} [{value.low:.3f}, {value.high:.3f}] ({len(left)} pairs)")
    print("what gives the simulation away (AUC alone; median real, median simulated):")
    print(ranking.head(12).to_string(float_format=lambda v: f"{v:.3f}"))
    options.out.mkdir(parents=True, exist_ok=True)
    write_page(options.out / "realism.html", real, sim, table, label, scores, found, ranking, held)
    summary = {
        "real": str(options.real), "sim": str(options.sim), "pairs": len(left), "seed": options.seed,
        "auc": {name: asdict(value) for name, value in found.items()},
        "features": ranking.reset_index().to_dict("records"),
    }  # fmt: skip
    (options.out / "realism.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(f"page: {options.out / 'realism.html'}")
    return max(value.auc for value in found.values())


def read_pair(options: argparse.Namespace) -> tuple[Sample, Sample, pd.DataFrame]:
    """Real and simulated cutouts cut to the same size and bands, and the truth of the whole simulated data set."""
    survey = None if options.survey is None else load_survey(options.survey)
    ingest = IngestOptions(catalogue=options.catalogue, survey=survey, workers=options.workers)
    real = [c for batch in Survey(options.real, ingest).batches() for c in batch.cutouts]
    if options.where is not None:
        if options.catalogue is None:
            raise RealismError("--where selects rows of a catalogue. Give --catalogue as well.")
        chosen = set(pd.read_csv(options.catalogue, dtype={"id": str}).query(options.where)["id"])
        real = [c for c in real if c.id in chosen]
    sim, truth = [], []
    for shard in read_shards(options.sim):
        wanted = shard.truth if options.sim_where is None else shard.truth.query(options.sim_where)
        sim += [shard.cutouts[k] for k in shard.truth.index.get_indexer(wanted.index)]
        truth.append(shard.truth)
    held = pd.concat(truth).set_index("id", drop=False)
    if not real or not sim:
        raise RealismError(f"{len(real)} real and {len(sim)} simulated cutouts chosen. Widen --where or --sim-where.")
    real, sim = alike(real, sim)
    real, sim = ([c for c in s if 1 - c.valid.mean() <= options.max_invalid] for s in (real, sim))
    rows = held.loc[[c.id for c in sim]]
    return (
        Sample(tuple(real), tuple(c.source for c in real), tuple("real" for _ in real)),
        Sample(tuple(sim), tuple(rows["system"]), tuple(rows["kind"])),
        held,
    )


def alike(real: list[Cutout], sim: list[Cutout]) -> tuple[list[Cutout], list[Cutout]]:
    """Cut two lists to the bands that they share and to the largest square about each object that all of them hold."""
    scale = float(np.median([c.pixel_scale_arcsec for c in real]))
    if abs(sim[0].pixel_scale_arcsec / scale - 1) > _SCALE_TOLERANCE:
        raise RealismError(
            f"real pixels are {scale:.4g} arcsec, simulated ones {sim[0].pixel_scale_arcsec:.4g}. "
            "Simulate with the survey's own facts (sim/match.py measures them)."
        )
    bands = tuple(b for b in sim[0].bands if all(b in c.bands for c in real))
    if not bands:
        raise RealismError(f"no band in common: real {real[0].bands}, simulated {sim[0].bands}. Give --survey.")
    reach = int(min(np.percentile([_reach(c) for c in group], 10) for group in (real, sim)))
    if reach < 12:
        raise RealismError(f"the cutouts reach only {reach} pixels from their objects; 12 are needed. Cut them larger.")
    return [_cut(c, bands, reach) for c in real if _reach(c) >= reach], [
        _cut(c, bands, reach) for c in sim if _reach(c) >= reach
    ]


def _reach(cutout: Cutout) -> int:
    (rows, columns), (x, y) = cutout.flux.shape[1:], np.round(cutout.xy_pix)
    return int(min(x, y, columns - 1 - x, rows - 1 - y))


def _cut(cutout: Cutout, bands: tuple[str, ...], reach: int) -> Cutout:
    x, y = np.round(cutout.xy_pix).astype(int)
    planes = [cutout.bands.index(b) for b in bands]
    part = (planes, slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1))
    return replace(
        cutout, flux=cutout.flux[part], variance=cutout.variance[part], valid=cutout.valid[part], bands=bands,
        psf_fwhm_arcsec=cutout.psf_fwhm_arcsec[planes], psf=np.zeros((0, 0, 0), np.float32),
        xy_pix=cutout.xy_pix - (x - reach, y - reach),
    )  # fmt: skip


def match(real: FloatArray, sim: FloatArray, rng: np.random.Generator, limit: int) -> tuple[IntArray, IntArray]:
    """Indices of pairs of equal brightness (log10), one to one, the total difference as small as can be."""
    left, right = np.flatnonzero(np.isfinite(real)), np.flatnonzero(np.isfinite(sim))
    left = rng.permutation(left)[:limit]
    right = rng.permutation(right)[: 6 * limit]
    gap = np.abs(real[left][:, None] - sim[right][None, :])
    rows, columns = linear_sum_assignment(np.minimum(gap, 10 * _MATCH_DEX))
    near = gap[rows, columns] < _MATCH_DEX
    return left[rows[near]], right[columns[near]]


def forest_scores(table: pd.DataFrame, label: IntArray, groups: npt.NDArray[np.str_], seed: int) -> FloatArray:
    """Out-of-fold ranks (2N,) in 0..1 of a forest on the features: the higher, the more it looks simulated."""
    model = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        ExtraTreesClassifier(400, min_samples_leaf=3, max_features=0.3, random_state=seed),
    )
    out = np.zeros(len(label))
    for train, test in folds(label, groups, seed):
        model.fit(table.iloc[train], label[train])
        out[test] = ranks(model.predict_proba(table.iloc[test])[:, 1])
    return out


def folds(label: IntArray, groups: npt.NDArray[np.str_], seed: int) -> list[tuple[IntArray, IntArray]]:
    """Cross-validation that keeps a tile or a simulated system whole."""
    split = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    return list(split.split(np.zeros(len(label)), label, groups))


def ranks(score: FloatArray) -> FloatArray:
    """Ranks in 0..1, so that the scores of several folds can be pooled."""
    return np.asarray(pd.Series(score).rank() / len(score))


def separation(score: FloatArray, label: IntArray, rng: np.random.Generator) -> Separation:
    """AUC with its interval; 0.5 is perfect realism."""
    simulated, real = score[label == 1], score[label == 0]
    return Separation(metrics.auroc(simulated, real), *metrics.bootstrap(metrics.auroc, simulated, real, rng))


def telling_features(table: pd.DataFrame, label: IntArray) -> pd.DataFrame:
    """Each feature's own AUC (0.5 or more, whichever way it tells) and its two medians, the most telling first."""
    rows = []
    for name in table:
        values = table[name].to_numpy(float)
        real, sim = (v[np.isfinite(v)] for v in (values[label == 0], values[label == 1]))
        auc = metrics.auroc(sim, real)
        known = len(real) > 0 and len(sim) > 0
        rows.append(
            {"feature": name, "auc": max(auc, 1 - auc) if known else 0.5,
             "real": float(np.median(real)) if known else np.nan, "simulated": float(np.median(sim)) if known else np.nan}
        )  # fmt: skip
    return pd.DataFrame(rows).sort_values("auc", ascending=False).set_index("feature")


if __name__ == "__main__":
    sys.exit(main())
