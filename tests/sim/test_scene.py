"""Claims about painted and lensed light, against lenstronomy's own light and analytic limits."""

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.param_util import phi_q2_ellipticity
from scipy.ndimage import gaussian_filter

from sim.lensed import lensed_light
from sim.lensing.images import solve
from sim.lensing.lens import Lens, PowerLaw
from sim.population import Sersic, Source
from sim.scene import Grid, paint
from sim.sersic import peak_fluxes, profiles

ONE = np.ones(1)


def seen(light, samples=1):
    """Light, given at so many samples a side of each sample, through a PSF of FWHM 7.5 samples, as in surveys.

    See `sim.observe`. What is narrower than a sample would alias if it were binned first.
    """
    blurred = gaussian_filter(np.asarray(light, float), 7.5 * samples / 2.355, mode="constant", truncate=6)
    n = len(light) // samples
    return blurred.reshape(n, samples, n, samples).sum(axis=(1, 3))


def lens(theta_e=1.2, slope=2.0, q=0.75, pa=0.4, g1=0.03, g2=-0.02, core=0.0):
    return Lens((PowerLaw(theta_e, slope, q, pa, core=core),), g1, g2)


def source(x, y, *light):
    return Source(x, y, light, None, np.zeros(1), 1.5, "galaxy", 23.0)


def lenstronomy_light(model: Lens, component: Sersic, x, y):
    main = model.parts[0]
    e1, e2 = phi_q2_ellipticity(main.pa, main.q)
    beta = LensModel(["EPL", "SHEAR"]).ray_shooting(
        x.ravel(), y.ravel(),
        [{"theta_E": main.theta_e, "gamma": main.slope, "e1": e1, "e2": e2, "center_x": 0, "center_y": 0},
         {"gamma1": model.gamma1, "gamma2": model.gamma2}],
    )  # fmt: skip
    s1, s2 = phi_q2_ellipticity(component.pa, component.q)
    light = LightModel(["SERSIC_ELLIPSE"])
    n = component.index
    theirs = 1.9992 * n - 0.3271  # lenstronomy's b_n is linear in n; the same profile then has another R_sersic
    radius = component.radius * (theirs / (2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2))) ** n
    shape = {"R_sersic": radius, "n_sersic": n, "e1": s1, "e2": s2}
    kwargs = [{"amp": 1, **shape, "center_x": component.x, "center_y": component.y}]
    return light.surface_brightness(*beta, kwargs).reshape(x.shape) / light.total_flux(kwargs)[0]


@pytest.mark.parametrize(("slope", "index"), [(2.0, 1.0), (1.8, 1.3), (2.2, 3.0)])
def test_lensed_light_equals_lenstronomy_averaged_over_each_sample(slope, index):
    n_inner = 15
    grid, model = Grid(40, 0.12), lens(slope=slope)
    component = Sersic(0.11, -0.07, 0.25, index, 0.7, 0.5, ONE)
    ours = lensed_light(grid, model, source(0.11, -0.07, component))[0]
    fine = Grid(40 * n_inner, 0.12 / n_inner)
    axis = (np.arange(fine.size) - (fine.size - 1) / 2) * fine.step
    theirs = lenstronomy_light(model, component, *np.meshgrid(axis, axis)) * fine.step**2
    theirs = seen(theirs, n_inner)
    assert np.abs(seen(ours) - theirs).max() < 2.5e-3 * theirs.max()  # of the arcs alone; a whole scene: the benchmark


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("step", [0.05, 0.2])
def test_a_profile_holds_its_flux_however_coarse_the_grid(index, step):
    size = round(50 / step) | 1
    canvas = np.zeros((1, size, size), np.float32)
    paint(canvas, Grid(size, step), [Sersic(0.03, -0.07, 0.6, index, 0.7, 0.3, 3.0 * ONE)])
    assert canvas.sum() == pytest.approx(3.0, rel=0.02)


def test_a_galaxy_smaller_than_a_sample_keeps_its_flux():
    canvas = np.zeros((2, 31, 31), np.float32)
    paint(canvas, Grid(31, 0.2), [Sersic(0.04, 0.09, 0.03, 1.0, 0.6, 0.3, np.array([2.0, 5.0]))])
    assert canvas.sum(axis=(1, 2)) == pytest.approx([2.0, 5.0], rel=0.02)


@pytest.mark.parametrize("index", [0.7, 4.0])
def test_a_coarse_grid_holds_the_sums_of_a_fine_one(index):
    part = Sersic(0.21, -0.32, 0.45, index, 0.5, 1.1, ONE)
    coarse, fine = np.zeros((1, 40, 40), np.float32), np.zeros((1, 440, 440), np.float32)
    paint(coarse, Grid(40, 0.2), [part])
    paint(fine, Grid(440, 0.2 / 11), [part])
    expected = seen(fine[0], 11)
    assert np.abs(seen(coarse[0]) - expected).max() < 1e-3 * expected.max()


def test_half_the_light_lies_within_the_half_light_radius():
    canvas, grid = np.zeros((1, 301, 301), np.float32), Grid(301, 0.02)
    paint(canvas, grid, [Sersic(0, 0, 0.5, 1.0, 1.0, 0.0, ONE)])
    inside = np.hypot(*np.meshgrid(grid.axis, grid.axis)) < 0.5
    assert canvas[0][inside].sum() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("step", [0.05, 0.2])
def test_a_small_source_is_brightened_by_the_magnifications_of_its_images(step):
    """The image solver knows nothing of the grid: flux and ray shooting agree through it."""
    model, size = lens(core=0.01), round(8 / step)
    component = Sersic(0.3, 0.1, 0.005, 1.0, 1.0, 0.0, ONE)
    flux = lensed_light(Grid(size, step), model, source(0.3, 0.1, component)).sum()
    magnification = np.abs(solve(model, 0.3, 0.1).magnification).sum()
    assert flux == pytest.approx(magnification, rel=0.025)


def test_lensing_keeps_surface_brightness():
    grid, model = Grid(161, 0.03), lens()
    component = Sersic(0.05, 0.02, 0.3, 1.0, 0.8, 0.2, ONE)
    lensed = seen(lensed_light(grid, model, source(0.05, 0.02, component))[0])
    plain = np.zeros((1, 161, 161), np.float32)
    paint(plain, grid, [Sersic(0, 0, 0.3, 1.0, 0.8, 0.2, ONE)])
    assert lensed.max() <= plain.max() * 1.001  # before any PSF
    assert lensed.max() > 0.7 * plain.max()
    assert lensed.sum() > 2 * plain.sum()


def test_bands_share_their_rays():
    component = Sersic(0.11, -0.07, 0.25, 1.3, 0.7, 0.5, np.array([1.0, 4.0, 9.0]))
    bands = Source(0.11, -0.07, (component,), None, np.zeros(3), 1.5, "galaxy", 23.0)
    light = lensed_light(Grid(41, 0.1), lens(), bands)
    assert light[1] == pytest.approx(4 * light[0], rel=1e-5)
    assert light[2] == pytest.approx(9 * light[0], rel=1e-5)


@pytest.mark.parametrize(("index", "q"), [(0.7, 0.4), (1.0, 0.9), (4.0, 0.3), (7.0, 0.8)])
def test_far_wings_are_the_profile_to_a_part_in_a_hundred_of_themselves_and_a_thousandth_in_the_mean(index, q):
    """Wings are evaluated at every fourth sample where a profile is smooth: against the formula at every sample."""
    grid = Grid(500, 0.03)
    component = Sersic(0.31, -0.17, 0.6, index, q, 0.8, ONE)
    canvas = np.zeros((1, 500, 500), np.float32)
    paint(canvas, grid, [component])
    x, y = np.meshgrid(grid.axis - 0.31, grid.axis + 0.17)
    u, v = x * np.cos(0.8) + y * np.sin(0.8), y * np.cos(0.8) - x * np.sin(0.8)
    r = np.sqrt(q * u**2 + v**2 / q) / 0.6
    rows = profiles([component])
    expected = peak_fluxes([component], rows)[0, 0] * np.exp(-rows[0, 7] * (r ** (1 / index) - 1)) * grid.step**2
    wing = (np.hypot(x, y) > 1.0) & (expected > 1e-4 * expected[r > 1].max())
    ratio = canvas[0][wing] / expected[wing]
    assert wing.mean() > 0.02
    assert np.abs(ratio - 1).max() < 1 / 100
    assert np.abs(ratio - 1).mean() < 1 / 1000
