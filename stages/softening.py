"""The compression of `stages.scaling` and its inverse on tensors, written so that torch runs them in vector units."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.scaling import SOFTENING_SIGMA


def linear(scaled: Tensor) -> Tensor:
    """Flux in units of `SOFTENING_SIGMA` times the noise, from scaled flux."""
    grown = torch.exp(scaled * SOFTENING_SIGMA)
    return 0.5 * (grown - 1 / grown)


def softened(flux: Tensor) -> Tensor:
    """Scaled flux, the inverse of `linear`."""
    size = flux.abs()
    return torch.copysign(torch.log(size + torch.sqrt(size * size + 1)), flux) / SOFTENING_SIGMA
