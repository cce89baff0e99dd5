"""How much p_lens changes when the same object is seen turned, at another pixel scale, with a band less or masked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.changes import CHANGES
from stages.classifier.predict import Predictor
from stages.records import Cutout


def shifts(predictor: Predictor, cutouts: Sequence[Cutout], seed: int = 0) -> dict[str, float]:
    """Mean change of p_lens, signed and absolute, under each of `CHANGES`: shift_NAME and shift_abs_NAME."""
    before = predictor.predict(cutouts).p_lens
    out: dict[str, float] = {}
    for name, change in CHANGES.items():
        rng = np.random.default_rng(seed)
        changed = [change(c, rng) for c in cutouts]
        kept = [k for k, c in enumerate(changed) if c is not None]
        if not kept:
            continue
        after = predictor.predict([c for c in changed if c is not None]).p_lens
        difference = after - before[kept]
        out[f"shift_{name}"] = float(difference.mean())
        out[f"shift_abs_{name}"] = float(np.abs(difference).mean())
    return out
