"""Claims about lensed light and truth, against lenstronomy's own light and analytic limits."""

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.param_util import phi_q2_ellipticity

from sim.population import Deflector, Sersic, Source
from sim.scene import Grid, images, lensed_light, paint, sersic

ONE = np.ones(1)


def lens(theta_e=1.2, q=0.75, pa=0.4, g1=0.03, g2=-0.02):
    return Deflector(theta_e, q, pa, g1, g2, 0.4, 1.5, ())


def source(x, y, *light):
    return Source(x, y, light, np.zeros(1))


def test_lensed_light_equals_lenstronomy_ray_shooting_and_sersic():
    grid, model = Grid(81, 0.06), lens()
    component = Sersic(0.11, -0.07, 0.25, 1.3, 0.7, 0.5, ONE)
    ours = lensed_light(grid, model, source(0.11, -0.07, component))[0]
    x, y = np.meshgrid(grid.axis, grid.axis)
    e1, e2 = phi_q2_ellipticity(model.pa, model.q)
    beta = LensModel(["SIE", "SHEAR"]).ray_shooting(
        x.ravel(), y.ravel(),
        [{"theta_E": model.theta_e, "e1": e1, "e2": e2, "center_x": 0, "center_y": 0},
         {"gamma1": model.gamma1, "gamma2": model.gamma2}],
    )  # fmt: skip
    s1, s2 = phi_q2_ellipticity(0.5, 0.7)
    theirs = LightModel(["SERSIC_ELLIPSE"]).surface_brightness(
        *beta,
        [{"amp": 1, "R_sersic": 0.25, "n_sersic": 1.3, "e1": s1, "e2": s2, "center_x": 0.11, "center_y": -0.07}],
    )
    theirs = theirs.reshape(x.shape)
    inside = theirs > 1e-3 * theirs.max()
    ratio = ours[inside] / theirs[inside]
    assert np.ptp(ratio) < 0.02 * np.median(ratio)


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
def test_a_profile_holds_its_flux(index):
    canvas = np.zeros((1, 801, 801), np.float32)
    paint(canvas, Grid(801, 0.05), [Sersic(0, 0, 0.6, index, 0.7, 0.3, 3.0 * ONE)])
    assert canvas.sum() == pytest.approx(3.0, rel=0.06)


def test_half_the_light_lies_within_the_half_light_radius():
    grid = Grid(1201, 0.01)
    x, y = np.meshgrid(grid.axis, grid.axis)
    profile = sersic(Sersic(0, 0, 0.5, 1.0, 1.0, 0.0, ONE), x, y, 0.0) * grid.step**2
    assert profile[np.hypot(x, y) < 0.5].sum() == pytest.approx(0.5, abs=0.01)


def test_a_source_inside_the_diamond_has_four_images_and_a_centre():
    found = images(lens(q=0.6), source(0.02, 0.01))
    assert found.n_without_centre == 4
    assert len(found.x) == 5


def test_a_source_outside_the_diamond_has_two_images_and_a_centre():
    found = images(lens(q=0.9, g1=0, g2=0), source(0.5, 0.2))
    assert (found.n_without_centre, len(found.x)) == (2, 3)


def test_parities_sum_to_one_with_the_centre():
    rng = np.random.default_rng(4)
    for _ in range(40):
        found = images(lens(q=rng.uniform(0.6, 0.95), pa=rng.uniform(0, 3)), source(*rng.uniform(-0.4, 0.4, 2)))
        if len(found.x) > found.n_without_centre:
            assert np.sign(found.magnification).sum() == 1


def test_every_image_maps_back_to_the_source():
    model, src = lens(), source(0.13, 0.05)
    found = images(model, src)
    e1, e2 = phi_q2_ellipticity(model.pa, model.q)
    n = found.n_without_centre
    beta = LensModel(["SIE", "SHEAR"]).ray_shooting(
        found.x[:n], found.y[:n],
        [{"theta_E": model.theta_e, "e1": e1, "e2": e2, "center_x": 0, "center_y": 0},
         {"gamma1": model.gamma1, "gamma2": model.gamma2}],
    )  # fmt: skip
    assert np.allclose(beta, [[0.13] * n, [0.05] * n], atol=1e-5)
