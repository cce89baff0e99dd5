"""Survey files: every number has a source, and the numbers agree with each other."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import j1

from sim.populations.spectra import curve
from stages import config as configuration
from stages.bands import wavelength_nm
from stages.config import CONFIG_DIR, ConfigError
from stages.survey import SurveyFacts, read

FILES = sorted((CONFIG_DIR / "surveys").glob("*.yaml"))
NAMES = [file.stem for file in FILES]
WANTED = (
    "cfhtls cfhtls_composite des kids hsc legacy lsst panstarrs sdss "
    "euclid_vis euclid_nisp hst_acs hst_wfc3 jwst_nircam roman"
).split()
SHIPPED = sorted(set(WANTED) & set(NAMES))


def load(name: str) -> SurveyFacts:
    return configuration.load(SurveyFacts, CONFIG_DIR / "surveys" / f"{name}.yaml")


def facts(**changes: object) -> dict[str, object]:
    return {
        "name": "mine",
        "kind": "ground",
        "bands": ["g", "r"],
        "pixel_scale_arcsec": 0.2,
        "psf_fwhm_arcsec": {"g": 0.8, "r": 0.7},
        "zero_point": {"g": 30.0, "r": 30.0},
        **changes,
    }


def test_every_survey_wanted_is_there() -> None:
    assert sorted(set(WANTED) - set(NAMES)) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_every_value_in_a_survey_file_has_a_source(name: str) -> None:
    survey = load(name)
    plain = {"name", "kind", "bands", "sources", "measured", "psf_files", "bleeds"}
    stated = {
        field.name
        for field in dataclasses.fields(survey)
        if field.name not in plain and getattr(survey, field.name) != _default(field)
    }
    assert sorted(stated - set(survey.sources)) == []


def _default(field: dataclasses.Field[object]) -> object:
    made = field.default_factory
    return made() if made is not dataclasses.MISSING else field.default


@pytest.mark.parametrize("name", SHIPPED)
def test_all_a_simulation_needs_is_stated_for_every_band(name: str) -> None:
    survey = load(name)
    for field in ("filters", "sky_sigma", "gain", "depth_mag"):
        assert set(getattr(survey, field)) == set(survey.bands), field


@pytest.mark.parametrize("name", SHIPPED)
def test_filter_curves_lie_where_the_bands_name_says(name: str) -> None:
    survey = load(name)
    for band in survey.bands:
        pivot, named = curve(survey.filters[band]).pivot_nm, wavelength_nm(band)
        if math.isnan(named):
            pytest.skip(f"stages.bands does not know {band}")
        assert pivot == pytest.approx(named, rel=0.12), band


def _noise_of_flux(survey: SurveyFacts, band: str) -> float:
    """Noise of a point source's flux over sky_sigma: Gaussian matched filter, or an aperture (correlated noise)."""
    n, pixel = 256, survey.pixel_scale_arcsec
    k = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n)[None, :])
    correlation = np.zeros((n, n))
    if table := survey.noise_correlation.get(band):
        for dy, row in enumerate(table):
            for dx, value in enumerate(row):
                for sy, sx in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                    correlation[sy * dy, sx * dx] = value
    elif sigma := survey.noise_correlation_pix:
        lag = np.arange(-128, 128)
        kernel = np.exp(-0.5 * (lag / sigma) ** 2)
        line = np.fft.ifft(np.abs(np.fft.fft(kernel)) ** 2).real
        correlation = np.outer(line / line[0], line / line[0])
    else:
        correlation[0, 0] = 1
    power = np.clip(np.fft.fft2(correlation).real, 1e-3, None)
    if survey.depth_aperture_arcsec:
        radius = survey.depth_aperture_arcsec / 2 / pixel
        u = 2 * np.pi * np.where(k > 0, k, 1e-9) * radius
        return float(np.sqrt(((np.pi * radius**2 * 2 * j1(u) / u) ** 2 * power).mean()))
    gaussian = np.exp(-2 * (np.pi * k * survey.psf_fwhm_arcsec[band] / 2.3548 / pixel) ** 2)
    return float(1 / np.sqrt((gaussian**2 / power).mean()))


@pytest.mark.parametrize("name", SHIPPED)
def test_sky_noise_agrees_with_the_published_depth(name: str) -> None:
    """Within 0.3 mag, what seeing, extinction and the fields that a survey quotes differ by."""
    survey = load(name)
    for band in survey.bands:
        noise = survey.sky_sigma[band] * _noise_of_flux(survey, band)
        depth = survey.zero_point[band] - 2.5 * math.log10(survey.depth_sigmas * noise)
        assert depth == pytest.approx(survey.depth_mag[band], abs=0.3), band


@pytest.mark.parametrize("name", SHIPPED)
def test_sky_noise_is_not_below_what_the_sky_leaves_of_photons(name: str) -> None:
    """A sky of 19-31 mag per square arcsec would explain the noise at the stated gain: no factor lost."""
    survey = load(name)
    for band in survey.bands:
        sky_flux = survey.sky_sigma[band] ** 2 * survey.gain[band] / survey.pixel_scale_arcsec**2
        brightness = survey.zero_point[band] - 2.5 * math.log10(sky_flux)
        assert 17.5 < brightness < (23.5 if survey.kind == "ground" else 27.5), band


def test_all_faults_of_a_survey_file_are_named_at_once() -> None:
    wrong = facts(
        kind="balloon", pixel_scale_arcsec=20.0, psf_fwhm_arcsec={"g": -0.8}, gain={"z": 3.0}, spikes=99,
        artefact_rates={"dragons": 0.1, "ghost": 2.0}, filters={"g": "wrong:g"}, noise_correlation={"g": [[0.5]]},
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        configuration.from_mapping(SurveyFacts, wrong, "mine.yaml")
    message = str(caught.value)
    for part in (
        "kind 'balloon'", "arcsec per pixel", "no value (FWHM in arcsec) for bands ['r']", "psf_fwhm_arcsec.g -0.8",
        "gain: ['z'] not among bands", "spikes 99", "dragons", "artefact_rates.ghost 2.0", "sedpy:NAME", "lag (0, 0)",
    ):  # fmt: skip
        assert part in message, part
    assert message.endswith("Correct these keys.")


def test_measured_psfs_are_found_beside_the_survey_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(facts(psf_files={"g": "psf/g.fits"})))
    assert read(path).psf_files == {"g": str(tmp_path / "psf" / "g.fits")}


def test_a_survey_of_the_required_keys_alone_is_accepted(tmp_path: Path) -> None:
    survey = configuration.from_mapping(SurveyFacts, facts())
    assert survey.artefact_rates == {}
    assert survey.spikes == 0
    assert survey.filters == {}
