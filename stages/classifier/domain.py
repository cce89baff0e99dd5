"""Does an input look like anything that stage 1 was trained on? How likely its appearance is among the training data.

The features of a network that learned to tell lenses from galaxies do not tell noise, stripes or a negative from a
faint galaxy. So an input is described by plain statistics of its scaled light, and a mixture of Gaussians says how
common such are in the training data, which come from several surveys.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from stages.cache import Cached, batches, cached
from stages.classifier.model import FRAME
from stages.dataset import fingerprint
from stages.records import FloatArray
from stages.scaling import N_SLOTS
from stages.weights import load, save

_ZONES_PIX = ((0, 3), (3, 6), (6, 12), (12, 20), (24, 99))  # radii between which the light is averaged
_LAGS_PIX = (1, 4)
_KNOWN_SHARE = 0.999  # of held-out training data that is called known
_COMPONENTS, _PER_COMPONENT = 20, 200  # at most so many, each of so many cutouts at least
_SOFTEST = 3e-3  # variance, in units of all data's, below which no component narrows
_FARTHEST = 50.0  # scatters beyond which a statistic is as strange as it gets
_MOST = 30000
_PREFIX = "domain."


def appearance(pixels: Tensor) -> Tensor:
    """Statistics (N, 14) of scaled pixels (N, 6, S, S), of the mean of the slots that each pixel has.

    Mean, scatter, skewness, how much of the scatter lies below the mean, light in rings about the middle, correlation
    of neighbours and of pixels four apart in either direction, and roughness.
    """
    flux, valid = pixels[:, :N_SLOTS], pixels[:, N_SLOTS:]
    count = valid.sum(1)
    light, known = (flux * valid).sum(1) / count.clamp(min=1e-6), (count > 0).float()
    n = known.sum((1, 2)).clamp(min=1)
    mean = (light * known).sum((1, 2)) / n
    off = (light - mean[:, None, None]) * known
    square = off * off
    scatter = (square.sum((1, 2)) / n).sqrt() + 1e-3
    skewness = torch.asinh((square * off).sum((1, 2)) / n / scatter**3)
    below = ((square * (off < 0)).sum((1, 2)) / n).sqrt() / scatter
    zones = _zones(pixels.shape[-1]).to(pixels.device)
    rings = ((light * known).flatten(1) @ zones.T) / (known.flatten(1) @ zones.T).clamp(min=1)
    along = [_mean_product(off, known, k, 1) / scatter**2 for k in _LAGS_PIX]
    across = [_mean_product(off, known, k, 2) / scatter**2 for k in _LAGS_PIX]
    both = known[:, :, 1:] * known[:, :, :-1]
    rough = ((off[:, :, 1:] - off[:, :, :-1]).abs() * both).sum((1, 2)) / both.sum((1, 2)).clamp(min=1) / scatter
    return torch.stack([mean, scatter.log(), skewness, below, *rings.T, *along, *across, rough], 1)


def _mean_product(off: Tensor, known: Tensor, lag: int, axis: int) -> Tensor:
    """Mean (N,) of planes (N, S, S) times themselves `lag` pixels further along an axis, where both are known."""
    n = off.shape[axis] - lag
    product, both = (p.narrow(axis, lag, n) * p.narrow(axis, 0, n) for p in (off, known))
    return product.sum((1, 2)) / both.sum((1, 2)).clamp(min=1)


def _zones(size: int) -> Tensor:
    middle = torch.arange(size) - (size - 1) / 2
    radius = torch.hypot(middle[:, None], middle[None]).flatten()
    return torch.stack([((radius >= low) & (radius < high)).float() for low, high in _ZONES_PIX])


@dataclass(frozen=True, eq=False)
class Domain:
    """A mixture of K Gaussians of D statistics, in units of their scatter.

    middle, scale (D,); log_shares (K,); means (K, D); precisions (K, D, D) : Cholesky factors of the inverse
    covariances; limit () : log density below which an input is unlike anything trained on.
    """

    middle: Tensor
    scale: Tensor
    log_shares: Tensor
    means: Tensor
    precisions: Tensor
    limit: Tensor

    def log_density(self, statistics: Tensor) -> Tensor:
        """Of statistics (N, D)."""
        scaled = ((statistics.cpu() - self.middle) / self.scale).clamp(-_FARTHEST, _FARTHEST)
        pull = torch.einsum("nkd,kde->nke", scaled[:, None] - self.means[None], self.precisions)
        log_det = torch.diagonal(self.precisions, dim1=1, dim2=2).log().sum(1)
        constant = self.log_shares + log_det - 0.5 * scaled.shape[1] * float(np.log(2 * np.pi))
        return torch.logsumexp(constant - 0.5 * pull.square().sum(2), 1)

    def unlike(self, pixels: Tensor) -> npt.NDArray[np.bool_]:
        """Which of N inputs (N, 6, S, S) look unlike anything trained on."""
        return np.asarray(~(self.log_density(appearance(pixels)) >= self.limit).numpy())

    def state(self) -> dict[str, Tensor]:
        """As tensors for a weights file."""
        return {_PREFIX + name: value for name, value in vars(self).items()}

    @staticmethod
    def of_state(state: dict[str, Tensor]) -> Domain | None:
        """From a weights file; None where it holds none."""
        names = [_PREFIX + part.name for part in fields(Domain)]
        return Domain(*(state[name].float() for name in names)) if all(name in state for name in names) else None


def fit(known: FloatArray, held_out: FloatArray) -> Domain:
    """The domain of training statistics (N, D), with a limit that all but 0.1% of held-out ones (M, D) keep."""
    middle, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-6)
    scaled = np.clip((known - middle) / scale, -_FARTHEST, _FARTHEST)
    components = int(np.clip(len(known) // _PER_COMPONENT, 1, _COMPONENTS))
    mixture = GaussianMixture(components, reg_covar=_SOFTEST, random_state=0).fit(scaled)
    arrays = (middle, scale, np.log(mixture.weights_), mixture.means_, mixture.precisions_cholesky_, np.float32(0))
    whole = Domain(*(torch.from_numpy(np.asarray(a, np.float32)) for a in arrays))
    density = whole.log_density(torch.from_numpy(held_out.astype(np.float32))).double().numpy()
    return replace(whole, limit=torch.tensor(float(np.quantile(density, 1 - _KNOWN_SHARE))))


def fitted(data: Cached) -> Domain:
    """The domain of a data set: the training systems', with a limit from the others."""
    train = (data.truth["part"] == "train").to_numpy()
    rng = np.random.default_rng(0)
    known, held_out = (
        statistics_of(data, np.sort(rng.permutation(np.flatnonzero(part))[:_MOST])) for part in (train, ~train)
    )
    return fit(known, held_out)


def know(weights: Path, data_dir: Path, out_dir: Path) -> Path:
    """Fit the domain of weights as they are to data sets anew; returns `out_dir/classifier.safetensors`."""
    state, card = load(weights)
    state = {key: value for key, value in state.items() if not key.startswith(_PREFIX)}
    domain = fitted(cached(data_dir, FRAME, out_dir / "cache"))
    told = card.domain | {"appearance": {name: seen["n"] for name, seen in sorted(fingerprint(data_dir).items())}}
    path = out_dir / "classifier.safetensors"
    save(path, state | domain.state(), replace(card, domain=told, sha256=""))
    return path


def statistics_of(data: Cached, rows: npt.NDArray[np.intp]) -> FloatArray:
    """`appearance` (n, D) of rows as they lie."""
    parts = [appearance(torch.from_numpy(np.asarray(data.pixels[part], np.float32))) for part in batches(rows, 256)]
    return torch.cat(parts).double().numpy()
