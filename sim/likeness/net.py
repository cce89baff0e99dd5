"""A small network that tells simulated from real pixels, in cross-validation; see `sim/realism.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from sim.likeness.score import Groups, Scores, folds
from stages.records import Cutout
from stages.scaling import N_CHANNELS, Frame, network_inputs
from stages.training import dihedral

_MAX_SIZE_PIX = 64
_BATCH = 32
_WIDTH = 16


def network_scores(
    cutouts: Sequence[Cutout], label: npt.NDArray[np.intp], groups: Groups, epochs: int, seed: int
) -> Scores:
    """Out-of-fold scores of the network, which sees what the finder would be given: the project's own transform."""
    pixels = torch.from_numpy(native_pixels(cutouts))
    target = torch.from_numpy(label.astype(np.float32))
    value, fold = np.zeros((1, len(cutouts))), np.zeros((1, len(cutouts)), np.intp)
    for k, (train, test) in enumerate(tqdm(folds(label, groups, seed), desc="network", unit="fold", leave=False)):
        net = _train(pixels[train], target[train], epochs, seed)
        with torch.inference_mode():
            score = torch.stack([net(dihedral(pixels[test], turn))[:, 0] for turn in range(8)]).mean(0)
        value[0, test], fold[0, test] = score.numpy(), k
    return Scores(value, fold)


def native_pixels(cutouts: Sequence[Cutout]) -> npt.NDArray[np.float32]:
    """Network input (N, 6, S, S) without resampling: between pixels, a centre's fraction would smooth the noise."""
    size = min(_MAX_SIZE_PIX, *(min(c.flux.shape[1:]) for c in cutouts))
    size -= 1 - size % 2
    whole = [replace(c, xy_pix=np.round(c.xy_pix), pixel_scale_arcsec=1.0) for c in cutouts]
    return network_inputs(whole, Frame(size, 1.0)).pixels


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
    balance = (1 - target).sum() / target.sum().clamp(min=1)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(pixels), generator=order), _BATCH):
            turned = dihedral(pixels[batch], int(torch.randint(8, (1,), generator=order)))
            loss = F.binary_cross_entropy_with_logits(net(turned)[:, 0], target[batch], pos_weight=balance)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return net.eval()
