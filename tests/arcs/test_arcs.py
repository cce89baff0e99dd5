"""The arc stage: geometry against drawn rings, and the shipped network on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter

from stages import weights
from stages.arcs.calibration import Calibration, coverage
from stages.arcs.mean import mean
from stages.arcs.model import GRIDS, ArcNet, ArcOutput, ArcsConfig, measured
from stages.arcs.predict import load
from stages.arcs.train import added, radius_weights, usable
from stages.cache import Cached
from stages.changes import one_band
from stages.config import WEIGHTS_DIR
from stages.polar import N_ANGLES, N_RADII
from stages.records import Cutout
from stages.training import dihedral
from stages.weights import WeightsError


def ring(radius: float, start_deg: float, stop_deg: float, centre: tuple[float, float] = (39.5, 39.5)) -> np.ndarray:
    y, x = np.mgrid[0:80, 0:80].astype(float)
    dx, dy = x - centre[0], y - centre[1]
    angle = np.degrees(np.arctan2(dy, dx)) % 360
    return ((np.abs(np.hypot(dx, dy) - radius) < 1.5) & (angle >= start_deg) & (angle < stop_deg)).astype(float)


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


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("depth", [0, 2])
def test_network_shapes(grid: str, subtract: bool, depth: int) -> None:
    net = ArcNet(8, grid, subtract, depth).eval()
    out = net(torch.zeros(3, 6, 80, 80), torch.zeros(3, 2), torch.full((3, 2), 39.5))
    assert out.mask.shape == (3, 80, 80)
    assert out.angles.shape == (3, N_ANGLES)
    assert out.radius.shape == (3, N_RADII)
    assert out.score.shape == (3,)


def begun_as(larger: ArcNet) -> tuple[ArcOutput, ArcOutput]:
    """What the shipped kind of network says, and a larger one that goes on from it."""
    torch.manual_seed(0)
    small = ArcNet(8).eval()
    larger.eval().load_state_dict(added(larger) | small.state_dict())
    seen = (torch.rand(2, 6, 80, 80), torch.rand(2, 2), torch.full((2, 2), 39.5))
    with torch.inference_mode():
        return small(*seen), larger(*seen)


@pytest.mark.parametrize("larger", [ArcNet(8, depth=1), ArcNet(8, "both")])
def test_a_larger_network_begins_with_what_the_smaller_says(larger: ArcNet) -> None:
    small, begun = begun_as(larger)
    for said, same in zip(vars(begun).values(), vars(small).values(), strict=True):
        torch.testing.assert_close(said, same)
    last = larger.join if larger.both else larger.deeper_down[0][0].body[-1]
    torch.nn.init.constant_(last.weight, 10.0)
    small, changed = begun_as(larger)
    assert not torch.allclose(changed.score, small.score)


def test_quarter_turns_about_the_middle_change_nothing_in_polar() -> None:
    torch.manual_seed(0)
    net = ArcNet(8).eval()
    pixels = torch.rand(2, 6, 80, 80)
    middle = torch.full((2, 2), 39.5)
    upright = measured(net, pixels, torch.zeros(2, 2), middle)
    turned = measured(net, torch.rot90(pixels, 1, (2, 3)).contiguous(), torch.zeros(2, 2), middle)
    np.testing.assert_allclose(turned.score, upright.score, atol=5e-3)
    np.testing.assert_allclose(turned.theta_pix, upright.theta_pix, atol=1e-2)
    np.testing.assert_allclose(turned.mask, np.rot90(upright.mask, 1, (1, 2)), atol=1e-3)


def test_what_the_arc_stage_learns_from() -> None:
    rows = [
        ("lens_galaxy", 1, 90.0, 1.5, 1.0), ("twin", 0, 0.0, np.nan, 0.0),
        ("lens_galaxy", 1, 5.0, 1.5, 1.0),  # too faint
        ("lens_galaxy", 1, 90.0, 0.5, 1.0),  # smaller than the seeing
        ("lens_galaxy", 1, 90.0, 1.5, 9.0),  # no deflector to be seen
        ("lens_quasar", 1, 5.0, 1.5, 0.0),  # points, but no arc
    ]  # fmt: skip
    truth = pd.DataFrame(rows, columns=["kind", "label", "arc_snr", "theta_e_arcsec", "arc_contrast"])
    truth = truth.assign(part="train", seeing_arcsec=0.7)
    data = Cached(*(np.empty(0) for _ in range(3)), truth)
    arcs, others, scored = usable(data, ArcsConfig())
    assert (arcs.tolist(), others.tolist()) == ([0, 3, 4], [1, 5])
    assert scored.all()
    arcs, others, scored = usable(data, ArcsConfig(min_theta_e_seeing=1.0, max_arc_contrast=4.0))
    assert (arcs.tolist(), others.tolist()) == ([0, 3, 4], [1, 5])  # all teach light and radius
    assert np.flatnonzero(~scored).tolist() == [3, 4]


def test_median_and_width_of_a_known_distribution() -> None:
    class Known(torch.nn.Module):
        def forward(self, pixels: torch.Tensor, conditions: torch.Tensor, centre: torch.Tensor) -> ArcOutput:
            logits = torch.full((1, N_RADII), -50.0)
            logits[0, 10:14] = 0.0  # even between 10 and 14 pixels
            return ArcOutput(torch.zeros(1, 80, 80), torch.zeros(1, N_ANGLES), torch.zeros(1), logits)

    got = measured(Known(), torch.zeros(1, 6, 80, 80), torch.zeros(1, 2), torch.zeros(1, 2))
    assert got.theta_pix[0] == pytest.approx(12, abs=1e-3)
    assert got.sigma_pix[0] == pytest.approx(0.6826 * 4 / 2, abs=1e-2)


def test_coverage_is_the_sum_over_directions() -> None:
    angles = np.full((1, N_ANGLES), -40.0)
    angles[0, :24] = 40.0
    degrees, error = coverage(angles, Calibration(coverage_factor=2.0))
    assert degrees[0] == pytest.approx(90)
    assert error[0] == pytest.approx(2 * 360 / N_ANGLES, rel=0.01)
    unsure, wider = coverage(np.zeros((1, N_ANGLES)), Calibration(coverage_factor=2.0))
    assert unsure[0] == pytest.approx(180)
    assert wider[0] > 4 * error[0]


def test_rarer_radii_count_more() -> None:
    theta = np.r_[np.full(90, 0.6), np.full(10, 2.4), np.nan]
    truth = pd.DataFrame({"theta_e_arcsec": theta})
    conditions = np.full((101, 2), np.log10(0.7 / 0.3), np.float32)
    data = Cached(np.empty(0), conditions, np.empty(0), truth)
    weight = radius_weights(data, np.arange(100))
    assert weight[95] > 4 * weight[0] > 0
    assert weight[100] == 0


def test_one_band_is_the_middle_one() -> None:
    cutout = scene(ring(12, 0, 180))
    three = replace(
        cutout, flux=np.repeat(cutout.flux, 3, 0) * np.array([1, 2, 3], np.float32)[:, None, None],
        variance=np.repeat(cutout.variance, 3, 0), valid=np.repeat(cutout.valid, 3, 0), bands=("g", "r", "i"),
        psf_fwhm_arcsec=np.full(3, 0.2),
    )  # fmt: skip
    assert one_band(three).bands == ("r",)
    np.testing.assert_array_equal(one_band(three).flux[0], three.flux[1])


@pytest.mark.parametrize("radius_pix", [9, 12, 16])
def test_shipped_network_measures_a_drawn_ring(radius_pix: int) -> None:
    """Brighter at two places, as lensed ones are: an even ring is rather a galaxy's own."""
    y, x = np.mgrid[0:80, 0:80] - 39.5
    drawn = ring(radius_pix, 0, 360) * (1 + 0.6 * np.cos(2 * np.arctan2(y, x) - 0.5))
    (found,) = load(WEIGHTS_DIR / "arcs.safetensors").predict([scene(drawn)], [np.full(2, np.nan)])
    assert found.score > 0.5
    assert 360 - found.coverage_deg < min(found.coverage_err_deg, 60)
    assert found.theta_e_arcsec == pytest.approx(radius_pix * 0.125, rel=0.15)
    assert 0 < found.theta_e_err_arcsec < 0.5


def test_shipped_network_measures_part_of_a_ring_and_nothing_on_a_plain_galaxy() -> None:
    predictor = load(WEIGHTS_DIR / "arcs.safetensors")
    part, plain = predictor.predict([scene(ring(12, 20, 160)), scene(ring(12, 0, 0))], [np.full(2, np.nan)] * 2)
    assert part.score > 0.5 > plain.score
    assert abs(part.coverage_deg - 140) < 1.5 * part.coverage_err_deg < 90
    assert plain.coverage_deg < 60


def test_empty_and_blind_input() -> None:
    predictor = load(WEIGHTS_DIR / "arcs.safetensors")
    assert predictor.predict([], []) == []
    (blind,) = predictor.predict([scene(ring(12, 0, 360), valid=False)], [np.full(2, np.nan)])
    assert blind.coverage_deg < 90
    assert blind.coverage_err_deg > 0
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


def test_a_deflector_unknown_or_far_away_is_the_brightest_light_by_the_object() -> None:
    predictor = load(WEIGHTS_DIR / "arcs.safetensors")
    cutout = scene(ring(12, 0, 180))
    near, far = cutout.xy_pix + 2, cutout.xy_pix + 30
    off = replace(cutout, xy_pix=cutout.xy_pix + np.array([2.0, -1.5]))  # a catalogue's error
    got = predictor.predict([cutout, cutout, off, cutout], [cutout.xy_pix, far, np.full(2, np.nan), near])
    for arc in got[1:3]:
        assert arc.centre_xy_pix == pytest.approx(cutout.xy_pix, abs=0.1)
        assert arc.theta_e_arcsec == pytest.approx(got[0].theta_e_arcsec, rel=0.02)
    assert got[3].centre_xy_pix.tolist() == near.tolist()


def test_the_mean_of_networks_is_that_of_their_parameters_calibrated_anew(data_dir: Path, tmp_path: Path) -> None:
    state, card = weights.load(WEIGHTS_DIR / "arcs.safetensors")
    card = replace(card, config=card.config | {"min_arc_snr": 0.0}, sha256="")
    state["calibration"] = torch.ones_like(state["calibration"])
    paths = [tmp_path / f"{sign}.safetensors" for sign in ("more", "less")]
    for path, factor in zip(paths, (1.5, 0.5), strict=True):
        moved = {k: v * factor if k.startswith("score") else v for k, v in state.items()}
        weights.save(path, moved, card)
    made, told = weights.load(mean(paths, data_dir, tmp_path / "out"))
    for key in (k for k, v in state.items() if v.is_floating_point() and k != "calibration"):
        torch.testing.assert_close(made[key], state[key], rtol=2e-3, atol=1e-3)
    assert not torch.equal(made["calibration"], state["calibration"])
    assert told.data == card.data
    assert 0 <= told.metrics["validation"]["auroc"] <= 1
    other = tmp_path / "other.safetensors"
    weights.save(other, dict(ArcNet(8).state_dict()) | {"calibration": state["calibration"]}, card)
    with pytest.raises(WeightsError, match="another shape"):
        mean([paths[0], other], data_dir, tmp_path / "out")
