"""Completeness lost from simulation to sky: python benchmarks/gap.py RUN... --truth TRUTH.csv... --data DIR.

Both are asked at one threshold on `p_lens`: what a share --fpr of the run's real non-lenses pass (truth columns id and
label, 1 lens, 0 not; --kind keeps one kind of non-lenses). Printed are the recalls of real lenses and of simulated
lensed galaxies above it, all and those as clear as the weights were trained on, and the difference; with
95% intervals by bootstrap of real lenses, real non-lenses and simulations. --weights are those of the runs (several:
each run had its own); --data are data sets of the same survey that they never saw, such as another seed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.accuracy import candidates, truths
from stages import metrics
from stages.classifier.evaluate import scored
from stages.classifier.model import unclear
from stages.config import WEIGHTS_DIR
from stages.records import FloatArray
from stages.weights import load_card

N_BOOT = 1000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--truth", type=Path, nargs="+", required=True)
    parser.add_argument("--kind", help="kind of the non-lenses that set the threshold")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, nargs="+", default=[WEIGHTS_DIR / "classifier.safetensors"])
    parser.add_argument("--fpr", type=float, default=0.01)
    options = parser.parse_args(argv)
    p, truth = candidates(options.runs)["p_lens"], truths(options.truth)
    others = truth[(truth["label"] == 0) & ((truth["kind"] == options.kind) if options.kind else True)]
    real, other = (np.nan_to_num(p.reindex(ids).to_numpy(float), nan=-1.0) for ids in (
        truth.loc[truth["label"] == 1, "id"], others["id"]))  # fmt: skip
    seen = pd.concat([scored(path, options.data) for path in options.weights])
    seen = seen[seen["kind"] == "lens_galaxy"]
    print(f"{len(real)} real lenses, {len(other)} real non-lenses, FPR {options.fpr:g}")
    print(f"real lenses: {shown([real], other, options.fpr)}")
    for name, chosen in (
        ("simulated lenses", seen),
        ("clear ones", seen[~unclear(seen, load_card(options.weights[0]).config)]),
    ):
        simulated = chosen["p_lens"].to_numpy()
        print(f"{name} ({len(simulated)}): {shown([simulated], other, options.fpr)}")
        print(f"  more than of real ones: {shown([simulated, real], other, options.fpr)}")
    return 0


def shown(lenses: list[FloatArray], other: FloatArray, fpr: float) -> str:
    """Recall of one sample of lenses above the threshold of the others, or how much it exceeds that of a second."""
    rng = np.random.default_rng(0)

    def figure(samples: list[FloatArray], against: FloatArray) -> float:
        recalls = [metrics.tpr_at_fpr(s, against, fpr) for s in samples]
        return recalls[0] - sum(recalls[1:])

    draws = [figure([rng.choice(s, len(s)) for s in lenses], rng.choice(other, len(other))) for _ in range(N_BOOT)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{figure(lenses, other):.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
