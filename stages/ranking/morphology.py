"""One word for what a candidate looks like, from the counter's and the arc stage's numbers."""

from __future__ import annotations

import numpy as np

from stages.records import Candidate

_RING_DEG = 270.0
_COUNT_WORDS = {2: "double", 3: "triple", 4: "quad"}


def morphology(row: Candidate, arc_threshold: float) -> str:
    """Ring, arc, quad, triple, double, a union such as "quad+arc", "none", or "" where no stage looked."""
    if not np.isfinite(row.arc_score) and not np.isfinite(row.n_images):
        return ""
    words = []
    if np.isfinite(row.n_images) and row.theorem_verdict not in ("inconsistent", "not_run"):
        word = _COUNT_WORDS.get(int(row.n_images))
        words += [word] if word else []
    if np.isfinite(row.arc_score) and row.arc_score >= arc_threshold and row.arc_coverage_deg > 0:
        words.append("ring" if row.arc_coverage_deg >= _RING_DEG else "arc")
    return "+".join(words) or "none"
