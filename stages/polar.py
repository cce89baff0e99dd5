"""Planes about a centre as circles: from a square grid to radius and angle, and back.

Row k of a polar plane (R, T) lies at radius k + 0.5 grid pixels, column j at the angle 2 pi j / T from +x to +y.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_RADII = 40
N_ANGLES = 96


class JoinEnds(nn.Module):
    """Polar planes with the last column before the first and the first after the last, so that nothing ends at 2 pi.

    As `torch.nn.CircularPad2d((1, 1, 0, 0))`, which copies to another memory layout: training takes a fifth longer.
    """

    def forward(self, polar: Tensor) -> Tensor:
        """(N, C, R, T) to (N, C, R, T + 2)."""
        return torch.cat([polar[..., -1:], polar, polar[..., :1]], -1)


def to_polar(planes: Tensor, centre: Tensor, n_radii: int = N_RADII) -> Tensor:
    """Planes (N, C, S, S) about centres (N, 2) = (x, y) as (N, C, n_radii, T), 0 beyond the grid."""
    radius = torch.arange(n_radii, dtype=torch.float32, device=planes.device)[:, None] + 0.5
    angle = torch.arange(N_ANGLES, dtype=torch.float32, device=planes.device) * (2 * math.pi / N_ANGLES)
    x = centre[:, 0, None, None] + radius * torch.cos(angle)
    y = centre[:, 1, None, None] + radius * torch.sin(angle)
    return sample(planes, x, y)


def to_square(polar: Tensor, centre: Tensor, size: int) -> Tensor:
    """Polar planes (N, C, R, T) about centres (N, 2) on a square grid (N, C, size, size); 0 beyond the last radius."""
    index = torch.arange(size, dtype=torch.float32, device=polar.device)
    dx = index[None, None, :] - centre[:, 0, None, None]
    dy = index[None, :, None] - centre[:, 1, None, None]
    row = (torch.sqrt(dx**2 + dy**2) - 0.5).clamp(min=0)  # the inmost half pixel is that of the first row
    column = torch.remainder(torch.atan2(dy, dx), 2 * math.pi) * (N_ANGLES / (2 * math.pi))
    return sample(torch.cat([polar, polar[..., :1]], -1), column, row)


def sample(planes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Planes (N, C, H, W) at positions (N, P, Q) in pixels, linearly interpolated; 0 outside."""
    height, width = planes.shape[-2:]
    at = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    return F.grid_sample(planes, at, mode="bilinear", padding_mode="zeros", align_corners=True)
