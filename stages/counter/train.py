"""Train stage 2's detector on labelled data sets and calibrate its confidences on held-out systems."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from stages.augment import drop, patches, photometric, refill
from stages.config import to_mapping
from stages.counter.detector import CLASSES, PSF_PIX, CounterConfig, boxes_of, build, detect, loss_of
from stages.counter.tiles import Tiles, is_seen, tiles, true_boxes
from stages.dataset import DatasetError, fingerprint, parts_of, read_shards
from stages.records import Cutout, FloatArray
from stages.scaling import N_CONDITIONS, N_SLOTS, resolution_arcsec
from stages.training import N_DIHEDRAL, dihedral, dihedral_positions, fit, platt
from stages.weights import Card, save

MATCH_FWHM = 0.5
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
    )  # fmt: skip
    state = {key: value.float() for key, value in net.state_dict().items()}
    part = None if config.calibration else "validation"
    calibration, resolution = calibrate(net, Path(config.calibration or data_dir), part, config.min_snr)
    state["calibration"] = torch.tensor(calibration, dtype=torch.float64)
    data = fingerprint(data_dir) | (fingerprint(Path(config.calibration)) if config.calibration else {})
    card = Card(
        "counter", "2", to_mapping(config) | {"calibration": Path(config.calibration).name},
        {"resolution_arcsec": resolution, "bands": [1, 3]}, data,
        {"calibration_slope_offset": dict(zip(CLASSES, calibration, strict=True))},
        "Confidences are calibrated on held-out simulations: the share of detections that are real.",
    )  # fmt: skip
    path = out_dir / "counter.safetensors"
    save(path, state, card)
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


def calibrate(
    net: nn.Module, data_dir: Path, part: str | None, min_snr: float
) -> tuple[list[list[float]], list[float]]:
    """Slope and offset per class that turn the logit of a raw confidence into a probability of being real.

    Also the range of resolution, in arcsec, of the held-out cutouts.
    """
    score: list[list[float]] = [[], []]
    real: list[list[bool]] = [[], []]
    seen: list[float] = []
    for cutouts, truths in held_out(data_dir, part, min_snr):
        seen += [resolution_arcsec(c) for c in cutouts]
        for cutout, truth, found in zip(cutouts, truths, detect(net, cutouts), strict=True):
            for kind in range(len(CLASSES)):
                here = found.kind == kind
                score[kind] += found.confidence[here].tolist()
                real[kind] += matched(found.xy_pix[here], truth[kind], match_radius_pix(cutout)).tolist()
    fits = []
    for confidence, label in zip(score, real, strict=True):
        if len(set(label)) < 2:
            warnings.warn(
                f"{data_dir}: held-out detections are all right or all wrong; left uncalibrated", stacklevel=2
            )
            fits.append([1.0, 0.0])
        else:
            fits.append(list(platt(logit(np.array(confidence)), np.array(label, int), balanced=False)))
    return fits, [round(min(seen), 3), round(max(seen), 3)]


def held_out(
    data_dir: Path, part: str | None, min_snr: float
) -> Iterator[tuple[list[Cutout], list[tuple[FloatArray, FloatArray]]]]:
    """Cutouts of a part (None: of all), shard by shard, with the true positions of points and of the deflector."""
    for shard in read_shards(data_dir):
        rows = np.flatnonzero((parts_of(shard.truth) == part) | (part is None))
        truths = [true_boxes(shard.truth.iloc[k], shard.cutouts[k], min_snr) for k in rows]
        yield [shard.cutouts[k] for k in rows], truths


def match_radius_pix(cutout: Cutout) -> float:
    """How near a detection must be to a true position to be it."""
    return MATCH_FWHM * resolution_arcsec(cutout) / cutout.pixel_scale_arcsec


def matched(found: FloatArray, true: FloatArray, radius: float) -> npt.NDArray[np.bool_]:
    """Which of the found positions (n, 2), in order, are true ones (m, 2); each true one counts once."""
    free = np.ones(len(true), bool)
    out = np.zeros(len(found), bool)
    for k, position in enumerate(found):
        distance = np.where(free, np.hypot(*(true - position).T), np.inf) if len(true) else np.empty(0)
        if len(distance) and distance.min() <= radius:
            out[k], free[int(np.argmin(distance))] = True, False
    return out


def logit(p: FloatArray) -> FloatArray:
    """Log odds, finite for every float32 probability."""
    q = np.clip(np.asarray(p, float), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(q / (1 - q)))
