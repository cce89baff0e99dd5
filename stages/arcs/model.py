"""The arc network: a small U-Net whose mask, profiled in radius about the deflector, also gives score and ring size."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.augment import Augmentation
from stages.scaling import N_CHANNELS, N_CONDITIONS, Frame
from stages.training import Schedule

FRAME = Frame(80, 0.125, sharp_pixel_arcsec=0.08)
N_RADII = 20
RADIUS_UNIT_ARCSEC = 5.0  # the radius plane is in this unit, so that it stays of order one
_N_HEAD = 3


@dataclass(frozen=True)
class ArcsConfig:
    """Settings of stage 3; see `configs/arcs.yaml`.

    width : channels of the first level; centre_jitter_arcsec : error of the deflector's position that is trained for;
    min_arc_snr : lenses whose arcs are fainter are left out of training; start : weights to go on from instead of fresh
    ones, of the same width.
    """

    width: int = 16
    centre_jitter_arcsec: float = 0.25
    min_arc_snr: float = 25.0
    start: str = ""
    seed: int = 1
    workers: int = 2
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, eq=False)
class ArcOutput:
    """Answers for N cutouts: mask logits (N, S, S), score logit, log Einstein radius and its log variance."""

    mask: Tensor
    score: Tensor
    log_theta: Tensor
    log_variance: Tensor


class Level(nn.Sequential):
    """Two 3 x 3 convolutions."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(
            nn.Conv2d(n_in, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
        )


class ArcNet(nn.Module):
    """(N, 6, S, S) scaled pixels, (N, 2) conditions and (N, 2) centres on the grid to an `ArcOutput`."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width, 6 * width)
        self.down = nn.ModuleList(
            Level(n_in, n_out) for n_in, n_out in zip((N_CHANNELS + 1, *sizes[:-1]), sizes, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(sizes[k + 1], sizes[k], 1) for k in range(3))
        self.up = nn.ModuleList(Level(sizes[k], sizes[k]) for k in range(3))
        self.mask = nn.Conv2d(width, 1, 1)
        self.head = nn.Sequential(
            nn.Linear(2 * sizes[-1] + N_RADII + N_CONDITIONS, 96), nn.ReLU(), nn.Linear(96, _N_HEAD)
        )

    def forward(self, pixels: Tensor, conditions: Tensor, centre: Tensor) -> ArcOutput:
        """Run the network."""
        radius = radius_plane(centre, pixels.shape[-1], pixel_arcsec(conditions))
        h = torch.cat([pixels, (radius / RADIUS_UNIT_ARCSEC)[:, None]], 1)
        levels = []
        for k, level in enumerate(self.down):
            h = level(F.max_pool2d(h, 2) if k else h)
            levels.append(h)
        pooled = torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)
        for k in (2, 1, 0):
            wide = F.interpolate(self.narrow[k](h), scale_factor=2.0, mode="nearest")
            h = self.up[k](wide + levels[k])
        mask = self.mask(h)[:, 0].float()
        numbers = self.head(torch.cat([pooled.float(), radial_profile(mask.sigmoid(), radius), conditions], 1)).float()
        return ArcOutput(mask, numbers[:, 0], numbers[:, 1], numbers[:, 2].clamp(-8, 2))


def pixel_arcsec(conditions: Tensor) -> Tensor:
    """Side (N,) of a grid pixel, which follows from the resolution (see `stages.scaling.Frame`)."""
    return torch.where(conditions[:, 0] < 0, FRAME.sharp_pixel_arcsec or FRAME.pixel_arcsec, FRAME.pixel_arcsec)


def radius_plane(centre: Tensor, size: int, pixel_arcsec: Tensor) -> Tensor:
    """Distance (N, S, S) in arcsec of every pixel from centres (N, 2) on the grid of pixels (N,)."""
    index = torch.arange(size, device=centre.device, dtype=torch.float32)
    dx, dy = index - centre[:, :1], index - centre[:, 1:]
    return torch.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2) * pixel_arcsec[:, None, None]


def radial_profile(mask: Tensor, radius: Tensor) -> Tensor:
    """Mean (N, N_RADII) of a mask in rings about the centre, out to the widest frame's half side."""
    width = 0.5 * FRAME.size_pix * FRAME.pixel_arcsec / N_RADII
    ring = (radius / width).floor().long().clamp(max=N_RADII).flatten(1)
    total = torch.zeros(len(mask), N_RADII + 1, device=mask.device)
    count = torch.zeros_like(total).scatter_add_(1, ring, torch.ones_like(mask).flatten(1))
    return (total.scatter_add(1, ring, mask.flatten(1)) / count.clamp(min=1))[:, :N_RADII]
