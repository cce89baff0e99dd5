"""Ray-shooting of many lenses at once with torch, on a GPU where there is one; formulae of `sim.lensing.kernels`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sim.lensing.kernels import COLUMNS, FLOOR, MAX_TERMS, SUBHALO
from sim.lensing.lens import Lens

_NO_POWER_LAW = {3: 1.0, 4: 1.0, 6: 1.0}  # q, t and cos pa of a power law without mass


@torch.inference_mode()
def shoot_torch(lenses: Sequence[Lens], x: Tensor, y: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Source positions behind image positions, for a batch of lenses.

    Parameters
    ----------
    lenses : n lenses of any make; one batch costs what its largest number of parts costs.
    x, y : arcsec, (n, ...) positions of each lens, or (1, ...) where all share them. Their float type is computed in:
        float32 is good to 1e-5 arcsec, float64 to rounding.
    device : where to compute; the results stay there.

    Returns
    -------
    Two tensors (n, ...), arcsec.
    """
    x, y = x.to(device), y.to(device)
    tail = (1,) * (x.ndim - 1)
    most = max(len(lens.parts) for lens in lenses)
    frames, parts = np.zeros((len(lenses), 6)), np.zeros((len(lenses), most, COLUMNS))
    terms = np.zeros((len(lenses), most, MAX_TERMS))
    parts[..., 0] = SUBHALO  # what a lens has fewer than the others: subhaloes without mass
    for i, lens in enumerate(lenses):
        frames[i], parts[i, : len(lens.parts)], terms[i, : len(lens.parts)] = lens.packed
    terms[parts[..., 0] == SUBHALO] = 0.0

    def column(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=x.dtype, device=device).reshape(-1, *tail)

    x0, y0, g1, g2, f1, f2 = (column(values) for values in frames.T)
    px, py = x - x0, y - y0
    u, v = (1 - f1) * px - f2 * py, (1 + f1) * py - f2 * px
    au, av = torch.zeros_like(u), torch.zeros_like(v)
    for part in range(most):
        rows = parts[:, part]
        subhalo = rows[:, 0] == SUBHALO
        dx, dy = u - column(rows[:, 1]), v - column(rows[:, 2])
        if subhalo.any():
            pull = _subhalo([column(np.where(subhalo, rows[:, k], 0.0)) for k in (3, 4, 5)], dx, dy)
            au, av = au + pull * dx, av + pull * dy
        if not subhalo.all():
            mass = np.where(subhalo[:, None], [_NO_POWER_LAW.get(k, 0.0) for k in range(COLUMNS)], rows)
            last = 1 + int(np.flatnonzero(np.abs(terms[:, part]).max(0) > 0.1 * torch.finfo(x.dtype).eps).max())
            series = [column(terms[:, part, k]) for k in range(last)]
            ax, ay = _power_law([column(values) for values in mass.T], series, dx, dy)
            au, av = au + ax, av + ay
    ax, ay = (1 - f1) * au - f2 * av, (1 + f1) * av - f2 * au
    return x - ax - g1 * px - g2 * py, y - ay - g2 * px + g1 * py


def _subhalo(row: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Deflection over radius; rows of zeros have none."""
    b, core, cut = row
    r2 = x * x + y * y
    inner = (core + (core * core + r2).sqrt()).clamp_min(FLOOR)
    return b * (1 / inner - 1 / (cut + (cut * cut + r2).sqrt()).clamp_min(FLOOR))


def _power_law(row: list[Tensor], terms: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection by an elliptical power law with a uniform core."""
    q, t, bt, c, n, rc, kappa = row[3:10]
    z = torch.complex(c * x + n * y, c * y - n * x)
    elliptical = torch.complex(q * z.real, z.imag)
    radius = elliptical.abs().clamp_min(FLOOR)
    direction = elliptical / radius
    singular = 2 / (1 + q) * bt * radius ** (1 - t) * direction * _series(terms, direction * direction)
    inside = 2 * torch.nan_to_num(kappa, posinf=0.0) / (1 + q) * torch.complex(q * z.real, z.imag)
    z = torch.where(radius >= rc, z, torch.ones_like(z))  # any point outside of the core, for what is not used
    rest = 1 - (1 - q * q) / (q * q) * rc * rc / (z * z)
    twice = z * (1 + rest.sqrt())
    lacking = row[10] / twice * ((2 - t) - 2 * _series(terms, ((1 + q) * rc / (q * twice)) ** 2))
    alpha = torch.where(radius >= rc, singular + lacking.conj(), inside)
    return c * alpha.real - n * alpha.imag, n * alpha.real + c * alpha.imag


def _series(terms: list[Tensor], v: Tensor) -> Tensor:
    """Sum of terms[k] v^k (Horner)."""
    total = torch.zeros_like(v)
    for term in reversed(terms):
        total = total * v + term
    return total
