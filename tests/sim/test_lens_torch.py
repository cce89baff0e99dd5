"""Claims about ray-shooting with torch, against the compiled kernels."""

import numpy as np
import torch

from sim.lensing.lens import Lens, PowerLaw, Subhalo
from sim.lensing.rays_torch import shoot_torch


def lenses(rng):
    singular = Lens((PowerLaw(1.1, 1.8, 0.6, 0.4, 0.1, -0.2),), 0.04, -0.02)
    cored = Lens((PowerLaw(0.9, 2.0, 1.0, 0.4, 0, 0, 0.2), Subhalo(0.05, 0.7, 0.1, 0.01, 0.2)), 0.0, 0.1, 0.02, 0.03)
    group = Lens(tuple(PowerLaw(0.5, 2.2, 0.4, *rng.normal(0, 1, 3), 0.05) for _ in range(3)))
    return [singular, cored, group]


def test_torch_shoots_where_the_kernels_do():
    rng = np.random.default_rng(3)
    many = lenses(rng)
    x, y = rng.normal(0, 1, (2, 3, 7, 11))
    bx, by = shoot_torch(many, torch.tensor(x), torch.tensor(y), "cpu")
    for lens, *rays, ox, oy in zip(many, x, y, bx.numpy(), by.numpy(), strict=True):
        np.testing.assert_allclose((ox, oy), lens.source_position(*rays), atol=1e-12)


def test_shared_single_precision_grid_is_good_to_a_hundred_thousandth_of_an_arcsecond():
    many = lenses(np.random.default_rng(4))
    x, y = (
        torch.tensor(a, dtype=torch.float32)[None] for a in np.meshgrid(np.linspace(-2, 2, 40), np.linspace(-2, 2, 30))
    )
    bx, by = shoot_torch(many, x, y, "cpu")
    assert bx.shape == (3, 30, 40)
    assert bx.dtype == torch.float32
    for lens, ox, oy in zip(many, bx, by, strict=True):
        np.testing.assert_allclose((ox, oy), lens.source_position(x[0].double(), y[0].double()), atol=1e-5)
