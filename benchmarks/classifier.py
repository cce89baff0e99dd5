"""Speed of stage 1 beside torchvision's networks: python benchmarks/classifier.py [--batch 256] [--batches 8].

Every network sees the same scaled pixels (6 x 64 x 64) of simulated cutouts in one process, turn by turn; torchvision's
come with a first layer for six planes and untrained weights, which are as fast as trained ones. "whole" is what
`Predictor.predict` does with cutouts in memory: scaling, one look at everything, more looks at what may be a lens.
"From FITS files" is the same while two other processes read the files, their start not counted.
Prints the median rate of the turns, the number of parameters and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision import models

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.export import write_cutout
from sim.generate import main as generate
from stages.classifier.model import FRAME
from stages.classifier.predict import Predictor, load
from stages.config import WEIGHTS_DIR
from stages.dataset import read_shards
from stages.ingest import IngestOptions, Survey
from stages.scaling import N_CHANNELS, network_inputs

_LENS_EVERY = 100
_FILES = 24  # batches of files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cutouts = simulated(options.batch)
    predictor = load(WEIGHTS_DIR / "classifier.safetensors")
    seen = network_inputs(cutouts, FRAME)
    pixels = torch.from_numpy(seen.pixels).contiguous(memory_format=torch.channels_last)
    conditions = torch.from_numpy(seen.conditions)
    ours = predictor.members[0]
    chances: dict[str, Callable[[], object]] = {
        "scaling alone": lambda: network_inputs(cutouts, FRAME),
        "one member, network alone": lambda: looked(ours, pixels, conditions),
        f"whole, {len(predictor.members)} members": lambda: predictor.predict(cutouts),
    }
    size = {name: parameters(ours) for name in list(chances)[1:]}
    for name, net in peers().items():
        chances[f"torchvision {name}, network alone"] = lambda net=net: looked(net, pixels)
        size[f"torchvision {name}, network alone"] = parameters(net)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        for k in range(_FILES * options.batch):
            write_cutout(files / f"object-{k:06d}.fits", replace(cutouts[k % len(cutouts)], id=f"object-{k:06d}"))
        reading = from_files(predictor, Survey(files, IngestOptions(batch_size=options.batch, workers=2)))
    seconds: dict[str, list[float]] = {name: [] for name in chances}
    for turn in range(options.batches + 1):
        for name, run in chances.items():
            begun = time.perf_counter()
            run()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - begun)
    for name, times in seconds.items():
        million = f"{size[name] / 1e6:.2f} M parameters" if name in size else ""
        print(f"{name:45s} {options.batch / np.median(times):8.0f} cutouts/s  {million}")
    print(f"{'whole, from FITS files':45s} {reading:8.0f} cutouts/s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    return 0


def simulated(n: int) -> list:
    """So many simulated three-band cutouts, one lens in a hundred."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--survey", "des", "--n", str(n + 64), "--out", folder, "--seed", "3", "--workers", "1"]
        assert generate(arguments) == 0
        shards = list(read_shards(Path(folder)))
    rows = [(c, label) for s in shards for c, label in zip(s.cutouts, s.truth["label"], strict=True)]
    lenses, others = ([c for c, label in rows if label == v] for v in (1, 0))
    few = lenses[: max(1, n // _LENS_EVERY)]
    return [*few, *(others * (n // len(others) + 1))][:n]


def from_files(predictor: Predictor, survey: Survey) -> float:
    """Cutouts per second read from files and classified, after the first batch."""
    batches = survey.batches()
    predictor.predict(next(batches).cutouts)
    begun, n = time.perf_counter(), 0
    for batch in batches:
        predictor.predict(batch.cutouts)
        n += len(batch.cutouts)
    return n / (time.perf_counter() - begun)


def peers() -> dict[str, nn.Module]:
    """Torchvision's networks with one output and a first layer for all planes."""
    made = {
        "ResNet-18": models.resnet18(num_classes=1),
        "EfficientNet-B0": models.efficientnet_b0(num_classes=1),
        "MobileNetV3-small": models.mobilenet_v3_small(num_classes=1),
    }
    made["ResNet-18"].conv1 = first_layer(made["ResNet-18"].conv1)
    for name in ("EfficientNet-B0", "MobileNetV3-small"):
        made[name].features[0][0] = first_layer(made[name].features[0][0])
    return {name: net.eval().to(memory_format=torch.channels_last) for name, net in made.items()}


def first_layer(old: nn.Conv2d) -> nn.Conv2d:
    """The same layer for the project's planes."""
    return nn.Conv2d(N_CHANNELS, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)


def looked(net: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    """One pass."""
    with torch.inference_mode():
        return net(*inputs)


def parameters(net: nn.Module) -> int:
    """How many there are."""
    return sum(p.numel() for p in net.parameters())


if __name__ == "__main__":
    sys.exit(main())
