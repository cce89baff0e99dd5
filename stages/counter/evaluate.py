"""Figures of stage 2 on labelled data sets: on test systems, or on all of a data set that it never learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from stages import config as configuration
from stages import weights as weight_files
from stages.counter.detector import CounterConfig, in_field
from stages.counter.matching import MATCH_FWHM, match_radius_pix, matched
from stages.counter.predict import load
from stages.counter.tiles import true_boxes
from stages.dataset import native_positions, shards_to_test
from stages.records import VERDICTS, FloatArray

MANY = 5  # so many points or more are counted together
LENSED_POINTS, LONE_POINTS = ("lens_quasar", "lens_supernova"), ("star", "saturated_star", "star_galaxy", "quasar")
CONFIDENCES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
STANDING_SHARE, STANDING_SNR = 0.5, (20, 50)
_CLOSE_FWHM = 0.7
_SAME_PIX = 1e-3  # a point so near to an image of the truth is that image


def evaluate(weights: Path, data_dir: Path, device: str = "cpu") -> dict[str, float]:
    """Recall and precision of points, exact counts, offsets in FWHM, deflectors, calibration, verdicts by kind.

    Points are asked for where the detector looks. exact_count_N : of cutouts with N points that can be told apart;
    _clear and _close : of those with points whose nearest are at least 1 FWHM, or 0.7 to 1 FWHM, apart, none at all
    included; _clear_points : of the former with points; _standing : of these where each makes most of the light at its
    place, and of all signal to noise;
    box_real_LOW_HIGH : share of the detections with a confidence in a range that are points; verdict_KIND_VERDICT : see
    `confusion`. Shares come with 95% Wilson intervals (`_low`, `_high`).
    """
    predictor = load(weights, device)
    card = weight_files.load_card(weights)
    min_snr = configuration.from_mapping(CounterConfig, card.config, str(weights)).min_snr
    true_points = deflectors = deflectors_found = 0
    exact: dict[str, list[bool]] = {}
    hits: list[bool] = []
    real: list[tuple[float, bool]] = []
    offsets: list[float] = []
    verdicts: dict[str, Counter[str]] = {}
    for shard, rows in shards_to_test(data_dir, card.data):
        truths = [true_boxes(shard.truth.iloc[k], shard.cutouts[k], min_snr) for k in rows]
        counts = predictor.predict([shard.cutouts[k] for k in rows])
        for k, (every, deflector), count in zip(rows, truths, counts, strict=True):
            points = every[in_field(shard.cutouts[k], every)]
            radius = match_radius_pix(shard.cutouts[k])
            good = matched(count.xy_pix, points, radius)
            real += zip(count.confidence.tolist(), good.tolist(), strict=True)
            hits += matched(points, count.xy_pix, radius).tolist()
            true_points += len(points)
            n = min(len(points), MANY)
            separation = apart(points, 2 * radius)
            names = [f"{n}", separation]
            if separation == "clear" and n:
                names += ["clear_points"]
                if (of_points(shard.truth.iloc[k], "point_share", points) > STANDING_SHARE).all():
                    snr = of_points(shard.truth.iloc[k], "point_snr", points).min()
                    names += ["standing", *(f"standing_above_{low}" for low in STANDING_SNR if snr >= low)]
            for name in names:
                exact.setdefault(name, []).append(len(points) == len(count.xy_pix))
            offsets += [float(np.hypot(*(points - xy).T).min()) / radius * MATCH_FWHM for xy in count.xy_pix[good]]
            if len(deflector):
                deflectors += 1
                deflectors_found += bool(matched(count.deflector_xy_pix[None], deflector, 2 * radius)[0])
            verdicts.setdefault(true_kind(shard.truth.iloc[k], points), Counter())[count.certificate.verdict] += 1
    right = sum(good for _, good in real)
    out: dict[str, float] = {"n_points": true_points}
    out |= share("recall", sum(hits), true_points) | share("precision", right, len(real))
    for name in sorted(exact):
        out |= share(f"exact_count_{name}", sum(exact[name]), len(exact[name]))
    out["offset_fwhm_median"] = float(np.median(offsets)) if offsets else float("nan")
    out |= share("deflector_found", deflectors_found, deflectors)
    for low, high in pairwise(CONFIDENCES):
        inside = [good for confidence, good in real if low <= confidence < high]
        out |= share(f"box_real_{low:g}_{high:g}", sum(inside), len(inside))
    return out | confusion(verdicts)


def true_kind(row: pd.Series, points: FloatArray) -> str:
    """Row of the verdicts' confusion matrix for a cutout with some points (n, 2) in the field.

    lens_1 to lens_4 : lensed point sources by their images among the points, none with one, more than four with four;
    chance_points; lone_point : a star or quasar; lens_galaxy and other_galaxy, artefacts included : without points;
    field_points : the same beside points.
    """
    kind = str(row["kind"])
    if kind in LENSED_POINTS:
        images = native_positions(row["image_x_pix"], row["image_y_pix"])
        return f"lens_{min(max(int(matched(points, images, _SAME_PIX).sum()), 1), 4)}"
    if kind == "chance_points":
        return kind
    if kind in LONE_POINTS:
        return "lone_point"
    return "field_points" if len(points) else kind if kind == "lens_galaxy" else "other_galaxy"


def confusion(verdicts: Mapping[str, Counter[str]]) -> dict[str, float]:
    """Verdicts of each true kind: verdict_KIND_n objects, the share of each verdict and its number (`_n`)."""
    out: dict[str, float] = {}
    for kind, counter in sorted(verdicts.items()):
        out[f"verdict_{kind}_n"] = counter.total()
        for verdict in VERDICTS:
            if verdict in counter or verdict != "not_run":
                out |= share(f"verdict_{kind}_{verdict}", counter[verdict], counter.total())
                out[f"verdict_{kind}_{verdict}_n"] = counter[verdict]
    return out


def of_points(row: pd.Series, column: str, points: FloatArray) -> FloatArray:
    """What the truth tells in a column of some of its points (n, 2), in cutout pixels; NaN in sets made before it."""
    if not len(points) or column not in row:
        return np.full(len(points), np.nan)
    places = native_positions(row["point_x_pix"], row["point_y_pix"])
    nearest = np.hypot(*(points[:, None] - places[None]).transpose(2, 0, 1)).argmin(1)
    return np.asarray(np.asarray(row[column], float)[nearest])


def apart(points: FloatArray, fwhm_pix: float) -> str:
    """How far apart the nearest of some points (n, 2) are."""
    nearest = min((np.hypot(*(a - b)) for a, b in combinations(points, 2)), default=np.inf) / fwhm_pix
    return "clear" if nearest >= 1.0 else "close" if nearest >= _CLOSE_FWHM else "merged"


def share(name: str, k: int, n: int) -> dict[str, float]:
    """k of n as a share with its 95% Wilson interval."""
    if n == 0:
        return {name: float("nan")}
    z, p = 1.96, k / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return {name: p, f"{name}_low": float(middle - half), f"{name}_high": float(middle + half)}
