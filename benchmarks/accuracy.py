"""Figures of a scan against a truth table: python benchmarks/accuracy.py RUN_DIR... --truth TRUTH.csv...

What is printed depends on the truth's columns: `label` (1 lens, 0 not; other kinds of non-lenses by the column `kind`)
gives ranking figures, `x_pix, y_pix` (a row per image) gives image counts, `theta_e_arcsec` gives Einstein radii. An
object without a score counts as ranked last, one without a count or radius as wrong. Intervals are 95%, by bootstrap,
of counts by Wilson's formula. With --images, the runs' input folders, image counts say how many lie within half a FWHM,
and --sheet writes a picture: the lenses with the lowest scores, then the non-lenses with the highest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages import metrics
from stages.classifier.model import FRAME
from stages.config import CONFIG_DIR
from stages.counter.evaluate import share
from stages.ingest import IngestOptions, Survey
from stages.mining import contact_sheet
from stages.records import Cutout, FloatArray
from stages.scaling import network_inputs, resolution_arcsec
from stages.survey import read as read_survey

N_BOOT, N_SHOWN = 1000, 12


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--truth", type=Path, nargs="+", required=True)
    parser.add_argument("--by", default="score", help="column that ranks, such as p_lens")
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="folders that were scanned")
    parser.add_argument("--catalogue", type=Path, nargs="+", default=[], help="their catalogues, in the same order")
    parser.add_argument("--survey", help="name in configs/surveys, for images that do not say")
    parser.add_argument("--sheet", type=Path, help="picture of misses and false positives to write; needs --images")
    options = parser.parse_args(argv)
    if options.sheet and not options.images:
        parser.error("--sheet needs --images: name the folders that were scanned")
    rows, truth = candidates(options.runs), truths(options.truth)
    odd = rows["reason"].fillna("").str.contains("out_of_domain")
    print(
        f"p_lens above 0.5: {(rows['p_lens'] > 0.5).mean():.3f}; selected: {rows['selected'].mean():.3f}; "
        f"out_of_domain: {odd.mean():.3f} of {len(rows)}"
    )
    if "label" in truth:
        known = truth[truth["label"].isin([0, 1])]
        ranking(rows, options.by, known)
        if options.sheet:
            sheet(rows, options.by, known, options)
    if {"x_pix", "y_pix"} <= set(truth):
        counts(rows, truth, {c.id: c for c in cutouts(options)})
    if "theta_e_arcsec" in truth:
        radii(rows, truth[truth["theta_e_arcsec"].notna()])
    return 0


def candidates(runs: Sequence[Path]) -> pd.DataFrame:
    """The candidates of several runs by id."""
    rows = pd.concat([pd.read_parquet(run / "candidates.parquet") for run in runs]).set_index("id")
    return rows[~rows.index.duplicated()]


def truths(paths: Sequence[Path]) -> pd.DataFrame:
    """The rows of several truth tables, columns in lower case."""
    truth = pd.concat([pd.read_csv(path, dtype={"id": str}) for path in paths])
    truth.columns = truth.columns.str.lower()
    return truth


def ranking(rows: pd.DataFrame, by: str, truth: pd.DataFrame) -> None:
    """How many of each kind were looked at and are above one half; AUROC and recalls against each kind of non-lens."""
    score, looked = (rows[name].reindex(truth["id"]).to_numpy(float) for name in (by, "n_images"))
    print(f"without a score: {int(np.isnan(score).sum())} of {len(truth)}")
    score = np.where(np.isnan(score), -1.0, score)
    label = truth["label"].to_numpy(int)
    kind = truth["kind"].fillna("").to_numpy(str) if "kind" in truth else np.full(len(truth), "non-lens")
    lens = score[label == 1]
    for name in sorted(set(kind)):
        here = kind == name
        print(
            f"{name or 'no kind'}: {int(here.sum())}, stages 2 and 3 looked at {int(np.isfinite(looked[here]).sum())}, "
            f"{by} above 0.5 for {int((score[here] > 0.5).sum())}, point-like images in {int((looked[here] > 0).sum())}"
        )
    if not len(lens):
        return
    for name in sorted(set(kind[label == 0])):
        other = score[(label == 0) & (kind == name)]
        for what, figure in (
            ("AUROC", metrics.auroc),
            ("recall at FPR 1%", lambda a, b: metrics.tpr_at_fpr(a, b, 0.01)),
            ("recall at FPR 2%", lambda a, b: metrics.tpr_at_fpr(a, b, 0.02)),
            ("TPR0", lambda a, b: metrics.tpr_at_fpr(a, b, 0.0)),
        ):
            low, high = metrics.bootstrap(figure, lens, other, np.random.default_rng(0), N_BOOT)
            print(f"{what} vs {name}: {figure(lens, other):.3f} [{low:.3f}, {high:.3f}] ({len(lens)} vs {len(other)})")


def cutouts(options: argparse.Namespace) -> Iterator[Cutout]:
    """Every cutout of --images."""
    survey = read_survey(CONFIG_DIR / "surveys" / f"{options.survey}.yaml") if options.survey else None
    for k, folder in enumerate(options.images):
        catalogue = options.catalogue[k] if options.catalogue else None
        for batch in Survey(folder, IngestOptions(catalogue, survey, workers=0)).batches():
            yield from batch.cutouts


def sheet(rows: pd.DataFrame, by: str, truth: pd.DataFrame, options: argparse.Namespace) -> None:
    """Write the picture of what goes wrong, and print whose it is."""
    ranked = truth.assign(score=rows[by].reindex(truth["id"]).fillna(-1.0).to_numpy()).sort_values("score")
    misses = ranked[ranked["label"] == 1]["id"].head(N_SHOWN).tolist()
    false = ranked[ranked["label"] == 0]["id"].tail(N_SHOWN).tolist()[::-1]
    wanted = {c.id: c for c in cutouts(options) if c.id in {*misses, *false}}
    shown = [wanted[name] for name in (*misses, *false) if name in wanted]
    contact_sheet(network_inputs(shown, FRAME).pixels.astype(np.float16), options.sheet)
    print(f"{options.sheet}: misses {', '.join(misses)}; false positives {', '.join(false)}")


def counts(rows: pd.DataFrame, truth: pd.DataFrame, images: dict[str, Cutout]) -> None:
    """Objects with the right number of images, images found within half the least separation and FWHM, verdicts."""
    exact, found, near, total, verdicts = 0, 0, 0, 0, []
    for name, own in truth.groupby("id"):
        true = own[["x_pix", "y_pix"]].to_numpy(float)
        total += len(true)
        if name not in rows.index:
            continue
        row = rows.loc[name]
        seen = np.column_stack([row["image_x_pix"], row["image_y_pix"]]).reshape(-1, 2)
        apart = min(np.hypot(*(a - b)) for k, a in enumerate(true) for b in true[k + 1 :])
        off = np.array([np.hypot(*(seen - a).T).min() if len(seen) else np.inf for a in true])
        found += int((off < 0.5 * apart).sum())
        if name in images:
            near += int((off < 0.5 * resolution_arcsec(images[name]) / images[name].pixel_scale_arcsec).sum())
        exact += int(row["n_images"] == len(true))
        verdicts.append(row["theorem_verdict"])
    told = share("exact", exact, truth["id"].nunique())
    print(f"exact counts: {exact} of {truth['id'].nunique()}, "
          f"{told['exact']:.2f} [{told['exact_low']:.2f}, {told['exact_high']:.2f}]; images found: {found} of {total}"
          + (f", within half a FWHM {near}" if images else ""))  # fmt: skip
    print("verdicts:", pd.Series(verdicts).value_counts().to_dict())


def radii(rows: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Errors of the Einstein radius and the share of true values inside the 68% interval."""
    known = rows.reindex(truth["id"])
    true = truth["theta_e_arcsec"].to_numpy(float)
    error = (known["theta_e_arcsec"].to_numpy(float) - true) / true
    inside = np.abs(error * true) <= known["theta_e_err_arcsec"].to_numpy(float)
    print(
        f"Einstein radius: median |error| {interval(np.nan_to_num(np.abs(error), nan=1.0), np.median)} of {len(true)}"
    )
    print(f"  bias {interval(error[np.isfinite(error)], np.median)}")
    print(f"  inside the 68% interval {interval(inside.astype(float), np.mean)}")
    print(f"  within 20%: {int((np.abs(error) <= 0.2).sum())} of {len(true)}")


def interval(values: FloatArray, figure: object) -> str:
    """A figure with its bootstrap interval, as text."""
    assert callable(figure)  # mean or median
    rng = np.random.default_rng(0)
    low, high = np.percentile([figure(rng.choice(values, len(values))) for _ in range(N_BOOT)], [2.5, 97.5])
    return f"{figure(values):.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
