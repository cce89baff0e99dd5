"""What is believed of a candidate with several points before their places are looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TheoremConfig:
    """Prior odds and the evidence asked for, read from `configs/pipeline.yaml`.

    lens_odds : lens against chance alignment, for a candidate that other stages have flagged.
    contaminants : mean number of unrelated points among the detections of a lens.
    pair_unresolved : probability that one detection of a lens is a merged pair whose place is therefore poor.
    detector_miss : probability that a bright image stands apart and is missed all the same.
    centre_seen : probability that the central image is among the detections.
    strong_odds : posterior odds called strong (Jeffreys 1961 begins at 10): for a lens "supports", against it
        "inconsistent".
    """

    lens_odds: float = 1.0
    contaminants: float = 0.1
    pair_unresolved: float = 0.1
    detector_miss: float = 0.05
    centre_seen: float = 0.01
    strong_odds: float = 10.0

    def __post_init__(self) -> None:
        if min(self.lens_odds, self.contaminants, self.pair_unresolved, self.detector_miss, self.centre_seen) <= 0:
            raise ValueError("theorem: every prior must be above 0")
        if self.strong_odds <= 1:
            raise ValueError(f"strong_odds {self.strong_odds}: expected more than 1")
