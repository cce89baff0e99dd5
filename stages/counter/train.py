"""Train stage 2's detector on labelled data sets and calibrate its confidences on held-out systems."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stages.config import to_mapping
from stages.counter.detector import CLASSES, CounterConfig, detect, train_network
from stages.counter.pictures import true_boxes, write_pictures
from stages.dataset import DatasetError, fingerprint, parts_of, read_shards
from stages.records import Cutout, FloatArray
from stages.scaling import resolution_arcsec
from stages.training import platt
from stages.weights import Card, save

MATCH_FWHM = 0.5
PLAIN_EVERY = 4  # of the held-out cutouts without points, one in this many is looked at


def train(config: CounterConfig, data_dir: Path, out_dir: Path) -> Path:
    """Train on every data set below `data_dir`; returns the weights file `out_dir/counter.safetensors`."""
    out_dir.mkdir(parents=True, exist_ok=True)
    data_yaml = write_pictures(data_dir, out_dir / "pictures", config)
    if not any((out_dir / "pictures" / "images" / "train").iterdir()):
        raise DatasetError(f"{data_dir}: no cutout to train on. Simulate more with sim/generate.py.")
    resume = (out_dir / "detector" / "weights" / "last.pt").is_file()
    net = train_network(str(data_yaml), str(out_dir), config, resume)
    state = {key: value.float() for key, value in net.state_dict().items()}
    calibration, resolution = calibrate(net, data_dir, config.min_snr)
    state["calibration"] = torch.tensor(calibration, dtype=torch.float64)
    card = Card(
        "counter", "1", to_mapping(config), {"resolution_arcsec": resolution, "bands": [1, 3]}, fingerprint(data_dir),
        {"calibration_slope_offset": dict(zip(CLASSES, calibration, strict=True))},
        "Confidences are calibrated on held-out simulations: the share of detections that are real.",
    )  # fmt: skip
    path = out_dir / "counter.safetensors"
    save(path, state, card)
    return path


def calibrate(net: nn.Module, data_dir: Path, min_snr: float) -> tuple[list[list[float]], list[float]]:
    """Slope and offset per class that turn the logit of a raw confidence into a probability of being real.

    Also the range of resolution, in arcsec, of the held-out cutouts.
    """
    score: list[list[float]] = [[], []]
    real: list[list[bool]] = [[], []]
    seen: list[float] = []
    for cutouts, truths in held_out(data_dir, min_snr):
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


def held_out(data_dir: Path, min_snr: float) -> Iterator[tuple[list[Cutout], list[tuple[FloatArray, FloatArray]]]]:
    """Validation cutouts, shard by shard, with the true positions of points and of the deflector."""
    for shard in read_shards(data_dir):
        rows = np.flatnonzero(parts_of(shard.truth) == "validation")
        truths = [true_boxes(shard.truth.iloc[k], shard.cutouts[k], min_snr) for k in rows]
        keep = [k for k, truth in enumerate(truths) if len(truth[0]) or rows[k] % PLAIN_EVERY == 0]
        yield [shard.cutouts[rows[k]] for k in keep], [truths[k] for k in keep]


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
