"""Lens model and image finder against lenstronomy, finite differences and the theorem itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.lens_model import LensModel as Lenstronomy
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver
from scipy.integrate import quad
from scipy.optimize import brentq

from stages.counter.contours import demanded
from stages.counter.images import all_images, meshes_about
from stages.counter.lens_model import LensModel, frame
from stages.counter.power_law import isothermal_terms

part = st.floats(-1.0, 1.0)


def random_lens(rng: np.random.Generator) -> LensModel:
    e, g, core = rng.uniform(-0.4, 0.4, 2), rng.uniform(-0.1, 0.1, 2), 10 ** rng.uniform(-2, -1)
    return LensModel(rng.uniform(0.5, 2), *e, *g, *rng.uniform(-0.3, 0.3, 2), core)


def with_satellite(model: LensModel, rng: np.random.Generator) -> LensModel:
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.6) * model.theta_e_arcsec
    place = (model.x_arcsec + radius * np.cos(angle), model.y_arcsec + radius * np.sin(angle))
    return replace(model, satellite=(rng.uniform(0.05, 0.25), *place, 0.01))


KINDS_OF_LENS = {
    "isothermal": lambda model, rng: model,
    "satellite": with_satellite,
    "slope": lambda model, rng: replace(model, slope=rng.uniform(1.6, 2.4)),
    "both": lambda model, rng: replace(with_satellite(model, rng), slope=rng.uniform(1.6, 2.4)),
}


@pytest.mark.parametrize(("slope", "error"), [(1.6, 1e-7), (2.2, 1e-6), (2.4, 2e-5)])
def test_another_slope_with_hardly_a_core_is_lenstronomys_power_law(slope, error):
    """What the core takes away, core / theta_e to the power 3 - slope, is the only difference."""
    rng = np.random.default_rng(4)
    model = replace(with_satellite(random_lens(rng), rng), slope=slope, core_arcsec=1e-9)
    xy = rng.uniform(-3, 3, (40, 2))
    names, kwargs = model.to_lenstronomy()
    expected = np.column_stack(Lenstronomy(names).ray_shooting(*xy.T, kwargs))
    np.testing.assert_allclose(model.ray_shoot(xy), expected, atol=error)


@pytest.mark.parametrize("slope", [1.2, 1.6, 1.9, 2.1, 2.4, 2.8])
def test_the_deflection_of_a_power_law_is_the_integral_over_its_ellipses(slope):
    """Keeton (2001, astro-ph/0102341) eqs. 15-17, by another's quadrature, in logarithmic steps."""
    rng, error = np.random.default_rng(5), 2e-7 if 1.5 < slope < 2.5 else 2e-6
    for _ in range(8):
        q, core, radius, angle = rng.uniform(0.3, 0.99), 10 ** rng.uniform(-2.3, -0.5), 10 ** rng.uniform(-2, 0.7), 1.0
        u, v = radius * np.cos(angle), radius * np.sin(angle)

        def integrand(log_w, power, q=q, core=core, u=u, v=v):
            w = np.exp(log_w)
            flat = 1 - (1 - q**2) * w
            kappa = (3 - slope) / 2 * (1.2**2 / (core**2 + q * w * (u**2 + v**2 / flat))) ** ((slope - 1) / 2)
            return w * kappa / flat ** (0.5 + power)

        expected = [q * z * quad(integrand, -40, 0, (k,), epsabs=1e-12, limit=400)[0] for k, z in enumerate((u, v))]
        model = LensModel(1.2, (1 - q) / (1 + q), core_arcsec=core, slope=slope)
        np.testing.assert_allclose(model.deflection([(u, v)])[0], expected, atol=error)


def test_an_isothermal_power_law_is_one_ellipsoid():
    strengths, cores = isothermal_terms(1.2, 0.6, 0.05, 2.0)
    np.testing.assert_allclose(strengths, [1.2 * 0.6**0.5] + [0] * (len(cores) - 1), atol=1e-8)
    assert cores[0] == pytest.approx(0.05 / 0.6**0.5)


@pytest.mark.parametrize("seed", range(5))
def test_ray_shooting_equals_lenstronomy(seed):
    rng = np.random.default_rng(seed)
    model, xy = random_lens(rng), rng.uniform(-3, 3, (40, 2))
    names, kwargs = model.to_lenstronomy()
    expected = np.column_stack(Lenstronomy(names).ray_shooting(*xy.T, kwargs))
    np.testing.assert_allclose(model.ray_shoot(xy), expected, atol=1e-12)


def test_a_round_lens_deflects_as_the_analytic_limit():
    xy = np.array([[0.3, 0.4], [-1.2, 0.5]])
    radius = np.hypot(*xy.T)[:, None]
    expected = 1.3 * xy / radius**2 * (np.sqrt(radius**2 + 0.05**2) - 0.05)
    np.testing.assert_allclose(LensModel(1.3, core_arcsec=0.05).deflection(xy), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS_OF_LENS)
@pytest.mark.parametrize("seed", range(3))
def test_jacobian_is_the_derivative_of_the_lens_map(seed, kind):
    rng = np.random.default_rng(seed)
    model, xy, h = KINDS_OF_LENS[kind](random_lens(rng), rng), rng.uniform(-2, 2, (30, 2)), 1e-6
    columns = [(model.ray_shoot(xy + d) - model.ray_shoot(xy - d)) / (2 * h) for d in h * np.eye(2)]
    np.testing.assert_allclose(model.jacobian(xy), np.stack(columns, -1), atol=1e-7)
    np.testing.assert_allclose(1 / model.magnification(xy), np.linalg.det(model.jacobian(xy)), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS_OF_LENS)
@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_the_arrival_time_is_the_lens_equation(seed, kind):
    rng = np.random.default_rng(seed)
    lens = KINDS_OF_LENS[kind](random_lens(rng), rng)
    model, xy, source, h = lens, rng.uniform(-2, 2, (30, 2)), np.array([0.1, -0.2]), 1e-5
    steps = h * np.eye(2)
    slope = [(model.arrival_time(xy + d, source) - model.arrival_time(xy - d, source)) / (2 * h) for d in steps]
    np.testing.assert_allclose(np.stack(slope, 1), model.ray_shoot(xy) - source, atol=1e-8)


def test_impossible_parameters_are_named():
    with pytest.raises(ValueError, match="theta_e_arcsec > 0"):
        LensModel(-1.0)
    with pytest.raises(ValueError, match="slope 3"):
        LensModel(1.0, slope=3.0)
    with pytest.raises(ValueError, match="satellite"):
        LensModel(1.0, satellite=(0.0, 1.0, 0.0, 0.1))


@settings(max_examples=300, deadline=None)
@given(part, part, part, part, part, part, st.floats(0.5, 2), st.floats(0.01, 0.1))
def test_every_cored_lens_makes_an_odd_number_of_images_with_parity_sum_one(e1, e2, g1, g2, x, y, theta_e, core):
    model = LensModel(theta_e, 0.4 * e1 + 1e-3, 0.4 * e2, 0.1 * g1, 0.1 * g2, 0.1, -0.2, core)
    source = np.array([0.1 + 0.6 * theta_e * x + 1e-4, -0.2 + 0.6 * theta_e * y])
    images = all_images(model, source)
    assert images.complete
    assert len(images.kind) % 2 == 1
    np.testing.assert_allclose(model.ray_shoot(images.xy_arcsec), np.tile(source, (len(images.kind), 1)), atol=1e-9)
    assert images.kind[0] == 0  # the first to arrive is a minimum
    assert (np.diff(model.arrival_time(images.xy_arcsec, source)) > -1e-14).all()  # rounding, of a symmetric lens


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6])
def test_two_images_appear_when_the_source_crosses_a_fold(distance):
    model = LensModel(1.0, 0.2, 0.1, 0.03, -0.02, core_arcsec=0.03)
    phi = np.deg2rad(40)
    radius = np.linspace(0.6, 1.6, 200_001)
    ray = np.column_stack([radius * np.cos(phi), radius * np.sin(phi)])
    crossing = np.flatnonzero(np.diff(np.sign(model.magnification(ray))))[-1]
    inward = -model.ray_shoot(ray[crossing])[0]
    counts = [len(all_images(model, -inward * (1 + sign * distance)).kind) for sign in (1, -1)]
    assert sorted(counts) == [3, 5]


@pytest.mark.parametrize("slope", [2.0, 1.8])
@pytest.mark.parametrize("distance", [3e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_two_images_appear_when_the_source_enters_a_cusp(distance, slope):
    """However close to its tip, where both branches of the caustic are within one step of each other."""
    model = LensModel(1.0, -0.2, core_arcsec=0.03, slope=slope)
    tip = model.ray_shoot([(brentq(lambda x: 1 / model.magnification([(x, 0)])[0], 0.6, 1.6, xtol=1e-15), 0)])[0]
    images = [all_images(model, tip * (1 + sign * distance) + (0, 1e-13)) for sign in (1, -1)]
    assert all(i.complete for i in images)
    assert abs(len(images[0].kind) - len(images[1].kind)) == 2


@pytest.mark.parametrize("seed", range(6))
def test_bright_images_of_a_nearly_singular_lens_are_those_of_the_analytical_solver(seed):
    rng = np.random.default_rng(seed)
    model = LensModel(1.1, *rng.uniform(-0.25, 0.25, 2), *rng.uniform(-0.08, 0.08, 2), core_arcsec=1e-5)
    source = rng.uniform(-0.12, 0.12, 2)
    _, (nie, shear) = model.to_lenstronomy()
    nie.pop("s_scale")
    solver = LensEquationSolver(Lenstronomy(["SIE", "SHEAR"]))
    x, y = solver.image_position_from_source(*source, [nie, shear], solver="analytical")
    images = all_images(model, source)
    bright = images.xy_arcsec[images.kind < 2]
    assert len(bright) == len(x)
    distance = np.hypot(bright[:, None, 0] - x, bright[:, None, 1] - y)
    assert distance.min(1).max() < 1e-3
    assert distance.min(0).max() < 1e-3


def test_a_source_behind_the_centre_of_a_round_lens_is_no_accident():
    images = all_images(LensModel(1.0), (0.0, 0.0))  # an Einstein ring: the theorem does not apply, nor does it hang
    assert np.isfinite(images.xy_arcsec).all()


def test_without_a_core_the_central_image_has_no_brightness():
    images = all_images(LensModel(1.0, 0.1, core_arcsec=0.0), (0.05, 0.03))
    assert images.complete
    assert np.abs(images.magnification[images.kind == 2]).max() < 1e-8


def test_a_source_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="Check the source"):
        all_images(LensModel(1.0), (np.nan, 0.0))


def test_a_lens_too_shallow_for_a_maximum_has_all_images_that_its_caustics_demand():
    """Its critical curves are not two loops round the centre."""
    for x in np.linspace(0.001, 0.4, 12):
        images = all_images(LensModel(0.5, -0.4, 0.35, 0.14, -0.02, core_arcsec=0.13), (x, 0.3 * x))
        assert images.expected[0] >= 0
        assert images.complete


@pytest.mark.parametrize(("kind", "n"), [("isothermal", 60), ("satellite", 60), ("slope", 60), ("both", 30)])
def test_followed_curves_demand_the_images_that_are_there(kind, n):
    """Followed in smaller steps, from finer meshes, than when the images were sought."""
    rng = np.random.default_rng(8)
    for _ in range(n):
        model = KINDS_OF_LENS[kind](random_lens(rng), rng)
        source = rng.uniform(-0.6, 0.6, 2) * model.theta_e_arcsec + (model.x_arcsec, model.y_arcsec)
        images = all_images(model, source)
        assert images.complete
        assert len(images.kind) % 2 == 1
        np.testing.assert_allclose(model.ray_shoot(images.xy_arcsec), np.tile(source, (len(images.kind), 1)), atol=1e-8)
        f, (x, y) = frame(model.as_array()), source - (model.x_arcsec, model.y_arcsec)
        saddles, maxima, _ = demanded(f, x, y, meshes_about(f, x, y, 3), 2, np.empty((200, 2)))
        assert (saddles, maxima) == tuple(np.bincount(images.kind, minlength=3)[1:])


def test_critical_curves_that_nearly_touch_are_followed():
    """Those of the deflector and of the satellite pass at 1e-8 arcsec from each other."""
    place, shape = (-0.6456052687041807, -1.158383103421644), (0.2968639772165095, 0.05412348468503331)
    shear, satellite = (
        (-0.023337186572414344, -0.059755476917627476),
        (0.0422131360818204, *place, 0.012222901058215345),
    )
    model = LensModel(0.8039161420865011, *shape, *shear, 0, 0, 0.008163569285499588, satellite=satellite)
    images = all_images(model, (0.15291328, -0.1118334))
    assert images.expected == (1, 1, 1)
    assert images.complete


def test_images_round_a_satellite_are_those_that_lenstronomy_finds():
    model = LensModel(1.2, 0.1, 0.05, 0.03, 0.0, core_arcsec=0.02, satellite=(0.3, 0.9, 0.7, 0.02))
    names, kwargs = model.to_lenstronomy()
    solver = LensEquationSolver(Lenstronomy(names))
    for source in ((0.05, 0.1), (0.2, 0.15), (0.3, 0.28)):
        x, y = solver.image_position_from_source(
            *source, kwargs, min_distance=0.01, search_window=5, precision_limit=1e-10, num_iter_max=200
        )
        images = all_images(model, source)
        assert images.complete
        distance = np.hypot(images.xy_arcsec[:, None, 0] - x, images.xy_arcsec[:, None, 1] - y)
        assert distance.min(0).max() < 1e-4  # it finds none that is not here
        bright = np.abs(images.magnification) > 0.1
        assert distance.min(1)[bright].max() < 1e-4
