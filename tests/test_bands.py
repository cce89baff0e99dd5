"""Filter names to wavelengths."""

import numpy as np
import pytest

from stages.bands import wavelength_nm


@pytest.mark.parametrize(
    ("name", "nm"),
    [
        ("g", 475), ("R", 622), (" i ", 763), ("Ks", 2150), ("VIS", 715),
        ("g.MP9401", 475), ("OCAM_g_SDSS", 475), ("z.00000", 905), ("HSC-G", 475), ("r'", 622), ("Euclid_VIS", 715),
        ("F606W", 606), ("f850lp", 850), ("F160W", 1600), ("F090W", 900), ("F444W", 4440), ("F322W2", 3220),
        ("F1000W", 10000), ("F200W", 2000), ("F200LP", 200), ("F300X", 300),
        ("CLEAR1L; F814W", 814), ("ACS_F814W", 814), ("F444W-CLEAR", 4440),
    ],
)  # fmt: skip
def test_spellings_of_surveys_and_telescopes(name: str, nm: float) -> None:
    assert wavelength_nm(name) == nm


@pytest.mark.parametrize("name", ["", "clear", "decam", "F12W", "F814", "flux", "1", "gg"])
def test_other_words_have_no_wavelength(name: str) -> None:
    assert np.isnan(wavelength_nm(name))
