"""What serves stage 3 best: python benchmarks/arc_networks.py --data DIR --test DIR --out DIR.

Circles, squares or both, with the deflector's light taken away or not: each of `VARIANTS` is trained from nothing,
without mining, on the data sets of --data, for --steps steps with each seed, and measured on those of --test, an unseen
seed. Printed per variant: mean and scatter over seeds of AUROC, pixel precision and recall, coverage and radius. A
training that was stopped goes on when the same command is run again; OUT/networks.csv holds one line a run.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages.arcs.evaluate import evaluate
from stages.arcs.model import FRAME, ArcsConfig, build
from stages.arcs.train import train
from stages.scaling import N_CHANNELS, N_CONDITIONS
from stages.training import Schedule, log_row

_BASE = ArcsConfig(hard_share=0.0, workers=1)
VARIANTS: dict[str, ArcsConfig] = {
    "both, light taken away": replace(_BASE, grid="both"),
    "circles, light taken away": _BASE,
    "circles": replace(_BASE, subtract=False),
    "square, light taken away": replace(_BASE, grid="square"),
    "square": replace(_BASE, grid="square", subtract=False),
}
FIGURES = (
    "auroc", "pixel_precision", "pixel_recall", "pixel_precision_at_recall_0.75", "coverage_abs_error_deg",
    "theta_e_abs_error",
)  # fmt: skip
_BATCH, _LEARNING_RATE, _TIMED = 48, 2e-3, 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled data sets")
    parser.add_argument("--test", type=Path, required=True, help="data sets of another seed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = options.out / "networks.csv"
    steps = options.steps
    schedule = Schedule(steps, _BATCH, _LEARNING_RATE, warmup_steps=steps // 8, check_steps=steps)
    for seed in options.seeds:
        for name in options.variants:
            done = pd.read_csv(table) if table.is_file() else pd.DataFrame(columns=["variant", "seed"])
            if ((done["variant"] == name) & (done["seed"] == seed)).any():
                continue
            config = replace(VARIANTS[name], seed=seed, schedule=schedule)
            run = options.out / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
            run.mkdir(parents=True, exist_ok=True)
            if not (run / "cache").exists():
                (options.out / "cache").mkdir(exist_ok=True)
                (run / "cache").symlink_to((options.out / "cache").resolve())
            figures = evaluate(train(config, options.data, run), options.test)
            row = {"variant": name, "seed": seed, "ms": ms_of(config)} | {k: figures[k] for k in FIGURES}
            log_row(table, row)
            print(row, flush=True)
    grouped = pd.read_csv(table).drop(columns="seed").groupby("variant", sort=False)
    mean, scatter = grouped.mean(), grouped.std()
    for name, row in mean.iterrows():
        print(f"\n{name} ({grouped.size()[name]} seeds)")
        for column, value in row.items():
            print(f"    {column:32s} {value:.3f} +- {scatter.loc[name, column]:.3f}")
    return 0


def ms_of(config: ArcsConfig) -> float:
    """Processor time of the network for a cutout, on one core."""
    net = build(config).eval()
    inputs = torch.randn(_TIMED, N_CHANNELS, FRAME.size_pix, FRAME.size_pix), torch.zeros(_TIMED, N_CONDITIONS)
    centre = torch.full((_TIMED, 2), (FRAME.size_pix - 1) / 2)
    with torch.inference_mode():
        net(*inputs, centre)
        begun = time.process_time()
        net(*inputs, centre)
    return round(1000 * (time.process_time() - begun) / _TIMED, 2)


if __name__ == "__main__":
    sys.exit(main())
