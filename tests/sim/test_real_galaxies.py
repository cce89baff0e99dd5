"""Claims about real galaxies as sources, on galaxies made here whose truth is known and on the COSMOS example."""

import pickle
from pathlib import Path

import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from sim.populations.real_galaxies import StampError, Stamps

SCALE, RADIUS = 0.03, 0.35
COSMOS = Path(__file__).resolve().parents[3] / "shared" / "real" / "cosmos_galaxies"


def write(folder: Path, galaxies, fluxes, magnitudes, noise=0.01, side=101):
    """A folder in the GalSim format: galaxies seen through an elliptical Moffat, with white noise."""
    rng = np.random.default_rng(1)
    psf = galsim.Moffat(fwhm=0.1, beta=3).shear(g1=0.15, g2=0.05)
    images = [fits.PrimaryHDU()]
    for galaxy, flux in zip(galaxies, fluxes, strict=True):
        seen = galsim.Convolve(galaxy.withFlux(flux), psf).drawImage(nx=side, ny=side, scale=SCALE, method="no_pixel")
        images.append(fits.ImageHDU((seen.array + noise * rng.normal(size=seen.array.shape)).astype(np.float32)))
    kernel = psf.drawImage(nx=65, ny=65, scale=SCALE, method="no_pixel").array
    fits.HDUList(images).writeto(folder / "images.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(kernel)]).writeto(folder / "psfs.fits")
    n = len(fluxes)
    Table(
        {
            "IDENT": np.arange(n), "MAG": magnitudes, "BAND": ["F814W"] * n, "WEIGHT": np.ones(n),
            "GAL_FILENAME": ["images.fits"] * n, "PSF_FILENAME": ["psfs.fits"] * n, "GAL_HDU": np.arange(n) + 1,
            "PSF_HDU": np.ones(n, int), "PIXEL_SCALE": np.full(n, SCALE), "NOISE_MEAN": np.zeros(n),
            "NOISE_VARIANCE": np.full(n, noise**2), "stamp_flux": fluxes,
        }
    ).write(folder / "real_galaxy_catalog_made.fits")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    disc = galsim.Exponential(half_light_radius=RADIUS)
    galaxies = [disc, disc.shear(g1=0.4), galsim.DeVaucouleurs(half_light_radius=0.3), disc, disc.shift(0, 9.0)]
    return write(tmp_path_factory.mktemp("galaxies"), galaxies, [60, 60, 90, 1.5, 60], [21.0, 22.0, 23.0, 24.0, 24.5])


@pytest.fixture(scope="module")
def stamps(folder):
    return Stamps(folder)


def plane(half=3.0, step=0.01):
    axis = np.arange(-half, half, step) + step / 2
    return np.meshgrid(axis, axis), step**2


@pytest.mark.parametrize(
    ("x", "y", "pa", "scale"), [(0, 0, 0, 1), (0.4, -0.3, 0.7, 1), (0.1, 0.2, 2.0, 0.5), (0, 0, 1, 1.6)]
)
def test_sampling_keeps_the_flux_wherever_however_turned_and_however_large(stamps, x, y, pa, scale):
    (bx, by), area = plane()
    light = stamps.stamp(1).sample(bx, by, x, y, pa, scale) * area
    assert light.sum() == pytest.approx(1, abs=0.01)
    assert (light * bx).sum() == pytest.approx(x, abs=0.01)
    assert (light * by).sum() == pytest.approx(y, abs=0.01)


def test_surface_brightness_does_not_change_under_magnification(stamps):
    stamp = stamps.stamp(0)
    (x, y), area = plane()
    seen = stamp.sample(x / 3, y / 1.5, 0, 0)  # a lens that stretches 3 times along x and 1.5 times along y
    assert seen.max() == pytest.approx(stamp.sample(x, y, 0, 0).max(), rel=0.01)
    assert seen.sum() * area == pytest.approx(4.5, rel=0.02)


def test_turning_by_a_right_angle_turns_the_long_axis(stamps):
    (bx, by), area = plane()
    for pa, wide, narrow in ((0.0, bx, by), (np.pi / 2, by, bx)):
        light = stamps.stamp(1).sample(bx, by, 0, 0, pa) * area
        assert (light * wide**2).sum() > 1.5 * (light * narrow**2).sum()


def test_the_half_light_radius_is_that_of_the_galaxy_through_its_round_psf(stamps):
    psf = galsim.Gaussian(fwhm=stamps.stamp(0).psf_fwhm_arcsec)
    true = galsim.Convolve(galsim.Exponential(half_light_radius=RADIUS), psf).drawImage(scale=0.02).calculateHLR()
    assert stamps.stamp(0).half_light_radius_arcsec == pytest.approx(true, rel=0.08)


def test_a_stamp_is_nearer_to_what_galsim_makes_without_noise_than_the_noise(stamps):
    stamp = stamps.stamp(0)
    n = stamp.image.shape[0]
    true = galsim.Convolve(galsim.Exponential(half_light_radius=RADIUS), galsim.Gaussian(fwhm=stamp.psf_fwhm_arcsec))
    image = true.drawImage(nx=n, ny=n, scale=SCALE, method="no_pixel").array
    near = image > 0.1 * image.max()
    noise = 0.01 / 60
    assert np.sqrt(((stamp.image - image)[near] ** 2).mean()) < noise


def test_an_elliptical_psf_leaves_a_round_galaxy_round(stamps):
    (bx, by), area = plane()
    light = stamps.stamp(0).sample(bx, by, 0, 0) * area
    assert (light * bx**2).sum() == pytest.approx((light * by**2).sum(), rel=0.05)


def test_noise_is_gone_where_the_galaxy_is_not(stamps):
    stamp = stamps.stamp(0)
    assert (stamp.image[:4] < 1e-6 * stamp.image.max()).all()
    assert (stamp.image >= 0).all()


def test_profiles_are_told_apart_by_their_index(stamps):
    assert 0.6 < stamps.stamp(0).sersic_index < 1.5
    assert stamps.stamp(2).sersic_index > 1.3 * stamps.stamp(0).sersic_index


def test_galaxies_too_faint_or_not_there_are_refused_with_a_reason(stamps):
    assert stamps.census() == {"kept": 3, "too_faint": 1, "no_galaxy_at_centre": 1}
    assert "too_faint 1" in stamps.report()


def test_drawn_galaxies_have_about_the_magnitude_asked_for(stamps):
    bright = [stamps.draw(np.random.default_rng(k), 20.0).magnitude for k in range(20)]
    faint = [stamps.draw(np.random.default_rng(k), 26.0).magnitude for k in range(20)]
    assert np.mean(bright) < 21.8 < np.mean(faint)


def test_a_pickled_folder_draws_the_same_galaxies_whatever_was_drawn_before(stamps):
    copy = pickle.loads(pickle.dumps(stamps))
    stamps.draw(np.random.default_rng(9), 22.0)
    ours, theirs = (s.draw(np.random.default_rng(3), 22.5) for s in (stamps, copy))
    assert ours.index == theirs.index
    assert np.array_equal(ours.image, theirs.image)


def test_a_folder_without_catalogue_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(StampError, match=r"no real_galaxy_catalog.*Give a folder"):
        Stamps(tmp_path)
    with pytest.raises(StampError, match="no such folder"):
        Stamps(tmp_path / "absent")


def test_missing_and_truncated_images_are_named(tmp_path):
    write(tmp_path, [galsim.Exponential(half_light_radius=0.3)], [60], [22.0])
    whole = (tmp_path / "images.fits").read_bytes()
    (tmp_path / "images.fits").write_bytes(whole[: len(whole) // 2 + 7])
    with pytest.raises(StampError, match=r"images\.fits was cut short"):
        Stamps(tmp_path)
    (tmp_path / "images.fits").write_bytes(whole[: 2880 * (len(whole) // 2880 // 2)])
    with pytest.raises(StampError, match="cannot be read"):
        Stamps(tmp_path).draw(np.random.default_rng(0), 22.0)
    (tmp_path / "images.fits").unlink()
    with pytest.raises(StampError, match=r"not there \(images\.fits\)"):
        Stamps(tmp_path)


def test_a_truncated_catalogue_is_named(tmp_path):
    write(tmp_path, [galsim.Exponential(half_light_radius=0.3)], [60], [22.0])
    path = tmp_path / "real_galaxy_catalog_made.fits"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(StampError, match="real_galaxy_catalog_made"):
        Stamps(tmp_path)


@pytest.mark.skipif(not COSMOS.is_dir(), reason="../shared/real/cosmos_galaxies is absent")
def test_half_of_the_cosmos_example_is_fit_to_be_lensed():
    stamps = Stamps(COSMOS)
    assert stamps.census(40)["kept"] >= 15
    assert stamps.draw(np.random.default_rng(0), 23.5).image.sum() == pytest.approx(1, abs=1e-4)
