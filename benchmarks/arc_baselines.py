"""What `benchmarks/arcs.py` compares stage 3 with: a ring filter, RingFinder's blue residual, and the classifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import label
from skimage.feature import canny
from skimage.transform import hough_circle
from tqdm import tqdm

from stages.arcs.model import FRAME
from stages.classifier.predict import load as load_classifier
from stages.dataset import Shard, shards_to_test
from stages.deflector import without_deflector
from stages.records import FloatArray
from stages.scaling import N_SLOTS, network_inputs
from stages.softening import linear
from stages.weights import load_card


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
