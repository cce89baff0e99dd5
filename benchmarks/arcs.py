"""What stage 3 measures, and where it fails: python benchmarks/arcs.py --data DIR --out DIR [--weights FILE ...].

On labelled data sets that the weights never learned from (see `stages.dataset.shards_to_test`), about the deflectors'
true places. Writes `arcs.md` and `arcs.png` to the output folder:

- score: arcs as visible as those trained on against everything else, beside three baselines on the same cutouts: a ring
  filter (the highest peak of a circular Hough transform of the edges), the blue residual of RingFinder (Gavazzi et al.
  2014; where there are two bands) and the classifier's `p_lens`; the Hough circle's radius beside ours;
- recall by coverage, Einstein radius, signal to noise and contrast, in colour and with one band, and the precision and
  recall of arc pixels;
- what the arc stage adds to the classifier where arcs cover less than 90 degrees: recall by `p_lens` alone, and by a
  logistic regression of both that is fitted to one half of the systems and tested on the other, and in turn;
- every kind of impostor by name: the share that is taken for an arc;
- how every number changes when a cutout is turned, a tenth of its pixels masked, or the deflector thought beside its
  place; of real images too (`--real`);
- speed on the processor, network and measurements, with one thread and a batch of 64.

Several weights, such as networks of other kinds, are compared in the first table. Intervals are 95%, by bootstrap.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.arc_baselines import baselines, tested
from stages import metrics
from stages.arcs import evaluate as arcs
from stages.arcs.predict import Predictor, load
from stages.changes import masked, turned
from stages.config import WEIGHTS_DIR
from stages.deflector import brightest_place
from stages.ingest import IngestOptions, Survey
from stages.records import ArcScore, Cutout, FloatArray
from stages.scaling import resolution_arcsec
from stages.strata import strata

FPR = 0.02
N_BOOT = 500
HALF = 2
_MOST_CHANGED, _SPEED_BATCH = 512, 64
BESIDE_FWHM = 0.3
_RUN = 64  # neighbouring cutouts, lenses and their twins among them, go to the same half
Figure = Callable[[FloatArray, FloatArray], float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, nargs="+", default=[WEIGHTS_DIR / "arcs.safetensors"])
    parser.add_argument("--classifier", type=Path, default=WEIGHTS_DIR / "classifier.safetensors")
    parser.add_argument("--real", type=Path, help="a folder of images, masked and turned too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    weights = options.weights[0]
    table = arcs.scored(weights, options.data)
    seen = arcs.visible(table, weights)
    table = table.assign(arc=seen).join(baselines(options.data, weights, options.classifier))
    grey = arcs.scored(weights, options.data, grey=True)
    text = [f"{int(seen.sum())} arcs, {int((~seen).sum())} others", "", *compared(table, options), ""]
    text += [*by_stratum(table, grey, options.out / "arcs.png"), "", *together(table), "", *by_kind(table), ""]
    predictor = load(weights)
    simulated = [c for _, part in tested(options.data, weights) for c in part.cutouts][:_MOST_CHANGED]
    real = {options.real.name: images(options.real)} if options.real else {}
    text += changes(predictor, {"simulations": simulated} | real)
    text += ["", speed(predictor, simulated[:_SPEED_BATCH])]
    (options.out / "arcs.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))
    return 0


def compared(table: pd.DataFrame, options: argparse.Namespace) -> list[str]:
    """Score, pixels, coverage and radius of every network and baseline."""
    names = (
        "finder",
        "AUROC",
        "recall at FPR 2%",
        "pixel precision",
        "pixel recall",
        "coverage error, deg",
        "radius error",
    )
    out = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for path in options.weights:
        rows = table if path == options.weights[0] else arcs.scored(path, options.data)
        rows = rows.assign(arc=arcs.visible(rows, path))
        arc = rows[rows["arc"]]
        figures = [middle(arc[n].to_numpy(), np.nanmean) for n in ("pixel_precision", "pixel_recall")]
        figures += [middle(np.abs(arc[n].to_numpy()), np.nanmedian) for n in ("coverage_wrong", "theta_e_wrong")]
        out.append(" | ".join([f"| {path.stem} ({path.parent.name})", *ranks(rows, "arc_score"), *figures]) + " |")
    for name in ("hough", "blue", "p_lens"):
        rows = table[table[name].notna()]
        error = middle(np.abs(rows[rows["arc"]]["hough_wrong"].to_numpy()), np.nanmedian) if name == "hough" else ""
        title = {"hough": "circular Hough transform", "blue": "blue residual (colour images)", "p_lens": "classifier"}
        out.append(" | ".join([f"| {title[name]}", *ranks(rows, name), "", "", "", error]) + " |")
    colour = table[table["blue"].notna()]
    return [*out, " | ".join(["| ours, on the same colour images", *ranks(colour, "arc_score"), *[""] * 4]) + " |"]


def ranks(rows: pd.DataFrame, column: str) -> list[str]:
    """AUROC and recall of visible arcs against all else, with intervals."""
    lens, other = rows.loc[rows["arc"], column].to_numpy(), rows.loc[~rows["arc"], column].to_numpy()
    return [interval(figure, lens, other) for figure in (metrics.auroc, recall)]


def recall(lens: FloatArray, other: FloatArray) -> float:
    """At FPR 2%."""
    return metrics.tpr_at_fpr(lens, other, FPR)


def precision(lens: FloatArray, other: FloatArray) -> float:
    """Of what passes the threshold of FPR 2%, the share that are lenses, were there as many lenses as others."""
    found = recall(lens, other)
    return found / (found + FPR)


def by_stratum(table: pd.DataFrame, grey: pd.DataFrame, picture: Path) -> list[str]:
    """Recall in colour and with one band, precision, and arc pixels, of each stratum; and a picture."""
    names = (
        "stratum",
        "from",
        "to",
        "lenses",
        "recall at FPR 2%",
        "with one band",
        "precision",
        "pixel precision",
        "recall",
    )
    out = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    other, other_grey = (t.loc[t["label"] == 0, "arc_score"].to_numpy() for t in (table, grey))
    drawn: dict[str, list[tuple[str, FloatArray, FloatArray]]] = {}
    for name, low, high, rows in strata(table):
        lens, lens_grey = rows["arc_score"].to_numpy(), grey.loc[rows.index, "arc_score"].to_numpy()
        row = [name, f"{low:g}", f"{high:g}", str(len(rows)), interval(recall, lens, other),
               interval(recall, lens_grey, other_grey), interval(precision, lens, other)]  # fmt: skip
        row += [middle(rows[n].to_numpy(), np.nanmean) for n in ("pixel_precision", "pixel_recall")]
        out.append("| " + " | ".join(row) + " |")
        drawn.setdefault(name, []).append((f"{low:g}", lens, lens_grey))
    figure, axes = plt.subplots(1, len(drawn), figsize=(3.2 * len(drawn), 3), sharey=True)
    for axis, (name, points) in zip(axes, drawn.items(), strict=True):
        edges = [edge for edge, _, _ in points]
        for k, (against, style, label_of) in enumerate(((other, "o-", "all bands"), (other_grey, "s--", "one band"))):
            middle_of = np.array([recall(point[1 + k], against) for point in points])
            ends = [
                metrics.bootstrap(recall, point[1 + k], against, np.random.default_rng(0), N_BOOT) for point in points
            ]
            low, high = np.array(ends).T
            error = np.clip([middle_of - low, high - middle_of], 0, None)
            axis.errorbar(np.arange(len(edges)) + 0.1 * k, middle_of, error, fmt=style, capsize=2, label=label_of)
        axis.set_xticks(np.arange(len(edges)), edges)
        axis.set(xlabel=f"{name}, from", ylim=(0, 1))
    axes[0].set_ylabel("recall at FPR 2%")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
    return out


def together(table: pd.DataFrame) -> list[str]:
    """What the arc stage adds to the classifier, by coverage."""
    features = np.stack([_logit(table[n].to_numpy()) for n in ("p_lens", "arc_score")], 1)
    label_of = table["label"].to_numpy()
    half = np.arange(len(table)) // _RUN % HALF
    both = np.empty(len(table))
    for k in range(HALF):
        model = LogisticRegression(class_weight="balanced").fit(features[half != k], label_of[half != k])
        both[half == k] = model.decision_function(features[half == k])
    ranked = table.assign(both=both)
    out = ["| coverage, deg | lenses | by p_lens | by arc_score | by both |", "|---|---|---|---|---|"]
    other, galaxies = ranked[ranked["label"] == 0], ranked[ranked["kind"] == "lens_galaxy"]
    for low, high in ((0, 90), (90, 180), (180, 361)):
        part = galaxies[galaxies["coverage_deg"].between(low, high, inclusive="left")]
        cells = [interval(recall, part[n].to_numpy(), other[n].to_numpy()) for n in ("p_lens", "arc_score", "both")]
        out.append(f"| {low} to {high} | {len(part)} | " + " | ".join(cells) + " |")
    return out


def by_kind(table: pd.DataFrame) -> list[str]:
    """The share of each kind with a score above one half."""
    out = ["| kind | number | `arc_score` above 0.5 |", "|---|---|---|"]
    for kind, rows in sorted(table.groupby("kind"), key=lambda pair: -(pair[1]["arc_score"] > 0.5).mean()):
        share = (rows["arc_score"] > 0.5).to_numpy(float)
        out.append(f"| {kind} | {len(rows)} | {middle(share, np.mean)} |")
    return out


def changes(predictor: Predictor, sets: dict[str, list[Cutout]]) -> list[str]:
    """How the numbers change when the same cutout is turned, some of its pixels are masked, or the deflector is thought
    0.3 FWHM beside its place: the share that change by less than their error."""
    names = (
        "cutouts",
        "change",
        "mean of `arc_score`",
        "mean size",
        *NUMBERS,
        "as many arcs",
        "counter-images",
        "S/N, by",
    )
    out = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for title, cutouts in sets.items():
        unknown = [np.full(2, np.nan)] * len(cutouts)
        before = predictor.predict(cutouts, unknown)
        for name, change in (("turned or mirrored", turned), ("a tenth of the pixels masked", masked),
                             ("deflector moved", None)):  # fmt: skip
            rng = np.random.default_rng(0)
            seen = cutouts if change is None else [c for c in (change(c, rng) for c in cutouts) if c is not None]
            places = unknown if change is not None else [beside(c, rng) for c in cutouts]
            pairs = list(zip(before, predictor.predict(seen, places), strict=True))
            shift = np.array([b.score - a.score for a, b in pairs])
            cells = [f"{shift.mean():+.3f}", f"{np.abs(shift).mean():.3f}"]
            for number in NUMBERS.values():
                values = np.array([(*number(a), number(b)[0]) for a, b in pairs])
                known = values[np.isfinite(values).all(axis=1)]
                cells.append(f"{np.mean(np.abs(known[:, 2] - known[:, 0]) < known[:, 1]):.2f}" if len(known) else "")
            cells += [f"{np.mean([f(a) == f(b) for a, b in pairs]):.2f}" for f in (n_arcs, n_counter_images)]
            snr = np.array([(a.snr, b.snr) for a, b in pairs])
            snr = snr[(snr > 0).all(axis=1)]
            cells.append(f"{100 * np.median(np.abs(np.log(snr[:, 1] / snr[:, 0]))):.0f}%" if len(snr) else "")
            out.append(f"| {len(cutouts)} {title} | {name} | " + " | ".join(cells) + " |")
    return out


def n_counter_images(said: ArcScore) -> int:
    """How many."""
    return sum(arc.is_counter_image for arc in said.arcs)


def n_arcs(said: ArcScore) -> int:
    """Without counter-images."""
    return len(said.arcs) - n_counter_images(said)


def _of_the_main(said: ArcScore, name: str) -> float:
    return float(np.log(getattr(said.arcs[0], name))) if said.arcs else float("nan")


NUMBERS: dict[str, Callable[[ArcScore], tuple[float, float]]] = {  # each with its error
    "coverage": lambda a: (a.coverage_deg, a.coverage_err_deg),
    "radius": lambda a: (a.theta_e_arcsec, a.theta_e_err_arcsec),
    "length": lambda a: (_of_the_main(a, "length_arcsec"), a.length_rel_err),
    "width": lambda a: (_of_the_main(a, "width_arcsec"), a.width_rel_err),
    "axis ratio": lambda a: (a.ring_axis_ratio, a.ring_axis_ratio_err),
    "colour": lambda a: (a.colour_mag, a.colour_err_mag),
}


def beside(cutout: Cutout, rng: np.random.Generator) -> FloatArray:
    """A place 0.3 FWHM from where the deflector is looked for, in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    step = BESIDE_FWHM * resolution_arcsec(cutout) / cutout.pixel_scale_arcsec
    return np.asarray(brightest_place(cutout) + step * np.array([np.cos(angle), np.sin(angle)]))


def speed(predictor: Predictor, cutouts: list[Cutout]) -> str:
    """Cutouts a second, and the memory of this process."""
    unknown = [np.full(2, np.nan)] * len(cutouts)
    predictor.predict(cutouts, unknown)
    begun = time.perf_counter()
    predictor.predict(cutouts, unknown)
    rate = len(cutouts) / (time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{rate:.0f} cutouts/s with one thread; peak memory {peak:.0f} MiB"


def images(folder: Path) -> list[Cutout]:
    """All cutouts of a folder."""
    return [c for batch in Survey(folder, IngestOptions(workers=0)).batches() for c in batch.cutouts]


def interval(figure: Figure, lens: FloatArray, other: FloatArray) -> str:
    """A figure with its interval."""
    if not len(lens) or not len(other):
        return ""
    low, high = metrics.bootstrap(figure, lens, other, np.random.default_rng(0), N_BOOT)
    return f"{figure(lens, other):.2f} [{low:.2f}, {high:.2f}]"


def middle(values: FloatArray, figure: Callable[[FloatArray], float]) -> str:
    """Mean or median of values with its interval."""
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    rng = np.random.default_rng(0)
    low, high = np.percentile([figure(rng.choice(known, len(known))) for _ in range(N_BOOT)], (2.5, 97.5))
    return f"{figure(known):.2f} [{low:.2f}, {high:.2f}]"


def _logit(p: FloatArray) -> FloatArray:
    inside = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


if __name__ == "__main__":
    sys.exit(main())
