"""Apply stage 1: cutouts to calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit, logit
from torch import Tensor

from stages import config as configuration
from stages import weights
from stages.classifier.domain import Domain
from stages.classifier.model import FRAME, ClassifierConfig
from stages.classifier.networks import Classifier, build
from stages.records import BoolArray, ClassifierResult, Cutout, FloatArray
from stages.scaling import N_SLOTS, network_inputs
from stages.training import dihedral

_MIN_VALID_SHARE = 0.3
_CHUNK = 32  # what the processor's cache holds
_SECOND_LOOK = float(logit(0.05))  # above which all members look, where no first look was trained
_DOMAIN_SLACK = 1.5  # seeing this factor beyond the training data is still taken for known


@dataclass(frozen=True, eq=False)
class FirstLook:
    """The network that sees everything once; slope and offset calibrate its logit, above `cut` the members look.

    scatter : error of its logit, against that of all members.
    """

    net: Classifier
    slope: float
    offset: float
    cut: float = _SECOND_LOOK
    scatter: float = 0.0


@dataclass(frozen=True, eq=False)
class Predictor:
    """Trained stage 1 on a device; immutable after `load`."""

    first: FirstLook
    members: tuple[Classifier, ...]
    slope: float
    offset: float
    resolution_arcsec: tuple[float, float]
    domain: Domain | None
    device: str

    def predict(self, cutouts: Sequence[Cutout]) -> ClassifierResult:
        """Probability that each of N cutouts holds a lens, were there as many lenses as others.

        The first look sees everything once; what may be a lens is seen by every member from several sides, and the mean
        of all their logits counts. The error is their spread in probability, or what the first look errs by against
        them; a missing colour or masked pixels widen it by their share.
        """
        ids = tuple(c.id for c in cutouts)
        if not cutouts:
            return ClassifierResult(ids, *np.empty((2, 0)), *np.empty((2, 0), bool))
        seen = network_inputs(cutouts, FRAME)
        pixels = torch.from_numpy(seen.pixels).to(self.device)
        conditions = torch.from_numpy(seen.conditions).to(self.device)
        first, unlike = self._first_look(pixels, conditions)
        own = int(self.first.net is not self.members[0])  # a network of its own: one more vote
        logits = np.repeat(first[None], own + len(self.members), axis=0)
        again = first > self.first.cut
        if again.any():  # every member looks from every side at what may be a lens
            looked = self._logits(pixels[again], conditions[again], self.members)
            logits[own:, again] = self.slope * looked + self.offset
            if own:
                looked = self._logits(pixels[again], conditions[again], (self.first.net,))
                logits[:own, again] = self.first.slope * looked + self.first.offset
        members, p = expit(logits), expit(logits.mean(axis=0))
        valid = seen.pixels[:, N_SLOTS:].mean(axis=(2, 3))
        absent = 1 - valid.max(axis=1)
        lacking = 1 - seen.conditions[:, 1]
        spread = members.std(axis=0, ddof=1) if len(logits) > 1 else np.zeros(len(p))
        spread = np.where(again, spread, p * (1 - p) * self.first.scatter)
        error = np.sqrt(spread**2 + 0.01**2 + (p * (1 - p)) ** 2 * (absent + lacking) ** 2)
        resolution = 0.3 * 10 ** seen.conditions[:, 0]
        low, high = self.resolution_arcsec
        outside = unlike | (resolution < low / _DOMAIN_SLACK) | (resolution > high * _DOMAIN_SLACK)
        return ClassifierResult(ids, p, error, outside | (valid.max(axis=1) < _MIN_VALID_SHARE), again)

    def logits(self, pixels: Tensor, conditions: Tensor) -> FloatArray:
        """Calibrated logits (M, N) at equal prior of every member, from scaled pixels as they are turned."""
        return self.slope * self._logits(pixels, conditions, self.members, 1) + self.offset

    def _first_look(self, pixels: Tensor, conditions: Tensor) -> tuple[FloatArray, BoolArray]:
        """Calibrated logits (N,) of the first look, and which inputs are unlike anything it was trained on."""
        net = self.first.net
        logits, unlike = np.empty(len(pixels)), np.zeros(len(pixels), bool)
        with torch.inference_mode():
            for start in range(0, len(pixels), _CHUNK):
                part = slice(start, start + _CHUNK)
                seen = net.features(pixels[part].contiguous(memory_format=torch.channels_last), conditions[part])
                logits[part] = net.decide(seen).double().cpu().numpy()
                if self.domain is not None:
                    unlike[part] = self.domain.unlike(seen.cpu())
        return self.first.slope * logits + self.first.offset, unlike

    def _logits(
        self, pixels: Tensor, conditions: Tensor, members: Sequence[Classifier], n_views: int | None = None
    ) -> FloatArray:
        """Logits (M, N) of some members, averaged over the first views; all that each wants by default."""
        views = [n_views or net.n_views for net in members]
        out = torch.zeros(len(members), len(pixels))
        with torch.inference_mode():
            for start in range(0, len(pixels), _CHUNK):
                part = slice(start, start + _CHUNK)
                for k in range(max(views)):
                    turned = dihedral(pixels[part], k).contiguous(memory_format=torch.channels_last)
                    for row, net in enumerate(members):
                        if k < views[row]:
                            out[row, part] += net(turned, conditions[part]).cpu() / views[row]
        return np.asarray(out.double().numpy())


def load(path: Path, device: str = "cpu", gate: float | None = None) -> Predictor:
    """Read weights onto a device; `gate` : p_lens of the first look above which all members look, if not theirs."""
    state, card = weights.load(path)
    config = configuration.from_mapping(ClassifierConfig, card.config, str(path))
    members = tuple(
        _network(config.network_of(k), config.width, config.dropout, state, f"member{k}.", device)
        for k in range(config.members)
    )
    slope, offset = (float(v) for v in state["calibration"])
    low, high = card.domain["resolution_arcsec"]
    first = FirstLook(members[0], slope, offset)
    if config.first:
        net = _network(config.first, config.first_width, config.dropout, state, "first.", device)
        first = FirstLook(net, *(float(v) for v in state["first_calibration"]))
    if gate is not None:
        first = replace(first, cut=float(logit(gate)))
    return Predictor(first, members, slope, offset, (low, high), Domain.of_state(state), device)


def _network(name: str, width: int, dropout: float, state: dict[str, Tensor], prefix: str, device: str) -> Classifier:
    net = build(name, width, dropout)
    net.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
    placed: Classifier = net.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed
