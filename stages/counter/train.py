"""Train stage 2's detector on labelled data sets, then what its answers are worth on held-out systems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from stages.augment import drop, patches, photometric, refill
from stages.config import to_mapping
from stages.counter.calibrate import calibrate
from stages.counter.detector import CLASSES, PSF_PIX, CounterConfig, boxes_of, build, loss_of
from stages.counter.matching import MATCH_FWHM, matched
from stages.counter.tiles import Tiles, is_seen, tiles
from stages.dataset import DatasetError, fingerprint
from stages.scaling import N_CONDITIONS, N_SLOTS
from stages.training import N_DIHEDRAL, begun_with, dihedral, dihedral_positions, fit
from stages.weights import save

_CHECKED = 320  # held-out tiles of each size that a check looks at


def train(config: CounterConfig, data_dir: Path, out_dir: Path, device: str = "cpu") -> Path:
    """Train on every data set below `data_dir`; returns the weights file `out_dir/counter.safetensors`."""
    shown = tiles(data_dir, out_dir / "tiles", config)
    if not all(any(len(b) for t in shown[part] for b in t.boxes) for part in shown):
        raise DatasetError(f"{data_dir}: too few points to learn from. Simulate more with sim/generate.py.")
    torch.manual_seed(config.seed)
    net = fit(
        build(config.width).to(memory_format=torch.channels_last).to(device),
        lambda n, rng, step: _loss(n, rng, shown["train"], config),
        lambda n, step: _check(n, shown["validation"]), config.schedule, out_dir, "counter", config.seed,
        begun_with(config, data_dir),
    )  # fmt: skip
    state = {key: value.float() for key, value in net.state_dict().items()}
    part = None if config.calibration else "validation"
    said = calibrate(net, Path(config.calibration or data_dir), part, config)
    data = fingerprint(data_dir) | (fingerprint(Path(config.calibration)) if config.calibration else {})
    settings = to_mapping(config) | {"calibration": Path(config.calibration).name}
    path = out_dir / "counter.safetensors"
    save(path, state | said.tensors(), said.card(settings, data))
    return path


def _loss(net: nn.Module, rng: np.random.Generator, shown: list[Tiles], config: CounterConfig) -> Tensor:
    """Loss of a batch of tiles of one size, altered: turned, moved, of another depth, masked, a band less."""
    largest = max(t.pixels.shape[-1] for t in shown)
    copies = [(largest // t.pixels.shape[-1]) ** 2 for t in shown]  # tiles in the place of one of the largest
    share = np.array([len(t.boxes) / n for t, n in zip(shown, copies, strict=True)])
    k = int(rng.choice(len(shown), p=share / share.sum()))
    n = config.schedule.batch_size * copies[k]
    planes, boxes = map(torch.from_numpy, shown[k].batch(rng.integers(len(shown[k].boxes), size=n)))
    size, turn = planes.shape[-1], int(rng.integers(N_DIHEDRAL))
    boxes[:, 2:4] = dihedral_positions(boxes[:, 2:4], turn, size)
    planes = dihedral(planes, turn)
    planes, boxes = shifted(planes, boxes, rng.integers(-(size // 12), size // 12 + 1, 2))
    flux = photometric(planes[:, :N_SLOTS], config.augmentation, rng)
    valid = patches(planes[:, N_SLOTS:], config.augmentation.patch_chance, rng)
    valid, _ = drop(valid, torch.zeros(n, N_CONDITIONS), config.augmentation, rng)
    planes = torch.cat([refill(flux, valid), valid], 1).contiguous(memory_format=torch.channels_last)
    here = [boxes[boxes[:, 0] == j] for j in range(n)]
    here = [b[torch.from_numpy(is_seen(b[:, 2:4].numpy(), v.numpy()))] for b, v in zip(here, valid, strict=True)]
    return loss_of(net, planes, torch.cat(here))


def shifted(planes: Tensor, boxes: Tensor, by_xy: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Planes (N, C, S, S) and their boxes (M, 5) moved by whole pixels; what comes in from outside is 0, invalid."""
    x, y = (int(v) for v in by_xy)
    out = torch.roll(planes, (y, x), (2, 3))
    for axis, moved in ((2, y), (3, x)):
        out.narrow(axis, 0 if moved > 0 else out.shape[axis] + moved, abs(moved)).zero_()
    boxes = boxes.clone()
    boxes[:, 2:4] += torch.tensor([x, y], dtype=boxes.dtype)
    return out, boxes


def _check(net: nn.Module, shown: list[Tiles]) -> dict[str, float]:
    """Average precision of each class on held-out tiles; a box is right within `MATCH_FWHM` of a true one."""
    score: list[list[float]] = [[], []]
    real: list[list[bool]] = [[], []]
    n_true = [0, 0]
    for some in shown:
        rows = np.arange(0, len(some.boxes), max(1, len(some.boxes) // _CHECKED))
        for part in np.array_split(rows, -(-len(rows) // 32)):
            found = boxes_of(net, torch.from_numpy(np.asarray(some.pixels[part], np.float32)))
            for row, boxes in zip(part, found, strict=True):
                truth = some.boxes[row]
                for kind in range(len(CLASSES)):
                    here, true = boxes[boxes[:, 3] == kind], truth[truth[:, 0] == kind]
                    score[kind] += here[:, 2].tolist()
                    real[kind] += matched(here[:, :2], true[:, 1:3].astype(float), MATCH_FWHM * PSF_PIX).tolist()
                    n_true[kind] += len(true)
    return {
        f"{name}_ap": round(float(average_precision_score(r, s)) * sum(r) / n, 4) if any(r) else 0.0
        for name, s, r, n in zip(CLASSES, score, real, n_true, strict=True)
    }
