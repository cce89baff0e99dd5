"""What serves stage 1 best: python benchmarks/training.py --data DIR --test DIR --out DIR.

Networks, losses and augmentations are compared: every variant is trained on the same data from nothing, for the same
processor time (its number of steps is set by the time that one of them takes), with each seed; --variants names some of
`VARIANTS`. To compare data instead, run again with other --data and --name, and the same --out. Printed per variant, as
mean and scatter over seeds: AUROC and recall at FPR 1% on the test systems of --test (simulations of an unseen seed;
lenses as visible as those trained on), on --held-out (data sets of other sky, all systems), and on the real images of
--real NAME=DIR=TRUTH.csv (columns id and label, 1 lens, 0 not; rows without label are left out). With --renormalise
DATA each network is also scored after its batch normalisation has seen nothing but the non-lenses of those data sets
(Li et al. 2016); with --pseudo DATA another is trained on --data and on those data sets, whose cutouts take for labels
what the first network is sure of (Lee 2013). The variant that stops early watches --validation, such as lenses painted
on real fields that nothing else shows, at each twelfth of its steps. A training that was stopped goes on when the same
command is run again; OUT/training.csv holds one line a run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages import metrics
from stages import weights as weight_files
from stages.augment import Augmentation
from stages.cache import Cached, batches, cached
from stages.classifier.evaluate import scored
from stages.classifier.model import FRAME, ClassifierConfig
from stages.classifier.networks import NETWORKS, build, logits_of
from stages.classifier.predict import load
from stages.classifier.train import train, usable
from stages.dataset import data_sets, read_manifest
from stages.ingest import IngestOptions, Survey
from stages.records import Cutout, FloatArray
from stages.scaling import N_CHANNELS, N_CONDITIONS
from stages.training import Schedule, answer, log_row

_BASE = ClassifierConfig(members=1, min_arc_snr=60.0, min_arc_contrast=0.3, hard_share=0.0, workers=1)
_ALL = Augmentation()
VARIANTS: dict[str, ClassifierConfig] = {
    **{name: replace(_BASE, network=name) for name in NETWORKS},
    "compact, early stopping": replace(_BASE, schedule=Schedule(patience=2)),
    "compact, no label smoothing": replace(_BASE, label_smoothing=0.0),
    "compact, focal loss": replace(_BASE, label_smoothing=0.0, focal_gamma=2.0),
    "compact, hard mining": replace(_BASE, hard_share=0.5),
    "compact, no centring": replace(_BASE, augmentation=replace(_ALL, shift_pix=0)),
    "compact, no turning and pixel scale": replace(_BASE, augmentation=replace(_ALL, turn_chance=0.0)),
    "compact, no zero points": replace(_BASE, augmentation=replace(_ALL, colour_sigma=0.0)),
    "compact, no depth and stretch": replace(_BASE, augmentation=replace(_ALL, depth_sigma=0.0)),
    "compact, no added noise": replace(_BASE, augmentation=replace(_ALL, noise_chance=0.0)),
    "compact, no PSF broadening": replace(_BASE, augmentation=replace(_ALL, blur_chance=0.0)),
    "compact, no band drop": replace(_BASE, augmentation=replace(_ALL, grey_chance=0.0, drop_chance=0.0)),
    "compact, no mask patches": replace(_BASE, augmentation=replace(_ALL, patch_chance=0.0)),
}
Real = dict[str, tuple[list[Cutout], FloatArray]]
_BATCH = 128
_LEARNING_RATE = 5e-3  # twice the default: these trainings are short
_RATE_BATCH = 256
_CHECKS = 12  # of a training that can stop early
_RENORMALISE = 2048  # cutouts whose statistics are taken
_SURE = 0.9  # probability of a class from which on it is taken for a label


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled data sets")
    parser.add_argument("--test", type=Path, required=True, help="data sets of another seed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", nargs="*", default=[], metavar="NAME=DIR=TRUTH.csv")
    parser.add_argument("--held-out", type=Path, help="labelled data sets of sky that nothing in --data shows")
    parser.add_argument(
        "--renormalise", type=Path, metavar="DATA", help="data sets whose non-lenses are unlabelled sky"
    )
    parser.add_argument("--pseudo", type=Path, metavar="DATA", help="data sets whose own labels are not used")
    parser.add_argument("--validation", type=Path, help="data sets that early stopping watches")
    parser.add_argument("--name", help="what to call the one variant, where the data differ")
    parser.add_argument("--variants", nargs="+", default=list(NETWORKS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--width", type=int, default=_BASE.width, help="channels of a compact network's first layer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=3.0, help="processor time of each training")
    options = parser.parse_args()
    if any(VARIANTS[name].schedule.patience for name in options.variants) and not options.validation:
        parser.error("early stopping watches --validation: name a folder of data sets")
    torch.set_num_threads(1)
    named = (entry.split("=") for entry in options.real)
    real = {name: labelled(Path(folder), Path(truth)) for name, folder, truth in named}
    table = options.out / "training.csv"
    for seed in options.seeds:  # every variant once before the next seed
        for name in options.variants:
            if is_done(table, options.name or name, seed):
                continue
            for row in trained(name, seed, options, real):
                log_row(table, row)
                print(row, flush=True)
    show(pd.read_csv(table))
    return 0


def is_done(table: Path, name: str, seed: int) -> bool:
    """Whether a run has its line; several processes, each with its own order of seeds, can fill one table."""
    done = pd.read_csv(table) if table.is_file() else pd.DataFrame(columns=["variant", "seed"])
    return bool(((done["variant"] == name) & (done["seed"] == seed)).any())


def labelled(folder: Path, truth: Path) -> tuple[list[Cutout], FloatArray]:
    """Cutouts of a folder that a truth table labels 0 or 1, and their labels."""
    rows = pd.read_csv(truth)
    label = rows.dropna(subset=["label"]).astype({"id": str}).drop_duplicates("id").set_index("id")["label"]
    has_places = any(places <= set(rows) for places in ({"ra_deg", "dec_deg"}, {"tile", "x", "y"}))
    survey = Survey(folder, IngestOptions(truth if has_places else None, None, 12.0, workers=0))
    cutouts = [c for batch in survey.batches() for c in batch.cutouts if c.id in label.index]
    return cutouts, label.loc[[c.id for c in cutouts]].to_numpy(float)


def trained(variant: str, seed: int, options: argparse.Namespace, real: Real) -> Iterator[dict[str, object]]:
    """Train one variant with one seed; its line of the table, and those of what --renormalise and --pseudo ask for."""
    config, name = replace(VARIANTS[variant], seed=seed, width=options.width), options.name or variant
    weights, made = fresh(name, config, options.data, options)
    yield made | figures(weights, config, options, real)
    if options.renormalise:
        sky = cached(options.renormalise, FRAME, options.out / "cache", 1)
        yield made | {"variant": f"{name}, renormalised"} | figures(renormalised(weights, sky), config, options, real)
    if options.pseudo:
        data = pseudo_labelled(weights, options.data, options.pseudo, weights.parent / "pseudo", options.out / "cache")
        again, made = fresh(f"{name}, pseudo-labels", config, data, options)
        yield made | figures(again, config, options, real)


def fresh(
    name: str, config: ClassifierConfig, data: Path, options: argparse.Namespace
) -> tuple[Path, dict[str, object]]:
    """Train a network on data for the time that is asked for; its weights and the start of its line."""
    seconds, rate = speed(config)
    run = options.out / f"{name.replace(', ', '-').replace(' ', '_')}-{config.seed}"
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "cache").exists():
        (options.out / "cache").mkdir(exist_ok=True)
        (run / "cache").symlink_to((options.out / "cache").resolve())
    weights = run / "classifier.safetensors"
    if not weights.is_file():
        begun = run / "steps.txt"  # a stopped training goes on to as many, however fast the machine is now
        if not begun.is_file():
            begun.write_text(str(max(50, round(60 * options.minutes / seconds))))
        steps = int(begun.read_text())
        patience = config.schedule.patience
        schedule = Schedule(
            steps, _BATCH, _LEARNING_RATE, check_steps=-(-steps // (_CHECKS if patience else 2)),
            warmup_steps=min(200, steps // 8), patience=patience,
        )  # fmt: skip
        validation = str(options.validation) if patience else ""
        train(replace(config, schedule=schedule, validation=validation), data, run)
    steps = weight_files.load_card(weights).config["schedule"]["steps"]
    return weights, {"variant": name, "seed": config.seed, "steps": steps, "cutouts_per_s": round(rate)}


def figures(weights: Path, config: ClassifierConfig, options: argparse.Namespace, real: Real) -> dict[str, float]:
    """Number of parameters, AUROC and recall of weights on every set that is asked for."""
    predictor = load(weights)
    out: dict[str, float] = {"parameters": sum(p.numel() for p in predictor.members[0].parameters())}
    rows = scored(weights, options.test)
    seen = (rows["arc_snr"] >= config.min_arc_snr) & (rows["arc_contrast"] >= config.min_arc_contrast)
    rows = rows[(rows["kind"] != "lens_galaxy") | seen]
    out |= shown("test", *(rows.loc[rows["label"] == v, "p_lens"].to_numpy() for v in (1, 0)))
    if options.held_out:
        data = cached(options.held_out, FRAME, options.out / "cache", 1)
        lenses, others = usable(data, config, None)
        out |= shown("held_out", *(logits_of(predictor.members[0], data, k) for k in (lenses, others)))
    for survey, (cutouts, label) in real.items():
        p = predictor.predict(cutouts).p_lens
        out |= shown(survey, p[label == 1], p[label == 0])
    return out


def renormalised(weights: Path, sky: Cached) -> Path:
    """Weights whose batch normalisation has the statistics of the non-lenses of some data (Li et al. 2016)."""
    state, card = weight_files.load(weights)
    net = load(weights).members[0]
    for layer in net.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over batches
            layer.train()
    rows = np.random.default_rng(0).permutation(np.flatnonzero(sky.truth["label"] == 0))[:_RENORMALISE]
    with torch.no_grad():
        for part in batches(np.sort(rows), _BATCH):
            net(torch.from_numpy(np.asarray(sky.pixels[part], np.float32)), torch.from_numpy(sky.conditions[part]))
    path = weights.with_name("renormalised.safetensors")
    weight_files.save(path, state | {f"member0.{key}": value for key, value in net.state_dict().items()}, card)
    return path


def pseudo_labelled(weights: Path, labelled_sets: Path, sky: Path, out: Path, cache: Path) -> Path:
    """A folder of the labelled data sets, and of those of the sky with the answers that weights are sure of as labels.

    What they are not sure of belongs to neither class (label -1), and all of it to the training part.
    """
    out.mkdir(exist_ok=True)
    for folder in data_sets(labelled_sets):
        (link := out / folder.name).unlink(missing_ok=True)
        link.symlink_to(folder.resolve())
    predictor, data = load(weights), cached(sky, FRAME, cache, 1)
    logit = logits_of(predictor.members[0], data, np.arange(len(data.truth)), 1)
    p = 1 / (1 + np.exp(-(predictor.slope * logit + predictor.offset)))
    label = dict(zip(data.truth["id"], np.select([p > _SURE, p < 1 - _SURE], [1, 0], -1), strict=True))
    for folder in data_sets(sky):
        copy = out / f"pseudo-{folder.name}"
        copy.mkdir(exist_ok=True)
        shutil.copy(folder / "manifest.json", copy)
        for entry in read_manifest(folder)["shards"]:
            shutil.copy(folder / f"{entry['name']}.npz", copy)
            truth = pd.read_parquet(folder / f"{entry['name']}.parquet")
            truth = truth.assign(label=truth["id"].map(label), kind="pseudo", part="train")
            truth.to_parquet(copy / f"{entry['name']}.parquet", index=False)
    return out


def shown(name: str, lens: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """AUROC and recall at FPR 1%."""
    return {
        f"auroc_{name}": round(metrics.auroc(lens, other), 4),
        f"recall_{name}": round(metrics.tpr_at_fpr(lens, other, 0.01), 4),
    }


def speed(config: ClassifierConfig) -> tuple[float, float]:
    """Processor seconds of a training step, and cutouts/s of one look, on one core."""
    net = build(config.network, config.width).to(memory_format=torch.channels_last)
    pixels = torch.randn(_RATE_BATCH, N_CHANNELS, FRAME.size_pix, FRAME.size_pix)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    conditions = torch.zeros(_RATE_BATCH, N_CONDITIONS)
    times = []
    for _ in range(6):
        begun = time.process_time()
        logit = answer(net, pixels[:_BATCH], conditions[:_BATCH])
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
    """Mean and scatter over seeds of each variant, and by how much it differs from the first, seed by seed."""
    first = table[table["variant"] == table["variant"].iloc[0]].set_index("seed")
    grouped = table.drop(columns="seed").groupby("variant", sort=False)
    mean, scatter = grouped.mean(), grouped.std()
    for name, row in mean.iterrows():
        million = row["parameters"] / 1e6
        print(f"\n{name}: {row['steps']:.0f} steps, {million:.2f} M parameters, {row['cutouts_per_s']:.0f}/s")
        for column in row.index.drop(["steps", "parameters", "cutouts_per_s"]):
            own = table[table["variant"] == name].set_index("seed")[column]
            less = (own - first[column]).dropna()
            print(f"    {column:28s} {row[column]:.3f} +- {scatter.loc[str(name), column]:.3f}", end="")
            print(f"; less the first {less.mean():+.3f} +- {less.std() / len(less) ** 0.5:.3f} ({len(less)} seeds)")


if __name__ == "__main__":
    sys.exit(main())
