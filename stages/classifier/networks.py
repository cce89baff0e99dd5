"""Stage 1's networks behind one interface: `build(name, width, dropout)` gives a `Classifier`, whatever its body.

compact : a small residual network, the baseline. light : the same after a first layer that halves the frame, in half
the time. polar : the same on circles about the middle, which sees the cutout
with and without its galaxy's own light; quarter turns change nothing by construction. invariant : group convolutions
over the eight rotations and reflections, whose logit does not depend on them by construction. resnet18,
efficientnet_b0, mobilenet_v3_small : torchvision's, from scratch, with a first layer for the project's planes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from stages.cache import Cached, batches
from stages.deflector import without_deflector
from stages.polar import JoinEnds, to_polar
from stages.scaling import N_CHANNELS, N_CONDITIONS, N_SLOTS
from stages.training import N_DIHEDRAL, device_of, dihedral

_TURNS = 4  # reflections as well cost twice the time and change no figure on real sky by more than its error


class Classifier(nn.Module):
    """(N, 6, 64, 64) scaled pixels and (N, 2) conditions to (N,) logits, through a body of `n_channels` maps.

    n_views : quarter turns over which to average its logits; 1 where they make no difference.
    """

    def __init__(self, stem: nn.Module, body: nn.Module, n_channels: int, dropout: float, n_views: int) -> None:
        super().__init__()
        self.n_views = n_views
        self.stem, self.body = stem, body
        self.scale = nn.Linear(N_CONDITIONS, 2 * n_channels)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * n_channels, 64), nn.ReLU(), nn.Linear(64, 1))

    def features(self, pixels: Tensor, conditions: Tensor) -> Tensor:
        """Pooled features (N, 2 * n_channels): mean and maximum of each map, scaled by the conditions."""
        h = self.body(self.stem(pixels))
        pooled = torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)
        out: Tensor = pooled * (1 + 0.1 * self.scale(conditions))
        return out

    def forward(self, pixels: Tensor, conditions: Tensor) -> Tensor:
        """Logit (N,) that the cutout holds a lens, before calibration."""
        return self.decide(self.features(pixels, conditions))

    def decide(self, features: Tensor) -> Tensor:
        """Logit (N,) from features."""
        out: Tensor = self.head(features)[:, 0]
        return out


class Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (He et al. 2016), the columns joined into a circle where `circular`."""

    def __init__(self, n_in: int, n_out: int, stride: int, circular: bool = False) -> None:
        super().__init__()
        self.first = _conv(n_in, n_out, stride, circular)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.second = _conv(n_out, n_out, 1, circular)
        self.norm2 = nn.BatchNorm2d(n_out)
        same = n_in == n_out and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) to (N, n_out, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(y)) + self.shortcut(x))


def _conv(n_in: int, n_out: int, stride: int, circular: bool) -> nn.Module:
    if not circular:
        return nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
    return nn.Sequential(JoinEnds(), nn.Conv2d(n_in, n_out, 3, stride, (1, 0), bias=False))


class Circles(nn.Module):
    """(N, 6, S, S) scaled pixels as polar planes (N, 10, S / 2, T): these, the same without the galaxy, the radius."""

    n_planes = N_CHANNELS + N_SLOTS + 1

    def forward(self, pixels: Tensor) -> Tensor:
        """About the middle of the frame."""
        n, _, _, size = pixels.shape
        centre = torch.full((n, 2), (size - 1) / 2, device=pixels.device)
        seen = torch.cat([pixels.float(), without_deflector(pixels.float(), centre)], 1)
        planes = to_polar(seen, centre, size // 2)
        radius = torch.linspace(0, 1, size // 2, device=pixels.device)[None, None, :, None]
        out = torch.cat([planes, radius.expand(n, 1, -1, planes.shape[-1])], 1)
        return out.contiguous(memory_format=torch.channels_last)


class GroupConv(nn.Module):
    """3 x 3 convolution that turns with its input (Cohen & Welling 2016, group p4m), normalised and rectified.

    From planes (N, n_in, H, W), or from the eight poses (N, n_in * 8, H, W) of another such layer, to the eight poses
    (N, n_out * 8, H, W) of its own.
    """

    def __init__(self, n_in: int, n_out: int, lifting: bool = False) -> None:
        super().__init__()
        self.n_in, poses = n_in, 1 if lifting else N_DIHEDRAL
        self.weight = nn.Parameter(torch.empty(n_out, n_in * poses, 3, 3))
        nn.init.normal_(self.weight, std=(2 / (n_in * poses * 9)) ** 0.5)
        self.norm = nn.BatchNorm3d(n_out)
        self.register_buffer("order", torch.from_numpy(_before()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the filters in all eight poses."""
        assert isinstance(self.order, Tensor)
        weight = self.weight.reshape(len(self.weight), self.n_in, -1, 3, 3)
        n_out, _, poses = weight.shape[:3]
        turned = [dihedral(weight if poses == 1 else weight[:, :, self.order[k]], k) for k in range(N_DIHEDRAL)]
        filters = torch.stack(turned, 1).reshape(n_out * N_DIHEDRAL, self.n_in * poses, 3, 3)
        y = F.conv2d(x, filters, padding=1)
        y = self.norm(y.reshape(len(y), n_out, N_DIHEDRAL, *y.shape[2:]))
        return F.relu(y).flatten(1, 2)


class OverPoses(nn.Module):
    """The largest response of each feature over its eight poses, (N, 8 C, H, W) to (N, C, H, W): blind to turns."""

    def forward(self, x: Tensor) -> Tensor:
        """Take the maximum."""
        out: Tensor = x.reshape(len(x), -1, N_DIHEDRAL, *x.shape[2:]).amax(2)
        return out


def _before() -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Table (8, 8): which pose of the input the filter of pose 0 sees at pose h once it is turned to pose k."""
    square = torch.arange(9).reshape(3, 3)
    code = {tuple(dihedral(square, k).ravel().tolist()): k for k in range(N_DIHEDRAL)}
    table = np.zeros((N_DIHEDRAL, N_DIHEDRAL), np.int64)
    for g in range(N_DIHEDRAL):  # turning by g moves what is at pose h to pose of "h, then g"
        for h in range(N_DIHEDRAL):
            table[g, code[tuple(dihedral(dihedral(square, h), g).ravel().tolist())]] = h
    return table


def _compact(width: int) -> tuple[nn.Module, nn.Module, int]:
    w = width
    stem = nn.Sequential(nn.Conv2d(N_CHANNELS, w, 3, 1, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(), nn.MaxPool2d(2))
    body = nn.Sequential(Block(w, w, 1), Block(w, 2 * w, 2), Block(2 * w, 4 * w, 2), Block(4 * w, 4 * w, 1))
    return stem, body, 4 * w


def _light(width: int) -> tuple[nn.Module, nn.Module, int]:
    _, body, n_channels = _compact(width)
    stem = nn.Sequential(nn.Conv2d(N_CHANNELS, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    return stem, body, n_channels


def _polar(width: int) -> tuple[nn.Module, nn.Module, int]:
    w = width
    stem = nn.Sequential(Circles(), _conv(Circles.n_planes, w, 1, True), nn.BatchNorm2d(w), nn.ReLU(), nn.MaxPool2d(2))
    sizes = ((w, w, 1), (w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 4 * w, 1))
    return stem, nn.Sequential(*(Block(*size, circular=True) for size in sizes)), 4 * w


def _invariant(width: int) -> tuple[nn.Module, nn.Module, int]:
    w = max(2, width // 6)  # eight poses of each
    stem = nn.Sequential(GroupConv(N_CHANNELS, w, lifting=True), nn.MaxPool2d(2))
    body = nn.Sequential(
        GroupConv(w, 2 * w), nn.MaxPool2d(2), GroupConv(2 * w, 2 * w), GroupConv(2 * w, 4 * w),
        nn.MaxPool2d(2), GroupConv(4 * w, 4 * w), GroupConv(4 * w, 4 * w), OverPoses(),
    )  # fmt: skip
    return stem, body, 4 * w


def _resnet18(width: int) -> tuple[nn.Module, nn.Module, int]:
    net = models.resnet18()
    net.conv1 = _first_layer(net.conv1)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return stem, nn.Sequential(net.layer1, net.layer2, net.layer3, net.layer4), 512


def _efficientnet_b0(width: int) -> tuple[nn.Module, nn.Module, int]:
    body = models.efficientnet_b0().features
    body[0][0] = _first_layer(body[0][0])
    return nn.Identity(), body, 1280


def _mobilenet_v3_small(width: int) -> tuple[nn.Module, nn.Module, int]:
    body = models.mobilenet_v3_small().features
    body[0][0] = _first_layer(body[0][0])
    return nn.Identity(), body, 576


def _first_layer(old: nn.Conv2d) -> nn.Conv2d:
    """The same layer for the project's planes."""
    return nn.Conv2d(N_CHANNELS, old.out_channels, 3, 2, 1, bias=False)


NETWORKS: dict[str, Callable[[int], tuple[nn.Module, nn.Module, int]]] = {
    "compact": _compact,
    "light": _light,
    "invariant": _invariant,
    "polar": _polar,
    "resnet18": _resnet18,
    "efficientnet_b0": _efficientnet_b0,
    "mobilenet_v3_small": _mobilenet_v3_small,
}


def build(name: str, width: int = 24, dropout: float = 0.2) -> Classifier:
    """A fresh network of `NETWORKS`; `width` : channels of the first layer, where torchvision does not set it."""
    return Classifier(*NETWORKS[name](width), dropout, 1 if name in ("invariant", "polar") else _TURNS)


def logits_of(
    net: Classifier, data: Cached, rows: npt.NDArray[np.intp], n_views: int | None = None
) -> npt.NDArray[np.float64]:
    """Logits (n,) of rows, averaged over the first rotations and reflections; all that the network wants by default."""
    n_views = n_views or net.n_views
    net.eval()
    out = [np.empty(0)]
    with torch.inference_mode():
        for part in batches(rows, 256):
            pixels = torch.from_numpy(np.asarray(data.pixels[part], np.float32))
            conditions = torch.from_numpy(data.conditions[part])
            pixels, conditions = (t.to(device_of(net)) for t in (pixels, conditions))
            out.append(sum(net(dihedral(pixels, k), conditions) for k in range(n_views)).cpu().numpy() / n_views)
    return np.asarray(np.concatenate(out), np.float64)
