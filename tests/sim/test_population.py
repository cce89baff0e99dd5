import numpy as np
import pytest

from sim import supernovae
from sim.caustics import caustics, inside
from sim.counts import galaxy_magnitudes, quasars
from sim.deflectors import dispersion_function, subhaloes
from sim.images import solve
from sim.lens import Lens, PowerLaw, Subhalo
from sim.photometry import Photometry
from sim.population import (
    Deflector,
    Population,
    blue_galaxy,
    deflector,
    early_type,
    einstein_radius_arcsec,
    neighbours,
    source,
)  # fmt: skip
from sim.priors import choose
from stages.survey import SurveyFacts
from tests.sim.test_photometry import sdss


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def photometry() -> Photometry:
    bands = ("g", "r", "i")
    return Photometry.of(
        SurveyFacts(
            name="des", kind="ground", bands=bands, pixel_scale_arcsec=0.263,
            psf_fwhm_arcsec=dict.fromkeys(bands, 0.95), zero_point=dict.fromkeys(bands, 30.0),
            sky_sigma=dict.fromkeys(bands, 3.5), gain=dict.fromkeys(bands, 27.0),
            filters={band: f"sedpy:decam_{band}" for band in bands},
        )
    )  # fmt: skip


def total_i(photometry, parts) -> float:
    return float(photometry.magnitude(sum(p.flux for p in parts))[2])


def test_every_fault_of_the_priors_is_reported_at_once():
    with pytest.raises(ValueError, match="z_deflector") as caught:
        Population(z_deflector=(0.9, 0.2), disc_fraction=1.4, core_arcsec=-1.0, strata={"quadz": 2.0, "quads": -1.0})
    for name in ("z_deflector", "disc_fraction", "core_arcsec", "quadz", "-1.0"):
        assert name in str(caught.value)


def test_early_types_have_the_observed_faber_jackson_relation(photometry):
    """Bernardi et al. (2003, part II): mean log sigma at M_r, and of M at sigma, of the same joint Gaussian."""
    from sim.galaxies import early_luminosity_and_size

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


def test_galaxy_counts_rise_as_observed():
    """Capak et al. (2007): about 0.3 dex per magnitude in i between 22 and 25; 40 to 55 per square arcmin to i = 25."""
    m = galaxy_magnitudes(rng(), 200000, 20.0, 25.0)
    n, edges = np.histogram(m, np.arange(22, 25.01, 0.5))
    assert np.polyfit(edges[:-1], np.log10(n), 1)[0] == pytest.approx(0.31, abs=0.03)


def test_quasar_counts_are_those_of_oguri_and_marshall():
    """Steep (about 0.8 dex per magnitude) below i = 18.5, shallow beyond i = 21 (their Figure 2)."""
    n = quasars().sum(axis=0)
    i = np.arange(14.0, 30.01, 0.1)
    bright, faint = (np.polyfit(i[s], np.log10(n[s]), 1)[0] for s in ((i > 16.5) & (i < 18), (i > 22) & (i < 24)))
    assert 0.6 < bright < 1.0
    assert 0.1 < faint < 0.35


def test_a_normal_supernova_at_maximum_has_the_known_magnitude():
    """M_B = -19.3: m_B at z near 0; i = 23.0 +- 0.3 at z = 0.5 (Goobar & Leibundgut 2011, Figure 2)."""
    near = supernovae.apparent_i(np.array(-19.3), np.array(0.0), np.array(0.01))
    assert near - (33.18 - 19.3) == pytest.approx(0.35, abs=0.25)  # (B - i) in B Vega, i AB near -0.35 at maximum
    far = supernovae.apparent_i(np.array(-19.3), np.array(0.0), np.array(0.5))
    assert far == pytest.approx(22.8, abs=0.5)
    assert supernovae.fading(np.array(15.0)) == pytest.approx(1.1, abs=0.1)  # Delta m15 (Phillips 1993)


def test_light_of_a_star_forming_galaxy_adds_up_to_its_magnitude(photometry):
    for k in range(30):
        parts = blue_galaxy(rng(k), photometry, 22.0, (0.1, 0.2), 0.4, 0.8)
        assert total_i(photometry, parts) == pytest.approx(22.0, abs=0.35)


def test_bulges_are_redder_and_clumps_bluer_than_their_disc(photometry):
    gap = {"bulge": [], "clump": []}
    for k in range(200):
        disc, *others = blue_galaxy(rng(k), photometry, 22.0, (0.0, 0.0), 0.4, 0.6)
        g_i = [-2.5 * np.log10(c.flux[0] / c.flux[2]) for c in (disc, *others)]
        for c, value in zip(others, g_i[1:], strict=True):
            gap["bulge" if (c.x, c.y) == (0.0, 0.0) else "clump"].append(value - g_i[0])
    assert np.mean(gap["bulge"]) > 0.1
    assert np.mean(gap["clump"]) < -0.05


def test_fainter_and_more_distant_galaxies_are_smaller():
    from sim.galaxies import star_forming_radius

    def median(i, z):
        return np.median(star_forming_radius(rng(), np.full(999, i), np.full(999, z)))

    assert median(22.0, 0.7) > median(25.0, 0.7)
    assert 0.15 < median(25.0, 1.0) < 0.3  # COSMOS: half-light radii near 0.2 arcsec at i = 25 (Leauthaud et al. 2007)


def lens(q=0.7, shear=0.04) -> Deflector:
    mass = Lens((PowerLaw(1.3, 2.0, q, 0.4, core=0.02),), gamma1=shear)
    return Deflector(mass, (), 0.4, 1.5, 250.0, "early")


def test_caustics_tell_quads_from_doubles_as_the_lens_equation_does():
    found = caustics(lens().mass)
    x, y = rng().uniform(-1.2, 1.2, (2, 250))
    expected = np.array([len(solve(lens().mass, a, b).x) for a, b in zip(x, y, strict=True)])
    quad, multiple = inside(found.tangential, x, y), inside(found.radial, x, y)
    guess = 1 + 2 * quad.astype(int) + 2 * multiple
    assert (guess == expected).mean() > 0.985


def test_sources_fill_the_multiply_imaged_area_evenly(photometry):
    prior = Population(source_reach_radii=0.0)
    drawn = rng(8)
    place = np.array([[s.x, s.y] for s in (source(drawn, photometry, prior, lens(), "galaxy") for _ in range(800))])
    found = caustics(lens().mass)
    share = inside(found.tangential, *place.T).mean()

    def area(p):
        return abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - np.roll(p[:, 0], -1) * p[:, 1])) / 2

    assert share == pytest.approx(area(found.tangential) / area(found.radial), abs=0.05)


def test_weights_by_the_recorded_boost_give_natural_proportions_back(photometry):
    boosted = Population(strata={"quads": 6.0, "faint_source": 0.3, "bright_source": 5.0})
    drawn, n = rng(2), 1500
    plain = [source(drawn, photometry, Population(), lens(), "galaxy") for _ in range(n)]
    heavy = [source(drawn, photometry, boosted, lens(), "galaxy") for _ in range(n)]
    bins = np.array([18.0, 23.0, 24.0, 25.0, 29.0])
    natural = np.histogram([s.i_magnitude for s in plain], bins)[0] / n
    i = [s.i_magnitude for s in heavy]
    raw = np.histogram(i, bins)[0] / n
    weighted = np.histogram(i, bins, weights=[1 / s.boost for s in heavy])[0] / n
    assert np.abs(raw - natural).max() > 0.1
    assert weighted == pytest.approx(natural, abs=0.045)
    assert {s.boost for s in plain} == {1.0}


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


def test_a_supernova_lies_within_its_host_and_is_multiply_imaged(photometry):
    for k in range(20):
        s = source(rng(k), photometry, Population(), lens(), "supernova")
        assert np.hypot(*s.point_offset) < 20 * max(c.radius for c in s.light)
        assert len(solve(lens().mass, *s.point_xy).x) > 1
        assert s.point_flux.max() > 0


def test_quasars_outshine_hosts_the_more_the_brighter_they_are(photometry):
    found = [source(rng(k), photometry, Population(), lens(), "quasar") for k in range(200)]
    point = np.array([s.i_magnitude for s in found])
    host = np.array([photometry.magnitude(s.total_flux)[2] for s in found])
    assert np.polyfit(point, host, 1)[0] == pytest.approx(0.35, abs=0.15)
    assert (host > point)[point < 21].mean() > 0.9


def test_sources_reach_the_depth_of_the_survey(photometry):
    faint = [source(rng(k), photometry, Population(), lens(), "galaxy").i_magnitude for k in range(200)]
    assert max(faint) <= photometry.depth_i + 0.5 + 1e-6
    assert np.median(faint) > photometry.depth_i - 1.5


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


def test_impossible_ranges_are_refused_by_name(photometry):
    with pytest.raises(ValueError, match="theta_e_arcsec"):
        deflector(rng(), photometry, Population(theta_e_arcsec=(9.0, 10.0), velocity_dispersion_km_s=(100.0, 150.0)))


def test_real_galaxies_replace_the_profiles_of_a_source(photometry):
    from pathlib import Path

    folder = Path(__file__).parents[2].parent / "shared" / "real" / "cosmos_galaxies"
    if not folder.is_dir():
        pytest.skip("../shared/real/cosmos_galaxies is not here")
    from sim.real_galaxies import Stamps

    s = source(rng(1), photometry, Population(), lens(), "galaxy", Stamps(folder))
    axis = np.linspace(-8, 8, 641)
    x, y = np.meshgrid(s.x + axis, s.y + axis)
    total = s.stamp_light(x, y).sum(axis=(1, 2)) * (axis[1] - axis[0]) ** 2
    assert s.light == ()
    assert total == pytest.approx(s.total_flux, rel=0.05)


def test_a_stratum_of_weight_zero_is_not_drawn(photometry):
    only = Population(strata={"early": 0.0, "groups": 0.0, "discs": 0.0, "doubles": 0.0, "partial_arcs": 0.0})
    assert {deflector(rng(k), photometry, only).kind for k in range(30)} == {"pair"}
    found = caustics(lens().mass)
    drawn = [source(rng(k), photometry, only, lens(), "galaxy") for k in range(60)]
    assert all(inside(found.tangential, np.array([s.x]), np.array([s.y]))[0] for s in drawn)
