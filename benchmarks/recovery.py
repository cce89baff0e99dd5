"""Is an image that was overlooked found again? python benchmarks/recovery.py --survey DIR --truth CSV | --data DIR.

Quads with known places: real ones (a folder of images and a table with id, x_pix, y_pix, a row per image) or the quads
with four seen and resolved images of labelled data sets that the weights never learned from. Of each, every image in
turn is

- overlooked: the counter is given the other three (true places and the deflector that the detector finds) and must
  predict the fourth and find it in the pixels;
- removed: the fitted point is taken out of the pixels, and the whole stage, detector included, looks at what is left. A
  lens must still be possible, and the missing image predicted.

Printed, with 95% Wilson intervals: the share of overlooked images within the 95% search ellipse of a predicted one and
found within half a FWHM, by signal to noise; the verdicts after removal, and the share whose place is predicted. That
search ellipses are not so wide that they hold anything is seen from the same place turned about the middle of the quad
by 90, 180 and 270 degrees: the share of these that would count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import map_coordinates, spline_filter
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages.config import WEIGHTS_DIR
from stages.counter.evaluate import share
from stages.counter.photometry import Photometry, measure
from stages.counter.predict import LENS_VERDICTS, Predictor, count, load
from stages.counter.prediction import in_ellipse
from stages.dataset import native_positions, shards_to_test
from stages.ingest import IngestOptions, Survey
from stages.psf import Psf, psf_of
from stages.records import Certificate, Cutout, FloatArray
from stages.scaling import resolution_arcsec
from stages.weights import load_card

NEAR_FWHM = 0.5
KERNEL_FWHM = 3.0  # how far the shape of the other images is followed
FIT_FWHM, ROUNDS = 2.0, 3  # pixels in which a point's light is fitted; turns of light and shape
SURE = 0.9
SNR_EDGES = (5.0, 10.0, 30.0, 1e9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--survey", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR / "counter.safetensors")
    parser.add_argument("--limit", type=int, default=100_000, help="most quads")
    options = parser.parse_args()
    if (options.data is None) == (options.survey is None or options.truth is None):
        parser.error("give --data, or --survey and --truth")
    predictor = load(options.weights)
    quads = labelled(options.data, options.weights) if options.data else real(options.survey, options.truth)
    rows = []
    for k, (cutout, true) in enumerate(tqdm(quads, unit="quad")):
        if k >= options.limit:
            break
        rows += [hidden(predictor, cutout, true, image) for image in range(len(true))]
    tell(pd.DataFrame(rows))
    return 0


def hidden(predictor: Predictor, cutout: Cutout, true: FloatArray, image: int) -> dict[str, object]:
    """One image of a quad overlooked and removed."""
    (seen,) = predictor.predict([cutout])
    deflector, trust = seen.deflector_xy_pix, seen.deflector_confidence
    whole, others = measure(cutout, true, deflector), np.delete(true, image, axis=0)
    near = NEAR_FWHM * resolution_arcsec(cutout) / cutout.pixel_scale_arcsec
    told = count(cutout, others, np.full(len(others), SURE), deflector, trust, predictor.prior)
    (left,) = predictor.predict([without(cutout, whole, image)])
    place, middle = true[image], true.mean(axis=0)
    x, y = place - middle
    elsewhere = [within(left.certificate, middle + turned, near) for turned in ((-y, x), (-x, -y), (y, -x))]
    return {
        "snr": float(np.nanmax((whole.flux / whole.flux_err)[whole.detection == image], initial=0.0)),
        "predicted": within(told.certificate, place, near) or is_near(told.xy_pix, place, near),
        "found": is_near(told.xy_pix, place, near),
        "verdict": left.certificate.verdict,
        "lens": left.certificate.verdict in LENS_VERDICTS,
        "gone": not is_near(left.xy_pix, place, near),
        "others_seen": all(is_near(left.xy_pix, other, near) for other in others),
        "predicted_after": within(left.certificate, place, near),
        "elsewhere_after": float(np.mean(elsewhere)),
    }


def without(cutout: Cutout, points: Photometry, image: int) -> Cutout:
    """A cutout less what was fitted to one image, of the shape that its other images have on the average."""
    flux = cutout.flux.copy()
    gone = points.detection == image
    for column, band in enumerate(points.bands):
        plane = np.where(cutout.valid[band] & np.isfinite(cutout.flux[band]), cutout.flux[band], np.nan).astype(float)
        light, shape = np.nan_to_num(points.flux[:, column]), psf_of(cutout, band)
        for _ in range(ROUNDS):  # light and shape of all points in turn: neighbours lie on each other
            light = lights(plane, points.xy_pix, light, shape)
            shape = shape_of(plane, points.xy_pix, light, shape, gone)
        light = lights(plane, points.xy_pix, light, shape)
        flux[band] -= drawn(plane.shape, points.xy_pix[gone], light[gone], shape).astype(flux.dtype)
    return replace(cutout, flux=flux)


def lights(plane: FloatArray, xy: FloatArray, light: FloatArray, shape: Psf) -> FloatArray:
    """Light (n,) of points (n, 2) on a plane, each fitted with the others of the light that they had (n,) away."""
    out = light.copy()
    for _ in range(ROUNDS):
        for k in range(len(xy)):
            others = np.arange(len(xy)) != k
            out[k] = max(fitted(plane - drawn(plane.shape, xy[others], out[others], shape), xy[k], shape), 0.0)
    return out


def shape_of(plane: FloatArray, xy: FloatArray, light: FloatArray, psf: Psf, gone: np.ndarray) -> Psf:
    """A shape and the mean departure from it of the points (n, 2) that are not gone, each where it is the nearest."""
    half = int(np.ceil(KERNEL_FWHM * psf.fwhm_pix)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    left = plane - drawn(plane.shape, xy, light, psf)
    valid = np.isfinite(left)
    total, share = np.zeros(x.shape), np.full(x.shape, 1e-30)
    for k in np.flatnonzero(~gone):
        at = [y + xy[k, 1], x + xy[k, 0]]
        apart = [np.hypot(at[1] - cx, at[0] - cy) for cx, cy in xy]
        mine = (np.argmin(apart, axis=0) == k) * map_coordinates(valid.astype(float), at, order=1, mode="constant")
        stamp = map_coordinates(np.where(valid, left, 0.0), at, order=3, mode="nearest")
        edge = (np.abs(np.hypot(x, y) - half + 1) < 1) & (mine > SURE)
        stamp -= np.median(stamp[edge]) if edge.any() else 0.0
        total += light[k] * mine * stamp
        share += light[k] ** 2 * mine
    fade = np.clip((half - 1 - np.hypot(x, y)) / psf.fwhm_pix, 0, 1)
    kernel = psf.value(x.ravel(), y.ravel()).reshape(x.shape) + fade * total / share
    return Psf(psf.fwhm_pix, spline_filter(kernel, order=3), (float(half), float(half)))


def drawn(size: tuple[int, ...], xy: FloatArray, light: FloatArray, psf: Psf) -> FloatArray:
    """A plane (H, W) of points."""
    y, x = (a.ravel().astype(float) for a in np.indices(size))
    out = np.zeros(len(x))
    for place, amount in zip(xy, light, strict=True):
        out += amount * psf.value(x - place[0], y - place[1])
    return out.reshape(size)


def fitted(plane: FloatArray, xy: FloatArray, psf: Psf) -> float:
    """Light of the point at a place that, on a slope, fits a plane's pixels near it best."""
    y, x = np.indices(plane.shape).astype(float)
    near = (np.hypot(x - xy[0], y - xy[1]) < FIT_FWHM * psf.fwhm_pix) & np.isfinite(plane)
    dx, dy = x[near] - xy[0], y[near] - xy[1]
    design = np.stack([psf.value(dx, dy), np.ones(len(dx)), dx, dy], 1)
    return float(np.linalg.lstsq(design, plane[near], rcond=None)[0][0])


def within(judged: Certificate, place: FloatArray, near: float) -> bool:
    """Whether a place lies in the 95% search ellipse of a predicted image, or nearer to it than `near` pixels.

    The central image under the deflector is always predicted and does not count.
    """
    for k, (centre, ellipse) in enumerate(zip(judged.missing_xy_pix, judged.missing_ellipse_pix, strict=True)):
        if judged.missing_names[k] == "central_demagnified":
            continue
        if np.hypot(*(place - centre)) < near or in_ellipse(place - centre, ellipse):
            return True
    return False


def is_near(xy: FloatArray, place: FloatArray, near: float) -> bool:
    """Whether any of some positions (n, 2) lies within a distance of a place."""
    return bool(len(xy)) and bool(np.hypot(*(xy - place).T).min() < near)


def real(folder: Path, truth: Path) -> Iterator[tuple[Cutout, FloatArray]]:
    """Images of a folder with four known places."""
    table = pd.read_csv(truth, dtype={"id": str})
    for batch in Survey(folder, IngestOptions()).batches():
        for cutout in batch.cutouts:
            images = table[table["id"] == cutout.id]
            if len(images) == 4:
                yield cutout, images[["x_pix", "y_pix"]].to_numpy(float) - cutout.origin_xy_pix


def labelled(data: Path, weights: Path) -> Iterator[tuple[Cutout, FloatArray]]:
    """Simulated quads whose four images are seen and resolved."""
    for shard, keep in shards_to_test(data, load_card(weights).data):
        for k in keep:
            row = shard.truth.iloc[k]
            if row["kind"] != "lens_quasar" or row["n_images_seen"] != 4:
                continue
            shown = np.asarray(row["image_seen"], bool) & np.asarray(row["image_resolved"], bool)
            yield shard.cutouts[k], native_positions(row["image_x_pix"], row["image_y_pix"])[shown]


def tell(table: pd.DataFrame) -> None:
    """Print shares with their intervals."""
    print(f"{len(table)} images of quads, one at a time")
    for low, high in pairwise(SNR_EDGES):
        part = table[table["snr"].between(low, high, inclusive="left")]
        if len(part):
            print(f"  S/N {low:g} to {high:g}: overlooked ones predicted {said(part['predicted'])}, "
                  f"found in the pixels {said(part['found'])}")  # fmt: skip
    above = table[table["snr"] >= SNR_EDGES[0]]
    print(f"  all above S/N {SNR_EDGES[0]:g}: predicted {said(above['predicted'])}, found {said(above['found'])}")
    print(f"removed: verdicts {table['verdict'].value_counts().to_dict()}; no longer seen {said(table['gone'])}")
    print(f"  a lens is possible {said(table['lens'])}; missing image predicted {said(table['predicted_after'])},")
    seen = table[table["others_seen"]]
    print(f"  of those whose other three are seen {said(seen['predicted_after'])};", end=" ")
    print(f"turned about the quad {table['elsewhere_after'].mean():.2f} would count")


def said(hits: pd.Series) -> str:
    """A share with its interval."""
    told = share("x", int(hits.sum()), len(hits))
    return f"{told['x']:.2f} [{told['x_low']:.2f}, {told['x_high']:.2f}] ({int(hits.sum())} of {len(hits)})"


if __name__ == "__main__":
    sys.exit(main())
