"""Augmentations of network input: what differs between skies without changing what the object is.

All take and return pixels (N, 6, S, S) as `stages.scaling` makes them, scaled planes then validity planes, and keep its
meaning: an invalid pixel is 0 unless another slot has it, an absent slot is the mean of those present.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.scaling import N_SLOTS
from stages.softening import linear, softened

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
import albumentations as A


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
    flux, valid = pixels[:, :N_SLOTS], pixels[:, N_SLOTS:]
    extra = torch.zeros_like(valid[:, :1]) if mask is None else mask[:, None].to(valid.dtype)
    flux, marks = moved(flux, torch.cat([valid, extra], 1), how, rng)
    valid, extra = marks[:, :N_SLOTS], marks[:, N_SLOTS]
    flux = photometric(flux, how, rng)
    valid = patches(valid, how.patch_chance, rng)
    valid, conditions = drop(valid, conditions, how, rng)
    return torch.cat([refill(flux, valid), valid], 1), conditions, extra


def moved(flux: Tensor, marks: Tensor, how: Augmentation, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turn, reflect, shift and, some, rotate by any angle and zoom each cutout; what comes from outside is 0.

    Fluxes (N, C, S, S) are interpolated, marks (N, D, S, S) such as validity are taken from the nearest pixel.
    """
    low, high = np.exp(np.array([-2, 2]) * how.zoom_sigma)
    steps = A.Compose(
        [
            A.D4(p=1.0),
            A.Affine(translate_px=(-how.shift_pix, how.shift_pix), interpolation=cv2.INTER_NEAREST, p=1.0),
            A.Affine(rotate=(-180, 180), scale=(float(low), float(high)), keep_ratio=True, p=how.turn_chance),
        ],
        seed=int(rng.integers(2**31)),
    )
    images, masks = (t.permute(0, 2, 3, 1).contiguous().numpy() for t in (flux, marks))
    out = [steps(image=image, mask=mask) for image, mask in zip(images, masks, strict=True)]
    return _planes([o["image"] for o in out]), _planes([o["mask"] for o in out])


def photometric(flux: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Change zero points, depth, seeing and noise in linear flux."""
    n = len(flux)
    light = linear(flux)
    factor = np.exp(
        how.colour_sigma * rng.normal(size=(n, N_SLOTS, 1, 1)) + how.depth_sigma * rng.normal(size=(n, 1, 1, 1))
    )
    light = light * torch.from_numpy(factor.astype(np.float32))
    sigma = rng.uniform(0.3, 1.2, n) * (rng.random(n) < how.blur_chance)
    light = blurred(light, sigma)
    amplitude = rng.uniform(0, 0.4, (n, 1, 1, 1)) * (rng.random((n, 1, 1, 1)) < how.noise_chance)
    grain = blurred(torch.randn_like(light), rng.uniform(0.5, 1.0, n) * (rng.random(n) < 0.5))  # resampled: correlated
    light = light + torch.from_numpy(amplitude.astype(np.float32)) * grain
    return softened(light)


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
    """Mask a random rectangle and scattered pixels of all slots in some cutouts (N, C, S, S)."""
    side = (1, valid.shape[-1] // 4)
    steps = A.Compose(
        [
            A.CoarseDropout((1, 1), side, side, fill=0, p=1.0),
            A.PixelDropout(0.04, per_channel=False, drop_value=0, p=1.0),
        ],
        seed=int(rng.integers(2**31)),
    )
    chosen = np.flatnonzero(rng.random(len(valid)) < chance)
    if not len(chosen):
        return valid
    out = valid.clone()
    out[chosen] = _planes([steps(image=v)["image"] for v in valid[chosen].permute(0, 2, 3, 1).contiguous().numpy()])
    return out


def _planes(images: list[npt.NDArray[np.float32]]) -> Tensor:
    """Images (S, S, C) as a batch (N, C, S, S)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


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
