"""Augmentation keeps the meaning of the planes."""

import numpy as np
import torch

from stages.augment import Augmentation, augment, drop, photometric, refill
from stages.scaling import N_SLOTS, Frame, network_inputs
from tests.test_scaling import cutout


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    seen = network_inputs([cutout(seed=k) for k in range(n)], Frame(32, 0.3))
    return torch.from_numpy(seen.pixels), torch.from_numpy(seen.conditions)


def test_invalid_pixels_stay_without_flux_of_their_own() -> None:
    pixels, conditions = batch()
    how = Augmentation(patch_chance=1.0, grey_chance=0.5, drop_chance=0.5)
    out, _, _ = augment(pixels, conditions, how, np.random.default_rng(0))
    flux, valid = out[:, :N_SLOTS], out[:, N_SLOTS:]
    assert set(valid.unique().tolist()) <= {0.0, 1.0}
    blind = valid.sum(1) == 0
    assert blind.any()
    assert (flux.transpose(0, 1)[:, blind] == 0).all()


def test_the_mask_moves_with_the_pixels() -> None:
    pixels, conditions = batch()
    mask = (pixels[:, 1] > pixels[:, 1].amax((1, 2), keepdim=True) * 0.9).float()
    how = Augmentation(colour_sigma=0, depth_sigma=0, noise_chance=0, grey_chance=0, drop_chance=0, patch_chance=0)
    out, _, moved = augment(pixels, conditions, how, np.random.default_rng(3), mask)
    for plane, where in zip(out[:, 1], moved, strict=True):
        assert where[np.unravel_index(int(plane.argmax()), plane.shape)] > 0.2


def test_no_strength_changes_no_flux() -> None:
    pixels, _ = batch()
    none = Augmentation(colour_sigma=0, depth_sigma=0, noise_chance=0)
    torch.testing.assert_close(photometric(pixels[:, :N_SLOTS], none, np.random.default_rng(0)), pixels[:, :N_SLOTS])


def test_dropping_says_so_in_the_conditions() -> None:
    pixels, conditions = batch()
    valid, now = drop(
        pixels[:, N_SLOTS:], conditions, Augmentation(grey_chance=1.0, drop_chance=0.0), np.random.default_rng(0)
    )
    assert (valid[:, 0] == 0).all()
    torch.testing.assert_close(now[:, 1], torch.full((6,), 1 / 3))
    filled = refill(pixels[:, :N_SLOTS], valid)
    torch.testing.assert_close(filled[:, 0], filled[:, 1])
