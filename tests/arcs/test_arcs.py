"""The arc stage: geometry against drawn rings, and the shipped network on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from stages.arcs.measure import coverage_deg
from stages.arcs.model import FRAME, ArcNet, radial_profile, radius_plane
from stages.arcs.predict import load
from stages.arcs.train import dihedral_centre
from stages.config import WEIGHTS_DIR
from stages.records import Cutout
from stages.training import dihedral


def ring(radius: float, start_deg: float, stop_deg: float, centre: tuple[float, float] = (39.5, 39.5)) -> np.ndarray:
    y, x = np.mgrid[0:80, 0:80].astype(float)
    dx, dy = x - centre[0], y - centre[1]
    angle = np.degrees(np.arctan2(dy, dx)) % 360
    return ((np.abs(np.hypot(dx, dy) - radius) < 1.5) & (angle >= start_deg) & (angle < stop_deg)).astype(float)


@pytest.mark.parametrize(("start", "stop"), [(0, 180), (30, 75), (0, 360), (200, 350)])
def test_coverage_of_a_drawn_arc(start: float, stop: float) -> None:
    assert coverage_deg(ring(12, start, stop), np.array([39.5, 39.5]), 0.125) == pytest.approx(stop - start, abs=10)


def test_coverage_of_nothing_and_of_the_core() -> None:
    empty = np.zeros((80, 80))
    assert coverage_deg(empty, np.array([40.0, 40.0]), 0.125) == 0
    empty[40, 40] = 1
    assert coverage_deg(empty, np.array([40.0, 40.0]), 0.125) == 0


@pytest.mark.parametrize("k", range(8))
def test_centres_move_with_the_pixels(k: int) -> None:
    plane = torch.zeros(1, 80, 80)
    plane[0, 21, 53] = 1  # y, x
    moved = dihedral_centre(torch.tensor([[53.0, 21.0]]), k, 80)[0]
    assert dihedral(plane, k)[0, int(moved[1]), int(moved[0])] == 1


def test_radial_profile_is_the_mean_in_rings() -> None:
    radius = radius_plane(torch.tensor([[39.5, 39.5]]), 80, torch.tensor([FRAME.pixel_arcsec]))
    mask = (radius > 1.0) & (radius <= 1.25)
    profile = radial_profile(mask.float(), radius)[0]
    width = 0.5 * FRAME.size_pix * FRAME.pixel_arcsec / len(profile)
    assert profile.argmax() == int(1.1 / width)
    assert profile.max() == pytest.approx(1, abs=0.05)
    assert profile.sum() < 1.2


def scene(arc: np.ndarray, valid: bool = True) -> Cutout:
    y, x = np.mgrid[0:80, 0:80].astype(float)
    r = np.hypot(x - 39.5, y - 39.5)
    deflector = 900 * np.exp(-3.67 * np.sqrt((r + 0.3) / 10))
    light = gaussian_filter(deflector, 0.8) + 18 * gaussian_filter(arc, 1.2)
    flux = light + np.random.default_rng(0).normal(0, 1, (80, 80))
    planes = np.repeat(flux[None], 1, axis=0).astype(np.float32)
    return Cutout(
        "a", "a", planes, np.ones_like(planes), np.full(planes.shape, valid), ("i",), 0.125, np.array([0.2]),
        np.zeros((0, 0, 0), np.float32), np.array([39.5, 39.5]), np.zeros(2),
    )  # fmt: skip


def test_network_shapes() -> None:
    out = ArcNet(8).eval()(torch.zeros(3, 6, 80, 80), torch.zeros(3, 2), torch.full((3, 2), 39.5))
    assert out.mask.shape == (3, 80, 80)
    assert out.score.shape == out.log_theta.shape == out.log_variance.shape == (3,)


@pytest.mark.parametrize("radius_pix", [9, 12, 16])
def test_shipped_network_measures_a_drawn_ring(radius_pix: int) -> None:
    (found,) = load(WEIGHTS_DIR / "arcs.safetensors").predict([scene(ring(radius_pix, 0, 360))], [np.full(2, np.nan)])
    assert found.score > 0.5
    assert found.coverage_deg > 330
    assert found.theta_e_arcsec == pytest.approx(radius_pix * 0.125, rel=0.15)
    assert 0 < found.theta_e_err_arcsec < 0.5


def test_shipped_network_measures_part_of_a_ring_and_nothing_on_a_plain_galaxy() -> None:
    predictor = load(WEIGHTS_DIR / "arcs.safetensors")
    part, plain = predictor.predict([scene(ring(12, 20, 160)), scene(ring(12, 0, 0))], [np.full(2, np.nan)] * 2)
    assert part.score > 0.5 > plain.score
    assert part.coverage_deg == pytest.approx(140, abs=45)
    assert plain.coverage_deg < 60


def test_empty_and_blind_input() -> None:
    predictor = load(WEIGHTS_DIR / "arcs.safetensors")
    assert predictor.predict([], []) == []
    (blind,) = predictor.predict([scene(ring(12, 0, 360), valid=False)], [np.full(2, np.nan)])
    assert blind.coverage_deg == 0
    assert np.isfinite(blind.score)


@pytest.mark.parametrize("k", range(1, 8))
def test_turning_a_cutout_changes_no_answer_beyond_its_error(k: int) -> None:
    predictor = load(WEIGHTS_DIR / "arcs.safetensors")
    cutout = scene(ring(12, 20, 250))
    flux = dihedral(torch.from_numpy(cutout.flux), k).numpy().copy()
    unknown = np.full(2, np.nan)
    upright, turned = predictor.predict([cutout, replace(cutout, flux=flux)], [unknown, unknown])
    assert turned.score == pytest.approx(upright.score, abs=0.15)
    assert turned.theta_e_arcsec == pytest.approx(upright.theta_e_arcsec, abs=upright.theta_e_err_arcsec)
    assert turned.coverage_deg == pytest.approx(upright.coverage_deg, abs=upright.coverage_err_deg)


def test_a_deflector_unknown_or_far_away_is_the_object() -> None:
    predictor = load(WEIGHTS_DIR / "arcs.safetensors")
    cutout = scene(ring(12, 0, 180))
    near, far = cutout.xy_pix + 2, cutout.xy_pix + 30
    got = predictor.predict([cutout] * 4, [cutout.xy_pix, np.full(2, np.nan), far, near])
    for arc in got[1:3]:
        assert arc.centre_xy_pix.tolist() == cutout.xy_pix.tolist()
        assert arc.theta_e_arcsec == pytest.approx(got[0].theta_e_arcsec, rel=1e-4)
    assert got[3].centre_xy_pix.tolist() == near.tolist()
