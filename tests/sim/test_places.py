"""Claims about the split of a survey's places into parts, and about the survey that images are taken for."""

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.own_sky import main, nearest_survey
from sim.real_sky.backgrounds import BackgroundOptions, Backgrounds
from sim.real_sky.cutouts import BackgroundError
from sim.real_sky.empty import EmptySky
from sim.real_sky.places import APART_ARCSEC, split
from sim.real_sky.unpainted import Unpainted
from stages.dataset import PARTS
from tests.sim.test_backgrounds import FACTS, early, make, sky, star


def scattered(n, side_deg, seed, per_place=1, ra=359.97, dec=-40.0):
    """Objects in a square that crosses right ascension 0."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "place": [f"p{k // per_place}" for k in range(n)],
        "ra_deg": (ra + rng.uniform(0, side_deg, n) / np.cos(np.radians(dec))) % 360,
        "dec_deg": dec + rng.uniform(0, side_deg, n),
    })  # fmt: skip


def nearest_across(places, parts):
    """Smallest distance in arcsec between objects of different parts, by the haversine formula."""
    part = places["place"].map(parts.set_index("place")["part"]).to_numpy()
    ra, dec = (np.radians(places[c].to_numpy()) for c in ("ra_deg", "dec_deg"))
    half = np.sin((dec[:, None] - dec) / 2) ** 2
    half += np.cos(dec[:, None]) * np.cos(dec) * np.sin((ra[:, None] - ra) / 2) ** 2
    arcsec = np.degrees(2 * np.arcsin(np.sqrt(half))) * 3600
    across = (part[:, None] != part) & (part[:, None] != "") & (part != "")
    return arcsec[across].min()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 3.0]))
def test_no_object_lies_within_45_arcsec_of_another_parts(seed, side_deg):
    places = scattered(400, side_deg, seed)
    parts = split(places, seed)
    assert nearest_across(places, parts) > APART_ARCSEC
    assert set(PARTS) <= set(parts["part"])


def test_a_survey_without_gaps_is_cut_into_cells():
    places = scattered(2000, 0.3, 1)
    parts = split(places, 1)
    assert nearest_across(places, parts) > APART_ARCSEC
    assert (parts["part"] == "").mean() < 0.6


def test_positions_that_are_not_known_split_by_place():
    places = scattered(60, 1.0, 2, per_place=3).assign(ra_deg=np.nan, dec_deg=np.nan)
    parts = split(places, 1)
    assert parts["part"].value_counts().to_dict() == {"train": 12, "test": 5, "validation": 3}
    assert split(places.iloc[::-1], 1).equals(parts)
    assert not split(places, 2).equals(parts)


@pytest.mark.parametrize("n", [0, 1, 9])
def test_too_few_places_say_what_to_give(n):
    with pytest.raises(BackgroundError, match="Give more images"):
        split(scattered(n, 10.0, 1), 1)


def test_each_part_uses_its_own_places_and_one_name_for_a_place(tmp_path):
    folder = make(tmp_path / "sky", {f"a{k}": [early(), star(4.0, 4.0)] for k in range(4)})
    for k in range(4):
        fits.writeto(folder / f"b{k}.fits", sky([star(9.0, 9.0)], k, side=121))
    (tmp_path / "parts.csv").write_text("place,part\na0,train\na1,test\na2,train\na3,\nb0,train\nb1,test\n")
    found = {}
    for part in ("train", "test"):
        options = BackgroundOptions(folder, FACTS, parts=tmp_path / "parts.csv", part=part)
        objects, empty, painted = Unpainted(options), EmptySky(options), Backgrounds(options)
        systems = {objects[k][1]["system"] for k in range(len(objects))}
        rng = np.random.default_rng(1)
        systems |= {empty.view(rng, None, 0.2).patch.system for _ in range(20)}
        found[part] = systems | {painted[k].system for k in range(len(painted))}
    assert found["train"] == {"made:a0", "made:a2", "made:b0"}
    assert found["test"] == {"made:a1", "made:b1"}


def test_a_survey_is_known_by_its_bands_and_pixels(tmp_path):
    header = fits.Header({"BANDS": "grizY", "PIXSCALE": 0.263})
    pixels = np.random.default_rng(1).normal(size=(5, 31, 31)).astype(np.float32)
    fits.writeto(tmp_path / "a.fits", pixels, header)
    assert nearest_survey(tmp_path, None).name == "des"
    header["PIXSCALE"] = 0.8
    fits.writeto(tmp_path / "a.fits", pixels, header, overwrite=True)
    with pytest.raises(ValueError, match=r"sim/match\.py"):
        nearest_survey(tmp_path, None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--survey", "dess"], "is not known"),
        (["--survey", "des"], "holds no image"),
        ([], "holds no image"),
        (["--survey", "des", "--survey-dir", "absent"], "no such file"),
        (["--survey", "absent.yaml"], "cannot be read"),
    ],
)
def test_impossible_requests_are_one_clear_error(arguments, says, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    asked = ["--survey-dir", str(tmp_path / "empty"), "--out", str(tmp_path / "out"), *arguments]
    assert main(asked) == 2
    assert says in capsys.readouterr().err
