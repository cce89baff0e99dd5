"""How a finder does on lenses of different kinds: recall of lensed galaxies by what they look like."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd

from stages import metrics
from stages.records import FloatArray

TRUTH_COLUMNS = [
    "label", "kind", "theta_e_arcsec", "seeing_arcsec", "arc_snr", "arc_contrast", "coverage_deg", "n_images"
]  # fmt: skip
STRATA: dict[str, tuple[float, ...]] = {
    "theta_e_over_seeing": (0.0, 0.7, 1.0, 1.5, 2.0, 3.0, np.inf),
    "arc_snr": (0.0, 20.0, 40.0, 80.0, 160.0, np.inf),
    "arc_contrast": (0.0, 0.1, 0.3, 1.0, 3.0, np.inf),
    "coverage_deg": (0.0, 30.0, 60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 361.0),
    "n_images": (0, 2, 3, 4, 5, np.inf),
}
FIGURES: dict[str, Callable[[FloatArray, FloatArray], float]] = {
    "recall": lambda lens, other: metrics.tpr_at_fpr(lens, other, 0.01),
    "auroc": metrics.auroc,
    "tpr0": lambda lens, other: metrics.tpr_at_fpr(lens, other, 0.0),
    "tpr10": metrics.tpr10,
}
_N_BOOTSTRAP = 300


def with_strata(truth: pd.DataFrame) -> pd.DataFrame:
    """Truth with the columns of `STRATA` that are not in it as they are."""
    return truth.assign(theta_e_over_seeing=truth["theta_e_arcsec"] / truth["seeing_arcsec"])


def strata(table: pd.DataFrame) -> list[tuple[str, float, float, pd.DataFrame]]:
    """Name, lower and upper edge and the lensed galaxies of every stratum that has any."""
    lenses = table[table["kind"] == "lens_galaxy"]
    cut = [
        (name, low, high, lenses[lenses[name].between(low, high, inclusive="left")])
        for name, edges in STRATA.items()
        for low, high in pairwise(edges)
    ]
    return [part for part in cut if len(part[3])]


def by_stratum(table: pd.DataFrame, column: str, rng: np.random.Generator) -> dict[str, float]:
    """Of lensed galaxies by `STRATA` against all non-lenses: recall where 1% of these pass, AUROC, TPR0 and TPR10.

    With intervals; keys are FIGURE_STRATUM_LOW_HIGH, and recall_STRATUM_LOW_HIGH_n how many lenses there are.
    """
    other = table.loc[table["label"] == 0, column].to_numpy()
    out: dict[str, float] = {}
    if not len(other):
        return out
    for name, low, high, lenses in strata(table):
        score = lenses[column].to_numpy()
        for figure, of in FIGURES.items():
            key = f"{figure}_{name}_{low:g}_{high:g}"
            out[key] = of(score, other)
            out[f"{key}_low"], out[f"{key}_high"] = metrics.bootstrap(of, score, other, rng, _N_BOOTSTRAP)
        out[f"recall_{name}_{low:g}_{high:g}_n"] = len(score)
    return out
