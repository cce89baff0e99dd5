"""Settings of stage 1 and the frame that its networks see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from stages.augment import Augmentation
from stages.classifier.networks import NETWORKS
from stages.dataset import unclear_lenses
from stages.records import BoolArray
from stages.scaling import Frame
from stages.training import LEAST_WIDTH, Schedule

FRAME = Frame(64, 0.1875, sharp_pixel_arcsec=0.11)
_LIMITS = ("min_arc_snr", "min_arc_contrast", "max_arc_contrast", "min_theta_e_seeing")


@dataclass(frozen=True)
class ClassifierConfig:
    """Settings of stage 1; see `configs/classifier.yaml`.

    network : one of `stages.classifier.networks.NETWORKS`; members : networks in the ensemble, each from its own seed;
    networks : the kind of each member where they differ, as `join` puts them together;
    width : channels of the first layer; focal_gamma : how much less a cutout counts the surer the network is of it (Lin
    et al. 2017; 0: all alike); positive_share : lenses in a batch; min_arc_snr, min_arc_contrast : lenses whose arcs
    are fainter, or fainter beside their deflector, are left out of training; max_arc_contrast, min_theta_e_seeing :
    and those brighter beside it, or of a smaller Einstein radius in units of the seeing; hard_share : part of a
    batch's non-lenses that is drawn from the hard_part of all which the network takes most for lenses, chosen anew
    at each check; start : weights to go on from instead of fresh ones, of the same network and width, each member from
    theirs of number seed + member, modulo how many they have; validation :
    folder of data sets, such as lenses painted on fields that nothing is trained on, which early stopping and
    calibration watch instead of the systems held out from the training data; first, first_width : the network of
    the first look that `distil` added.
    """

    network: str = "compact"
    members: int = 2
    networks: tuple[str, ...] = ()
    width: int = 24
    dropout: float = 0.2
    label_smoothing: float = 0.05
    focal_gamma: float = 0.0
    positive_share: float = 0.4
    min_arc_snr: float = 25.0
    min_arc_contrast: float = 0.15
    max_arc_contrast: float = 1e6
    min_theta_e_seeing: float = 0.0
    hard_share: float = 0.5
    hard_part: float = 0.1
    start: str = ""
    validation: str = ""
    seed: int = 1
    workers: int = 2
    first: str = ""
    first_width: int = 24
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.width < LEAST_WIDTH:
            raise ValueError(f"width {self.width}: expected {LEAST_WIDTH} or more")
        for name in (self.network, *self.networks):
            if name not in NETWORKS:
                raise ValueError(f"network {name!r}: expected one of {', '.join(NETWORKS)}")
        if len(self.networks) not in (0, self.members):
            raise ValueError(f"networks: {len(self.networks)} given for {self.members} members")

    def network_of(self, member: int) -> str:
        """Kind of a member."""
        return self.networks[member] if self.networks else self.network


def unclear(truth: pd.DataFrame, config: Mapping[str, Any]) -> BoolArray:
    """Lenses (n,) that settings, or those in a card, leave out of training: see `stages.dataset.unclear_lenses`."""
    return unclear_lenses(truth, **{name: config[name] for name in _LIMITS if name in config})
