from dataclasses import replace

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from astropy.modeling.models import Sersic1D as AstropySersic
from scipy.integrate import cumulative_trapezoid

from sim.lensing.lens import PowerLaw, Subhalo
from sim.population import Population, Sersic, deflector, early_type, einstein_radius_arcsec, neighbours, source
from sim.populations.deflectors import dispersion_function, source_redshift, subhaloes
from sim.populations.galaxies import early_band_radius
from sim.populations.photometry import Photometry
from sim.populations.priors import choose
from sim.scene import Grid, paint
from stages.survey import SurveyFacts
from tests.sim.test_photometry import sdss


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def des() -> Photometry:
    bands = ("g", "r", "i")
    return Photometry.of(
        SurveyFacts(
            name="des", kind="ground", bands=bands, pixel_scale_arcsec=0.263,
            psf_fwhm_arcsec=dict.fromkeys(bands, 0.95), zero_point=dict.fromkeys(bands, 30.0),
            sky_sigma=dict.fromkeys(bands, 3.5), gain=dict.fromkeys(bands, 27.0),
            filters={band: f"sedpy:decam_{band}" for band in bands},
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def photometry() -> Photometry:
    return des()


def test_every_fault_of_the_priors_is_reported_at_once():
    with pytest.raises(ValueError, match="z_deflector") as caught:
        Population(z_deflector=(0.9, 0.2), disc_fraction=1.4, core_arcsec=-1.0, strata={"quadz": 2.0, "quads": -1.0})
    for name in ("z_deflector", "disc_fraction", "core_arcsec", "quadz", "-1.0"):
        assert name in str(caught.value)


def test_early_types_have_the_observed_faber_jackson_relation(photometry):
    """Bernardi et al. (2003, part II): mean log sigma at M_r, and of M at sigma, of the same joint Gaussian."""
    from sim.populations.galaxies import early_luminosity_and_size

    log_sigma = rng().normal(2.20, 0.111, 20000)
    absolute, kpc = early_luminosity_and_size(rng(1), 10**log_sigma)
    slope = np.polyfit(absolute, log_sigma, 1)[0]
    assert slope == pytest.approx(-0.103, abs=0.01)  # L ~ sigma^3.9
    # fundamental plane: log R = 1.49 log sigma - 0.75 log I0 (equation 7); I0 in magnitudes is M + 5 log R
    design = np.stack([log_sigma, (absolute + 5 * np.log10(kpc)) / -2.5, np.ones_like(log_sigma)], axis=1)
    residual = np.log10(kpc) - design[:, :2] @ np.array([1.49, -0.75])
    assert residual.std() < 0.10  # 0.08 intrinsic


def test_an_einstein_radius_is_that_of_its_dispersion(photometry):
    prior = Population(group_fraction=0.0, pair_fraction=0.0)
    drawn = [deflector(rng(k), photometry, prior) for k in range(300)]
    sis = [einstein_radius_arcsec(d.velocity_dispersion_km_s, d.z, d.z_source) for d in drawn]
    ratio = np.array([d.mass.theta_e for d in drawn]) / sis
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    assert ratio.std() == pytest.approx(0.10, abs=0.02)  # 5% in dispersion


def test_a_groups_halo_widens_its_einstein_radius_by_the_asked_factor(photometry):
    prior = Population(disc_fraction=0.0, group_fraction=1.0, pair_fraction=0.0, group_halo=(2.0, 3.0))
    drawn = [deflector(rng(k), photometry, prior) for k in range(300)]
    sis = [einstein_radius_arcsec(d.velocity_dispersion_km_s, d.z, d.z_source) for d in drawn]
    ratio = np.array([d.mass.theta_e for d in drawn]) / sis
    assert np.median(ratio) == pytest.approx(2.5, abs=0.08)
    assert ratio.std() == pytest.approx(np.hypot(1 / 12**0.5, 2.5 * 0.10), abs=0.06)
    with pytest.raises(ValueError, match="group_halo"):
        Population(group_halo=(0.5, 1.5))


def test_dispersions_of_lenses_follow_the_dispersion_function_times_the_cross_section(photometry):
    """At fixed redshifts the mean of sigma is the ratio of moments of the dispersion function (Choi et al. 2007)."""
    prior = Population(z_deflector=(0.40, 0.41), z_source=(2.0, 2.01), disc_fraction=0.0, theta_e_arcsec=(0.1, 20.0))
    drawn = rng(5)
    sigma = np.array([deflector(drawn, photometry, prior).velocity_dispersion_km_s for _ in range(1500)])
    grid = np.linspace(100, 420, 4000)
    weight = dispersion_function(grid) / grid * grid**4
    assert sigma.mean() == pytest.approx((grid * weight).sum() / weight.sum(), rel=0.015)


def test_mass_follows_light_within_scatter(photometry):
    prior = Population(disc_fraction=0.0, group_fraction=0.0, pair_fraction=0.0, subhalo_fraction=0.0)
    drawn = [deflector(rng(k), photometry, prior) for k in range(400)]
    slope = np.array([d.mass.parts[0].slope for d in drawn])
    assert slope.mean() == pytest.approx(2.08, abs=0.03)
    assert slope.std() == pytest.approx(0.16, abs=0.03)
    turn = np.array([np.degrees(d.mass.parts[0].pa - d.light[0].pa) for d in drawn if d.light[0].q < 0.75])
    assert np.median(np.abs(turn)) < 10
    assert np.corrcoef([d.mass.parts[0].q for d in drawn], [d.light[0].q for d in drawn])[0, 1] > 0.6


def test_every_mass_part_has_a_core_and_satellites_have_light(photometry):
    prior = Population(group_fraction=0.5, pair_fraction=0.4, disc_fraction=0.0)
    for k in range(60):
        d = deflector(rng(k), photometry, prior)
        galaxies = [p for p in d.mass.parts if isinstance(p, PowerLaw)]
        assert len(galaxies) <= len(d.light)
        assert all(p.core > 0 for p in galaxies)
        assert all((p.x, p.y) == (c.x, c.y) for p, c in zip(galaxies, d.light[: len(galaxies)], strict=True))


def test_subhaloes_hold_the_asked_share_of_the_convergence():
    drawn = rng()
    within = []
    for _ in range(400):
        found = subhaloes(drawn, 1.2, 3e11, 0.004)
        within.append(sum(np.pi * s.b * (s.truncation - s.core) for s in found))  # mass in units of Sigma_cr
    area = np.pi * (2.5 * 1.2) ** 2
    assert np.mean(within) / area == pytest.approx(0.004 * 0.5 * np.exp(0.7**2 / 2), rel=0.2)


def test_subhalo_masses_have_the_slope_of_simulations():
    drawn = rng()
    mass = np.concatenate([[(s.b / 1.2) ** 1.5 for s in subhaloes(drawn, 1.2, 3e11, 0.02)] for _ in range(300)]) * 3e11
    hill = 1 / np.log(mass[mass < 3e9] / 1e8).mean()  # close to the exponent where the upper cut is far
    assert mass.min() >= 1e8 * 0.999
    assert 0.7 < hill < 1.4


def test_boosted_deflectors_weigh_back_to_natural(photometry):
    boosted = Population(strata={"large_theta_e": 8.0, "discs": 4.0})
    drawn, n = rng(4), 1500
    plain = [deflector(drawn, photometry, Population()) for _ in range(n)]
    heavy = [deflector(drawn, photometry, boosted) for _ in range(n)]
    share = np.mean([d.kind == "disc" for d in heavy])
    weighted = np.mean([(d.kind == "disc") / d.boost for d in heavy])
    assert share > 0.2
    assert weighted == pytest.approx(np.mean([d.kind == "disc" for d in plain]), abs=0.03)
    assert np.mean([1 / d.boost for d in heavy]) == pytest.approx(1.0, abs=0.05)


def test_choice_by_weight_keeps_expectations():
    drawn = rng()
    total = 0.0
    for _ in range(4000):
        value = drawn.random(8)
        k, boost = choose(drawn, np.where(value > 0.9, 10.0, 1.0))
        total += value[k] / boost / 4000
    assert total == pytest.approx(0.5, abs=0.02)


def test_neighbours_come_at_the_surveys_density(photometry):
    prior = Population(overdensity_sigma=0.0, neighbour_beyond_depth_mag=0.0, neighbour_magnitude=(14.5, 30.0))
    drawn = rng()
    found = [neighbours(drawn, photometry, prior, 30.0, 40.0) for _ in range(40)]
    places = {(round(p.x, 9), round(p.y, 9)) for g, _ in found for p in g if p.index > 0}
    stars = sum(len(s) for _, s in found)
    assert len(places) >= 40 * 40 * 0.25 * 0.9
    assert stars == pytest.approx(40 * 2.0 * 0.25 * 10 ** (0.15 * (25 - 23)), rel=0.35)
    assert all(np.hypot(x, y) > 1.5 for _, s in found for x, y, _ in s)


def test_no_bands_and_no_neighbours_are_no_trouble(photometry):
    assert neighbours(rng(), photometry, Population(overdensity_sigma=0.0), 0.0, 0.0) == ((), [])


def test_the_same_seed_draws_the_same_lens(photometry):
    a, b = (deflector(rng(9), photometry, Population()) for _ in range(2))
    assert a.mass.parts == b.mass.parts
    assert (a.light[0].flux == b.light[0].flux).all()
    s, t = (source(rng(9), photometry, Population(), a, "galaxy") for _ in range(2))
    assert (s.x, s.y, s.i_magnitude) == (t.x, t.y, t.i_magnitude)
    assert all(isinstance(p, PowerLaw | Subhalo) for p in a.mass.parts)


def test_early_types_of_a_dispersion_are_as_bright_as_luminous_red_galaxies():
    """LRGs: i near 17.2 at z = 0.2 and 19.0 at z = 0.4 for -22.5 today (Eisenstein et al. 2001)."""
    photometry = Photometry.of(sdss(("g", "r", "i")))
    i = [photometry.magnitude(early_type(rng(k), photometry, 0.4, 220.0).flux)[2] for k in range(200)]
    assert np.median(i) == pytest.approx(19.2, abs=0.4)


def half_light_radii(canvas: np.ndarray, step: float, q: float, pa: float) -> np.ndarray:
    """Geometric mean radius (B,) of the ellipse about the middle that holds half of a canvas, by counting."""
    axis = (np.arange(canvas.shape[1]) - (canvas.shape[1] - 1) / 2) * step
    x, y = np.meshgrid(axis, axis)
    u, v = x * np.cos(pa) + y * np.sin(pa), y * np.cos(pa) - x * np.sin(pa)
    r = np.sqrt(q * u**2 + v**2 / q).ravel()
    order = np.argsort(r)
    within = np.cumsum(canvas.reshape(len(canvas), -1)[:, order].astype(float), axis=1)
    return np.array([np.interp(0.5, w / w[-1], r[order]) for w in within])


def test_early_types_shrink_to_the_red_as_observed_and_keep_their_light_and_their_size_in_i():
    """SPIDER I (La Barbera et al. 2010): 35% from g to K; the size in i is that of the magnitude-size relation."""
    photometry = Photometry.of(sdss(("g", "r", "i", "z")))
    galaxy = early_type(rng(3), photometry, 0.05, 220.0)
    galaxy = replace(galaxy, x=0.0, y=0.0, radius=1.0, index=1.8)  # wings that the canvas holds
    canvas = np.zeros((4, 801, 801), np.float32)
    paint(canvas, Grid(801, 0.05), [galaxy])
    np.testing.assert_allclose(canvas.sum(axis=(1, 2)), galaxy.flux, rtol=2e-3)
    radius = half_light_radii(canvas, 0.05, galaxy.q, galaxy.pa)
    assert radius[2] == pytest.approx(1.0, rel=0.01)
    per_ln_nm = np.log(0.65) / np.log(2190 / 469)
    np.testing.assert_allclose(np.log(radius / radius[2]), per_ln_nm * np.log([469 / 748, 617 / 748, 1, 893 / 748]),
                               atol=0.01)  # fmt: skip


@pytest.mark.parametrize("index", [1.8, 4.0, 7.0])
def test_parts_of_a_gradient_hold_all_light_and_half_of_it_within_each_radius(index):
    """Against astropy's profile, integrated numerically."""
    flux, ratio = np.array([3.0, 2.0, 5.0, 1.0]), np.array([1.2, 1.1, 1.0, 0.65])
    parts = Sersic(0.1, 0.2, 0.7, index, 0.6, 0.4, flux, ratio).parts()
    np.testing.assert_allclose(sum(p.flux for p in parts), flux, rtol=1e-12)
    r = np.geomspace(1e-6, 1e4, 200_000)
    inside = np.zeros((4, len(r)))
    for part in parts:
        brightness = AstropySersic(1.0, part.radius, part.index)(r)
        light = cumulative_trapezoid(2 * np.pi * r * brightness, r, initial=0.0)
        inside += part.flux[:, None] * light / light[-1]
    found = [np.interp(0.5, light / light[-1], r) for light in inside]
    np.testing.assert_allclose(found, 0.7 * ratio, rtol=2e-3)


def test_without_a_gradient_a_profile_is_itself_and_one_band_is_one_profile():
    plain = Sersic(0.0, 0.0, 1.0, 4.0, 0.8, 0.0, np.ones(2))
    assert plain.parts() == (plain,)
    (only,) = replace(plain, flux=np.ones(1), band_radius=np.array([1.3])).parts()
    assert only.radius == pytest.approx(1.3)
    assert only.band_radius is None


def test_radii_are_constant_beyond_the_wavelengths_that_were_measured():
    beyond = early_band_radius(np.array([200.0, 355.0, 2190.0, 4400.0]), 0.0)
    assert beyond[0] == beyond[1] > 1 > beyond[2] == beyond[3]


def test_impossible_ranges_are_refused_by_name(photometry):
    with pytest.raises(ValueError, match="theta_e_arcsec"):
        deflector(rng(), photometry, Population(theta_e_arcsec=(9.0, 10.0), velocity_dispersion_km_s=(100.0, 150.0)))


def test_a_further_source_is_deflected_more_as_distances_say(photometry):
    lens = deflector(np.random.default_rng(5), photometry, Population(z_deflector=(0.3, 0.5), z_source=(0.8, 1.5)))
    further = lens.before(3.0)
    to_lens, *to_sources = FlatLambdaCDM(70, 0.3).comoving_distance([lens.z, lens.z_source, 3.0]).value
    near, far = (1 - to_lens / d for d in to_sources)
    ratio = far / near
    x, y = np.array([0.7, -1.2]), np.array([0.4, 2.0])
    np.testing.assert_allclose(further.mass.deflection(x, y), ratio * np.array(lens.mass.deflection(x, y)), rtol=3e-3)
    assert further.z_source == 3.0


def test_redshifts_of_further_sources_lie_behind_the_deflector(photometry):
    rng = np.random.default_rng(6)
    drawn = np.array([source_redshift(rng, photometry, Population(), 0.6) for _ in range(300)])
    assert drawn.min() > 0.6
    assert 1.0 < np.median(drawn) < 3.0
