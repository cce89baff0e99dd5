"""Artefacts come where they are asked for, in the frame's units, and know nothing of what the cutout shows."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from sim.instrument import artefacts
from sim.instrument.artefacts import additive, defects, ghost, outer_stars, saturate, tracks, trail
from sim.observe import Optics
from stages import config as configuration
from stages.config import CONFIG_DIR
from stages.survey import ARTEFACTS, SurveyFacts


def survey(name: str = "des", **changes: object) -> SurveyFacts:
    facts = configuration.load(SurveyFacts, CONFIG_DIR / "surveys" / f"{name}.yaml")
    clean = {"artefact_rates": {}, "star_density_per_arcmin2": 0.0, "sky_residual": 0.0}
    return replace(facts, **{**clean, **changes})


def optics(facts: SurveyFacts) -> Optics:
    return Optics.draw(np.random.default_rng(0), facts)


def test_nothing_is_added_or_masked_where_nothing_is_asked_for() -> None:
    facts = survey()
    rng = np.random.default_rng(1)
    for _ in range(30):
        assert not additive(rng, facts, optics(facts)).any()
        assert defects(rng, facts, 46).all()


@pytest.mark.parametrize("name", ["satellite_trail", "moving_object", "ghost", "unmasked_cosmic_rays"])
def test_light_that_is_asked_for_is_added_and_never_negative(name: str) -> None:
    facts = survey(artefact_rates={name: 1.0})
    rng = np.random.default_rng(2)
    drawn = [additive(rng, facts, optics(facts)) for _ in range(10)]
    assert all((light >= 0).all() for light in drawn)
    assert sum(light.max() > 0.1 * facts.sky_sigma["g"] for light in drawn) >= 5


@pytest.mark.parametrize("name", ["cosmic_rays", "masked_column", "chip_edge"])
@pytest.mark.parametrize("survey_name", ["des", "hst_acs"])
def test_losses_that_are_asked_for_leave_most_of_a_cutout(name: str, survey_name: str) -> None:
    facts = survey(survey_name, artefact_rates={name: 1.0})
    rng = np.random.default_rng(3)
    for _ in range(20):
        valid = defects(rng, facts, 46)
        assert valid.shape == (len(facts.bands), 46, 46)
        assert 0.3 < valid.mean() < 1


def test_every_artefact_that_a_survey_may_name_does_something() -> None:
    for name in ARTEFACTS:
        facts = survey(artefact_rates={name: 1.0})
        rng = np.random.default_rng(4)
        seen = any(additive(rng, facts, optics(facts)).any() or not defects(rng, facts, 46).all() for _ in range(10))
        assert seen, name


def test_rates_are_chances_per_cutout() -> None:
    facts = survey(artefact_rates={"masked_column": 0.3})
    rng = np.random.default_rng(5)
    share = np.mean([not defects(rng, facts, 46).all() for _ in range(1500)])
    assert share == pytest.approx(0.3, abs=0.04)


def test_left_over_sky_is_smooth_and_has_the_stated_rms() -> None:
    facts = survey(sky_residual=0.5)
    rng = np.random.default_rng(6)
    seen = optics(facts)
    sky = (
        np.stack([additive(rng, facts, seen) for _ in range(400)])
        / np.array([facts.sky_sigma[b] for b in "gri"])[:, None, None]
    )
    assert np.sqrt((sky**2).mean()) == pytest.approx(0.5, rel=0.1)
    assert np.abs(np.diff(sky, axis=-1)).mean() < 0.1 * np.abs(sky).mean()
    assert np.corrcoef(sky[:, 0].mean(axis=(1, 2)), sky[:, 1].mean(axis=(1, 2)))[0, 1] == pytest.approx(0.5, abs=0.15)


def test_stars_outside_leave_haloes_that_fall_off_inwards() -> None:
    facts = survey(star_density_per_arcmin2=400.0, spikes=0, halo_fraction=0.05)
    light = outer_stars(np.random.default_rng(7), facts, optics(facts))
    assert (light > 0).all()
    edge, middle = light[:, [0, -1]].mean(), light[:, 20:26, 20:26].mean()
    assert edge > middle


def test_more_stars_leave_more_light() -> None:
    def total(density: float) -> float:
        facts = survey(star_density_per_arcmin2=density)
        rng = np.random.default_rng(8)
        return float(np.median([outer_stars(rng, facts, optics(facts)).sum() for _ in range(30)]))

    assert total(100.0) > total(2.0)


def test_saturated_ccd_columns_keep_their_charge_and_spread_along_the_column() -> None:
    facts = survey(saturation=dict.fromkeys("gri", 100.0), bleeds=True)
    flux = np.zeros((3, 31, 25))
    flux[1, 15, 12] = 1000.0
    out = saturate(flux, facts)
    assert out.max() == 100.0
    assert out[1].sum() == pytest.approx(1000.0)
    assert (np.flatnonzero(out[1].any(axis=0)) == [12]).all()
    assert out[1, 15 - 4, 12] == 100.0
    assert out[1, 15 + 4, 12] == 100.0
    assert not out[0].any()
    assert flux[1, 15, 12] == 1000.0


def test_detectors_that_do_not_bleed_only_clip() -> None:
    facts = survey(saturation=dict.fromkeys("gri", 100.0), bleeds=False)
    flux = np.random.default_rng(9).uniform(0, 200, (3, 12, 17))
    assert np.array_equal(saturate(flux, facts), np.minimum(flux, 100.0))


def test_saturation_of_a_whole_column_ends() -> None:
    facts = survey(saturation=dict.fromkeys("gri", 1.0), bleeds=True)
    assert np.array_equal(saturate(np.full((3, 5, 4), 9.0), facts), np.ones((3, 5, 4)))


def test_shapes_keep_to_the_frame() -> None:
    rng = np.random.default_rng(10)
    for size in (1, 2, 33):
        for drawn in (trail(rng, size, 3.0), ghost(rng, size, 0.2), tracks(rng, size, 5)):
            assert drawn.shape == (size, size)
            assert drawn.min() >= 0
            assert drawn.max() <= 1


def test_no_artefact_is_told_what_the_cutout_shows() -> None:
    for function in (additive, defects):
        assert set(inspect.signature(function).parameters) <= {"rng", "survey", "optics", "size"}
    assert "label" not in inspect.getsource(artefacts)


def test_the_same_seed_gives_the_same_artefacts() -> None:
    facts = survey("hst_acs", artefact_rates=dict.fromkeys(ARTEFACTS, 0.7), star_density_per_arcmin2=50.0)
    first, second = (additive(np.random.default_rng(11), facts, optics(facts)) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(defects(np.random.default_rng(12), facts, 60), defects(np.random.default_rng(12), facts, 60))
