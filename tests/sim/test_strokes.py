"""The impostors' brushes: flux, shape and independence of the grid, measured by sums and second moments."""

import numpy as np
import pytest

from sim.impostor_kinds.discs import ring, spiral_arms
from sim.impostor_kinds.edge_on import EdgeOn, paint_edge_on
from sim.impostor_kinds.strokes import Disc, Layer, mesh, paint_disc, paint_spots, superposed
from sim.scene import Grid

FLUX = np.array([3.0, 7.0])


def shape_of(plane: np.ndarray, grid: Grid) -> tuple[float, float, float]:
    """Second moments about the centroid: rms along and across in arcsec, and position angle in rad."""
    y, x = np.meshgrid(grid.axis, grid.axis, indexing="ij")
    total = plane.sum()
    x, y = x - (plane * x).sum() / total, y - (plane * y).sum() / total
    moments = np.array([[(plane * a * b).sum() / total for a in (x, y)] for b in (x, y)])
    values, vectors = np.linalg.eigh(moments)
    return float(np.sqrt(values[1])), float(np.sqrt(values[0])), float(np.arctan2(vectors[1, 1], vectors[0, 1]))


def smooth() -> np.ndarray:
    radius, azimuth = mesh()
    return np.asarray(np.exp(-radius) * np.ones_like(azimuth), np.float32)


def disc(brightness: np.ndarray, scale: float, q: float = 1.0, pa: float = 0.0, bend: float = 0.0) -> Disc:
    return Disc(0.1, -0.2, scale, q, pa, (Layer(brightness, FLUX),), bend)


@pytest.mark.parametrize("step", [0.03, 0.13, 0.3])
@pytest.mark.parametrize("bend", [0.0, 0.08])
def test_a_disc_holds_its_flux_in_every_band_on_any_grid(step: float, bend: float) -> None:
    grid = Grid(int(10 / step), step)
    canvas = np.zeros((2, grid.size, grid.size), np.float32)
    arms = spiral_arms(np.random.default_rng(4), 0.5)
    paint_disc(canvas, grid, disc(arms, 0.5, 0.6, 0.7, bend))
    np.testing.assert_allclose(canvas.sum(axis=(1, 2)), FLUX, rtol=0.01)


def test_arms_on_a_coarse_grid_are_the_mean_of_those_on_a_fine_one() -> None:
    coarse, fine = Grid(60, 0.15), Grid(300, 0.03)
    arms = spiral_arms(np.random.default_rng(1), 0.5, number=4)
    canvases = []
    for grid in (coarse, fine):
        canvas = np.zeros((2, grid.size, grid.size), np.float32)
        paint_disc(canvas, grid, disc(arms, 0.6, 0.5, 0.3))
        canvases.append(canvas[0])
    binned = canvases[1].reshape(60, 5, 60, 5).sum(axis=(1, 3))
    assert np.abs(canvases[0] - binned).max() < 0.03 * binned.max()


@pytest.mark.parametrize("radius", [0.8, 1.5])
def test_a_ring_peaks_at_its_radius(radius: float) -> None:
    grid = Grid(240, 0.03)
    canvas = np.zeros((2, 240, 240), np.float32)
    paint_disc(canvas, grid, Disc(0.0, 0.0, 1.2, 1.0, 0.0, (Layer(ring(np.random.default_rng(2), radius, 0.1), FLUX),)))
    r = np.hypot(*np.meshgrid(grid.axis, grid.axis))
    edges = np.arange(0.2, 3.4, 0.06)
    profile = [canvas[0][(r >= a) & (r < a + 0.06)].mean() for a in edges]
    assert edges[int(np.argmax(profile))] + 0.03 == pytest.approx(1.2 * radius, rel=0.08)


def test_an_inclined_disc_has_its_axis_ratio_and_position_angle() -> None:
    grid = Grid(400, 0.04)
    canvas = np.zeros((2, 400, 400), np.float32)
    paint_disc(canvas, grid, disc(smooth(), 0.7, 0.4, 0.9))
    along, across, angle = shape_of(canvas[1], grid)
    assert across / along == pytest.approx(0.4, rel=0.03)
    assert np.mod(angle, np.pi) == pytest.approx(0.9, abs=0.02)


def test_places_in_the_plane_lie_where_their_light_is_painted() -> None:
    grid = Grid(300, 0.03)
    radius, azimuth = mesh()
    spot = np.exp(-0.5 * ((np.log(radius / 1.4) / 0.05) ** 2 + ((azimuth - 2.0) / 0.05) ** 2))
    galaxy = disc(np.asarray(spot, np.float32), 1.0, 0.5, 0.8, 0.1)
    canvas = np.zeros((2, 300, 300), np.float32)
    paint_disc(canvas, grid, galaxy)
    row, column = np.unravel_index(int(canvas[0].argmax()), canvas[0].shape)
    x, y = galaxy.place(np.array(1.4), np.array(2.0))
    assert np.hypot(grid.axis[column] - x, grid.axis[row] - y) < 0.07


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5])
def test_spots_hold_flux_place_and_width_however_small(sigma: float) -> None:
    grid = Grid(120, 0.1)
    canvas = np.zeros((2, 120, 120), np.float32)
    paint_spots(canvas, grid, np.array([0.33]), np.array([-0.71]), np.array([sigma]), FLUX[None])
    np.testing.assert_allclose(canvas.sum(axis=(1, 2)), FLUX, rtol=1e-3)
    y, x = np.meshgrid(grid.axis, grid.axis, indexing="ij")
    centroid = [(canvas[0] * a).sum() / FLUX[0] for a in (x, y)]
    assert centroid == pytest.approx([0.33, -0.71], abs=0.05 if sigma < 0.05 else 0.005)
    if sigma == 0.5:
        assert shape_of(canvas[0], grid)[:2] == pytest.approx((sigma, sigma), rel=0.01)


def test_spots_off_the_canvas_change_nothing() -> None:
    canvas = np.zeros((2, 20, 20), np.float32)
    far = np.array([50.0])
    paint_spots(canvas, Grid(20, 0.1), far, far, np.array([0.2]), FLUX[None])
    paint_disc(canvas, Grid(20, 0.1), Disc(50.0, 50.0, 0.3, 0.5, 0.0, (Layer(smooth(), FLUX),)))
    assert not canvas.any()


def test_the_sum_of_waves_is_that_of_their_cosines() -> None:
    rng = np.random.default_rng(3)
    u, v = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(7, 4)).astype(np.float32)
    expected = np.cos(u[:, None, :] - v[None, :, :]).sum(axis=2)
    np.testing.assert_allclose(superposed(np.cos(u), np.sin(u), np.cos(v), np.sin(v)), expected, atol=1e-5)


@pytest.mark.parametrize("step", [0.04, 0.15])
def test_an_edge_on_disc_holds_its_flux_and_lies_along_its_angle(step: float) -> None:
    grid = Grid(int(16 / step), step)
    canvas = np.zeros((2, grid.size, grid.size), np.float32)
    paint_edge_on(canvas, grid, EdgeOn(0.0, 0.0, 0.8, 0.1, 0.6, FLUX, np.zeros(2)))
    np.testing.assert_allclose(canvas.sum(axis=(1, 2)), FLUX, rtol=0.02)
    along, across, angle = shape_of(canvas[0], grid)
    assert np.mod(angle, np.pi) == pytest.approx(0.6, abs=0.01)
    assert across < 0.2 * along


def test_a_dust_lane_dims_the_middle_and_most_where_the_depth_is_largest() -> None:
    grid = Grid(300, 0.03)
    canvas = np.zeros((2, 300, 300), np.float32)
    paint_edge_on(canvas, grid, EdgeOn(0.0, 0.0, 0.8, 0.15, 0.0, np.ones(2), np.array([3.0, 1.0])))
    middle, above = canvas[:, 148:152, 150].mean(axis=1), canvas[:, 154:157, 150].mean(axis=1)
    assert middle[0] < middle[1] < canvas[1].max()
    assert middle[0] < above[0]


def test_a_u_warp_moves_both_ends_to_one_side_and_an_s_warp_to_two() -> None:
    grid = Grid(300, 0.04)
    y = grid.axis[:, None]
    ends = {}
    for name, warp in {"u": {"warp_u": 0.1}, "s": {"warp_s": 0.1}}.items():
        canvas = np.zeros((2, 300, 300), np.float32)
        paint_edge_on(canvas, grid, EdgeOn(0.0, 0.0, 0.8, 0.1, 0.0, FLUX, np.zeros(2), **warp))
        left, right = canvas[0][:, 85:95], canvas[0][:, 205:215]
        ends[name] = [float((part * y).sum() / part.sum()) for part in (left, right)]
    assert min(ends["u"]) > 0.1
    assert ends["s"][0] < -0.1
    assert ends["s"][1] > 0.1
