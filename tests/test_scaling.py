"""The one transform: angles are kept, the noise is the unit, and what is invalid never leaks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from stages.records import Cutout
from stages.scaling import N_SLOTS, Frame, network_inputs, resample, slots

FRAME = Frame(48, 0.25)


def cutout(
    bands: tuple[str, ...] = ("g", "r", "i"), shape: tuple[int, int] = (61, 67), scale: float = 0.2, seed: int = 0
) -> Cutout:
    rng = np.random.default_rng(seed)
    height, width = shape
    y, x = np.mgrid[0:height, 0:width]
    source = 40 * np.exp(-0.5 * ((x - 36) ** 2 + (y - 27) ** 2) / 2.5**2)
    flux = source[None] * np.linspace(0.5, 1.5, len(bands))[:, None, None] + rng.normal(0, 1, (len(bands), *shape))
    return Cutout(
        "c", "c", flux.astype(np.float32), np.ones(flux.shape, np.float32), np.ones(flux.shape, bool), bands, scale,
        np.full(len(bands), 0.8), np.zeros((0, 0, 0), np.float32), np.array([(width - 1) / 2, (height - 1) / 2]),
        np.zeros(2),
    )  # fmt: skip


def test_a_uniform_plane_stays_uniform_and_invalid_pixels_are_left_out() -> None:
    image = np.full((1, 40, 50), 3.0)
    valid = np.ones(image.shape, bool)
    valid[0, 10:20, 10:20] = False
    image[0, 10:20, 10:20] = 1e9
    plane, share = resample(image, valid, 20, np.array([0.0, 0.0]), 2.0)
    np.testing.assert_allclose(plane[share > 0], 3.0, rtol=1e-5)
    assert share[0, 7, 7] == 0
    assert share[0, 2, 2] == pytest.approx(1)


@pytest.mark.parametrize("step", [0.5, 1.0, 1.7, 3.0])
def test_a_source_is_where_origin_and_step_say(step: float) -> None:
    """The centroid of a Gaussian, by its first moments on the grid, at unequal offsets in x and y."""
    y, x = np.mgrid[0:61, 0:67]
    image = np.exp(-0.5 * ((x - 36.3) ** 2 + (y - 27.8) ** 2) / 3.0**2)[None]
    origin = np.array([36.3, 27.8]) - step * np.array([20.2, 19.1])
    plane, _ = resample(image, np.ones(image.shape, bool), 40, origin, step)
    row, column = np.mgrid[0:40, 0:40]
    centroid = np.array([(column * plane[0]).sum(), (row * plane[0]).sum()]) / plane[0].sum()
    np.testing.assert_allclose(origin + step * centroid, [36.3, 27.8], atol=0.02)


@pytest.mark.parametrize("scale", [0.1, 0.2, 0.4])
def test_the_brightest_pixel_of_the_input_is_the_source(scale: float) -> None:
    seen = network_inputs([cutout(scale=scale)], Frame(64, 0.2))
    row, column = np.unravel_index(int(seen.pixels[0, 1].argmax()), (64, 64))
    native = seen.origin_xy_pix[0] + seen.step_pix[0] * np.array([column, row])
    np.testing.assert_allclose(native, [36, 27], atol=max(1.0, seen.step_pix[0]))


@pytest.mark.parametrize("step", [1.0, 1.6, 2.5])
def test_noise_given_by_the_file_is_what_the_grid_measures(step: float) -> None:
    """White noise: its rms after resampling, by drawing, against what the variance map alone says.

    The lower of the two is taken, so one map says half the true noise and is believed, one ten times and is not.
    """
    one = cutout(shape=(200, 200), scale=0.1)
    white = np.random.default_rng(3).normal(0, 5.0, one.flux.shape).astype(np.float32)
    half = replace(one, flux=white, variance=np.full(one.flux.shape, 2.5**2, np.float32))
    too_large = replace(half, variance=half.variance * 400)
    frame = Frame(round(190 / step), 0.1 * step)
    given, measured = (network_inputs([c], frame).noise[0] for c in (half, too_large))
    np.testing.assert_allclose(given, measured / 2, rtol=0.1)


def test_the_flux_unit_does_not_matter() -> None:
    one = cutout()
    other = replace(one, flux=one.flux * 1000, variance=one.variance * 1e6)
    np.testing.assert_allclose(network_inputs([one], FRAME).pixels, network_inputs([other], FRAME).pixels, atol=2e-4)


def test_what_lies_under_the_mask_does_not_matter() -> None:
    one = cutout()
    valid = one.valid.copy()
    valid[:, :, 20:30] = False
    masked = replace(one, valid=valid)
    wild = replace(masked, flux=np.where(valid, one.flux, np.nan).astype(np.float32))
    mad = replace(masked, flux=np.where(valid, one.flux, 1e20).astype(np.float32))
    first = network_inputs([masked], FRAME).pixels
    np.testing.assert_array_equal(first, network_inputs([wild], FRAME).pixels)
    np.testing.assert_array_equal(first, network_inputs([mad], FRAME).pixels)
    assert np.isfinite(first).all()


def test_an_absent_band_is_the_mean_of_the_others_and_says_so() -> None:
    one = cutout()
    two = replace(
        one, flux=one.flux[1:], variance=one.variance[1:], valid=one.valid[1:], bands=("r", "i"),
        psf_fwhm_arcsec=one.psf_fwhm_arcsec[1:],
    )  # fmt: skip
    seen = network_inputs([two], FRAME)
    flux, valid = seen.pixels[0, :N_SLOTS], seen.pixels[0, N_SLOTS:]
    assert valid[0].max() == 0
    assert valid[1].min() == 1
    np.testing.assert_allclose(flux[0], (flux[1] + flux[2]) / 2, rtol=1e-5)
    assert seen.conditions[0, 1] == pytest.approx(2 / 3)


def test_a_band_without_a_valid_pixel_is_an_absent_band() -> None:
    one = cutout()
    valid = one.valid.copy()
    valid[0] = False
    two = replace(
        one, flux=one.flux[1:], variance=one.variance[1:], valid=one.valid[1:], bands=("r", "i"),
        psf_fwhm_arcsec=one.psf_fwhm_arcsec[1:],
    )  # fmt: skip
    blind, absent = (network_inputs([c], FRAME) for c in (replace(one, valid=valid), two))
    np.testing.assert_array_equal(blind.pixels, absent.pixels)
    np.testing.assert_array_equal(blind.conditions, absent.conditions)


@pytest.mark.parametrize("half", [np.s_[:, :, :33], np.s_[:, :30], np.s_[1, :, 33:]])
def test_the_valid_half_of_a_field_is_as_it_was(half: tuple[slice, ...]) -> None:
    """Inside it only the noise estimate may move a little: the border is half gone."""
    one = cutout()
    valid = one.valid.copy()
    valid[half] = False
    full = network_inputs([one], FRAME).pixels[0]
    part = network_inputs([replace(one, valid=valid)], FRAME).pixels[0]
    there = part[N_SLOTS:] > 0
    assert 0.3 < there.mean() < 0.95
    inside = binary_erosion(there, np.ones((1, 3, 3)), border_value=1)
    first, second = np.sinh(3 * full[:N_SLOTS]), np.sinh(3 * part[:N_SLOTS])  # in units of 3 sigma
    np.testing.assert_allclose(second[inside], first[inside], rtol=0.25, atol=0.2)
    assert (part[:N_SLOTS, ~there.any(axis=0)] == 0).all()
    assert np.isfinite(part).all()


def test_off_the_edge_of_a_small_cutout_nothing_is_valid() -> None:
    """22 x 32 pixels of 0.25 arcsec in the middle of a grid of 48 x 48 of them."""
    expected = np.zeros((48, 48))
    expected[13:35, 8:40] = 1
    for plane in network_inputs([cutout(shape=(22, 32), scale=0.25)], FRAME).pixels[0, N_SLOTS:]:
        np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize("value", [0.0, 7.0, -3e8])
def test_a_plane_without_noise_stays_finite(value: float) -> None:
    one = cutout()
    unknown = np.full(one.flux.shape, np.nan, np.float32)
    flat = network_inputs([replace(one, flux=np.full(one.flux.shape, value, np.float32), variance=unknown)], FRAME)
    assert np.isfinite(flat.pixels).all()
    assert np.abs(flat.pixels[0, :N_SLOTS]).max() < 1


def test_a_rotated_cutout_gives_the_rotated_input() -> None:
    one = cutout(shape=(61, 61))
    turned = replace(one, flux=np.rot90(one.flux, axes=(1, 2)).copy(), variance=one.variance, valid=one.valid)
    first, second = (network_inputs([c], FRAME).pixels[0] for c in (one, turned))
    np.testing.assert_allclose(np.rot90(first, axes=(1, 2)), second, atol=1e-4)


def test_background_noise_is_the_unit() -> None:
    seen = network_inputs([cutout()], Frame(48, 0.2))
    corner = np.sinh(seen.pixels[0, 0, :10, :10] * 3.0) * 3.0
    assert corner.std() == pytest.approx(1, rel=0.2)


def test_sharp_images_get_the_finer_grid() -> None:
    frame = Frame(48, 0.2, sharp_pixel_arcsec=0.1)
    sharp = replace(cutout(scale=0.05), psf_fwhm_arcsec=np.full(3, 0.1))
    assert frame.pixel_of(cutout()) == 0.2
    assert frame.pixel_of(sharp) == 0.1


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (("g", "r", "i"), (0, 1, 2)),
        (("i", "r", "g"), (2, 1, 0)),
        (("u", "g", "r", "i", "z"), (1, 2, 3)),
        (("r",), (-1, 0, -1)),
        (("F814W",), (-1, -1, 0)),
        (("F444W",), (-1, 0, -1)),
        (("J", "H", "Ks"), (0, 1, 2)),
        (("",), (-1, 0, -1)),
        (("F555W",), (-1, 0, -1)),
        (("F555W", "F814W"), (-1, 0, 1)),
        (("VIS",), (-1, -1, 0)),
        (("p", "q"), (0, -1, 1)),
    ],
)
def test_bands_find_their_slots(bands: tuple[str, ...], expected: tuple[int, ...]) -> None:
    assert slots(bands) == expected


def test_no_cutouts_and_one_blind_cutout() -> None:
    assert network_inputs([], FRAME).pixels.shape == (0, 6, 48, 48)
    one = cutout()
    blind = network_inputs([replace(one, valid=np.zeros_like(one.valid))], FRAME)
    assert (blind.pixels == 0).all()
