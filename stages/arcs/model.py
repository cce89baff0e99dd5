"""The arc network: a small U-Net on circles about the deflector that marks lensed light and measures its ring."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.augment import Augmentation
from stages.deflector import without_deflector
from stages.polar import N_RADII, JoinEnds, to_polar, to_square
from stages.records import FloatArray
from stages.scaling import N_CHANNELS, N_CONDITIONS, N_SLOTS, Frame
from stages.training import LEAST_WIDTH, Schedule, device_of, fast_arithmetic

FRAME = Frame(80, 0.125, sharp_pixel_arcsec=0.08)
GRIDS = ("polar", "square", "both")
_RADIUS_UNIT_ARCSEC = 5.0  # the radius plane is in this unit, so that it stays of order one
_OUTSIDE_LOGIT = -8.0  # of lensed light where a grid does not reach
_N_HIDDEN = 64


@dataclass(frozen=True)
class ArcsConfig:
    """Settings of stage 3; see `configs/arcs.yaml`.

    width : channels of the first level; depth : residual blocks after every level but the finest, which see the whole
    cutout's summary as well; grid : what the network sees, circles about the deflector (polar), the square cutout, or
    the circles and beside them what two levels on the square cutout make of it (both); subtract : whether it sees the
    cutout without the deflector's light as well; centre_jitter_fwhm : error of the deflector's position that is trained
    for, per axis, in units of the seeing; min_arc_snr : lenses whose arcs are fainter are left out of training;
    max_arc_contrast, min_theta_e_seeing : those with brighter arcs beside their deflector, or of a smaller Einstein
    radius in units of the seeing, teach light and radius, but not the score; hard_share : part of a batch's non-lenses
    that is drawn from the hard_part of all which the network takes most for lenses, chosen anew at each check; start :
    weights to go on from instead of fresh ones, of the same network or a shallower one; keep_start : their share in the
    mean with the trained ones that is kept.
    """

    width: int = 16
    depth: int = 0
    grid: str = "polar"
    subtract: bool = True
    centre_jitter_fwhm: float = 0.3
    min_arc_snr: float = 25.0
    max_arc_contrast: float = 1e6
    min_theta_e_seeing: float = 0.0
    hard_share: float = 0.5
    hard_part: float = 0.1
    start: str = ""
    keep_start: float = 0.0
    seed: int = 1
    workers: int = 2
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.width < LEAST_WIDTH:
            raise ValueError(f"width {self.width}: expected {LEAST_WIDTH} or more")
        if self.grid not in GRIDS:
            raise ValueError(f"grid {self.grid!r}: expected one of {', '.join(GRIDS)}")


@dataclass(frozen=True, eq=False)
class ArcOutput:
    """Answers for N cutouts, all of them logits.

    mask : (N, S, S) that a grid pixel is lensed; angles : (N, T) that lensed light is seen in a direction from the
    deflector; score : (N,) that there is any; radius : (N, R) of the Einstein radius lying between k and k + 1 grid
    pixels, a share of one over k.
    """

    mask: Tensor
    angles: Tensor
    score: Tensor
    radius: Tensor

    def cpu(self) -> ArcOutput:
        """The same in the memory of the CPU."""
        return ArcOutput(self.mask.cpu(), self.angles.cpu(), self.score.cpu(), self.radius.cpu())


@dataclass(frozen=True, eq=False)
class Measured:
    """What a network says of N cutouts, before its errors are calibrated.

    mask (N, S, S) probability of lensed light; angles (N, T) and score (N,) logits; theta_pix (N,) median Einstein
    radius in grid pixels and sigma_pix (N,), half of its central 68%.
    """

    mask: npt.NDArray[np.float32]
    angles: FloatArray
    score: FloatArray
    theta_pix: FloatArray
    sigma_pix: FloatArray


class Level(nn.Sequential):
    """Two 3 x 3 convolutions, the columns joined into a circle where `polar`."""

    def __init__(self, n_in: int, n_out: int, polar: bool) -> None:
        super().__init__(
            *_convolution(n_in, n_out, polar),
            *_convolution(n_out, n_out, polar),
        )


def _convolution(n_in: int, n_out: int, polar: bool) -> tuple[nn.Module, ...]:
    pad: tuple[nn.Module, ...] = (JoinEnds(),) if polar else ()
    return (*pad, nn.Conv2d(n_in, n_out, 3, 1, (1, 0) if polar else 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())


class Block(nn.Module):
    """Adds to a level of n channels what two more convolutions say of it (He et al. 2016); at first nothing."""

    def __init__(self, n: int, polar: bool) -> None:
        super().__init__()
        *body, last, _ = (*_convolution(n, n, polar), *_convolution(n, n, polar))
        assert isinstance(last, nn.BatchNorm2d)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(*body, last)

    def forward(self, level: Tensor) -> Tensor:
        """(N, n, R, T) to the same shape."""
        return F.relu(level + self.body(level))


class ArcNet(nn.Module):
    """(N, 6, S, S) scaled pixels, (N, 2) conditions and (N, 2) centres on the grid to an `ArcOutput`."""

    def __init__(self, width: int = 16, grid: str = "polar", subtract: bool = True, depth: int = 0) -> None:
        super().__init__()
        self.polar, self.subtract, self.depth = grid != "square", subtract, depth
        sizes = (width, 2 * width, 4 * width, 6 * width)
        first = N_CHANNELS + 1 + (N_SLOTS if subtract else 0)
        self.down = nn.ModuleList(
            Level(n_in, n_out, self.polar) for n_in, n_out in zip((first, *sizes[:-1]), sizes, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(sizes[k + 1], sizes[k], 1) for k in range(3))
        self.up = nn.ModuleList(Level(sizes[k], sizes[k], self.polar) for k in range(3))
        self.deeper_down = nn.ModuleList(self._blocks(n) for n in sizes[1:])
        self.deeper_up = nn.ModuleList(self._blocks(n) for n in sizes[1:3])
        if depth:
            self.context = nn.Linear(2 * sizes[-1] + N_CONDITIONS, sizes[-1])
            nn.init.zeros_(self.context.weight)
            nn.init.zeros_(self.context.bias)
        self.both = grid == "both"
        if self.both:
            self.beside = nn.ModuleList([Level(first, width, False), Level(width, 2 * width, False)])
            self.join = nn.Conv2d(3 * width, width, 1)
            for parameter in self.join.parameters():
                nn.init.zeros_(parameter)
        self.mask = nn.Conv2d(width, 1, 1)
        self.angles = nn.Sequential(
            nn.Conv1d(2 * width, _N_HIDDEN, 5, padding=2, padding_mode="circular"), nn.ReLU(),
            nn.Conv1d(_N_HIDDEN, 1, 1),
        )  # fmt: skip
        self.rings = nn.Sequential(nn.Conv1d(2 * width + 2, _N_HIDDEN, 5, padding=2), nn.ReLU(),
                                   nn.Conv1d(_N_HIDDEN, _N_HIDDEN, 5, padding=2), nn.ReLU())  # fmt: skip
        self.radius = nn.Conv1d(_N_HIDDEN, 1, 1)
        self.radius_context = nn.Linear(2 * sizes[-1] + N_CONDITIONS, N_RADII)
        self.score = nn.Sequential(
            nn.Linear(2 * sizes[-1] + _N_HIDDEN + N_CONDITIONS, _N_HIDDEN), nn.ReLU(), nn.Linear(_N_HIDDEN, 1)
        )

    def _blocks(self, n: int) -> nn.Sequential:
        return nn.Sequential(*(Block(n, self.polar) for _ in range(self.depth)))

    def _beside(self, square: Tensor, centre: Tensor) -> Tensor:
        """What the levels on the square cutout say, on circles (N, 3 width, R, T)."""
        fine = self.beside[0](square)
        coarse = F.interpolate(self.beside[1](F.max_pool2d(fine, 2)), scale_factor=2.0, mode="nearest")
        return to_polar(torch.cat([fine, coarse], 1).float(), centre)

    def forward(self, pixels: Tensor, conditions: Tensor, centre: Tensor) -> ArcOutput:
        """Run the network."""
        scale = pixel_arcsec(conditions)
        square = torch.cat([pixels, without_deflector(pixels, centre)], 1) if self.subtract else pixels
        h = _with_radius(to_polar(square, centre), ring_arcsec(scale)[..., None]) if self.polar else None
        if h is None or self.both:
            square = _with_radius(square, radius_plane(centre, pixels.shape[-1], scale))
        h = square if h is None else h
        levels = []
        for k, level in enumerate(self.down):
            h = self.deeper_down[k - 1](level(F.max_pool2d(h, 2))) if k else level(h)
            h = h + self.join(self._beside(square, centre)) if self.both and not k else h
            levels.append(h)
        pooled = torch.cat([h.mean((2, 3)), h.amax((2, 3)), conditions], 1)
        if self.depth:
            h = h + self.context(pooled)[..., None, None]
        for k in (2, 1, 0):
            wide = F.interpolate(self.narrow[k](h), scale_factor=2.0, mode="nearest")
            h = self.up[k](wide + levels[k])
            h = self.deeper_up[k - 1](h) if k else h
        mask = self.mask(h).float()
        if self.polar:
            mask = to_square(mask - _OUTSIDE_LOGIT, centre, pixels.shape[-1]) + _OUTSIDE_LOGIT
        circles = h if self.polar else to_polar(h.float(), centre)
        along = torch.cat([circles.mean(3), circles.amax(3)], 1)  # (N, 2 width, R)
        known = torch.stack([ring_arcsec(scale) / _RADIUS_UNIT_ARCSEC, conditions[:, :1].expand(-1, N_RADII)], 1)
        rings = self.rings(torch.cat([along, known], 1))
        return ArcOutput(
            mask[:, 0],
            self.angles(torch.cat([circles.mean(2), circles.amax(2)], 1))[:, 0].float(),
            self.score(torch.cat([pooled, rings.amax(2)], 1))[:, 0].float(),
            (self.radius(rings)[:, 0] + self.radius_context(pooled)).float(),
        )


def _with_radius(planes: Tensor, radius_arcsec: Tensor) -> Tensor:
    """Planes (N, C, H, W) and one more of their distance from the centre, (N, H, W) or (N, H, 1) in arcsec."""
    plane = (radius_arcsec / _RADIUS_UNIT_ARCSEC)[:, None].expand(-1, -1, -1, planes.shape[-1])
    return torch.cat([planes, plane], 1).contiguous(memory_format=torch.channels_last)


def build(config: ArcsConfig) -> ArcNet:
    """A fresh network of a configuration."""
    return ArcNet(config.width, config.grid, config.subtract, config.depth)


def pixel_arcsec(conditions: Tensor) -> Tensor:
    """Side (N,) of a grid pixel, which follows from the resolution (see `stages.scaling.Frame`)."""
    return torch.where(conditions[:, 0] < 0, FRAME.sharp_pixel_arcsec or FRAME.pixel_arcsec, FRAME.pixel_arcsec)


def resolution_pix(conditions: Tensor) -> Tensor:
    """Resolution (N,) in grid pixels."""
    return 0.3 * 10 ** conditions[:, 0] / pixel_arcsec(conditions)


def ring_arcsec(pixel_arcsec: Tensor) -> Tensor:
    """Radii (N, R) in arcsec of the circles of `stages.polar` on grids of pixels (N,)."""
    return (torch.arange(N_RADII, device=pixel_arcsec.device) + 0.5) * pixel_arcsec[:, None]


def radius_plane(centre: Tensor, size: int, pixel_arcsec: Tensor) -> Tensor:
    """Distance (N, S, S) in arcsec of every pixel from centres (N, 2) on the grid of pixels (N,)."""
    index = torch.arange(size, device=centre.device, dtype=torch.float32)
    dx, dy = index - centre[:, :1], index - centre[:, 1:]
    return torch.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2) * pixel_arcsec[:, None, None]


def measured(net: nn.Module, pixels: Tensor, conditions: Tensor, centre: Tensor) -> Measured:
    """Apply a network, wherever it lies, to N cutouts about centres (N, 2) on the grid."""
    device = device_of(net)
    with torch.inference_mode(), fast_arithmetic(device):
        out: ArcOutput = net(*(tensor.to(device) for tensor in (pixels, conditions, centre)))
        low, middle, high = (_quantile(out.radius.softmax(1), q) for q in (0.1587, 0.5, 0.8413))
        mask = out.mask.sigmoid()
    angles, score, theta, sigma = (
        v.double().cpu().numpy() for v in (out.angles, out.score, middle, 0.5 * (high - low))
    )
    return Measured(mask.cpu().numpy(), angles, score, theta, sigma)


def _quantile(share: Tensor, q: float) -> Tensor:
    """Where (N,) the cumulated shares (N, R) of bins one wide reach q, linear within a bin."""
    upper = share.cumsum(1)
    k = (upper < q).sum(1, keepdim=True).clamp(max=share.shape[1] - 1)
    inside = share.gather(1, k).clamp(min=1e-9)
    return (k + (q - (upper.gather(1, k) - inside)) / inside)[:, 0].clamp(0, share.shape[1])
