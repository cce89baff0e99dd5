"""What fools finders: one function per kind of non-lens, each painting on a `Stage`; `configs/sim.yaml` says how often.

Colours, magnitudes and sizes come from the same priors as the lenses', mostly from a lens that is drawn and not painted
(`sim.impostor_kinds.stage.likeness`), so that only the morphology tells.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.impostor_kinds import chance, companions, discs, edge_on, flaws, interacting
from sim.impostor_kinds.stage import Painted, Stage

KINDS: dict[str, Callable[[Stage], Painted]] = {
    "early_type": companions.early,
    "blend": companions.blend,
    "blue_group": companions.blue_group,
    "red_group": companions.red_group,
    "dwarf_satellites": companions.dwarf_satellites,
    "field": companions.field,
    "spiral": discs.spiral,
    "barred_spiral": discs.barred_spiral,
    "bulgeless_spiral": discs.bulgeless_spiral,
    "ring_galaxy": discs.ring_galaxy,
    "edge_on": edge_on.edge_on,
    "tangential": edge_on.tangential,
    "collisional_ring": interacting.collisional_ring,
    "polar_ring": interacting.polar_ring,
    "merger": interacting.merger,
    "tidal_tails": interacting.tidal_tails,
    "shells": interacting.shells,
    "chance_points": chance.chance_points,
    "star_galaxy": chance.star_galaxy,
    "star": chance.star,
    "quasar": chance.quasar,
    "saturated_star": flaws.saturated_star,
    "ghost": flaws.ghost,
    "trail": flaws.trail,
    "streak": flaws.streak,
    "bleed": flaws.bleed,
}

__all__ = ["KINDS", "Painted", "Stage"]
