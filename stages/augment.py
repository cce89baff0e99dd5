"""Augmentations of network input: what differs between skies without changing what the object is.

All take and return pixels (N, 6, S, S) as `stages.scaling` makes them, scaled planes then validity planes, and keep its
meaning: an invalid pixel is 0 unless another slot has it, an absent slot is the mean of those present.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.scaling import N_SLOTS, SOFTENING_SIGMA
from stages.training import dihedral


@dataclass(frozen=True)
class Augmentation:
    """Strengths and chances; see the functions of the same names."""

    shift_pix: int = 2
    turn_chance: float = 0.5
    zoom_sigma: float = 0.12
    colour_sigma: float = 0.15
    depth_sigma: float = 0.3
    noise_chance: float = 0.3
    blur_chance: float = 0.2
    grey_chance: float = 0.12
    drop_chance: float = 0.1
    patch_chance: float = 0.15


def augment(
    pixels: Tensor, conditions: Tensor, how: Augmentation, rng: np.random.Generator, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch altered; `mask` (N, S, S) moves with the pixels. Returns pixels, conditions and mask."""
    size = pixels.shape[-1]
    extra = torch.zeros(len(pixels), 1, size, size) if mask is None else mask[:, None]
    x = dihedral(torch.cat([pixels, extra], 1), int(rng.integers(8)))
    shift = tuple(int(v) for v in rng.integers(-how.shift_pix, how.shift_pix + 1, 2))
    x = torch.roll(x, shift, (2, 3))
    if rng.random() < how.turn_chance:
        x = turn(x, how.zoom_sigma, rng)
    flux, valid, extra = x[:, :N_SLOTS], x[:, N_SLOTS : 2 * N_SLOTS], x[:, -1]
    flux = photometric(flux, how, rng)
    valid = patches(valid, how.patch_chance, rng)
    valid, conditions = drop(valid, conditions, how, rng)
    return torch.cat([refill(flux, valid), valid], 1), conditions, extra


def turn(x: Tensor, zoom_sigma: float, rng: np.random.Generator) -> Tensor:
    """Rotate by any angle and zoom a little; what comes from outside is invalid."""
    angle = rng.uniform(0, 2 * np.pi, len(x))
    zoom = np.exp(zoom_sigma * rng.normal(size=len(x)))
    matrix = np.zeros((len(x), 2, 3), np.float32)
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle) * zoom
    matrix[:, 0, 1], matrix[:, 1, 0] = -np.sin(angle) * zoom, np.sin(angle) * zoom
    grid = F.affine_grid(torch.from_numpy(matrix), list(x.shape), align_corners=False)
    y = F.grid_sample(x, grid, align_corners=False, padding_mode="zeros")
    return torch.cat([y[:, :N_SLOTS], (y[:, N_SLOTS:-1] > 0.5).float(), y[:, -1:]], 1)


def photometric(flux: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Change zero points, depth, seeing and noise in linear flux."""
    n = len(flux)
    linear = torch.sinh(flux * SOFTENING_SIGMA)
    factor = np.exp(
        how.colour_sigma * rng.normal(size=(n, N_SLOTS, 1, 1)) + how.depth_sigma * rng.normal(size=(n, 1, 1, 1))
    )
    linear = linear * torch.from_numpy(factor.astype(np.float32))
    sigma = rng.uniform(0.3, 1.2, n) * (rng.random(n) < how.blur_chance)
    linear = blurred(linear, sigma)
    amplitude = rng.uniform(0, 0.4, (n, 1, 1, 1)) * (rng.random((n, 1, 1, 1)) < how.noise_chance)
    grain = blurred(torch.randn_like(linear), rng.uniform(0.5, 1.0, n) * (rng.random(n) < 0.5))  # resampled: correlated
    linear = linear + torch.from_numpy(amplitude.astype(np.float32)) * grain
    return torch.asinh(linear) / SOFTENING_SIGMA


def blurred(planes: Tensor, sigma_pix: npt.NDArray[np.float64]) -> Tensor:
    """Planes (N, C, S, S) convolved with Gaussians of sigma (N,) pixels, up to 1.2; sigma 0 changes nothing."""
    chosen = np.flatnonzero(sigma_pix > 0)
    if not len(chosen):
        return planes
    offset = np.arange(-3, 4)
    profile = np.exp(-0.5 * (offset / sigma_pix[chosen, None]) ** 2)
    weights = torch.from_numpy((profile / profile.sum(axis=1, keepdims=True)).astype(np.float32))
    x = planes[chosen]
    n, c, height, width = x.shape
    kernel = weights.repeat_interleave(c, 0)[:, None]
    padded = F.pad(x.reshape(1, n * c, height, width), (3, 3, 3, 3), mode="replicate")
    across = F.conv2d(padded, kernel[:, :, None, :], groups=n * c)
    out = planes.clone()
    out[chosen] = F.conv2d(across, kernel[:, :, :, None], groups=n * c).reshape(n, c, height, width)
    return out


def patches(valid: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """Mask a random rectangle and scattered pixels of all slots in some cutouts."""
    valid = valid.clone()
    size = valid.shape[-1]
    for k in np.flatnonzero(rng.random(len(valid)) < chance):
        y, x = rng.integers(0, size, 2)
        height, width = rng.integers(1, size // 4, 2)
        valid[k, :, y : y + height, x : x + width] = 0
        scattered = torch.from_numpy(rng.random((size, size)) < rng.uniform(0, 0.08))
        valid[k, :, scattered] = 0
    return valid


def drop(valid: Tensor, conditions: Tensor, how: Augmentation, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Take a colour slot, or all but the middle one, from some cutouts that have all three."""
    valid, conditions = valid.clone(), conditions.clone()
    complete = (valid.amax((2, 3)).sum(1) == N_SLOTS).numpy()
    draw = rng.random(len(valid))
    grey = complete & (draw < how.grey_chance)
    for k in np.flatnonzero(grey):
        valid[k, 0] = valid[k, 2] = 0
    for k in np.flatnonzero(complete & ~grey & (draw < how.grey_chance + how.drop_chance)):
        valid[k, int(rng.integers(N_SLOTS))] = 0
    conditions[:, 1] = valid.amax((2, 3)).mean(1)
    return valid, conditions


def refill(flux: Tensor, valid: Tensor) -> Tensor:
    """Give pixels that a slot lacks the mean of the slots that have them, 0 where none has: as scaling does."""
    count = valid.sum(1, keepdim=True)
    mean = (flux * valid).sum(1, keepdim=True) / count.clamp(min=1)
    return torch.where(valid > 0, flux, mean)
