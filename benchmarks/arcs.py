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
- how the score changes when a cutout is turned, or a tenth of its pixels masked; of real images too (`--real`);
- speed on the processor, network and measurements, with one thread and a batch of 64.

Several weights, such as networks of other kinds, are compared in the first table. Intervals are 95%, by bootstrap.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.ndimage import label
from skimage.feature import canny
from skimage.transform import hough_circle
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages import metrics
from stages.arcs import evaluate as arcs
from stages.arcs.model import FRAME
from stages.arcs.predict import Predictor, load
from stages.changes import masked, turned
from stages.classifier.predict import load as load_classifier
from stages.config import WEIGHTS_DIR
from stages.dataset import Shard, shards_to_test
from stages.deflector import without_deflector
from stages.ingest import IngestOptions, Survey
from stages.records import Cutout, FloatArray
from stages.scaling import N_SLOTS, network_inputs
from stages.softening import linear
from stages.strata import strata
from stages.weights import load_card

FPR = 0.02
N_BOOT = 500
HALF = 2
_MOST_CHANGED, _SPEED_BATCH = 512, 64
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


def by_stratum(table: pd.DataFrame, grey: pd.DataFrame, picture: Path) -> list[str]:
    """Recall in colour and with one band, and arc pixels, of each stratum; and a picture."""
    out = ["| stratum | from | to | lenses | recall at FPR 2% | with one band | pixel precision | pixel recall |",
           "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    other, other_grey = (t.loc[t["label"] == 0, "arc_score"].to_numpy() for t in (table, grey))
    drawn: dict[str, list[tuple[str, float, float]]] = {}
    for name, low, high, rows in strata(table):
        lens, lens_grey = rows["arc_score"].to_numpy(), grey.loc[rows.index, "arc_score"].to_numpy()
        row = [name, f"{low:g}", f"{high:g}", str(len(rows)), interval(recall, lens, other),
               interval(recall, lens_grey, other_grey)]  # fmt: skip
        row += [middle(rows[n].to_numpy(), np.nanmean) for n in ("pixel_precision", "pixel_recall")]
        out.append("| " + " | ".join(row) + " |")
        drawn.setdefault(name, []).append((f"{low:g}", recall(lens, other), recall(lens_grey, other_grey)))
    figure, axes = plt.subplots(1, len(drawn), figsize=(3.2 * len(drawn), 3), sharey=True)
    for axis, (name, points) in zip(axes, drawn.items(), strict=True):
        edges, colour, one = zip(*points, strict=True)
        axis.plot(edges, colour, "o-", label="all bands")
        axis.plot(edges, one, "s--", label="one band")
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
    out = ["| coverage, deg | lenses | by p_lens | by both |", "|---|---|---|---|"]
    other, galaxies = ranked[ranked["label"] == 0], ranked[ranked["kind"] == "lens_galaxy"]
    for low, high in ((0, 90), (90, 180), (180, 361)):
        part = galaxies[galaxies["coverage_deg"].between(low, high, inclusive="left")]
        cells = [interval(recall, part[n].to_numpy(), other[n].to_numpy()) for n in ("p_lens", "both")]
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
    """How the numbers change when the same cutout is turned, or some of its pixels are masked."""
    out = ["| cutouts | change | mean of `arc_score` | mean size | coverage within error | radius within error |",
           "|---|---|---|---|---|---|"]  # fmt: skip
    for title, cutouts in sets.items():
        unknown = [np.full(2, np.nan)] * len(cutouts)
        before = predictor.predict(cutouts, unknown)
        for name, change in (("turned or mirrored", turned), ("a tenth of the pixels masked", masked)):
            rng = np.random.default_rng(0)
            after = predictor.predict([c for c in (change(c, rng) for c in cutouts) if c is not None], unknown)
            pairs = list(zip(before, after, strict=True))
            shift = np.array([b.score - a.score for a, b in pairs])
            inside = [
                np.mean([abs(b.coverage_deg - a.coverage_deg) < a.coverage_err_deg for a, b in pairs]),
                np.mean([abs(b.theta_e_arcsec - a.theta_e_arcsec) < a.theta_e_err_arcsec for a, b in pairs]),
            ]
            out.append(f"| {len(cutouts)} {title} | {name} | {shift.mean():+.3f} | {np.abs(shift).mean():.3f} | "
                       f"{inside[0]:.2f} | {inside[1]:.2f} |")  # fmt: skip
    return out


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


def tested(data: Path, weights: Path) -> Iterator[tuple[FloatArray, Shard]]:
    """Deflectors' places and the parts of shards that the weights can be tested on."""
    for shard, keep in shards_to_test(data, load_card(weights).data):
        truth = shard.truth.iloc[keep]
        part = Shard(tuple(shard.cutouts[k] for k in keep), truth, shard.source_mask[keep])
        yield truth[["deflector_x_pix", "deflector_y_pix"]].to_numpy(float), part


def baselines(data: Path, weights: Path, classifier: Path) -> pd.DataFrame:
    """Ring filter (`hough`, and its radius' relative error), blue residual (`blue`) and `p_lens` of every cutout."""
    rows, looks = [], load_classifier(classifier)
    for _, part in tqdm(tested(data, weights), desc="baselines", unit="shard"):
        seen = network_inputs(part.cutouts, FRAME)
        pixels = torch.from_numpy(seen.pixels)
        centre = torch.full((len(pixels), 2), (FRAME.size_pix - 1) / 2)
        left = linear(without_deflector(pixels, centre)).numpy()
        flux, valid = linear(pixels[:, :N_SLOTS]).numpy(), seen.pixels[:, N_SLOTS:] > 0
        p_lens = looks.predict(part.cutouts).p_lens
        for k, cutout in enumerate(part.cutouts):
            height, radius = hough(left[k].mean(axis=0))
            theta = part.truth["theta_e_arcsec"].iloc[k] / (seen.step_pix[k] * cutout.pixel_scale_arcsec)
            rows.append((height, radius / theta - 1, blue(flux[k], valid[k]), p_lens[k]))
    return pd.DataFrame(rows, columns=["hough", "hough_wrong", "blue", "p_lens"])


def hough(residual: FloatArray) -> tuple[float, float]:
    """Height and radius in pixels of the strongest circle of edges that is centred within 3 pixels of the middle."""
    radii = np.arange(3, FRAME.size_pix // 2 - 4)
    edges = canny(np.arcsinh(residual), sigma=1.5)
    middle_of = FRAME.size_pix // 2
    near = slice(middle_of - 3, middle_of + 3)
    heights = hough_circle(edges, radii)[:, near, near].max(axis=(1, 2))
    return float(heights.max()), float(radii[heights.argmax()])


def blue(flux: FloatArray, valid: FloatArray) -> float:
    """Signal to noise of the largest patch of blue residual in an annulus; NaN without two bands.

    The red slot, scaled to the blue one within the core, is taken off the blue slot; pixels above 2 sigma between 4 and
    32 grid pixels from the middle are joined to patches (after Gavazzi et al. 2014).
    """
    if not (valid[0].any() and valid[-1].any()):
        return float("nan")
    index = np.arange(FRAME.size_pix) - (FRAME.size_pix - 1) / 2
    radius = np.hypot(index[:, None], index)
    core = radius < 3
    ratio = flux[0][core].sum() / max(flux[-1][core].sum(), 1e-6)
    left = flux[0] - ratio * flux[-1]
    outside = left[radius > 32]
    sigma = 1.4826 * np.median(np.abs(outside - np.median(outside)))
    ring = (radius > 4) & (radius < 32)
    number, _ = label((left > 2 * sigma) & ring & valid[0] & valid[-1])
    sums = np.bincount(number.ravel(), left.ravel())[1:]
    counts = np.bincount(number.ravel())[1:]
    return float((sums / np.sqrt(counts)).max(initial=0.0) / max(sigma, 1e-9))


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
