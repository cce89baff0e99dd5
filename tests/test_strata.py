"""Tables of recall by what a lens looks like."""

import numpy as np
import pandas as pd

from stages.strata import by_stratum


def test_recall_by_stratum_counts_lenses_above_the_cut_that_one_in_a_hundred_others_pass() -> None:
    others = pd.DataFrame({"label": 0, "kind": "spiral", "p_lens": np.linspace(0, 0.5, 200)})
    lenses = pd.DataFrame(
        {"label": 1, "kind": "lens_galaxy", "p_lens": [0.9, 0.1, 0.8], "arc_snr": [30.0, 30.0, 100.0],
         "n_images": [2, 2, 4], "theta_e_over_seeing": [1.2, 1.2, 2.5], "arc_contrast": 0.5, "coverage_deg": 90.0}
    )  # fmt: skip
    out = by_stratum(pd.concat([others, lenses]), "p_lens", np.random.default_rng(0))
    assert out["recall_arc_snr_20_40"] == 0.5
    assert out["recall_arc_snr_20_40_n"] == 2
    assert out["recall_arc_snr_80_160"] == 1.0
    assert out["recall_n_images_2_3"] == 0.5
    assert out["recall_theta_e_over_seeing_2_3"] == 1.0
    assert out["recall_coverage_deg_90_120_low"] <= 2 / 3 <= out["recall_coverage_deg_90_120_high"]
    assert "recall_arc_snr_0_20" not in out


def test_quasars_are_not_counted_by_their_arcs_and_nothing_is_no_trouble() -> None:
    table = pd.DataFrame({"label": [1, 0], "kind": ["lens_quasar", "star"], "p_lens": [0.9, 0.1]})
    columns = ("arc_snr", "n_images", "theta_e_over_seeing", "arc_contrast", "coverage_deg")
    table = table.assign(**dict.fromkeys(columns, 50.0))
    assert by_stratum(table, "p_lens", np.random.default_rng(0)) == {}
    assert by_stratum(table[table["label"] == 1], "p_lens", np.random.default_rng(0)) == {}
