"""Apply stage 1: cutouts to calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from stages.training import dihedral, fast_arithmetic

_MIN_VALID_SHARE = 0.3
_CHUNK = 32  # what the processor's cache holds
_SECOND_LOOK = float(logit(0.05))  # above which all members look, where no first look was trained
_FIRST_SIDES = (0, 2)  # quarter turns of the first look, where they make a difference
_EVERY_SIDE = 0.0  # above which they look from every side: turning a candidate must not change it
_DOMAIN_SLACK = 1.5  # seeing this factor beyond the training data is still taken for known
_PIXELS_ARCSEC = (0.03, 0.4)  # of the surveys that it was trained for


@dataclass(frozen=True, eq=False)
class FirstLook:
    """The network that sees everything; slope and offset calibrate its logit, above `cut` the members look.

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

        The first look sees everything from two sides. What may be a lens is seen by every member from one side each,
        and what they think likely from every side; the mean of all their logits counts. The error is their spread in
        probability, or what the first look errs by against them; a missing colour or masked pixels widen it by their
        share.
        """
        ids = tuple(c.id for c in cutouts)
        if not cutouts:
            return ClassifierResult(ids, np.empty(0), np.empty(0), np.empty(0, bool))
        seen = network_inputs(cutouts, FRAME)
        pixels = upright(torch.from_numpy(seen.pixels)).to(self.device)
        conditions = torch.from_numpy(seen.conditions).to(self.device)
        first = self._first_look(pixels, conditions)
        again = first > self.first.cut
        logits = self._votes(pixels, conditions, first, again)
        members, p = expit(logits), expit(logits.mean(axis=0))
        valid = seen.pixels[:, N_SLOTS:].mean(axis=(2, 3))
        absent = 1 - valid.max(axis=1)
        lacking = 1 - seen.conditions[:, 1]
        spread = members.std(axis=0, ddof=1) if len(logits) > 1 else np.zeros(len(p))
        spread = np.where(again, spread, p * (1 - p) * self.first.scatter)
        error = np.sqrt(spread**2 + 0.01**2 + (p * (1 - p)) ** 2 * (absent + lacking) ** 2)
        resolution = 0.3 * 10 ** seen.conditions[:, 0]
        scale = np.array([c.pixel_scale_arcsec for c in cutouts])
        outside = valid.max(axis=1) < _MIN_VALID_SHARE
        for value, (low, high) in ((resolution, self.resolution_arcsec), (scale, _PIXELS_ARCSEC)):
            outside |= (value < low / _DOMAIN_SLACK) | (value > high * _DOMAIN_SLACK)
        if self.domain is not None:
            outside |= self.domain.unlike(torch.from_numpy(seen.pixels))
        return ClassifierResult(ids, p, error, outside)

    def logits(self, pixels: Tensor, conditions: Tensor) -> FloatArray:
        """Calibrated logits (M, N) at equal prior of every member, from scaled pixels as they are turned."""
        return self.slope * _looks(self.members, pixels, conditions, [[0]] * len(self.members)) + self.offset

    def _votes(self, pixels: Tensor, conditions: Tensor, first: FloatArray, again: BoolArray) -> FloatArray:
        """Calibrated logits (V, N) of the first look, where it has a network of its own, and of every member.

        first : (N,) the first look's; it stands for all of them but where they look `again`.
        """
        own = self.first.net is not self.members[0]
        voters = (self.first.net, *self.members) if own else self.members
        slope = np.array([self.first.slope] * own + [self.slope] * len(self.members))[:, None]
        offset = np.array([self.first.offset] * own + [self.offset] * len(self.members))[:, None]
        logits = np.repeat(first[None], len(voters), axis=0)
        seen = [_first_sides(voters[0]), *([v % net.n_views] for v, net in enumerate(voters[1:], start=1))]
        if again.any():
            one = _looks(voters[1:], pixels[again], conditions[again], seen[1:])
            logits[1:, again] = slope[1:] * one + offset[1:]
        likely = again & (logits.mean(axis=0) > _EVERY_SIDE)
        if likely.any():
            left = [[k for k in range(net.n_views) if k not in sides] for net, sides in zip(voters, seen, strict=True)]
            more = slope * _looks(voters, pixels[likely], conditions[likely], left) + offset
            weight = np.array([[len(sides) / net.n_views] for net, sides in zip(voters, seen, strict=True)])
            logits[:, likely] = weight * logits[:, likely] + (1 - weight) * more
        return logits

    def _first_look(self, pixels: Tensor, conditions: Tensor) -> FloatArray:
        """Calibrated logits (N,) of the first look."""
        net = self.first.net
        sides = _first_sides(net)
        logits = np.zeros(len(pixels))
        with torch.inference_mode():
            for start in range(0, len(pixels), _CHUNK):
                part = slice(start, start + _CHUNK)
                for k in sides:
                    turned = dihedral(pixels[part], k).contiguous(memory_format=torch.channels_last)
                    with fast_arithmetic(pixels.device):
                        seen = net.features(turned, conditions[part]).float()
                    logits[part] += net.decide(seen).double().cpu().numpy() / len(sides)
        return self.first.slope * logits + self.first.offset


def _first_sides(net: Classifier) -> list[int]:
    return [k for k in _FIRST_SIDES if k < net.n_views]


def upright(pixels: Tensor) -> Tensor:
    """Scaled pixels (N, 6, S, S), turned and mirrored until the brightest quadrant is the first, its brighter neighbour
    beside it.

    So a network that looks from one side sees a cutout and the same cutout turned or mirrored alike. Training draws all
    eight poses, of which this is one.
    """
    half = pixels.shape[-1] // 2
    light = pixels[:, :N_SLOTS].reshape(-1, N_SLOTS, 2, half, 2, half).sum((1, 3, 5)).flatten(1)
    corners = light[:, [0, 1, 3, 2]]  # each comes first after one more quarter turn
    turns = corners.argmax(1)
    row = torch.arange(len(pixels))
    mirrored = corners[row, (turns + 1) % 4] < corners[row, (turns + 3) % 4]
    out = torch.empty_like(pixels)
    for k, (turn, mirror) in enumerate(zip(turns.tolist(), mirrored.tolist(), strict=True)):
        turned = dihedral(pixels[k], turn)
        out[k] = turned.transpose(-2, -1) if mirror else turned
    return out


def _looks(
    nets: Sequence[Classifier], pixels: Tensor, conditions: Tensor, sides: Sequence[Sequence[int]]
) -> FloatArray:
    """Logits (V, N) of V networks before calibration, each averaged over its own quarter turns; 0 where it has none."""
    out = torch.zeros(len(nets), len(pixels))
    with torch.inference_mode(), fast_arithmetic(pixels.device):
        for start in range(0, len(pixels), _CHUNK):
            part = slice(start, start + _CHUNK)
            for k in sorted({k for own in sides for k in own}):
                turned = dihedral(pixels[part], k).contiguous(memory_format=torch.channels_last)
                for row, (net, own) in enumerate(zip(nets, sides, strict=True)):
                    if k in own:
                        out[row, part] += net(turned, conditions[part]).cpu() / len(own)
    return np.asarray(out.double().numpy())


def load(path: Path, device: str = "cpu") -> Predictor:
    """Read weights onto a device."""
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
    return Predictor(first, members, slope, offset, (low, high), Domain.of_state(state), device)


def _network(name: str, width: int, dropout: float, state: dict[str, Tensor], prefix: str, device: str) -> Classifier:
    net = build(name, width, dropout)
    net.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
    placed: Classifier = net.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed
