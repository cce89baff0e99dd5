"""Figures of stage 2 on the test systems of labelled data sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from stages import config as configuration
from stages import weights as weight_files
from stages.counter.detector import CounterConfig
from stages.counter.predict import load
from stages.counter.train import held_out, match_radius_pix, matched


def evaluate(weights: Path, data_dir: Path, device: str = "cpu") -> dict[str, float]:
    """Precision and recall of points, exact counts by true number, offsets in FWHM, deflectors, verdicts.

    Shares come with 95% Wilson intervals (`_low`, `_high`).
    """
    predictor = load(weights, device)
    config = configuration.from_mapping(CounterConfig, weight_files.load_card(weights).config, str(weights))
    hits = wrong = true_points = deflectors = deflectors_found = 0
    exact: dict[int, list[bool]] = {}
    offsets: list[float] = []
    verdicts: Counter[str] = Counter()
    for cutouts, truths in held_out(data_dir, "test", config.min_snr):
        for cutout, (points, deflector), count in zip(cutouts, truths, predictor.predict(cutouts), strict=True):
            radius = match_radius_pix(cutout)
            good = matched(count.xy_pix, points, radius)
            hits, wrong, true_points = hits + int(good.sum()), wrong + int((~good).sum()), true_points + len(points)
            exact.setdefault(min(len(points), 5), []).append(len(points) == len(count.xy_pix))
            for position in count.xy_pix[good]:
                offsets.append(float(np.hypot(*(points - position).T).min()) / radius * 0.5)
            if len(deflector):
                deflectors += 1
                deflectors_found += bool(matched(count.deflector_xy_pix[None], deflector, 2 * radius)[0])
            if len(points) == 4:
                verdicts[count.certificate.verdict] += 1
    out: dict[str, float] = {"n_points": true_points}
    out |= share("recall", hits, true_points) | share("precision", hits, hits + wrong)
    for number in sorted(exact):
        out |= share(f"exact_count_{number}{'_or_more' if number == 5 else ''}", sum(exact[number]), len(exact[number]))
    out["offset_fwhm_median"] = float(np.median(offsets)) if offsets else float("nan")
    out |= share("deflector_found", deflectors_found, deflectors)
    for verdict, number in sorted(verdicts.items()):
        out |= share(f"four_points_{verdict}", number, sum(verdicts.values()))
    return out


def share(name: str, k: int, n: int) -> dict[str, float]:
    """k of n as a share with its 95% Wilson interval."""
    if n == 0:
        return {name: float("nan")}
    z, p = 1.96, k / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return {name: p, f"{name}_low": float(middle - half), f"{name}_high": float(middle + half)}
