"""Claims about painting on real sky, on small made surveys whose truth is known: FITS fluxes and 8-bit composites."""

import pickle
from dataclasses import replace
from pathlib import Path

import galsim
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image

from sim.lensing.cosmology import einstein_radius_arcsec
from sim.population import Population
from sim.populations.photometry import Photometry
from sim.real_sky.backgrounds import BackgroundError, BackgroundOptions, Backgrounds
from sim.real_sky.deflector_light import REASONS
from sim.real_sky.deflector_mass import LOG_DISPERSION_RMS
from sim.real_sky.known import Known
from stages.ingest import InputError
from stages.records import Cutout
from stages.stretch import from_composite, to_composite
from stages.survey import Stretch, SurveyFacts

PIXEL, SIDE = 0.2, 61
FWHM = {"g": 0.85, "r": 0.8, "i": 0.75}
FACTS = SurveyFacts(
    name="made", kind="ground", bands=("g", "r", "i"), pixel_scale_arcsec=PIXEL, psf_fwhm_arcsec=FWHM,
    zero_point=dict.fromkeys("gri", 30.0), sky_sigma={"g": 3.0, "r": 4.0, "i": 5.0}, gain=dict.fromkeys("gri", 20.0),
    saturation=dict.fromkeys("gri", 20000.0), cutout_arcsec=9.0, psf_ellipticity=0.0,
    stretch=Stretch(("i", "r", "g"), (0.5, 0.75, 2.1), 30.0, 0.03, 5.0),
)  # fmt: skip


def sky(objects, seed, facts=FACTS, side=SIDE):
    """Pixels (3, side, side): (galaxy or None for a point, x, y arcsec, flux (3,)) through Moffats, with noise."""
    rng = np.random.default_rng(seed)
    out = []
    for k, band in enumerate(facts.bands):
        psf = galsim.Moffat(fwhm=FWHM[band], beta=3.0)
        image = np.zeros((side, side))
        for shape, x, y, flux in objects:
            body = psf if shape is None else galsim.Convolve(shape, psf)
            image += body.withFlux(float(flux[k])).shift(x, y).drawImage(nx=side, ny=side, scale=PIXEL).array
        variance = facts.sky_sigma[band] ** 2 + image / facts.gain[band]
        out.append(np.minimum(image + rng.normal(size=image.shape) * np.sqrt(variance), facts.saturation[band]))
    return np.array(out, np.float32)


def early(z=0.35, dispersion=250.0, scatter=0.0, q=0.8):
    """An early type and its flux (3,), after Bernardi et al. (2003): r - i = 0.38, M_r = -21.15 at 10^2.203 km/s."""
    photometry = Photometry.of(FACTS)
    absolute = -21.53 - (np.log10(dispersion) - 2.203 + scatter) / 0.102
    i = float(photometry.apparent_i(absolute, z))
    shape = galsim.DeVaucouleurs(half_light_radius=0.8, trunc=6.0).shear(q=q, beta=0.4 * galsim.radians)
    return shape, 0.03, -0.05, photometry.flux(i, photometry.colours(np.zeros(1), np.array([z]))[0])


def star(x, y, i=20.0):
    photometry = Photometry.of(FACTS)
    return None, x, y, photometry.flux(i, np.array([1.2, 0.3, 0.0]))


def spiral():
    """A bright blue two-armed disc."""
    photometry = Photometry.of(FACTS)
    flux = photometry.flux(18.5, np.array([0.6, 0.2, 0.0]))
    arm = [
        (galsim.Gaussian(half_light_radius=0.25), r * np.cos(t), r * np.sin(t), 0.12 * flux)
        for r, t in ((0.8, 0.0), (1.0, 0.6), (1.2, 1.2), (1.4, 1.9))
    ]
    return [(galsim.Exponential(half_light_radius=1.0), 0.0, 0.0, 0.5 * flux), *arm]


def make(folder, scenes, pictures=False):
    """One file per scene: a FITS cube in the survey's units, or a PNG through its stretch."""
    folder.mkdir(exist_ok=True)
    for seed, (name, objects) in enumerate(scenes.items()):
        pixels = sky(objects, seed)
        if pictures:
            Image.fromarray(to_composite(pixels[::-1], FACTS.stretch)).save(folder / f"{name}.png")
        else:
            fits.writeto(folder / f"{name}.fits", pixels)
    return folder


SCENES = {
    "early-a": [early(), star(4.0, 3.0)],
    "early-b": [early(0.45, 280.0), star(-4.0, 2.0)],
    "star": [star(0.0, 0.0, 19.0)],
    "spiral": spiral(),
    "blue": [(galsim.DeVaucouleurs(half_light_radius=0.8, trunc=6.0), 0, 0, np.array([4000.0, 4200.0, 4400.0]))],
    "empty": [star(4.0, -3.0)],
    "bright": [star(0.3, 0.2, 13.0)],
    "dim": [early(0.4, 110.0)],
}


@pytest.fixture(scope="module")
def backgrounds(tmp_path_factory):
    return Backgrounds(BackgroundOptions(make(tmp_path_factory.mktemp("sky") / "fits", SCENES), FACTS))


@pytest.fixture(scope="module")
def composites(tmp_path_factory):
    scenes = {name: SCENES[name] for name in ("early-a", "early-b", "star")}
    return Backgrounds(BackgroundOptions(make(tmp_path_factory.mktemp("sky") / "png", scenes, pictures=True), FACTS))


def ring(view, theta_e=1.5, beta=0.4, size=0.08, flux=(300.0, 250.0, 200.0)):
    """A Gaussian source lensed by an isothermal sphere, on the view's fine grid, from the lens equation alone."""
    grid = view.optics.sampling.grid
    x, y = np.meshgrid(grid.axis.astype(float), grid.axis.astype(float))
    r = np.maximum(np.hypot(x, y), 1e-6)
    bx, by = x * (1 - theta_e / r) - beta, y * (1 - theta_e / r)
    light = np.exp(-0.5 * (bx**2 + by**2) / size**2) / (2 * np.pi * size**2) * grid.step**2
    return np.array(flux)[:, None, None] * light


def test_early_types_are_kept_and_each_other_cutout_has_its_reason(backgrounds):
    assert sorted(backgrounds[k].id for k in range(len(backgrounds))) == ["early-a", "early-b"]
    reason = dict(backgrounds.rejected)
    assert reason["star"] == "star_like"
    assert reason["empty"] == "no_galaxy_at_centre"
    assert reason["spiral"] in ("not_smooth", "not_red")
    assert reason["blue"] == "not_red"
    assert reason["bright"] == "saturated"
    assert reason["dim"] in ("too_faint", "low_mass")
    assert set(reason.values()) <= set(REASONS)
    assert backgrounds.counts()["kept"] == 2


def test_lens_less_twin_is_the_lensed_light_within_its_photon_noise(backgrounds):
    view = backgrounds.view(np.random.default_rng(1), 0)
    light = view.optics.see(ring(view))
    flux, _ = view.record(view.base(), light)
    twin, _ = view.record(view.base(), None)
    bright = light > 2.0
    pull = ((flux - twin - light) / np.sqrt(light / 20.0))[bright]
    assert bright.sum() > 100
    assert np.std(pull) == pytest.approx(1, abs=0.15)
    assert abs(np.mean(pull)) < 0.2


def test_the_flux_added_is_the_unlensed_flux_times_the_magnification(backgrounds):
    view = backgrounds.view(np.random.default_rng(2), 1)
    flux, _ = view.record(view.base(), view.optics.see(ring(view)))
    added = (flux.astype(float) - view.background.flux).sum(axis=(1, 2))
    assert added == pytest.approx(
        np.array([300.0, 250.0, 200.0]) * 2 * 1.5 / 0.4, rel=0.03
    )  # isothermal: mu = 2 theta_E / beta


def test_pixels_without_lensed_light_stay_bit_by_bit_and_the_twin_is_the_original(backgrounds):
    view = backgrounds.view(np.random.default_rng(3), 0)
    light = view.optics.see(ring(view, theta_e=0.8, beta=0.1, size=0.05))
    flux, _ = view.record(view.base(), light)
    twin, _ = view.record(view.base(), None)
    dark = (light < 1e-3 * view.sky_sigma[:, None, None]).all(axis=0)
    assert dark.sum() > 100
    assert flux[:, dark].tobytes() == twin[:, dark].tobytes()
    original = {b.tobytes() for k in range(8) for b in [_turned(backgrounds[0].flux, k)]}
    assert np.ascontiguousarray(twin).tobytes() in original


def _turned(planes, k):
    return np.ascontiguousarray(np.rot90(planes[..., ::-1] if k >= 4 else planes, k % 4, axes=(1, 2)))


@pytest.mark.parametrize("seed", range(6))
def test_light_lands_on_the_galaxy_whichever_way_the_background_is_turned(backgrounds, seed):
    view = backgrounds.view(np.random.default_rng(seed), 0)
    light = view.optics.see(ring(view, beta=1e-3, size=0.3))[2]
    y, x = np.indices(light.shape)
    centre = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
    assert centre == pytest.approx(view.to_pixel(np.zeros(2)), abs=0.05)
    near = view.background.flux[2] * (np.hypot(x - centre[0], y - centre[1]) < 6)
    assert np.array([(near * x).sum(), (near * y).sum()]) / near.sum() == pytest.approx(centre, abs=0.3)


def test_the_position_angle_turns_with_the_background(backgrounds):
    for seed in range(8):
        view = backgrounds.view(np.random.default_rng(seed), 0)
        y, x = np.indices(view.background.flux.shape[1:])
        cx, cy = view.to_pixel(np.zeros(2))
        light = np.clip(view.background.flux[2], 0, None) * (np.hypot(x - cx, y - cy) < 8)
        xx, yy, xy = ((light * a * b).sum() for a, b in ((x - cx, x - cx), (y - cy, y - cy), (x - cx, y - cy)))
        turn = 0.5 * np.arctan2(2 * xy, xx - yy) - view.background.pa
        assert abs((turn + np.pi / 2) % np.pi - np.pi / 2) < 0.25


def test_masked_pixels_stay_masked(tmp_path):
    pixels = sky(SCENES["early-a"], 0)
    pixels[:, 35, 40:46] = np.nan
    (tmp_path / "sky").mkdir()
    fits.writeto(tmp_path / "sky" / "early.fits", pixels)
    view = Backgrounds(BackgroundOptions(tmp_path / "sky", FACTS)).view(np.random.default_rng(0))
    flux, _ = view.record(view.base(), view.optics.see(ring(view, theta_e=2.0)))
    assert (~view.valid).sum() == 18
    assert np.array_equal(np.isfinite(flux), view.valid)
    assert np.isfinite(view.base()).all()


def test_variance_grows_by_the_photons_of_the_lensed_light_alone(tmp_path):
    (tmp_path / "sky").mkdir()
    pixels = sky(SCENES["early-a"], 0)
    for k, band in enumerate("gri"):
        fits.writeto(tmp_path / "sky" / f"one_{band}_sci.fits", pixels[k])
        fits.writeto(tmp_path / "sky" / f"one_{band}_var.fits", np.full((SIDE, SIDE), FACTS.sky_sigma[band] ** 2))
    view = Backgrounds(BackgroundOptions(tmp_path / "sky", FACTS)).view(np.random.default_rng(0))
    light = view.optics.see(ring(view))
    _, variance = view.record(view.base(), light)
    _, before = view.record(view.base(), None)
    touched = (light > 1e-3 * view.sky_sigma[:, None, None]).any(axis=0)
    assert (variance - before)[:, touched] == pytest.approx(np.clip(light, 0, None)[:, touched] / 20, abs=2e-3)
    assert np.array_equal(variance[:, ~touched], before[:, ~touched])


def test_the_psf_that_comes_with_an_image_is_the_one_that_is_painted_through(tmp_path):
    (tmp_path / "sky").mkdir()
    pixels = sky(SCENES["early-a"], 0)
    wide = galsim.Gaussian(fwhm=1.0).shear(g1=0.2)
    for k, band in enumerate("gri"):
        fits.writeto(tmp_path / "sky" / f"one_{band}_sci.fits", pixels[k])
        fits.writeto(tmp_path / "sky" / f"one_{band}_psf.fits", wide.drawImage(nx=25, ny=25, scale=PIXEL).array)
    found = Backgrounds(BackgroundOptions(tmp_path / "sky", FACTS))
    assert found.psf_source == "images"
    view = found.view(np.random.default_rng(0))
    point = view.optics.see(
        np.zeros((3, *2 * (view.optics.sampling.grid.size,)), np.float32), [(0.0, 0.0, np.ones(3))]
    )[0]
    y, x = np.indices(point.shape)
    cx, cy = view.to_pixel(np.zeros(2))
    xx, yy = ((point * (a - c) ** 2).sum() * PIXEL**2 for a, c in ((x, cx), (y, cy)))
    long, short = 1.0 / 2.355 * np.sqrt(1.2 / 0.8), 1.0 / 2.355 * np.sqrt(0.8 / 1.2)
    true = np.sort([long**2 + PIXEL**2 / 12, short**2 + PIXEL**2 / 12])
    assert np.sort([xx, yy]) == pytest.approx(true, rel=0.05)


def test_the_width_of_the_psf_is_that_of_the_surveys_own_stars(tmp_path):
    sharper = replace(FACTS, psf_fwhm_arcsec={band: 1.15 * width for band, width in FWHM.items()})
    rng = np.random.default_rng(5)
    scenes = {f"early-{k}": [early(), *(_star_beside(rng) for _ in range(2))] for k in range(8)}
    found = Backgrounds(BackgroundOptions(make(tmp_path / "sky", scenes), sharper))
    assert found.psf_source == "stars"
    pixel = 0.68 * PIXEL
    assert found.fwhm == pytest.approx(np.hypot([*FWHM.values()], pixel), rel=0.06)


def _star_beside(rng):
    x, y = rng.choice([-1, 1], 2) * rng.uniform(2.5, 4.0, 2)
    return star(x, y, rng.uniform(18.5, 20))


def test_einstein_radii_from_light_scatter_about_the_true_ones_as_stated(tmp_path):
    rng = np.random.default_rng(11)
    truth, scenes = {}, {}
    for k in range(24):
        z, dispersion = rng.uniform(0.2, 0.6), rng.uniform(200, 300)
        scatter = LOG_DISPERSION_RMS * rng.normal()
        truth[f"e{k:02d}"] = (z, dispersion)
        scenes[f"e{k:02d}"] = [early(z, dispersion, -scatter)]
    found = Backgrounds(BackgroundOptions(make(tmp_path / "sky", scenes), FACTS))
    kept = [found[k] for k in range(len(found))]
    assert len(kept) >= 18
    z_true, dispersion = np.array([truth[b.id] for b in kept]).T
    z = np.array([b.mass.z for b in kept])
    assert np.std(z - z_true) < 0.05
    log = np.log10([b.mass.theta_e_arcsec() for b in kept]) - np.log10(einstein_radius_arcsec(dispersion, z_true, 2.0))
    stated = 2 * LOG_DISPERSION_RMS  # theta_E goes as dispersion squared
    assert abs(np.mean(log)) < 0.08
    assert np.std(log) < 1.5 * stated
    drawn = [np.log10(kept[0].mass.draw(rng)[1]) for _ in range(400)]
    assert np.std(drawn) > 0.8 * LOG_DISPERSION_RMS


def test_a_composites_twin_is_the_original_picture(composites):
    for seed in range(8):
        view = composites.view(np.random.default_rng(seed), 0)
        twin, _ = view.record(view.base(), None)
        same, _ = view.add(np.zeros_like(twin))
        assert np.array_equal(same, twin)
        picture = to_composite(twin[::-1], FACTS.stretch)
        assert np.array_equal(from_composite(picture, FACTS.stretch)[::-1], twin)


def test_a_composites_lens_is_one_that_8_bits_can_hold_and_untouched_pixels_stay(composites):
    view = composites.view(np.random.default_rng(1), 0)
    light = view.optics.see(ring(view))
    flux, _ = view.record(view.base(), light)
    twin, _ = view.record(view.base(), None)
    again = from_composite(to_composite(flux[::-1], FACTS.stretch), FACTS.stretch)[::-1]
    assert again == pytest.approx(flux, rel=1e-5)
    dark = (light < 1e-3 * view.sky_sigma[:, None, None]).all(axis=0)
    assert flux[:, dark].tobytes() == twin[:, dark].tobytes()


def test_light_painted_on_a_composite_is_that_of_the_survey_observed_anew(composites):
    view = composites.view(np.random.default_rng(1), 0)
    light = view.optics.see(ring(view))
    flux, _ = view.record(view.base(), light)
    base = view.record(view.base(), None)[0]
    lit = (light[2] > 15) & (base[2] < 200)
    assert lit.sum() > 20
    assert ((flux - base)[:, lit].sum(axis=1)) == pytest.approx(light[:, lit].sum(axis=1), rel=0.1)


def test_pictures_need_a_survey_with_a_stretch(tmp_path):
    make(tmp_path / "sky", {"early": SCENES["early-a"]}, pictures=True)
    with pytest.raises(BackgroundError, match="no stretch"):
        Backgrounds(BackgroundOptions(tmp_path / "sky", replace(FACTS, stretch=None)))


def test_objects_on_a_tile_share_a_system_and_lie_away_from_known_candidates(tmp_path):
    tile = sky([early(), (*early()[:1], 14.0, 0.0, early()[3]), (*early()[:1], -14.0, 0.0, early()[3])], 0, side=221)
    fits.writeto(tmp_path / "tile.fits", tile)
    rows = [("a", 110, 110), ("b", 180, 110), ("c", 40, 110), ("d", 118, 110)]
    pd.DataFrame([(n, "tile.fits", x, y) for n, x, y in rows], columns=["id", "tile", "x", "y"]).to_csv(
        tmp_path / "catalogue.csv", index=False
    )
    (tmp_path / "known.txt").write_text("a\n")
    found = Backgrounds(BackgroundOptions(tmp_path, FACTS, tmp_path / "catalogue.csv", tmp_path / "known.txt"))
    assert {found[k].id for k in range(len(found))} == {"b", "c"}
    assert len({found[k].system for k in range(len(found))}) == 1
    reason = dict(found.rejected)
    assert reason["a"] == "known_candidate"
    assert reason["d"].endswith("known_candidate")


def test_drawn_deflectors_lens_as_their_light_says_and_lie_at_the_galaxy(backgrounds):
    rng = np.random.default_rng(0)
    view = backgrounds.view(rng, 0)
    drawn = [view.draw_deflector(rng, Population()) for _ in range(200)]
    log = np.log10([d.velocity_dispersion_km_s / 250.0 for d in drawn])
    weighted = 4 * np.log(10) * LOG_DISPERSION_RMS**2  # cross-section goes as the fourth power of the dispersion
    assert np.mean(log) == pytest.approx(weighted, abs=0.04)
    assert np.std(log) == pytest.approx(LOG_DISPERSION_RMS, rel=0.4)
    assert all(d.z_source > d.z and not d.light and (d.mass.parts[0].x, d.mass.parts[0].y) == (0, 0) for d in drawn)
    turn = np.array([d.mass.parts[0].pa for d in drawn]) - view.background.pa
    assert abs(np.mean(np.exp(2j * turn))) > 0.5


def test_a_real_galaxy_may_be_the_middle_of_a_group(backgrounds):
    rng = np.random.default_rng(0)
    view = backgrounds.view(rng, 0)
    prior = Population(group_fraction=0.5, group_halo=(2.0, 3.0), theta_e_arcsec=(0.3, 20.0))
    drawn = [view.draw_deflector(rng, prior) for _ in range(200)]
    alone = [einstein_radius_arcsec(d.velocity_dispersion_km_s, d.z, d.z_source) for d in drawn]
    ratio = np.array([d.mass.theta_e for d in drawn]) / alone
    in_group = np.array([d.kind == "group" for d in drawn])
    assert 70 < in_group.sum() < 130
    assert np.all((ratio[in_group] > 2) & (ratio[in_group] < 3))
    assert ratio[~in_group] == pytest.approx(1.0)


def test_painted_negatives_can_be_seen_and_are_not_lensed(backgrounds):
    rng = np.random.default_rng(1)
    snr = []
    for k in range(6):
        view = backgrounds.view(rng, k % 2)
        light = view.unlensed(rng, Population())
        snr.append(np.sqrt((light**2 / view.variance(view.base())).sum(axis=(1, 2)).max()))
        assert light.shape == view.background.flux.shape
    assert np.median(snr) > 8


def test_a_point_through_a_kernel_of_two_pixels_neither_rings_nor_changes_its_flux(tmp_path):
    (tmp_path / "sky").mkdir()
    pixels = sky(SCENES["early-a"], 0)
    sharp = galsim.Gaussian(fwhm=0.4)
    for k, band in enumerate("gri"):
        fits.writeto(tmp_path / "sky" / f"one_{band}_sci.fits", pixels[k])
        fits.writeto(tmp_path / "sky" / f"one_{band}_psf.fits", sharp.drawImage(nx=15, ny=15, scale=PIXEL).array)
    view = Backgrounds(BackgroundOptions(tmp_path / "sky", FACTS)).view(np.random.default_rng(0))
    grid = view.optics.sampling.grid
    point = view.optics.see(np.zeros((3, grid.size, grid.size), np.float32), [(0.3, -0.2, np.ones(3))])[0]
    assert point.sum() == pytest.approx(1, abs=0.01)
    assert point.min() > -0.02 * point.max()


@pytest.mark.parametrize(
    ("north_arcsec", "reason"), [(1.0, "known_candidate"), (5.0, "near_known_candidate"), (30.0, "")]
)
def test_known_candidates_are_met_by_their_position_on_the_sky(backgrounds, tmp_path, north_arcsec, reason):
    (tmp_path / "known.csv").write_text(f"ra,dec\n359.99999,{10 + north_arcsec / 3600}\n12.0,3.0\n")
    planes = np.zeros((1, 45, 45), np.float32)
    cutout = Cutout(
        "x", "x.fits", planes, planes, planes == 0, ("i",), 0.2, np.ones(1), planes[:, :0, :0], np.full(2, 22.0),
        np.zeros(2), ra_deg=0.00001, dec_deg=10.0,
    )  # fmt: skip
    assert Known.read(tmp_path / "known.csv").reason(cutout, 6.3) == reason


def test_each_file_is_a_system_of_its_own_and_keeps_it_however_turned(backgrounds):
    systems = {backgrounds.view(np.random.default_rng(s), k).system for s in range(5) for k in range(2)}
    assert len(systems) == 2


def test_the_same_numbers_give_the_same_view(backgrounds):
    one, two = (backgrounds.view(np.random.default_rng(7)) for _ in range(2))
    light = one.optics.see(ring(one))
    assert one.record(one.base(), light)[0].tobytes() == two.record(two.base(), light)[0].tobytes()
    copy = pickle.loads(pickle.dumps(backgrounds))
    assert copy.view(np.random.default_rng(7)).record(one.base(), light)[0].tobytes() == one.add(light)[0].tobytes()


def test_a_folder_without_a_deflector_says_what_to_give(tmp_path):
    make(tmp_path / "sky", {"star": SCENES["star"]})
    with pytest.raises(BackgroundError, match=r"star_like 1.*Give cutouts centred"):
        Backgrounds(BackgroundOptions(tmp_path / "sky", FACTS))
    with pytest.raises(InputError):
        Backgrounds(BackgroundOptions(tmp_path / "absent", FACTS))


@pytest.mark.parametrize("text", ["", "colour,size\nred,1\n"])
def test_a_list_of_known_candidates_that_names_none_is_refused(tmp_path, text):
    make(tmp_path / "sky", {"early": SCENES["early-a"]})
    (tmp_path / "known.csv").write_text(text)
    with pytest.raises(InputError, match="Give"):
        Backgrounds(BackgroundOptions(tmp_path / "sky", FACTS, exclude=tmp_path / "known.csv"))


DES = Path(__file__).resolve().parents[3] / "shared" / "real" / "des_fields"


@pytest.mark.skipif(not DES.is_dir(), reason="../shared/real/des_fields is absent")
def test_most_fields_centred_on_red_early_types_are_kept():
    from stages import config

    found = Backgrounds(BackgroundOptions(DES, config.load(SurveyFacts, config.CONFIG_DIR / "surveys" / "des.yaml")))
    assert len(found) >= 30
