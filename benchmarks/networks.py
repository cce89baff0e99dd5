"""Which network, loss and augmentations serve stage 1: python benchmarks/networks.py --data DIR --test DIR --out DIR.

Every variant is trained on the same data from nothing, for the same processor time (its number of steps is set by the
time that one of them takes), with each seed; --variants names some of `VARIANTS`. Printed per variant, as mean and
scatter over seeds: AUROC and recall at FPR 1% on the test systems of --test (simulations of an unseen seed), and on the
real images of --real NAME=DIR=TRUTH.csv (columns id and label, 1 lens, 0 not; rows without label are left out). A
training that was stopped goes on when the same command is run again; OUT/networks.csv holds one line a run.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages import metrics
from stages.augment import Augmentation
from stages.classifier.evaluate import scored
from stages.classifier.model import FRAME, ClassifierConfig
from stages.classifier.networks import NETWORKS, build
from stages.classifier.predict import load
from stages.classifier.train import train
from stages.ingest import IngestOptions, Survey
from stages.scaling import N_CHANNELS, N_CONDITIONS
from stages.training import Schedule, log_row

_BASE = ClassifierConfig(members=1, min_arc_snr=30.0, workers=1)
_ALL = Augmentation()
VARIANTS: dict[str, ClassifierConfig] = {
    **{name: replace(_BASE, network=name) for name in NETWORKS},
    "compact, no label smoothing": replace(_BASE, label_smoothing=0.0),
    "compact, focal loss": replace(_BASE, label_smoothing=0.0, focal_gamma=2.0),
    "compact, no hard mining": replace(_BASE, hard_share=0.0),
    "compact, no centring": replace(_BASE, augmentation=replace(_ALL, shift_pix=0)),
    "compact, no turning and pixel scale": replace(_BASE, augmentation=replace(_ALL, turn_chance=0.0)),
    "compact, no zero points": replace(_BASE, augmentation=replace(_ALL, colour_sigma=0.0)),
    "compact, no depth and stretch": replace(_BASE, augmentation=replace(_ALL, depth_sigma=0.0)),
    "compact, no added noise": replace(_BASE, augmentation=replace(_ALL, noise_chance=0.0)),
    "compact, no PSF broadening": replace(_BASE, augmentation=replace(_ALL, blur_chance=0.0)),
    "compact, no band drop": replace(_BASE, augmentation=replace(_ALL, grey_chance=0.0, drop_chance=0.0)),
    "compact, no mask patches": replace(_BASE, augmentation=replace(_ALL, patch_chance=0.0)),
}
_BATCH = 128
_RATE_BATCH = 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled data sets")
    parser.add_argument("--test", type=Path, required=True, help="data sets of another seed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", nargs="*", default=[], metavar="NAME=DIR=TRUTH.csv")
    parser.add_argument("--variants", nargs="+", default=list(NETWORKS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=3.0, help="processor time of each training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    named = (entry.split("=") for entry in options.real)
    real = {name: labelled(Path(folder), Path(truth)) for name, folder, truth in named}
    table = options.out / "networks.csv"
    done = pd.read_csv(table) if table.is_file() else pd.DataFrame(columns=["variant", "seed"])
    for seed in options.seeds:  # every variant once before the next seed
        for name in options.variants:
            if ((done["variant"] == name) & (done["seed"] == seed)).any():
                continue
            row = trained(name, seed, options, real)
            log_row(table, row)
            print(row, flush=True)
    show(pd.read_csv(table))
    return 0


def labelled(folder: Path, truth: Path) -> tuple[list, np.ndarray]:
    """Cutouts of a folder that a truth table labels 0 or 1, and their labels."""
    rows = pd.read_csv(truth)
    label = rows.dropna(subset=["label"]).astype({"id": str}).drop_duplicates("id").set_index("id")["label"]
    catalogue = truth if {"ra_deg", "dec_deg"} <= set(rows) else None
    survey = Survey(folder, IngestOptions(catalogue, None, 12.0, workers=0))
    cutouts = [c for batch in survey.batches() for c in batch.cutouts if c.id in label.index]
    return cutouts, label.loc[[c.id for c in cutouts]].to_numpy(float)


def trained(name: str, seed: int, options: argparse.Namespace, real: dict) -> dict[str, object]:
    """Train one variant with one seed; a line of the table."""
    config = VARIANTS[name]
    seconds, rate = speed(config.network)
    steps = max(50, round(60 * options.minutes / seconds))
    schedule = Schedule(steps, _BATCH, check_steps=-(-steps // 2), warmup_steps=min(200, steps // 8))
    run = options.out / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "cache").exists():
        (options.out / "cache").mkdir(exist_ok=True)
        (run / "cache").symlink_to((options.out / "cache").resolve())
    weights = run / "classifier.safetensors"
    if not weights.is_file():
        train(replace(config, seed=seed, schedule=schedule), options.data, run)
    rows = scored(weights, options.test)
    figures = shown("test", *(rows.loc[rows["label"] == v, "p_lens"].to_numpy() for v in (1, 0)))
    predictor = load(weights)
    for survey, (cutouts, label) in real.items():
        p = predictor.predict(cutouts).p_lens
        figures |= shown(survey, p[label == 1], p[label == 0])
    parameters = sum(p.numel() for p in predictor.members[0].parameters())
    made = {"variant": name, "seed": seed, "steps": steps, "parameters": parameters, "cutouts_per_s": round(rate)}
    return made | figures


def shown(name: str, lens: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """AUROC and recall at FPR 1%."""
    return {
        f"auroc_{name}": round(metrics.auroc(lens, other), 4),
        f"recall_{name}": round(metrics.tpr_at_fpr(lens, other, 0.01), 4),
    }


def speed(network: str) -> tuple[float, float]:
    """Processor seconds of a training step, and cutouts/s of one look, on one core."""
    net = build(network).to(memory_format=torch.channels_last)
    pixels = torch.randn(_RATE_BATCH, N_CHANNELS, FRAME.size_pix, FRAME.size_pix)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    conditions = torch.zeros(_RATE_BATCH, N_CONDITIONS)
    times = []
    for _ in range(6):
        begun = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            logit = net(pixels[:_BATCH], conditions[:_BATCH])
        logit.float().square().mean().backward()
        times.append(time.process_time() - begun)
    net.eval()
    with torch.inference_mode():
        net(pixels, conditions)
        begun = time.process_time()
        net(pixels, conditions)
        rate = _RATE_BATCH / (time.process_time() - begun)
    return float(np.median(times)) * 1.3, rate  # augmentations and validation take about a third more


def show(table: pd.DataFrame) -> None:
    """Mean and scatter over seeds, a line per variant."""
    grouped = table.drop(columns="seed").groupby("variant", sort=False)
    mean, scatter = grouped.mean(), grouped.std()
    for name, row in mean.iterrows():
        million = row["parameters"] / 1e6
        print(f"\n{name}: {row['steps']:.0f} steps, {million:.2f} M parameters, {row['cutouts_per_s']:.0f}/s")
        for column in row.index[3:]:
            print(f"    {column:28s} {row[column]:.3f} +- {scatter.loc[name, column]:.3f}")


if __name__ == "__main__":
    sys.exit(main())
