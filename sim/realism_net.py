"""A small network that tells simulated from real pixels, in cross-validation; see `sim/realism.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from stages.records import Cutout, FloatArray
from stages.scaling import N_CHANNELS, Frame, network_inputs
from stages.training import dihedral

_MAX_SIZE_PIX = 64
_BATCH = 32
_WIDTH = 16


def network_scores(
    cutouts: Sequence[Cutout], label: npt.NDArray[np.intp], groups: npt.NDArray[np.str_], epochs: int, seed: int
) -> FloatArray:
    """Out-of-fold ranks (N,) in 0..1; the higher, the more a cutout looks simulated.

    The network sees native pixels through the project's own transform, so it judges what the finder would be given.
    """
    from sim.realism import folds, ranks

    size = min(_MAX_SIZE_PIX, *(min(c.flux.shape[1:]) for c in cutouts))
    frame = Frame(size, float(np.median([c.pixel_scale_arcsec for c in cutouts])))
    pixels = torch.from_numpy(network_inputs(cutouts, frame).pixels)
    target = torch.from_numpy(label.astype(np.float32))
    out = np.zeros(len(cutouts))
    for train, test in tqdm(folds(label, groups, seed), desc="network", unit="fold"):
        net = _train(pixels[train], target[train], epochs, seed)
        with torch.inference_mode():
            score = torch.stack([net(dihedral(pixels[test], k))[:, 0] for k in range(8)]).mean(0)
        out[test] = ranks(score.numpy().astype(float))
    return out


def _network() -> nn.Module:
    layers: list[nn.Module] = []
    n_in = N_CHANNELS
    for n_out in (_WIDTH, 2 * _WIDTH, 4 * _WIDTH):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(), nn.AvgPool2d(2)]
        n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(n_in, 1))


def _train(pixels: Tensor, target: Tensor, epochs: int, seed: int) -> nn.Module:
    """Train on (N, 6, S, S) pixels with random rotations and reflections; returns the network in evaluation mode."""
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    net = _network()
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.05)
    steps = epochs * -(-len(pixels) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(pixels), generator=order).split(_BATCH):
            turned = dihedral(pixels[batch], int(torch.randint(8, (1,), generator=order)))
            loss = F.binary_cross_entropy_with_logits(net(turned)[:, 0], target[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()
