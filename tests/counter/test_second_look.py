"""What the second look measures, on scenes drawn by formula, and that it learns what it is shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import metrics
from stages.config import WEIGHTS_DIR
from stages.counter.calibrate import anew, taken_from
from stages.counter.detector import Detections
from stages.counter.photometry import measure
from stages.counter.predict import load
from stages.counter.second_look import FEATURES, SecondLook, learn, look
from stages.counter.shape import shapes
from stages.records import Cutout, FloatArray
from stages.weights import WeightsError, load_card
from tests.counter.test_photometry import NO_DEFLECTOR, gaussian_psf, scene


def with_ellipse(across: float, along: float, light: float = 60.0) -> Cutout:
    """A Gaussian of two widths in pixels (FWHM), turned by 30 degrees, at (20, 20), seen with a PSF of 3 pixels."""
    y, x = np.mgrid[0:40, 0:40] - 20.0
    a, b = x * np.cos(0.5) + y * np.sin(0.5), -x * np.sin(0.5) + y * np.cos(0.5)
    s, t = along / 2.3548, across / 2.3548
    empty = scene([])
    light_of = light / (2 * np.pi * s * t) * np.exp(-0.5 * ((a / s) ** 2 + (b / t) ** 2))
    return gaussian_psf(replace(empty, flux=empty.flux + light_of[None].astype(np.float32)))


def shape_of(cutout: Cutout) -> dict[str, float]:
    points = measure(cutout, np.array([[20.0, 20.0]]), NO_DEFLECTOR)
    return {name: float(value[0]) for name, value in vars(shapes(points)).items()}


def seen(cutout: Cutout, xy: FloatArray, confidence: FloatArray, deflector: FloatArray = NO_DEFLECTOR) -> FloatArray:
    found = Detections(xy, confidence, np.zeros(len(xy), np.int64))
    return look(cutout, found, confidence, deflector, float("nan")).features


def feature(features: FloatArray, name: str) -> FloatArray:
    return features[:, FEATURES.index(name)]


def test_a_star_has_the_shape_of_the_psf_and_a_galaxy_has_not() -> None:
    star, galaxy, arc = (shape_of(with_ellipse(*widths)) for widths in ((3.0, 3.0), (3.3, 3.3), (3.0, 3.6)))
    assert abs(star["broad_sigma"]) < 3
    assert star["long_sigma"] < 4
    assert star["chi2_point"] == pytest.approx(1.0, abs=0.6)
    assert galaxy["chi2_point"] > 100
    assert arc["long_sigma"] > 20
    assert galaxy["long_sigma"] < 4


def test_too_few_pixels_have_no_shape() -> None:
    cutout = with_ellipse(3.0, 3.0)
    points = measure(cutout, np.array([[20.0, 20.0]]), NO_DEFLECTOR)
    assert points.leftover is not None
    none = replace(points.leftover, valid=np.zeros_like(points.leftover.valid))
    got = shapes(replace(points, leftover=none))
    assert all(np.isnan(value).all() for value in vars(got).values())


def test_features_turn_with_the_cutout() -> None:
    xy = np.array([[11.0, 19.0], [28.0, 21.0], [20.0, 10.0]])
    cutout = scene([(*place, 60.0) for place in xy])
    confidence = np.array([0.9, 0.8, 0.3])
    turned = replace(cutout, **{n: np.rot90(getattr(cutout, n), 1, (1, 2)) for n in ("flux", "variance", "valid")})
    there = np.column_stack([xy[:, 1], 39 - xy[:, 0]])
    middle = np.array([19.5, 19.5])
    one, other = seen(cutout, xy, confidence, middle), seen(turned, there, confidence, middle)
    np.testing.assert_allclose(one, other, rtol=0.02, atol=0.02)


def test_company_is_told_by_colour_and_distance() -> None:
    xy = np.array([[11.0, 19.0], [28.0, 19.0], [20.0, 31.0]])
    blue = scene([(*xy[0], 60.0), (*xy[1], 40.0), (*xy[2], 30.0)])
    red = scene([(*xy[0], 30.0), (*xy[1], 20.0), (*xy[2], 90.0)], seed=1)  # the third is of another colour
    both = replace(
        blue, flux=np.concatenate([blue.flux, red.flux]), variance=np.concatenate([blue.variance] * 2),
        valid=np.concatenate([blue.valid] * 2), bands=("g", "i"), psf_fwhm_arcsec=np.full(2, 0.3),
    )  # fmt: skip
    features = seen(both, xy, np.array([0.9, 0.8, 0.7]))
    mismatch = feature(features, "colour_mismatch")
    assert mismatch[2] > mismatch[1] + 3
    np.testing.assert_allclose(feature(features, "log_nearest_fwhm")[:2], np.log([np.hypot(9, 12) / 3] * 2), atol=0.05)
    np.testing.assert_allclose(feature(features, "surest_other"), [0.8, 0.9, 0.9])
    assert np.isnan(feature(seen(blue, xy, np.array([0.9, 0.8, 0.7])), "colour_mismatch")).all()


def test_nothing_is_looked_at_where_nothing_is_likely() -> None:
    xy = np.array([[11.0, 19.0], [28.0, 21.0]])
    cutout = scene([(*place, 60.0) for place in xy])
    assert seen(cutout, xy, np.array([0.04, 0.03])).shape == (0, len(FEATURES))
    assert seen(cutout, xy, np.array([0.06, 0.03])).shape == (2, len(FEATURES))


def test_learns_what_it_is_shown_the_same_way_each_time_and_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, len(FEATURES)))
    chance = 1 / (1 + np.exp(-2 * features[:, 0]))
    is_point = rng.random(3000) < chance
    features[rng.random(features.shape) < 0.1] = np.nan
    features[:, 3] = np.nan  # of no detection known
    known = np.isfinite(features[:, 0])
    one, other = learn(features, is_point, 300, 1), learn(features, is_point, 300, 1)
    said = one.judge(features)
    np.testing.assert_array_equal(said, other.judge(features))
    assert metrics.auroc(said[is_point & known], said[~is_point & known]) > 0.83
    assert np.abs(said - chance)[known].mean() < 0.1
    unknown = said[~known]
    assert unknown.mean() == pytest.approx(is_point[~known].mean(), abs=0.1)


def test_weights_keep_the_second_look(tmp_path: Path) -> None:
    look_again = SecondLook().eval()
    state = {"a": torch.zeros(1), "calibration": torch.ones(2, 2)}
    state |= {f"second_look.{name}": value for name, value in look_again.state_dict().items()}
    calibration, second = taken_from(state)
    assert set(state) == {"a"}
    np.testing.assert_array_equal(calibration, np.ones((2, 2)))
    features = np.random.default_rng(0).normal(size=(5, len(FEATURES)))
    assert second is not None
    np.testing.assert_allclose(second.judge(features), look_again.judge(features), atol=1e-6)
    assert taken_from({"calibration": torch.ones(2, 2)})[1] is None


@pytest.mark.filterwarnings("ignore")
def test_confidences_can_be_made_anew_for_weights_as_they_are(data_dir: Path, tmp_path: Path) -> None:
    shipped = WEIGHTS_DIR / "counter.safetensors"
    path = anew(shipped, data_dir, tmp_path)
    card = load_card(path)
    assert set(load_card(shipped).data) < set(card.data)
    before, after = load(shipped), load(path)
    for one, other in zip(before.net.parameters(), after.net.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
    assert not np.allclose(before.calibration, after.calibration)
    with pytest.raises(WeightsError):
        anew(tmp_path / "none", data_dir, tmp_path)


def test_shipped_second_look_prefers_a_star_to_a_galaxy() -> None:
    second = load(WEIGHTS_DIR / "counter.safetensors").second_look
    assert second is not None
    at, confidence = np.array([[20.0, 20.0]]), np.array([0.5])
    star, galaxy, longer = (
        float(second.judge(seen(with_ellipse(*widths), at, confidence))[0])
        for widths in ((3.0, 3.0, 6.0), (4.5, 4.5, 6.0), (3.0, 3.6, 15.0))
    )
    assert star > 0.7 > 0.5 > max(galaxy, longer)
