"""Augmentation keeps the meaning of the planes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from stages.augment import Augmentation, augment, blurred, drop, moved, patches, photometric, refill
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
    none = Augmentation(colour_sigma=0, depth_sigma=0, noise_chance=0, blur_chance=0)
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


def test_the_same_seed_gives_the_same_batch_and_leaves_the_input_alone() -> None:
    pixels, conditions = batch()
    before = pixels.clone()
    draws = []
    for _ in range(2):
        torch.manual_seed(1)
        draws.append(augment(pixels, conditions, Augmentation(noise_chance=1.0), np.random.default_rng(4)))
    for one, other in zip(*draws, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(pixels, before)


def test_a_turn_keeps_a_source_at_its_distance_from_the_centre() -> None:
    """A spot 8 pixels from the centre of a grid is 8 pixels from it whatever the angle; its marks move along."""
    y, x = np.mgrid[0:33, 0:33]
    spot = torch.from_numpy(np.exp(-0.5 * ((x - 24) ** 2 + (y - 16) ** 2) / 2).astype(np.float32))
    flux, marks = spot.expand(5, N_SLOTS, 33, 33), torch.ones(5, N_SLOTS + 1, 33, 33)
    how = Augmentation(shift_pix=0, turn_chance=1.0, zoom_sigma=0.0)
    turned, inside = moved(flux, marks, how, np.random.default_rng(0))
    angles = []
    for plane in turned[:, 0].numpy():
        dx, dy = (x * plane).sum() / plane.sum() - 16, (y * plane).sum() / plane.sum() - 16
        assert np.hypot(dx, dy) == pytest.approx(8, abs=0.15)
        angles.append(np.arctan2(dy, dx))
    assert np.ptp(angles) > 0.5  # each cutout has an angle of its own
    assert set(inside.unique().tolist()) == {0.0, 1.0}


def test_patches_mask_some_pixels_of_all_slots_in_the_share_asked_for() -> None:
    valid = torch.ones(400, N_SLOTS, 32, 32)
    out = patches(valid, 0.25, np.random.default_rng(0))
    masked = out.mean((1, 2, 3)) < 1
    assert 0.18 < masked.float().mean() < 0.32
    assert (out.amax(1) == out.amin(1)).all()
    assert (valid == 1).all()


def test_refill_is_what_scaling_does() -> None:
    """A slot taken by augmentation looks like a band that the cutout never had."""
    one = cutout()
    two = replace(
        one, flux=one.flux[1:], variance=one.variance[1:], valid=one.valid[1:], bands=("r", "i"),
        psf_fwhm_arcsec=one.psf_fwhm_arcsec[1:],
    )  # fmt: skip
    full, lacking = (torch.from_numpy(network_inputs([c], Frame(32, 0.3)).pixels) for c in (one, two))
    valid = full[:, N_SLOTS:].clone()
    valid[:, 0] = 0
    torch.testing.assert_close(torch.cat([refill(full[:, :N_SLOTS], valid), valid], 1), lacking)


def test_blurring_is_a_gaussian_filter() -> None:
    planes = torch.from_numpy(np.random.default_rng(4).normal(size=(3, 2, 20, 24)).astype(np.float32))
    out = blurred(planes, np.array([0.0, 0.6, 1.1]))
    assert torch.equal(out[0], planes[0])
    for k, sigma in ((1, 0.6), (2, 1.1)):
        want = gaussian_filter(planes[k].numpy(), (0, sigma, sigma), mode="nearest", radius=3)
        np.testing.assert_allclose(out[k].numpy(), want, atol=1e-5)
