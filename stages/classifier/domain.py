"""Is an input like anything that stage 1 was trained on? Distance of its features from the training data's.

Principal axes of the features, each in units of its own scatter, and all that they leave out as one more number
(a Mahalanobis distance with a pooled remainder; Lee et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stages.cache import Cached, batches
from stages.classifier.networks import Classifier
from stages.records import FloatArray

_N_AXES = 24
_KNOWN_SHARE = 0.999  # of held-out training data that is called known


@dataclass(frozen=True, eq=False)
class Domain:
    """Where the features (F,) of known inputs lie.

    mean (F,); axes (K, F) : principal axes divided by their scatter; remainder : scatter off the axes; limit : distance
    beyond which an input is unlike anything trained on.
    """

    mean: Tensor
    axes: Tensor
    remainder: float
    limit: float

    def distance(self, features: Tensor) -> FloatArray:
        """Distance (N,) of features (N, F) in units of the training data's scatter."""
        centred = features.float() - self.mean
        along = centred @ self.axes.T
        unit = self.axes / self.axes.norm(dim=1, keepdim=True).clamp(min=1e-12) ** 2
        off = (centred - along @ unit).square().sum(1) / self.remainder**2
        return np.asarray((along.square().sum(1) + off).sqrt().double().cpu().numpy())

    def unlike(self, features: Tensor) -> npt.NDArray[np.bool_]:
        """Which of N inputs are unlike anything trained on."""
        return np.asarray(~(self.distance(features) <= self.limit))

    def state(self) -> dict[str, Tensor]:
        """As tensors for a weights file."""
        scalars = torch.tensor([self.remainder, self.limit], dtype=torch.float64)
        return {"domain.mean": self.mean, "domain.axes": self.axes, "domain.scalars": scalars}

    @staticmethod
    def of_state(state: dict[str, Tensor]) -> Domain | None:
        """From a weights file; None where it holds none."""
        if "domain.mean" not in state:
            return None
        remainder, limit = (float(v) for v in state["domain.scalars"])
        return Domain(state["domain.mean"], state["domain.axes"], remainder, limit)


def fit(features: FloatArray, held_out: FloatArray) -> Domain:
    """The domain of training features (N, F), with a limit that all but 0.1% of held-out features (M, F) keep."""
    mean = features.mean(axis=0)
    centred = features - mean
    _, axes = np.linalg.eigh(np.cov(centred.T) + 1e-9 * np.eye(features.shape[1]))
    axes = axes[:, ::-1][:, :_N_AXES].T
    scatter = np.maximum((centred @ axes.T).std(axis=0), 1e-6)
    remainder = float(np.sqrt((centred**2).sum() - ((centred @ axes.T) ** 2).sum()) / np.sqrt(len(features))) or 1.0
    centre, along = (torch.from_numpy(a.astype(np.float32)) for a in (mean, axes / scatter[:, None]))
    whole = Domain(centre, along, remainder, 0.0)
    limit = np.quantile(whole.distance(torch.from_numpy(held_out.astype(np.float32))), _KNOWN_SHARE)
    return Domain(whole.mean, whole.axes, remainder, float(limit))


def fitted(net: Classifier, data: Cached, most: int = 12000) -> Domain:
    """The domain of a network on a data set: features of the training systems, limit from the others."""
    train = (data.truth["part"] == "train").to_numpy()
    rng = np.random.default_rng(0)
    known, held_out = (
        features_of(net, data, np.sort(rng.permutation(np.flatnonzero(part))[:most])) for part in (train, ~train)
    )
    return fit(known, held_out)


def features_of(net: Classifier, data: Cached, rows: npt.NDArray[np.intp]) -> FloatArray:
    """Features (n, F) of rows as they lie."""
    net.eval()
    with torch.inference_mode():
        parts = [
            net.features(
                torch.from_numpy(np.asarray(data.pixels[part], np.float32)), torch.from_numpy(data.conditions[part])
            )
            for part in batches(rows, 256)
        ]
    return torch.cat(parts).double().numpy()
