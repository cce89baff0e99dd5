"""Say what the detector's answers are worth, on systems that it did not learn from: confidences and the second look.

    python -m stages.counter calibrate --weights FILE --data DIR --out DIR

does it anew for weights as they are, on all systems below DIR: the proportions of DIR are those that confidences are
right for.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from tqdm import tqdm

from stages import config as configuration
from stages.config import to_mapping
from stages.counter.detector import CLASSES, CounterConfig, build, detect
from stages.counter.matching import match_radius_pix, matched
from stages.counter.proposals import calibrated, deflector_of, logit
from stages.counter.second_look import SecondLook, learn, look
from stages.counter.tiles import true_boxes
from stages.dataset import DatasetError, fingerprint, parts_of, read_shards
from stages.records import Cutout, FloatArray
from stages.scaling import resolution_arcsec
from stages.training import platt
from stages.weights import Card, WeightsError, load, save

_PREFIX = "second_look."


@dataclass(frozen=True, eq=False)
class Calibration:
    """slope_offset : (2, 2) by class, of the logit of a raw confidence; second_look : None where too little taught it;
    resolution_arcsec : range of the systems; figures : for the card."""

    slope_offset: FloatArray
    second_look: SecondLook | None
    resolution_arcsec: list[float]
    figures: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """For a weights file, beside the detector's."""
        judge = self.second_look.state_dict() if self.second_look is not None else {}
        return {"calibration": torch.from_numpy(self.slope_offset)} | {_PREFIX + k: v for k, v in judge.items()}

    def card(self, config: dict[str, Any], data: dict[str, Any]) -> Card:
        """Card of weights with these settings that learned from these data."""
        return Card(
            "counter", "3", config, {"resolution_arcsec": self.resolution_arcsec, "bands": [1, 3]}, data, self.figures,
            "Confidences are calibrated on simulations that the detector did not learn from: the share of detections "
            "that are real.",
        )  # fmt: skip


def taken_from(state: dict[str, Tensor]) -> tuple[FloatArray, SecondLook | None]:
    """Slopes and offsets (2, 2) and the second look of a weights file; its state keeps the detector's alone.

    Raises WeightsError where the second look judged by other features.
    """
    slope_offset, judge = _apart(state)
    if not judge:
        return slope_offset, None
    second = SecondLook()
    if judge["middle"].shape != second.middle.shape:
        raise WeightsError(
            "the second look of these weights judges by other features. Run `python -m stages.counter calibrate`."
        )
    second.load_state_dict(judge)
    return slope_offset, second.eval()


def _apart(state: dict[str, Tensor]) -> tuple[FloatArray, dict[str, Tensor]]:
    """Slopes and offsets, and the second look's tensors, taken out of a state."""
    judge = {key.removeprefix(_PREFIX): state.pop(key) for key in list(state) if key.startswith(_PREFIX)}
    return state.pop("calibration").double().numpy(), judge


def calibrate(net: nn.Module, data_dir: Path, part: str | None, config: CounterConfig) -> Calibration:
    """Confidences of both classes and the second look, on the systems of a part below a folder (None: on all)."""
    score: list[list[float]] = [[], []]
    real: list[list[bool]] = [[], []]
    seen: list[float] = []
    for cutouts, truths in held_out(data_dir, part, config.min_snr):
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
    slope_offset = np.array(fits)
    second, figures = _second_look(net, slope_offset, data_dir, part, config)
    figures["calibration_slope_offset"] = dict(zip(CLASSES, slope_offset.tolist(), strict=True))
    return Calibration(slope_offset, second, [round(min(seen), 3), round(max(seen), 3)], figures)


def _second_look(
    net: nn.Module, slope_offset: FloatArray, data_dir: Path, part: str | None, config: CounterConfig
) -> tuple[SecondLook | None, dict[str, Any]]:
    """Train the second look on all of these systems; its calibration and figures are of each half by the other's."""
    features, sure, real, half = [], [], [], []
    for number, (cutouts, truths) in enumerate(held_out(data_dir, part, config.min_snr)):
        for cutout, (points, _), found in zip(cutouts, truths, detect(net, cutouts), strict=True):
            confidence = calibrated(found, slope_offset)
            seen = look(cutout, found, confidence, *deflector_of(found, confidence, cutout))
            features.append(seen.features)
            sure.append(seen.confidence)
            real.append(matched(seen.xy_pix, points, match_radius_pix(cutout)))
            half.append(np.full(len(seen.confidence), number % 2))
    x, first, is_point, side = (np.concatenate(part) for part in (features, sure, real, half))
    figures: dict[str, Any] = {"second_look_detections": len(is_point)}
    if len(set(is_point[side == 0])) < 2:
        warnings.warn(f"{data_dir}: too few detections for a second look; left without", stacklevel=2)
        return None, figures
    second = learn(x, is_point, config.second_look_steps, config.seed)
    if len(set(is_point[side == 1])) == 2:
        said = np.empty(len(x))
        for one in (0, 1):
            here = side == one
            said[here] = learn(x[~here], is_point[~here], config.second_look_steps, config.seed).judge(x[here])
        second.slope_offset.copy_(torch.tensor(platt(logit(said), is_point.astype(int), balanced=False)))
        figures["average_precision_first_look"] = round(float(average_precision_score(is_point, first)), 4)
        figures["average_precision_second_look"] = round(float(average_precision_score(is_point, said)), 4)
    return second, figures


def held_out(
    data_dir: Path, part: str | None, min_snr: float
) -> Iterator[tuple[list[Cutout], list[tuple[FloatArray, FloatArray]]]]:
    """Cutouts of a part (None: of all), shard by shard, with the true positions of points and of the deflector."""
    for shard in tqdm(read_shards(data_dir), desc="calibrating", unit="shard"):
        rows = np.flatnonzero((parts_of(shard.truth) == part) | (part is None))
        truths = [true_boxes(shard.truth.iloc[k], shard.cutouts[k], min_snr) for k in rows]
        yield [_as_brought(shard.cutouts[k], str(shard.truth["system"].iloc[k])) for k in rows], truths


def _as_brought(cutout: Cutout, system: str) -> Cutout:
    """Every other system as an image that brings no PSF: confidences are to be right with and without."""
    return cutout if crc32(system.encode()) % 2 else replace(cutout, psf=np.zeros((0, 0, 0), np.float32))


def command(arguments: Sequence[str]) -> int:
    """`calibrate --weights FILE --data DIR --out DIR`: second look and confidences, anew for weights as they are."""
    parser = argparse.ArgumentParser(prog="python -m stages.counter calibrate", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="simulations that the detector did not learn from")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        print(anew(options.weights, options.data, options.out))
    except (DatasetError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def anew(weights: Path, data_dir: Path, out_dir: Path) -> Path:
    """Calibrate weights on all systems below a folder; returns `out_dir/counter.safetensors`."""
    state, card = load(weights)
    config = configuration.from_mapping(CounterConfig, card.config, str(weights))
    _apart(state)
    net: Any = build(config.width)  # of ultralytics, which has no types
    net.load_state_dict(state)
    said = calibrate(net.fuse().eval(), data_dir, None, config)
    path = out_dir / "counter.safetensors"
    settings = to_mapping(config) | {"calibration": data_dir.name}
    save(path, state | said.tensors(), said.card(settings, card.data | fingerprint(data_dir)))
    return path
