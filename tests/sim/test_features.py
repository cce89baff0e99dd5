"""Claims about what the features of a cutout measure."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate2d

from sim.likeness.features import FAMILIES, brightness, centre, features, form, neighbours_mask
from sim.likeness.noise_power import MAX_LAG_PIX, autocorrelation, power_bands
from tests.sim.sky import record, sky

RNG = np.random.default_rng


def noise(seed, kernel, size=200):
    white = RNG(seed).normal(size=(size, size))
    spectrum = np.fft.fft2(white) * np.fft.fft2(kernel, white.shape)
    return np.fft.ifft2(spectrum).real


def test_masked_correlation_is_the_mean_product_of_all_pairs_of_sky_pixels():
    rng = RNG(3)
    values, mask = rng.normal(size=(23, 31)), rng.random((23, 31)) < 0.6
    found = autocorrelation(values, mask)
    deviation = values - values[mask].mean()
    for dx, dy in ((1, 0), (0, 2), (-3, 1)):
        products = [
            deviation[y, x] * deviation[y + dy, x + dx]
            for y in range(23) for x in range(31)
            if 0 <= y + dy < 23 and 0 <= x + dx < 31 and mask[y, x] and mask[y + dy, x + dx]
        ]  # fmt: skip
        expected = np.mean(products) / (deviation[mask] ** 2).mean()
        assert found[MAX_LAG_PIX + dy, MAX_LAG_PIX + dx] == pytest.approx(expected, abs=1e-9)


def test_correlation_of_filtered_noise_is_that_of_its_kernel():
    kernel = np.array([[0.1, 0.2, 0.0], [0.3, 1.0, 0.2], [0.0, 0.1, 0.1]])
    image = noise(1, kernel)
    sky_pixels = RNG(2).random(image.shape) < 0.7
    expected = correlate2d(kernel, kernel) / (kernel**2).sum()
    found = autocorrelation(image, sky_pixels)[MAX_LAG_PIX - 2 : MAX_LAG_PIX + 3, MAX_LAG_PIX - 2 : MAX_LAG_PIX + 3]
    assert np.allclose(found, expected, atol=0.03)


def test_white_noise_has_equal_power_at_all_frequencies():
    image = noise(5, np.ones((1, 1)), 300)
    assert np.allclose(power_bands(autocorrelation(image, np.ones(image.shape, bool))), 0, atol=0.06)


@pytest.mark.parametrize(("sigma", "along_x"), [((0.8, 0.8), 0.0), ((0.0, 0.8), -1.0), ((0.8, 0.0), 1.0)])
def test_smoothing_takes_power_from_fast_waves_along_its_axis(sigma, along_x):
    image = gaussian_filter(noise(6, np.ones((1, 1)), 300), sigma)
    slow, *_, fast, ratio = power_bands(autocorrelation(image, np.ones(image.shape, bool)))
    assert slow > 0.15 > 0 > fast
    assert np.sign(np.round(ratio)) == along_x


def test_features_do_not_depend_on_unit_or_sky_level():
    (c,) = sky(1, RNG(1))
    a, b = features(c), features(replace(c, flux=c.flux * np.float32(2.0**12) + np.float32(2.0**14)))
    for name, value in a.items():
        assert b[name] == pytest.approx(value, rel=0.02, abs=0.02, nan_ok=True), name


def test_a_quarter_turn_swaps_the_axes_of_the_noise_and_leaves_shape_alone():
    (c,) = sky(1, RNG(2))
    a, b = features(c), features(replace(c, flux=np.ascontiguousarray(np.rot90(c.flux, axes=(1, 2)))))
    assert b["noise_lag_1_0_i"] == pytest.approx(a["noise_lag_0_1_i"], abs=0.02)
    assert b["noise_power_xy_i"] == pytest.approx(-a["noise_power_xy_i"], abs=0.05)
    for name in ("shape_gini_i", "shape_log_r50_pix_i", "profile_ring_2_g", "colour_core_g_i"):
        assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-4), name


def test_every_feature_belongs_to_a_family():
    (c,) = sky(1, RNG(3))
    assert all(name.startswith(FAMILIES) for name in features(c))


def test_colour_is_the_magnitude_difference():
    (c,) = sky(1, RNG(4), colour=1.3)
    other = replace(c, flux=np.stack([c.flux[1] * np.float32(10 ** (-0.4 * 1.3)), c.flux[1]]))
    assert features(other)["colour_core_g_i"] == pytest.approx(1.3, abs=1e-3)


def test_a_displaced_object_is_found():
    y, x = np.indices((41, 37))
    light = 50 * np.exp(-0.5 * ((x - 20.3) ** 2 + (y - 17.8) ** 2) / 2.0**2)
    c = record([light + RNG(1).normal(size=light.shape)], bands=("i",), xy=(18, 20))
    assert centre(c) == pytest.approx([20.3, 17.8], abs=0.15)


def test_nothing_to_centre_on_leaves_the_centre():
    c = record(RNG(2).normal(size=(1, 41, 41)), bands=("i",))
    assert centre(c).tolist() == [20.0, 20.0]


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_an_empty_cutout_has_features_without_a_warning(value):
    flux = np.full((2, 31, 25), value)
    c = record(flux, valid=np.isfinite(flux))
    assert not np.isfinite(features(c)["colour_core_g_i"])
    assert not np.isfinite(brightness(c))


def test_neighbours_are_masked_and_the_object_is_not():
    y, x = np.indices((61, 61))
    light = sum(80 * np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / 4) for a, b in ((30, 30), (50, 42)))
    hidden = neighbours_mask(record([light + RNG(1).normal(size=light.shape)], bands=("i",)), 10.0)
    assert hidden[40:45, 48:53].all()
    assert not hidden[25:36, 25:36].any()


def test_form_counts_steps_and_invalid_pixels():
    flux = np.round(RNG(3).normal(size=(1, 40, 40)))
    valid = np.ones(flux.shape, bool)
    valid[:, :10] = False
    found = form(record(flux, bands=("i",), valid=valid))
    assert found["invalid"] == 0.25
    assert found["distinct"] < 0.02
