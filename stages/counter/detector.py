"""The point-image detector: a small ultralytics YOLO on pictures whose PSF spans a fixed number of pixels.

The only file that knows ultralytics. Nothing is downloaded: the network is built from the description below.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
from ultralytics import YOLO, settings
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.nms import non_max_suppression

from stages.records import Cutout, FloatArray
from stages.scaling import N_SLOTS, Frame, network_inputs, resolution_arcsec

settings.update({"sync": False})

CLASSES = ("image", "deflector")
BOX_FWHM = (1.6, 4.0)  # side of each class's box in units of the resolution
PSF_PIX = 5.0  # resolution in picture pixels
_LOW, _HIGH = -0.5, 2.8  # scaled flux shown as 1 and 255; 0 is kept for invalid pixels
_LARGEST_PIX = 320
_STRIDE = 32
_WIDEST_ARCSEC = 10.0
_MIN_CONFIDENCE = 0.02
_NMS_OVERLAP = 0.3


@dataclass(frozen=True)
class CounterConfig:
    """Settings of the detector; see `configs/counter.yaml`.

    width : channels of the first layer; train_pix : side of a training picture; min_snr : points below are not asked
    for; plain_share : share of the cutouts without any point that are trained on.
    """

    width: int = 16
    train_pix: int = 192
    min_snr: float = 6.0
    plain_share: float = 0.2
    epochs: int = 6
    batch_size: int = 16
    learning_rate: float = 0.002
    seed: int = 1
    workers: int = 2


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
    net: nn.Module = DetectionModel(description(width), ch=3, nc=len(CLASSES), verbose=False)
    return net


def frame_of(cutout: Cutout) -> Frame:
    """The picture of a cutout: the resolution spans `PSF_PIX` pixels, the field is the cutout's up to 10 arcsec."""
    pixel = resolution_arcsec(cutout) / PSF_PIX
    field = min(max(cutout.flux.shape[1:]) * cutout.pixel_scale_arcsec, _WIDEST_ARCSEC)
    size = int(np.ceil(field / pixel / _STRIDE)) * _STRIDE
    return Frame(int(np.clip(size, 2 * _STRIDE, _LARGEST_PIX)), pixel)


def picture(cutout: Cutout, frame: Frame) -> tuple[npt.NDArray[np.uint8], FloatArray, float]:
    """A cutout as 8-bit picture (S, S, 3); pixel (i, j) = (x, y) of it is cutout pixel origin + step * (i, j)."""
    seen = network_inputs([cutout], frame)
    flux, valid = seen.pixels[0, :N_SLOTS], seen.pixels[0, N_SLOTS:]
    shown = np.clip((flux - _LOW) / (_HIGH - _LOW) * 254 + 1, 1, 255)
    shown = np.where(valid.max(axis=0) > 0, shown, 0)  # an absent slot shows the mean of the others
    return np.round(shown).astype(np.uint8).transpose(1, 2, 0), seen.origin_xy_pix[0], float(seen.step_pix[0])


def detect(net: nn.Module, cutouts: Sequence[Cutout], device: str = "cpu", chunk: int = 32) -> list[Detections]:
    """Run the network on cutouts of any sizes."""
    out: dict[int, Detections] = {}
    frames = [frame_of(c) for c in cutouts]
    for size in sorted({f.size_pix for f in frames}):
        members = [k for k, f in enumerate(frames) if f.size_pix == size]
        for start in range(0, len(members), chunk):
            part = members[start : start + chunk]
            shown = [picture(cutouts[k], frames[k]) for k in part]
            batch = torch.from_numpy(np.stack([s[0] for s in shown])).permute(0, 3, 1, 2).float().div(255).to(device)
            for k, found, (_, origin, step) in zip(part, _boxes(net, batch), shown, strict=True):
                centre = (found[:, :2] + found[:, 2:4]) / 2 - 0.5  # picture coordinates count pixel edges
                out[k] = Detections(origin + step * centre, found[:, 4], found[:, 5].astype(np.int64))
    return [out[k] for k in range(len(cutouts))]


def _boxes(net: nn.Module, batch: Tensor) -> list[npt.NDArray[np.float64]]:
    with torch.inference_mode():
        raw = net(batch)
        raw = raw[0] if isinstance(raw, (tuple, list)) else raw
        kept = non_max_suppression(raw, _MIN_CONFIDENCE, _NMS_OVERLAP, max_det=30, nc=len(CLASSES))
    return [k.double().cpu().numpy() for k in kept]


def train_network(data_yaml: str, out_dir: str, config: CounterConfig, resume: bool) -> nn.Module:
    """Train from scratch with ultralytics on pictures and boxes on disk; returns the averaged network."""
    start = f"{out_dir}/detector/weights/last.pt" if resume else _written(config, out_dir)
    yolo = YOLO(start, task="detect")
    yolo.train(
        data=data_yaml, imgsz=config.train_pix, epochs=config.epochs, batch=config.batch_size, device="cpu",
        workers=0, cache="ram", project=out_dir, name="detector", exist_ok=True, resume=resume, pretrained=False,
        optimizer="AdamW", lr0=config.learning_rate, lrf=0.02, warmup_epochs=0.5, cos_lr=True, seed=config.seed,
        amp=False, plots=False, verbose=False, val=True, deterministic=False, close_mosaic=0,
        mosaic=0.0, mixup=0.0, hsv_h=0.02, hsv_s=0.4, hsv_v=0.25, degrees=0.0, translate=0.1, scale=0.2,
        fliplr=0.5, flipud=0.5, erasing=0.0,
    )  # fmt: skip
    trained = YOLO(f"{out_dir}/detector/weights/best.pt").model
    net: nn.Module = trained.float().eval()
    return net


def _written(config: CounterConfig, out_dir: str) -> str:
    import yaml

    path = f"{out_dir}/detector-network.yaml"
    with open(path, "w") as file:
        yaml.safe_dump(description(config.width), file)
    return path
