import pickle

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM

from sim.lensing import cosmology
from sim.populations.photometry import Photometry, depth
from sim.populations.spectra import ab_magnitude, curve, tables
from stages.survey import SurveyFacts

UGRIZ = tuple("ugriz")
# Red sequence of luminous red galaxies in SDSS: g-r and r-i (Eisenstein et al. 2001; ridge line of redMaPPer, Rykoff et
# al. 2014), rounded to about 0.05 magnitudes.
RED_SEQUENCE = {0.1: (0.96, 0.40), 0.2: (1.28, 0.46), 0.3: (1.58, 0.54), 0.4: (1.73, 0.67), 0.5: (1.80, 0.90)}


def sdss(bands: tuple[str, ...] = UGRIZ) -> SurveyFacts:
    return SurveyFacts(
        name="sdss", kind="ground", bands=bands, pixel_scale_arcsec=0.4,
        psf_fwhm_arcsec=dict.fromkeys(bands, 1.2), zero_point=dict.fromkeys(bands, 22.5),
        sky_sigma=dict.fromkeys(bands, 0.05), gain=dict.fromkeys(bands, 10.0),
        filters={band: f"sedpy:sdss_{band}0" for band in bands},
    )  # fmt: skip


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("z", RED_SEQUENCE)
def test_early_types_lie_on_the_observed_red_sequence(z):
    colours = np.median(Photometry.of(sdss()).early_many(rng(), np.full(400, z)), axis=0)
    assert colours[1] - colours[2] == pytest.approx(RED_SEQUENCE[z][0], abs=0.12)
    assert colours[2] - colours[3] == pytest.approx(RED_SEQUENCE[z][1], abs=0.10)


@pytest.mark.parametrize("name", ["sedpy:decam_g", "speclite:decam2014-z", "sedpy:jwst_f444w", "box:800"])
def test_flat_spectrum_has_the_same_magnitude_in_every_filter(name):
    wavelength_nm = np.geomspace(100, 10000, 500)
    assert ab_magnitude(wavelength_nm, np.full(500, 3.631e-20), curve(name)) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("name", ["decam2014-g", "decam2014-i"])
def test_filter_magnitudes_agree_with_speclite(name):
    from astropy import units
    from speclite.filters import load_filter

    wavelength_nm = np.linspace(250, 1150, 4000)
    f_nu = 3e-20 * (wavelength_nm / 600) ** 3.0
    f_lambda = f_nu * 2.99792458e18 / (10 * wavelength_nm) ** 2 * units.erg / units.s / units.cm**2 / units.AA
    expected = load_filter(name).get_ab_magnitude(f_lambda, wavelength_nm * 10 * units.AA)
    assert ab_magnitude(wavelength_nm, f_nu, curve(f"speclite:{name}")) == pytest.approx(expected, abs=5e-3)


def test_colour_in_the_reference_band_is_zero():
    photometry = Photometry.of(sdss())
    assert np.abs(photometry.table.colour[..., 3]).max() < 1e-9


def test_redder_galaxies_are_redder_and_dust_reddens():
    photometry = Photometry.of(sdss())
    z = np.full(200, 0.3)
    blue, red = (photometry.star_forming_many(rng(), np.full(200, r), z).mean(axis=0) for r in (0.0, 1.0))
    assert red[1] - red[3] > blue[1] - blue[3] + 0.5
    assert np.diff(photometry.redder(blue, 0.3) - blue).max() < 0  # each band less than the one blueward


def test_calzetti_dust_reddens_a_local_galaxy_by_its_excess():
    from sim.populations.spectra import attenuation

    b, v = attenuation(np.array([440.0, 550.0]))
    assert b - v == pytest.approx(1.0, abs=0.05)
    assert v == pytest.approx(4.05, abs=0.05)


def test_k_correction_of_a_power_law_quasar_is_that_of_its_slope():
    """Between lines, nu^-0.44 dims by 2.5 (1 - 0.44) log(1+z) less than the distance modulus says."""
    table = tables(())
    quasar = table.reference[6]
    dimming = np.interp([1.2, 1.3], table.z, quasar)
    assert dimming == pytest.approx(-2.5 * (1 - 0.44) * np.log10([2.2, 2.3]), abs=0.12)


def test_quasars_have_the_colours_of_the_sloan_survey():
    """Richards et al. (2001), Figure 4: u-g and g-r near 0.1 at z = 1.5, u-g above 1 beyond z = 3."""
    photometry = Photometry.of(sdss())
    at = {z: np.median([photometry.quasar(rng(), z) for _ in range(3)], axis=0) for z in (1.5, 3.2)}
    low = np.mean([photometry.quasar(np.random.default_rng(k), 1.5) for k in range(200)], axis=0)
    assert low[0] - low[1] == pytest.approx(0.1, abs=0.2)
    assert low[1] - low[2] == pytest.approx(0.15, abs=0.2)
    assert at[3.2][0] - at[3.2][1] > 1.0


def test_stars_lie_on_the_stellar_locus():
    """The s colour of blue dwarfs is 0 (Ivezic et al. 2004, Table 1, for r about 16.5), and g-r of M dwarfs 1.42."""
    colour = Photometry.of(sdss()).star_many(rng(), 2000)
    u_g, g_r, r_i = -np.diff(colour[:, :4]).T
    r = 16.5
    s = -0.249 * (u_g + g_r + r) + 0.794 * (g_r + r) - 0.555 * r + 0.234
    assert abs(np.median(s[(g_r > 0.2) & (g_r < 0.6)])) < 0.05
    assert np.median(g_r[r_i > 0.8]) == pytest.approx(1.42, abs=0.08)


def test_distances_are_those_of_astropy():
    model = FlatLambdaCDM(70.0, 0.3)
    z = np.array([0.11, 0.5, 1.37, 4.2])
    assert cosmology.distance_modulus(z) == pytest.approx(model.distmod(z).value, abs=1e-4)
    assert cosmology.kpc_per_arcsec(z) == pytest.approx(model.kpc_proper_per_arcmin(z).value / 60, rel=1e-4)
    assert cosmology.volume_per_z(z) == pytest.approx(model.differential_comoving_volume(z).value, rel=1e-3)


def test_einstein_radius_and_mass_are_those_of_astropys_distances():
    model = FlatLambdaCDM(70.0, 0.3)
    ratio = 1 - model.comoving_distance(0.4) / model.comoving_distance(1.8)
    theta_e = 4 * np.pi * (250 / 299792.458) ** 2 * float(ratio) * 206264.806
    assert cosmology.einstein_radius_arcsec(250.0, 0.4, 1.8) == pytest.approx(theta_e, rel=1e-4)
    sis_mass = np.pi * (250**2) / 4.30091e-9 * theta_e / 206264.806 * model.angular_diameter_distance(0.4).value
    assert cosmology.einstein_mass(theta_e, 0.4, 1.8) == pytest.approx(sis_mass, rel=1e-3)  # pi sigma^2 R / G
    assert cosmology.einstein_radius_arcsec(250.0, 0.9, 0.5) == 0.0


def test_depth_grows_with_the_sky_as_noise_does():
    facts = sdss(("i",))
    expected = 22.5 - 2.5 * np.log10(5 * 0.05 * np.sqrt(4 * np.pi) * 1.2 / 2.3548 / 0.4)
    assert depth(facts)[0] == pytest.approx(expected, abs=0.01)


def test_flux_and_magnitude_are_inverse_and_no_flux_is_infinitely_faint():
    photometry = Photometry.of(sdss())
    colour = photometry.early(rng(), 0.4)
    assert photometry.magnitude(photometry.flux(20.0, colour)) == pytest.approx(20.0 + colour)
    assert np.isinf(photometry.magnitude(np.zeros(5))).all()
    assert photometry.flux(np.array([20.0, 21.0]), np.stack([colour, colour])).shape == (2, 5)


def test_photometry_survives_pickling():
    photometry = Photometry.of(sdss())
    again = pickle.loads(pickle.dumps(photometry))
    assert again.early(rng(), 0.5) == pytest.approx(photometry.early(rng(), 0.5))


def test_unknown_filter_is_named():
    with pytest.raises(ValueError, match="sedpy:no_such"):
        curve("sedpy:no_such")
