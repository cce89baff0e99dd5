"""Fits and certificates: lensed images pass, chance ones do not, and differences get their names."""

from __future__ import annotations

import numpy as np
import pytest

from stages.counter.hypotheses import MISSING_NAMES
from stages.counter.images import all_images
from stages.counter.lens_fit import fit
from stages.counter.lens_model import LensModel
from stages.counter.theorem import ASSUMPTIONS, Detections, certificate
from stages.records import Certificate

LENS = LensModel(1.0, 0.12, -0.06, 0.03, 0.04, core_arcsec=0.01)
QUAD_SOURCE, DOUBLE_SOURCE = (0.03, 0.02), (0.25, 0.2)
NO_DEFLECTOR = (np.nan, np.nan)


def bright(source, lens=LENS):
    images = all_images(lens, source)
    keep = images.kind < 2
    return images.xy_arcsec[keep], np.abs(images.magnification[keep])


def judge(xy, flux=None, deflector=(0.0, 0.0), fwhm=0.1, scale=1.0, **more) -> Certificate:
    flux = np.full(len(xy), np.nan) if flux is None else flux
    look = more.pop("look", None)
    return certificate(Detections(xy, flux, np.ones(len(xy)), deflector, 1.0, scale, fwhm, **more), look=look)


def test_fit_recovers_the_lens_that_made_a_quad():
    xy, magnification = bright(QUAD_SOURCE)
    result = fit(xy, np.full(4, 0.003), (0.0, 0.0), 0.01)
    assert result.model.theta_e_arcsec == pytest.approx(1.0, abs=0.02)
    assert result.p_value > 0.05
    assert sorted(result.detection.tolist()) == [-1, 0, 1, 2, 3]
    seen = result.detection >= 0
    np.testing.assert_allclose(result.images.xy_arcsec[seen], xy[result.detection[seen]], atol=0.01)
    ratio = np.abs(result.images.magnification[seen]) / magnification[result.detection[seen]]
    np.testing.assert_allclose(ratio / ratio.mean(), 1, atol=0.2)


def test_fit_refuses_one_image():
    with pytest.raises(ValueError, match="n >= 2"):
        fit([(0.0, 1.0)], [0.03], (0.0, 0.0), 0.03)


@pytest.mark.parametrize("deflector", [(0.0, 0.0), NO_DEFLECTOR])
@pytest.mark.parametrize("source", [QUAD_SOURCE, (-0.05, 0.01), (0.0, -0.06)])
def test_a_quad_supports_lensing_and_its_fifth_image_hides_in_the_centre(source, deflector):
    xy, flux = bright(source)
    assert len(xy) == 4
    result = judge(xy, flux, deflector)
    assert result.verdict == "supports"
    assert (result.n_images_model, result.parity_sum) == (5, 1)
    assert result.missing_names == ("central_demagnified",)
    assert np.hypot(*result.missing_xy_pix[0]) < 0.15
    assert result.theta_e_arcsec == pytest.approx(1.0, abs=0.1)
    assert ASSUMPTIONS in result.sentence


@pytest.mark.parametrize("deflector", [(0.0, 0.0), NO_DEFLECTOR])
def test_a_double_is_possible_and_never_more(deflector):
    xy, flux = bright(DOUBLE_SOURCE)
    assert len(xy) == 2
    result = judge(xy, flux, deflector)
    assert result.verdict == "possible"
    assert result.n_images_model % 2 == 1
    assert result.parity_sum == 1


def test_two_stars_on_one_side_of_the_deflector_are_no_lens():
    assert judge(np.array([(2.0, 0.1), (0.7, -0.1)])).verdict == "inconsistent"


def test_a_quad_is_told_by_magnifications_parities_and_order_of_arrival():
    images = all_images(LENS, QUAD_SOURCE)
    keep = np.flatnonzero(images.kind < 2)[[2, 0, 3, 1]]
    result = judge(images.xy_arcsec[keep], np.abs(images.magnification[keep]))
    assert (result.hypothesis, result.n_positive, result.n_negative) == ("four_images", 3, 2)
    assert result.log_bayes_factor > np.log(10)
    np.testing.assert_array_equal(result.image_arrival, keep + 1)
    np.testing.assert_allclose(result.image_magnification, images.magnification[keep], rtol=0.35)


def test_colours_that_differ_count_against_a_lens():
    xy, flux = bright(DOUBLE_SOURCE)
    same, other = np.column_stack([flux, 2 * flux]), np.column_stack([flux, flux * (1, 3)])
    assert judge(xy, same).log_bayes_factor > judge(xy, flux).log_bayes_factor > judge(xy, other).log_bayes_factor


def hidden_image(flux_there, error=0.1):
    """A triple made by taking one image from a quad, judged with pixels in which it has another flux."""
    xy, flux = bright(QUAD_SOURCE)
    k = int(flux.argmin())

    def look(places):
        near = np.hypot(*(places - xy[k]).T) < 0.15
        return np.where(near, flux_there * flux[k], 0.0), np.full(len(places), error)

    more = {"flux_limit": 5 * error, "xy_err_pix": np.full(3, 0.005)}
    return judge(np.delete(xy, k, 0), np.delete(flux, k), look=look, **more)


def test_a_predicted_image_that_is_there_confirms_and_one_that_is_not_speaks_against():
    blind = judge(*(np.delete(part, bright(QUAD_SOURCE)[1].argmin(), 0) for part in bright(QUAD_SOURCE)))
    there, absent = hidden_image(1.0), hidden_image(0.0)
    assert there.verdict == "supports"
    assert there.log_bayes_factor > blind.log_bayes_factor + 2 > absent.log_bayes_factor + 2
    assert np.nanmax(there.missing_snr) > 5 > np.nanmax(absent.missing_snr)
    assert "looked for in the pixels" in there.sentence
    assert absent.verdict == "possible"


@pytest.mark.parametrize("dropped", range(4))
def test_a_removed_image_is_predicted_at_its_place(dropped):
    xy, flux = bright(QUAD_SOURCE)
    result = judge(np.delete(xy, dropped, 0), np.delete(flux, dropped), fwhm=0.05)
    assert result.verdict == "possible"
    distance = np.hypot(*(result.missing_xy_pix - xy[dropped]).T)
    assert distance.min() < 0.25
    assert result.missing_names[int(distance.argmin())] == "unexplained"


def test_a_fold_pair_closer_than_the_seeing_is_named():
    radius = np.linspace(0.5, 1.6, 100_001)
    ray = np.column_stack([radius * np.cos(1.0), radius * np.sin(1.0)])
    fold = LENS.ray_shoot(ray[np.flatnonzero(np.diff(np.sign(LENS.magnification(ray))))[-1]])[0]
    xy, flux = bright(fold * 0.97)
    assert len(xy) == 4
    distance = np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1)) + 9 * np.eye(4)
    i, j = np.unravel_index(distance.argmin(), (4, 4))
    assert distance[i, j] < 0.4
    rest = [k for k in range(4) if k not in (i, j)]
    merged = np.vstack([xy[rest], np.average(xy[[i, j]], axis=0, weights=flux[[i, j]])])
    result = judge(merged, np.append(flux[rest], flux[[i, j]].sum()), fwhm=0.6)
    assert result.verdict == "possible"
    assert "merging_pair_unresolved" in result.missing_names


def test_an_image_fainter_than_the_limit_is_excused():
    xy, flux = bright(QUAD_SOURCE)
    faint = int(flux.argmin())
    keep = np.arange(4) != faint
    result = judge(xy[keep], flux[keep], flux_limit=2.0 * float(flux[faint]))
    assert "below_limit" in result.missing_names
    assert "unexplained" not in result.missing_names


@pytest.mark.parametrize("seed", range(4))
def test_quartets_far_from_any_lens_are_inconsistent(seed):
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, np.pi, 4), rng.uniform(0.3, 2.0, 4)
    xy = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    assert judge(xy).verdict == "inconsistent"


def test_a_star_beside_a_quad_is_named_a_contaminant():
    xy, flux = bright(QUAD_SOURCE)
    result = judge(np.vstack([xy, (1.2, -1.3)]), np.append(flux, flux.mean()))
    assert result.hypothesis == "one_contaminant"
    assert np.isfinite(result.image_arrival).tolist() == [True] * 4 + [False]
    assert "contaminant: detection 5" in result.sentence


def test_a_star_far_outside_a_quad_changes_nothing():
    xy, flux = bright(QUAD_SOURCE)
    result = judge(np.vstack([xy, (3.5, -2.5)]), np.append(flux, flux.mean()))
    assert (result.verdict, result.hypothesis) == ("supports", "four_images")
    assert "contaminant: detection 5" in result.sentence


def test_three_bright_images_without_a_fourth_in_deep_pixels_are_a_naked_cusp():
    images = all_images(LensModel(1.0, 0.4, 0.0, -0.2, 0.0, core_arcsec=0.01), (0.83, 0.015))
    assert np.bincount(images.kind, minlength=3).tolist() == [2, 1, 0]
    xy, flux = images.xy_arcsec, np.abs(images.magnification)
    errors = {"xy_err_pix": np.full(3, 0.005)}
    deep = judge(xy, flux, flux_limit=0.005 * flux.min(), **errors)
    assert (deep.hypothesis, deep.verdict) == ("naked_cusp", "possible")
    assert (deep.n_positive, deep.n_negative) == (2, 1)
    assert deep.missing_probability.max(initial=0) < 0.5  # of a fourth that was missed all the same
    assert sorted(deep.image_arrival.tolist()) == [1, 2, 3]
    shallow = judge(xy, flux, flux_limit=0.9 * flux.min(), **errors)
    assert shallow.hypothesis != "naked_cusp"


def test_two_stars_beside_a_quad_are_named_contaminants():
    xy, flux = bright(QUAD_SOURCE)
    result = judge(np.vstack([xy, (1.2, -1.3), (-1.5, 0.4)]), np.append(flux, (flux.mean(), flux.mean())))
    assert (result.verdict, result.hypothesis) == ("possible", "two_contaminants")
    assert np.isfinite(result.image_arrival).tolist() == [True] * 4 + [False] * 2
    assert "contaminant: detection 5, 6" in result.sentence


def with_centre(source, core):
    """All images of a lens with a large core, the maximum last, and their fluxes in three bands of one colour."""
    images = all_images(LensModel(1.2, 0.12, -0.06, 0.03, 0.04, core_arcsec=core), source)
    order = np.argsort(images.kind == 2, kind="stable")
    assert np.count_nonzero(images.kind == 2) == 1
    return images.xy_arcsec[order], np.abs(images.magnification[order])[:, None] * (1.0, 1.3, 2.0)


@pytest.mark.parametrize("core", [0.1, 0.2])
@pytest.mark.parametrize(("source", "name"), [(QUAD_SOURCE, "five_images"), ((0.2, 0.15), "three_images")])
def test_a_central_image_is_told_from_the_nucleus_of_the_deflector(core, source, name):
    xy, flux = with_centre(source, core)
    image = judge(xy, flux)
    assert image.hypothesis == name
    assert image.missing_names == ()
    assert image.verdict == ("supports" if name == "five_images" else "possible")
    flux[-1] = flux[:-1].max() * np.array([1.0, 3.0, 9.0])  # as bright as the images, and red
    nucleus = judge(xy, flux)
    assert nucleus.hypothesis == "one_contaminant"
    assert f"contaminant: detection {len(xy)}" in nucleus.sentence


def test_a_nucleus_does_not_make_chance_points_a_lens():
    rng = np.random.default_rng(0)
    for _ in range(5):
        angle, radius = rng.uniform(0, np.pi, 4), rng.uniform(0.3, 2.0, 4)
        xy = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
        assert judge(np.vstack([xy, (0.0, 0.0)])).verdict != "supports"


def test_the_outer_image_of_a_double_is_no_field_object_beside_a_nucleus():
    xy = np.array([(1.43, 0.72), (-0.34, -0.22), (0.0, 0.0)])
    result = judge(xy, np.array([5.0, 1.0, 3.0]))
    assert np.isfinite(result.image_arrival[0])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 9])
def test_the_theorem_holds_for_the_model_whatever_was_detected(n):
    xy = np.random.default_rng(n).uniform(-1, 1, (n, 2))
    result = judge(xy, deflector=NO_DEFLECTOR)
    assert result.n_images_model % 2 == 1
    assert result.parity_sum == 1
    assert set(result.missing_names) <= set(MISSING_NAMES)


@pytest.mark.parametrize("source", [QUAD_SOURCE, DOUBLE_SOURCE])
@pytest.mark.parametrize("deflector", [(0.0, 0.0), NO_DEFLECTOR])
def test_verdict_is_blind_to_rotation_translation_and_pixel_scale(source, deflector):
    xy, flux = bright(source)
    base = judge(xy, flux, deflector)
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, -s], [s, c]])
    moved = judge((xy @ turn.T) / 0.05 + (40, 17), flux, (turn @ deflector) / 0.05 + (40, 17), scale=0.05)
    assert moved.verdict == base.verdict
    assert moved.p_value == pytest.approx(base.p_value, abs=0.02)
    assert moved.missing_names == base.missing_names
    expected = (base.missing_xy_pix @ turn.T) / 0.05 + (40, 17)
    reach = np.maximum(1.0, moved.missing_ellipse_pix[:, 0])
    assert (np.hypot(*(moved.missing_xy_pix - expected).T) < reach).all()


def test_order_of_the_detections_does_not_matter():
    xy, flux = bright(QUAD_SOURCE)
    other = judge(xy[::-1], flux[::-1])
    assert other.p_value == pytest.approx(judge(xy, flux).p_value, abs=0.01)


def test_nothing_detected_and_one_image_say_so_without_a_fit():
    none, one = judge(np.empty((0, 2))), judge(np.array([(3.0, 4.0)]))
    assert (none.verdict, one.verdict) == ("no_images", "single")
    assert np.isnan([none.p_value, one.p_value, one.theta_e_arcsec]).all()


def test_detections_without_a_position_are_left_out():
    xy, flux = bright(QUAD_SOURCE)
    result = judge(np.vstack([(np.nan, 1.0), xy]), np.append(1.0, flux))
    assert result.verdict == "supports"
    assert "contaminant" not in result.sentence


def test_unknown_pixel_scale_or_arc_peaks_cap_the_verdict():
    xy, flux = bright(QUAD_SOURCE)
    unknown = judge(xy, flux, scale=np.nan, fwhm=np.nan)
    assert unknown.verdict == "possible"
    assert np.isnan(unknown.theta_e_arcsec)
    assert judge(xy, flux, are_points=False).verdict == "possible"


def test_identical_detections_do_not_break_it():
    assert judge(np.full((3, 2), 5.0)).verdict in ("possible", "inconsistent")
