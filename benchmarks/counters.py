"""The point counter beside classical ones: python benchmarks/counters.py --data DIR [--weights FILE] [--limit N].

The same cutouts of labelled data sets that the weights never learned from (see `stages.dataset.shards_to_test`) are
given to the counter of this project (detector and joint fit), to photutils' DAOStarFinder alone and followed by
IterativePSFPhotometry with a Gaussian PSF, and to sep with deblending; these see the band with the best-seen point,
told its PSF. Counted are points of 5 sigma and more where the counter looks (`stages.counter.detector.in_field`); of
two closer than 0.6 FWHM the brighter. A point is found by a detection within half a FWHM. Printed, from the ground and
from space apart: recall, share of detections that are points, share of cutouts with the right count, median offset;
and recall by S/N, separation from the nearest other point, contrast to the brightest pixel of the deflector's place,
share of the light at its place that is the point's, and number of points; with 95% Wilson intervals.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sep
from astropy.stats import mad_std
from astropy.table import QTable
from photutils.background import LocalBackground
from photutils.detection import DAOStarFinder
from photutils.psf import CircularGaussianPRF, IterativePSFPhotometry
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages.config import WEIGHTS_DIR
from stages.counter.detector import in_field
from stages.counter.evaluate import of_points, share
from stages.counter.matching import match_radius_pix, matched
from stages.counter.predict import load
from stages.counter.tiles import true_boxes
from stages.dataset import shards_to_test
from stages.records import Cutout, FloatArray
from stages.scaling import resolution_arcsec
from stages.weights import load_card

MIN_SNR = 5.0
STRATA = {
    "snr": (5, 10, 20, 50, np.inf),
    "separation_fwhm": (0.6, 1.0, 1.5, 2.5, 1e9),
    "contrast": (0, 0.3, 1, 3, np.inf),
    "share": (0, 0.2, 0.5, 0.8, 1.01),
    "points": (1, 2, 3, 4, 5, np.inf),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, nargs="+", default=[WEIGHTS_DIR / "counter.safetensors"])
    parser.add_argument("--limit", type=int, default=100_000, help="most cutouts")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # photutils warns of every cutout without a source
    counters: dict[str, Callable[[Cutout], FloatArray]] = {}
    for path in options.weights:
        predictor = load(path)
        counters[f"oddlens {path.parent.name}/{path.name}"] = lambda c, p=predictor: p.predict([c])[0].xy_pix
    counters |= {"DAOStarFinder": dao, "DAOStarFinder, iterative PSF": iterative, "sep": by_sep}
    points, cutouts = [], []
    for cutout, true, row in tqdm(sample(options.data, load_card(options.weights[0]).data, options.limit)):
        radius = match_radius_pix(cutout)
        where = "ground" if resolution_arcsec(cutout) >= 0.3 else "space"
        for name, counter in counters.items():
            begun = time.process_time()
            found = np.asarray(counter(cutout), float).reshape(-1, 2)
            seconds = time.process_time() - begun
            found = found[in_field(cutout, found)]
            good = matched(found, true, radius)
            hit = matched(true, found, radius)
            cutouts.append((name, where, len(true) == len(found), len(found), int(good.sum()), seconds))
            snr, part = (of_points(row, column, true) for column in ("point_snr", "point_share"))
            for k, xy in enumerate(true):
                others = np.delete(true, k, axis=0)
                apart = np.hypot(*(others - xy).T).min() / (2 * radius) if len(others) else 1e8
                offset = np.hypot(*(found - xy).T).min() / (2 * radius) if hit[k] else np.nan
                points.append((name, where, hit[k], offset, snr[k], apart, contrast(cutout, xy), part[k], len(true)))
    seen = pd.DataFrame(points, columns=["counter", "where", "hit", "offset", *STRATA])
    whole = pd.DataFrame(cutouts, columns=["counter", "where", "exact", "found", "real", "seconds"])
    for (where, name), rows in whole.groupby(["where", "counter"], sort=False):
        here = seen[(seen["where"] == where) & (seen["counter"] == name)]
        print(f"\n{where}, {name}: {len(rows)} cutouts, {len(here)} points, {1e3 * rows['seconds'].mean():.1f} ms each")
        print(f"  recall {said(here['hit'])}; precision {of(rows['real'].sum(), rows['found'].sum())}; exact count "
              f"{said(rows['exact'])}; offset {here['offset'].median():.3f} FWHM")  # fmt: skip
        for stratum, edges in STRATA.items():
            parts = pd.cut(here[stratum], edges, right=False)
            told = (f"{part.left:g}: {said(some['hit'])}" for part, some in here.groupby(parts, observed=True))
            print(f"  recall by {stratum} from {', '.join(told)}")
    return 0


def sample(data: Path, learned: dict[str, Any], limit: int) -> Iterator[tuple[Cutout, FloatArray, pd.Series]]:
    """Cutouts, their true points (n, 2) and their rows of truth."""
    n = 0
    for shard, rows in shards_to_test(data, learned):
        for k in rows:
            row, cutout = shard.truth.iloc[k], shard.cutouts[k]
            if n == limit:
                return
            n += 1
            true = true_boxes(row, cutout, MIN_SNR)[0]
            yield cutout, true[in_field(cutout, true)], row


def contrast(cutout: Cutout, xy: FloatArray) -> float:
    """Brightness at a point over that at the object's place, in the sharpest band."""
    image = cutout.flux[band_of(cutout)]
    here, middle = (
        image[tuple(np.clip(np.round(p[::-1]).astype(int), 0, np.array(image.shape) - 1))] for p in (xy, cutout.xy_pix)
    )
    return float(here / middle) if middle > 0 else np.inf


def band_of(cutout: Cutout) -> int:
    """The band with the largest peak over its noise."""
    peaks = [
        np.nanmax(np.where(v, f, np.nan)) / (mad_std(f[v]) + 1e-30)
        for f, v in zip(cutout.flux, cutout.valid, strict=True)
    ]
    return int(np.argmax(peaks))


def plane(cutout: Cutout) -> tuple[FloatArray, float, float]:
    """Image without sky, its noise and the FWHM of its PSF in pixels."""
    k = band_of(cutout)
    image, valid = cutout.flux[k].astype(float), cutout.valid[k]
    sky = np.median(image[valid])
    low = image[valid & (image < sky)]
    noise = float(np.sqrt(np.mean((low - sky) ** 2))) if low.size else 1.0
    seeing = cutout.psf_fwhm_arcsec[k] if np.isfinite(cutout.psf_fwhm_arcsec[k]) else resolution_arcsec(cutout)
    return np.where(valid, image - sky, 0.0), max(noise, 1e-30), max(float(seeing) / cutout.pixel_scale_arcsec, 1.2)


def dao(cutout: Cutout) -> FloatArray:
    """Photutils' DAOStarFinder at 5 sigma."""
    image, noise, fwhm = plane(cutout)
    found = DAOStarFinder(MIN_SNR * noise / fwhm, fwhm)(image)
    return np.empty((0, 2)) if found is None else np.column_stack([found["x_centroid"], found["y_centroid"]])


def iterative(cutout: Cutout) -> FloatArray:
    """The same, its stars fitted, subtracted and looked for again."""
    image, noise, fwhm = plane(cutout)
    model = CircularGaussianPRF(fwhm=fwhm)
    size = int(2 * round(fwhm) + 1)
    fit = IterativePSFPhotometry(
        model, (size, size), DAOStarFinder(MIN_SNR * noise / fwhm, fwhm), aperture_radius=fwhm, maxiters=3,
        localbkg_estimator=LocalBackground(2 * fwhm, 4 * fwhm),
    )  # fmt: skip
    try:
        out: QTable | None = fit(image, error=np.full(image.shape, noise))
    except (ValueError, TypeError):  # nothing left that it can fit
        return dao(cutout)
    if out is None:
        return np.empty((0, 2))
    good = (np.asarray(out["flux_fit"]) > MIN_SNR * np.asarray(out["flux_err"])) & np.isfinite(out["x_fit"])
    return np.column_stack([out["x_fit"], out["y_fit"]])[good]


def by_sep(cutout: Cutout) -> FloatArray:
    """SExtractor's deblending at 1.5 sigma a pixel, as is common."""
    image, noise, _ = plane(cutout)
    found = sep.extract(np.ascontiguousarray(image), 1.5, err=noise, minarea=5, deblend_nthresh=64, deblend_cont=0.001)
    return np.column_stack([found["x"], found["y"]])


def of(k: int, n: int) -> str:
    """A share with its interval, as text."""
    made = share("s", int(k), int(n))
    return f"{made['s']:.2f} [{made.get('s_low', np.nan):.2f}, {made.get('s_high', np.nan):.2f}]"


def said(hits: pd.Series) -> str:
    """Of a column of hits."""
    return of(hits.sum(), len(hits))


if __name__ == "__main__":
    sys.exit(main())
