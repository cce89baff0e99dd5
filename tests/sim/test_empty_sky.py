"""Claims about whole simulated objects on empty real sky, and about real objects taken as they are."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image
from scipy.stats import skew

from sim.draw import Ingredients, Selection, SimConfig, draw_pair
from sim.generate import main
from sim.population import Population
from sim.real_sky.backgrounds import BackgroundError, BackgroundOptions
from sim.real_sky.empty import EmptySky
from sim.real_sky.known import Known
from sim.real_sky.patch import Patch
from sim.real_sky.unpainted import Unpainted
from stages.dataset import read_shards
from stages.stretch import from_composite, to_composite
from tests.sim.sky import record
from tests.sim.test_backgrounds import FACTS, PIXEL, early, sky, star

PRIOR = Population(neighbour_magnitude=(20.0, 21.0))
TILE = 161


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tiles with an early type in the middle and stars about, and a catalogue of objects on them."""
    path = tmp_path_factory.mktemp("tiles")
    for name, seed in (("one", 1), ("two", 2)):
        pixels = sky([early(), star(9.0, 9.0), star(-11.0, 4.0), star(-6.0, -9.0)], seed, side=TILE)
        fits.writeto(path / f"{name}.fits", pixels)
    rows = [(f"{tile}-{k}", f"{tile}.fits", x, y) for tile in ("one", "two") for k, (x, y) in enumerate(OBJECTS)]
    pd.DataFrame(rows, columns=["id", "tile", "x", "y"]).to_csv(path / "catalogue.csv", index=False)
    return path


OBJECTS = [(80, 80), (125, 125), (25, 100), (88, 84)]


@pytest.fixture(scope="module")
def empty(folder):
    return EmptySky(BackgroundOptions(folder, FACTS))


def test_the_place_is_empty_and_the_patch_is_the_images_own(empty, folder):
    images = {name: fits.getdata(folder / f"{name}.fits") for name in ("one", "two")}
    rng = np.random.default_rng(1)
    for _ in range(20):
        view = empty.view(rng, PRIOR, 0.2)
        flux = view.patch.flux
        n = flux.shape[-1]
        core = flux[:, n // 2 - 4 : n // 2 + 5, n // 2 - 4 : n // 2 + 5]
        assert abs(core.mean(axis=(1, 2)) / view.sky_sigma).max() < 1.5
        whole = images[view.patch.id]
        known = np.sort(flux[np.isfinite(flux)])
        assert np.isin(known, whole).all()


def test_a_twin_differs_from_its_lens_by_lensed_light_alone_and_the_rest_is_the_patch(empty):
    config = SimConfig(lens_pair_fraction=1.0, quasar_fraction=0.0, selection=Selection(min_arc_snr=8.0))
    lens, twin = draw_pair(np.random.default_rng(3), FACTS, config, "pair", Ingredients(sky=empty))
    assert (lens.row["label"], twin.row["label"]) == (1, 0)
    assert lens.row["system"] == twin.row["system"]
    assert lens.row["system"] in {f"made:{one.cutout.id}" for one in empty._images}
    difference = (lens.cutout.flux - twin.cutout.flux)[:, lens.arc_mask > 0]
    assert np.nanmean(difference) > 0
    outside = np.abs(lens.cutout.flux - twin.cutout.flux)[:, lens.arc_mask == 0]
    assert np.nanmedian(outside) < 0.3 * min(FACTS.sky_sigma.values())


def test_light_added_to_a_patch_is_neither_lost_nor_doubled(empty):
    view = empty.view(np.random.default_rng(5), PRIOR, 0.0)
    light = np.full_like(view.patch.flux, 40.0)
    flux, variance = view.record(light, None)
    whole = view.patch.valid.all(axis=0)
    added = (flux - view.patch.flux)[:, whole]
    assert added.mean() == pytest.approx(40.0, abs=0.3)
    assert added.var() == pytest.approx(40.0 / 20.0, rel=0.3)
    assert variance.shape == flux.shape


def test_impostors_are_painted_like_lenses(empty):
    config = SimConfig(lens_pair_fraction=0.0, impostors={"spiral": 1.0})
    first, second = draw_pair(np.random.default_rng(8), FACTS, config, "pair", Ingredients(sky=empty))
    assert {first.row["kind"], second.row["kind"]} == {"spiral"}
    assert first.row["system"].startswith("made:")


def test_pictures_stay_what_8_bits_can_hold(tmp_path):
    pixels = sky([star(9.0, 9.0)], 4, side=TILE)
    Image.fromarray(to_composite(pixels[::-1], FACTS.stretch)).save(tmp_path / "tile.png")
    empty = EmptySky(BackgroundOptions(tmp_path, FACTS))
    view = empty.view(np.random.default_rng(2), PRIOR, 0.2)
    light = np.zeros_like(view.patch.flux)
    light[:, 20:25, 20:25] = 100.0
    flux, _ = view.record(light, None)
    picture = to_composite(np.nan_to_num(flux[::-1]), FACTS.stretch)
    untouched = to_composite(np.nan_to_num(view.patch.flux[::-1]), FACTS.stretch)
    assert (picture[20:25, 20:25].astype(int) - untouched[20:25, 20:25]).mean() > 20
    untouched[20:25, 20:25] = picture[20:25, 20:25] = 0
    assert (picture == untouched).all()


def test_no_place_shows_a_known_candidate(folder, tmp_path):
    (tmp_path / "known.txt").write_text("one-0\ntwo-0\n")
    options = BackgroundOptions(folder, FACTS, folder / "catalogue.csv", tmp_path / "known.txt")
    empty = EmptySky(options)
    assert len(empty) == 2
    for places in empty._places:
        away = np.abs(places - np.array(OBJECTS[0])).max(axis=1) * PIXEL
        assert away.min() > 0.5 * FACTS.cutout_arcsec


def test_a_candidate_known_by_its_position_leaves_no_place_at_its_distance():
    cutout = record(np.zeros((2, 101, 101)), scale=0.2)
    known = Known(radec_deg=np.array([[10.0, 5.0 / 3600]]))
    clear = known.clear(replace(cutout, ra_deg=10.0, dec_deg=0.0), 2.0)
    y, x = np.argwhere(clear).T
    distance = np.hypot(x - 50, y - 50) * 0.2
    assert clear.any()
    assert (np.abs(distance - 5.0) > 1.0).all()
    assert Known().clear(cutout, 2.0).all()


def test_a_folder_without_an_empty_place_says_what_to_give(tmp_path):
    crowded = sky([star(x, y, 18.0) for x in range(-5, 6, 2) for y in range(-5, 6, 2)], 1, side=51)
    fits.writeto(tmp_path / "a.fits", crowded)
    with pytest.raises(BackgroundError, match="larger than 9"):
        EmptySky(BackgroundOptions(tmp_path, FACTS))


def test_unpainted_objects_are_the_files_own_pixels_without_known_candidates(folder, tmp_path):
    (tmp_path / "known.txt").write_text("one-0\n")
    found = Unpainted(BackgroundOptions(folder, FACTS, folder / "catalogue.csv", tmp_path / "known.txt"))
    ids = [found[k][1]["id"] for k in range(len(found))]
    assert "one-0" not in ids
    assert "one-3" not in ids, "a known candidate lies in it"
    assert {"two-0", "two-1", "one-1"} <= set(ids)
    whole = fits.getdata(folder / "two.fits")
    cutout, row, mask = found[ids.index("two-1")]
    n = cutout.flux.shape[-1]
    x, y = (int(v) for v in cutout.xy_pix)
    assert np.array_equal(cutout.flux[:, y, x], whole[:, 125, 125])
    assert (row["label"], row["kind"], mask.any()) == (0, "sky", False)
    assert mask.shape == (n, n)


@pytest.mark.parametrize("option", ["--sky", "--unpainted"])
def test_the_command_makes_a_data_set_of_real_sky(folder, tmp_path, option, monkeypatch, capsys):
    monkeypatch.setattr("sim.generate.load_survey", lambda _: FACTS)
    out = tmp_path / "data"
    asked = ["--survey", "made", "--n", "6", "--out", str(out), "--workers", "1", option, str(folder)]
    assert main([*asked, "--catalogue", str(folder / "catalogue.csv")]) == 0
    shard = next(read_shards(out))
    assert 0 < len(shard.cutouts) <= 6
    assert shard.truth["system"].str.startswith("made:").all()
    assert option.strip("-") in json.loads((out / "manifest.json").read_text())["given"]
    assert "kept" in capsys.readouterr().out


def test_two_kinds_of_real_sky_at_once_are_refused(tmp_path, capsys):
    asked = ["--survey", "des", "--n", "6", "--out", str(tmp_path / "x"), "--sky", "a", "--unpainted", "b"]
    assert main(asked) == 2
    assert "one of them" in capsys.readouterr().err


def test_sky_that_a_picture_cut_off_comes_back_under_light():
    """Noise below 0 is lost in a picture; with light on it, it scatters again as it did."""
    rng = np.random.default_rng(11)
    sigma = np.array([3.0, 4.0, 5.0])
    noise = (rng.normal(size=(3, 90, 90)) + 1.1) * sigma[:, None, None]
    flux = from_composite(to_composite(noise[::-1], FACTS.stretch), FACTS.stretch)[::-1]
    nothing = np.full_like(flux, np.nan)
    patch = Patch(
        "a", "a", flux, nothing, np.ones(flux.shape, bool), np.zeros(2), np.zeros((0, 0, 0)), np.ones(3), sigma, True
    )
    light = np.full(flux.shape, 40.0)
    out, _ = patch.with_light(light, rng.normal(size=flux.shape), np.full(3, np.inf), FACTS)
    seen = from_composite(to_composite((noise + light)[::-1], FACTS.stretch), FACTS.stretch)[::-1]
    np.testing.assert_allclose(out.std(axis=(1, 2)), seen.std(axis=(1, 2)), rtol=0.06)
    np.testing.assert_allclose(out.mean(axis=(1, 2)), seen.mean(axis=(1, 2)), rtol=0.03)
    assert np.abs(skew(out.reshape(3, -1), axis=1) - skew(seen.reshape(3, -1), axis=1)).max() < 0.15
