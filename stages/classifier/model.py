"""The classifier's network: a compact residual network conditioned on resolution and on which colours there are."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.augment import Augmentation
from stages.scaling import N_CHANNELS, N_CONDITIONS, Frame
from stages.training import Schedule

FRAME = Frame(64, 0.1875, sharp_pixel_arcsec=0.11)
N_VIEWS = 8  # rotations and reflections over which logits are averaged


@dataclass(frozen=True)
class ClassifierConfig:
    """Settings of stage 1; see `configs/classifier.yaml`.

    members : networks in the ensemble, each from its own seed; width : channels of the first layer;
    positive_share : lenses in a batch; min_arc_snr, min_arc_contrast : lenses whose arcs are fainter, or fainter beside
    their deflector, are left out of training; hard_share : part of a batch's non-lenses that is drawn from the
    hard_part of all which the network takes most for lenses, chosen anew at each check; start : weights to go on from
    instead of fresh ones, of the same width.
    """

    members: int = 2
    width: int = 24
    dropout: float = 0.2
    label_smoothing: float = 0.05
    positive_share: float = 0.4
    min_arc_snr: float = 25.0
    min_arc_contrast: float = 0.15
    hard_share: float = 0.5
    hard_part: float = 0.1
    start: str = ""
    seed: int = 1
    workers: int = 2
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)


class Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        same = n_in == n_out and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) to (N, n_out, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(y)) + self.shortcut(x))


class Classifier(nn.Module):
    """(N, 6, 64, 64) scaled pixels and (N, 2) conditions to (N,) logits."""

    def __init__(self, width: int = 24, dropout: float = 0.2) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(
            nn.Conv2d(N_CHANNELS, w, 3, 1, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.body = nn.Sequential(Block(w, w, 1), Block(w, 2 * w, 2), Block(2 * w, 4 * w, 2), Block(4 * w, 4 * w, 1))
        self.scale = nn.Linear(N_CONDITIONS, 8 * w)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(8 * w, 64), nn.ReLU(), nn.Linear(64, 1))

    def features(self, pixels: Tensor, conditions: Tensor) -> Tensor:
        """Pooled features (N, 8 * width): mean and maximum of each channel, scaled by the conditions."""
        h = self.body(self.stem(pixels))
        pooled = torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)
        out: Tensor = pooled * (1 + 0.1 * self.scale(conditions))
        return out

    def forward(self, pixels: Tensor, conditions: Tensor) -> Tensor:
        """Logit (N,) that the cutout holds a lens, before calibration."""
        out: Tensor = self.head(self.features(pixels, conditions))[:, 0]
        return out
