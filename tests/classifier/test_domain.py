"""What stage 1 calls unlike anything it was trained on."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from stages.classifier.domain import Domain, appearance, fit

SIZE = 64
Y, X = np.mgrid[0:SIZE, 0:SIZE].astype(float)


def galaxies(rng: np.random.Generator, n: int) -> np.ndarray:
    """Scaled planes (n, 6, S, S): a round galaxy at the middle and noise, of several sizes and depths."""
    out = np.empty((n, 6, SIZE, SIZE), np.float32)
    for k in range(n):
        size, height = rng.uniform(3, 9), rng.uniform(10, 300)
        light = height * np.exp(-np.hypot(X - 31.5 - rng.normal(), Y - 31.5 - rng.normal()) / size)
        noise = gaussian_filter(rng.normal(size=(3, SIZE, SIZE)), (0, 0.7, 0.7)) * 2.5
        out[k, :3] = np.arcsinh((light + noise) / 3) / 3
    out[:, 3:] = 1.0
    return out


@pytest.fixture(scope="module")
def domain() -> Domain:
    rng = np.random.default_rng(0)
    known, held_out = (appearance(torch.from_numpy(galaxies(rng, n))).double().numpy() for n in (1500, 1000))
    return fit(known, held_out)


def test_few_of_the_known_are_called_unlike(domain: Domain) -> None:
    assert domain.unlike(torch.from_numpy(galaxies(np.random.default_rng(1), 1000))).mean() < 0.01


def test_what_no_survey_delivers_is_unlike(domain: Domain) -> None:
    rng = np.random.default_rng(2)
    some = galaxies(rng, 8)
    blank = np.zeros_like(some)
    blank[:, 3:] = 1.0
    for strange in (
        blank,
        np.concatenate([-some[:, :3], some[:, 3:]], 1),
        blank + np.where(np.arange(6) < 3, 1, 0)[None, :, None, None] * np.sin(X / 2),
        blank + np.where(np.arange(6) < 3, 1, 0)[None, :, None, None] * rng.normal(0, 1, (SIZE, SIZE)),
        np.full_like(some, np.nan),
    ):
        assert domain.unlike(torch.from_numpy(strange.astype(np.float32))).all()


def test_masked_pixels_do_not_count() -> None:
    some = galaxies(np.random.default_rng(3), 50)
    hole = np.random.default_rng(4).random((50, 1, SIZE, SIZE)) < 0.05
    seen, masked = (appearance(torch.from_numpy(p.astype(np.float32))) for p in (some, np.where(hole, 0.0, some)))
    assert (seen - masked).abs().max() < 0.1
    assert (seen - masked).abs().mean() < 0.005


def test_a_domain_survives_its_state_in_half_precision(domain: Domain) -> None:
    back = Domain.of_state({k: v.half().float() for k, v in domain.state().items()})
    assert back is not None
    pixels = torch.from_numpy(galaxies(np.random.default_rng(5), 200))
    assert (back.unlike(pixels) == domain.unlike(pixels)).mean() > 0.98
    assert Domain.of_state({}) is None


def test_the_density_is_that_of_the_mixture() -> None:
    rng = np.random.default_rng(6)
    known = np.concatenate([rng.normal(0, 1, (400, 2)), rng.normal(6, 0.5, (400, 2))])
    domain = fit(known, known)
    middle = torch.tensor([[0.0, 0.0], [6.0, 6.0], [3.0, 3.0]])
    density = domain.log_density(middle).numpy()
    expected = np.log([0.5 / (2 * np.pi), 0.5 / (2 * np.pi * 0.25)]) + 2 * np.log(known.std())
    assert density[:2] == pytest.approx(expected, abs=0.2)
    assert density[2] < density[:2].min() - 3
