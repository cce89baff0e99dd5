"""The point-image detector: a small ultralytics YOLO on cutouts in which the PSF spans a fixed number of pixels.

It sees the project's own scaled planes and their validity, in full depth. The only file that knows ultralytics. Nothing
is downloaded: the network is built from the description below.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
from ultralytics import settings
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.nms import non_max_suppression

from stages.augment import Augmentation
from stages.records import BoolArray, Cutout, FloatArray
from stages.scaling import N_CHANNELS, SHARP_ARCSEC, Frame, network_inputs, resolution_arcsec
from stages.training import Schedule, answer, device_of

settings.update({"sync": False})

CLASSES = ("image", "deflector")
BOX_FWHM = (1.6, 4.0)  # side of each class's box in units of the resolution
PSF_PIX = 5.0  # resolution in the network's pixels
_LARGEST_PIX = 480
_STRIDE = 32
_WIDEST_ARCSEC, _WIDEST_SHARP_ARCSEC = 10.0, 7.0
_COARSER = 2.0  # pixels on which deflectors of sharp images are looked for as well
_MIN_CONFIDENCE = 0.02
_NMS_OVERLAP = 0.3


@dataclass(frozen=True)
class CounterConfig:
    """Settings of the detector; see `configs/counter.yaml`.

    width : channels of the first layer; train_pix : side of what it is shown of a sharp image, half of it for others;
    min_snr : points below are not asked for; plain_share : share of the cutouts without any point that are trained on.
    calibration : folder of data sets in the proportions that confidences are to be right for, such as those of
    configs/sim.yaml; all of their systems calibrate and teach the second look (`second_look_steps` of it, see
    `stages.counter.second_look`), instead of those held out from the training data.
    Of `augmentation` what changes light and validity is used; tiles are turned and moved besides.
    A step's batch is `schedule.batch_size` of a sharp survey's tiles, or four times as many of the half-size ones.
    """

    width: int = 16
    train_pix: int = 192
    min_snr: float = 6.0
    plain_share: float = 0.35
    calibration: str = ""
    second_look_steps: int = 600
    seed: int = 1
    workers: int = 2
    schedule: Schedule = field(default_factory=lambda: Schedule(3000, 16, 2e-3, check_steps=500))
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, eq=False)
class Detections:
    """What the network finds in one cutout: positions (n, 2) in its pixels, raw confidence (n,), class index (n,)."""

    xy_pix: FloatArray
    confidence: FloatArray
    kind: npt.NDArray[np.int64]


def description(width: int) -> dict[str, Any]:
    """The network in ultralytics' own terms: heads at strides 4 and 8, for objects of a few pixels."""
    w = width
    return {
        "nc": len(CLASSES),
        "backbone": [
            [-1, 1, "Conv", [w, 3, 2]],
            [-1, 1, "Conv", [2 * w, 3, 2]],
            [-1, 1, "C2f", [2 * w, True]],
            [-1, 1, "Conv", [4 * w, 3, 2]],
            [-1, 1, "C2f", [4 * w, True]],
            [-1, 1, "Conv", [6 * w, 3, 2]],
            [-1, 1, "C2f", [6 * w, True]],
            [-1, 1, "SPPF", [6 * w, 5]],
        ],
        "head": [
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 4], 1, "Concat", [1]],
            [-1, 1, "C2f", [4 * w]],
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 2], 1, "Concat", [1]],
            [-1, 1, "C2f", [2 * w]],
            [-1, 1, "Conv", [2 * w, 3, 2]],
            [[-1, 10], 1, "Concat", [1]],
            [-1, 1, "C2f", [4 * w]],
            [[13, 16], 1, "Detect", ["nc"]],
        ],
    }


def build(width: int) -> nn.Module:
    """The untrained network."""
    net: nn.Module = DetectionModel(description(width), ch=N_CHANNELS, nc=len(CLASSES), verbose=False)
    net.args = get_cfg()  # gains of the loss
    return net


def frame_of(cutout: Cutout, coarser: float = 1.0) -> Frame:
    """What the network sees of a cutout: the resolution spans `PSF_PIX` pixels, the field up to 10 arcsec, of sharp
    images 7 arcsec, and never more than 480 pixels.

    coarser : factor by which pixels are larger than that.
    """
    resolution = resolution_arcsec(cutout)
    pixel = coarser * resolution / PSF_PIX
    widest = _WIDEST_SHARP_ARCSEC if resolution < SHARP_ARCSEC else _WIDEST_ARCSEC
    width = min(max(cutout.flux.shape[1:]) * cutout.pixel_scale_arcsec, widest)
    size = int(np.ceil(width / pixel / _STRIDE)) * _STRIDE
    return Frame(int(np.clip(size, 2 * _STRIDE, _LARGEST_PIX)), pixel)


def in_field(cutout: Cutout, xy_pix: FloatArray) -> BoolArray:
    """Which positions (n, 2) in cutout pixels lie where images are looked for."""
    frame = frame_of(cutout)
    half = 0.5 * frame.size_pix * frame.pixel_arcsec / cutout.pixel_scale_arcsec
    return np.asarray((np.abs(xy_pix - cutout.xy_pix) < half).all(axis=1))


def detect(net: nn.Module, cutouts: Sequence[Cutout], chunk: int = 32) -> list[Detections]:
    """Run the network on cutouts of any sizes.

    In sharp images it looks for deflectors on pixels twice as large as well: a galaxy of forty times the resolution is
    more than it sees at once.
    """
    out = _detected(net, cutouts, [frame_of(c) for c in cutouts], chunk)
    sharp = [k for k, c in enumerate(cutouts) if resolution_arcsec(c) < SHARP_ARCSEC]
    again = [cutouts[k] for k in sharp]
    for k, coarse in zip(sharp, _detected(net, again, [frame_of(c, _COARSER) for c in again], chunk), strict=True):
        out[k] = with_deflectors(out[k], coarse, resolution_arcsec(cutouts[k]) / cutouts[k].pixel_scale_arcsec)
    return out


def _detected(net: nn.Module, cutouts: Sequence[Cutout], frames: Sequence[Frame], chunk: int) -> list[Detections]:
    """What the network finds in each cutout on a frame of its own."""
    out: dict[int, Detections] = {}
    for size in sorted({f.size_pix for f in frames}):
        members = [k for k, f in enumerate(frames) if f.size_pix == size]
        for start in range(0, len(members), chunk):
            part = members[start : start + chunk]
            seen = [network_inputs([cutouts[k]], frames[k]) for k in part]
            boxes = boxes_of(net, torch.from_numpy(np.concatenate([s.pixels for s in seen])))
            for k, found, this in zip(part, boxes, seen, strict=True):
                out[k] = Detections(
                    this.origin_xy_pix[0] + this.step_pix[0] * found[:, :2], found[:, 2], found[:, 3].astype(np.int64)
                )
    return [out[k] for k in range(len(cutouts))]


def with_deflectors(fine: Detections, coarse: Detections, fwhm_pix: float) -> Detections:
    """What was found and the deflectors of a coarser look; of two within the resolution the finer place counts."""
    xy, confidence, kind = fine.xy_pix, fine.confidence.copy(), fine.kind
    deflector = CLASSES.index("deflector")
    own = np.flatnonzero(kind == deflector)
    for k in np.flatnonzero(coarse.kind == deflector):
        distance = np.hypot(*(xy[own] - coarse.xy_pix[k]).T)
        if len(own) and distance.min() < fwhm_pix:
            nearest = own[int(distance.argmin())]
            confidence[nearest] = max(confidence[nearest], coarse.confidence[k])
        else:
            xy, confidence = np.vstack([xy, coarse.xy_pix[k]]), np.append(confidence, coarse.confidence[k])
            kind = np.append(kind, deflector)
    return Detections(xy, confidence, kind)


def boxes_of(net: nn.Module, pixels: Tensor) -> list[npt.NDArray[np.float64]]:
    """What the network finds in each of N planes (N, 6, S, S): rows of x, y in pixels, raw confidence and class."""
    with torch.inference_mode():
        raw = net(pixels.to(device_of(net)))
        raw = raw[0] if isinstance(raw, (tuple, list)) else raw
        kept = non_max_suppression(raw, _MIN_CONFIDENCE, _NMS_OVERLAP, max_det=30, nc=len(CLASSES))
    corners = [k.double().cpu().numpy() for k in kept]  # ultralytics counts from the first pixel's outer edge
    return [np.column_stack([(c[:, :2] + c[:, 2:4]) / 2 - 0.5, c[:, 4:6]]) for c in corners]


def loss_of(net: Any, pixels: Tensor, boxes: Tensor) -> Tensor:
    """Loss of a batch (N, 6, S, S); its boxes (M, 5): index in the batch, class, x, y and side in pixels."""
    boxes = boxes[boxes[:, 0].argsort(stable=True)].to(device_of(net))
    sides = boxes[:, 4:].expand(-1, 2)
    truth = {"batch_idx": boxes[:, 0], "cls": boxes[:, 1:2]}
    truth |= {"img": pixels, "bboxes": torch.cat([boxes[:, 2:4] + 0.5, sides], 1) / pixels.shape[-1]}
    said = {k: v.float() if isinstance(v, Tensor) else [f.float() for f in v] for k, v in answer(net, pixels).items()}
    total: Tensor = net.loss(truth, said)[0].sum() / len(pixels)
    return total
