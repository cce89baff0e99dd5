import numpy as np
import torch

from stages.classifier.domain import Domain, fit


def sample(rng: np.random.Generator, n: int) -> np.ndarray:
    """Features that fill three of forty directions."""
    basis = np.linalg.qr(np.random.default_rng(7).normal(size=(40, 3)))[0]
    return rng.normal(size=(n, 3)) * [5, 2, 1] @ basis.T + 0.01 * rng.normal(size=(n, 40)) + 4


def test_one_in_a_thousand_of_the_known_is_called_unlike() -> None:
    rng = np.random.default_rng(0)
    domain = fit(sample(rng, 4000), sample(rng, 4000))
    share = domain.unlike(torch.from_numpy(sample(rng, 20000).astype(np.float32))).mean()
    assert 0.0002 < share < 0.004


def test_what_is_far_along_or_off_the_axes_or_not_a_number_is_unlike() -> None:
    rng = np.random.default_rng(1)
    known = sample(rng, 3000)
    domain = fit(known, sample(rng, 3000))
    away = known[:5] - known.mean(axis=0)
    far = known[:5] + 40 * away / np.linalg.norm(away, axis=1, keepdims=True)
    off = known[:5] + 3 * rng.normal(size=(5, 40))
    nan = np.full((1, 40), np.nan)
    for strange in (far, off, nan):
        assert domain.unlike(torch.from_numpy(strange.astype(np.float32))).all()


def test_a_domain_survives_its_state_in_half_precision() -> None:
    rng = np.random.default_rng(2)
    domain = fit(sample(rng, 2000), sample(rng, 2000))
    back = Domain.of_state({k: v.half().float() for k, v in domain.state().items()})
    assert back is not None
    features = torch.from_numpy(sample(rng, 500).astype(np.float32))
    assert (back.unlike(features) == domain.unlike(features)).mean() > 0.99
    assert Domain.of_state({}) is None
