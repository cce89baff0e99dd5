from pathlib import Path

import numpy as np
import pytest

from sim.lensing.caustics import caustics, inside
from sim.lensing.images import solve
from sim.lensing.lens import Lens, PowerLaw
from sim.population import Deflector, Population, blue_galaxy, deflector, source
from sim.populations import supernovae
from sim.populations.counts import galaxy_magnitudes, quasars
from sim.populations.photometry import Photometry
from tests.sim.test_population import des, rng


@pytest.fixture(scope="module")
def photometry() -> Photometry:
    return des()


def total_i(photometry, parts) -> float:
    return float(photometry.magnitude(sum(p.flux for p in parts))[2])


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
    from sim.populations.galaxies import star_forming_radius

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
    weight = np.array([1 / s.boost for s in heavy])
    weighted = np.histogram(i, bins, weights=weight)[0] / n
    error = np.sqrt(np.histogram(i, bins, weights=weight**2)[0] + natural * n) / n
    assert (np.abs(weighted - natural) < 3.5 * error).all()
    assert (np.abs(raw - natural) > 5 * error).any()
    assert {s.boost for s in plain} == {1.0}


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


def test_real_galaxies_replace_the_profiles_of_a_source(photometry):
    folder = Path(__file__).parents[2].parent / "shared" / "real" / "cosmos_galaxies"
    if not folder.is_dir():
        pytest.skip("../shared/real/cosmos_galaxies is not here")
    from sim.populations.real_galaxies import Stamps

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
