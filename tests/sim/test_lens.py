"""Claims about the mass models, against lenstronomy, quadrature, finite differences and analytic limits."""

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.Util.param_util import phi_q2_ellipticity
from scipy.integrate import dblquad, quad

from sim.lensing.kernels import bend
from sim.lensing.lens import Lens, LensError, PowerLaw, Subhalo

SLOPES = (1.6, 2.0, 2.35)
AXIS_RATIOS = (1.0, 0.72, 0.3)
CORED = [PowerLaw(1.3, slope, q, 0.6, 0.1, -0.05, 0.25) for slope in SLOPES for q in AXIS_RATIOS]


def positions(seed=0, n=300):
    return np.random.default_rng(seed).uniform(-2.5, 2.5, (2, n))


def everything():
    parts = (*CORED[5:8:2], Subhalo(0.1, 0.5, 0.7, 0.02, 0.3), PowerLaw(0.3, 1.7, 0.5, 2.0, -0.7, 0.4, 0.05))
    return Lens(parts, 0.06, -0.11, 0.04, -0.03)


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("q", AXIS_RATIOS)
def test_without_a_core_it_is_lenstronomys_epl_with_shear_and_pjaffe(slope, q):
    lens = Lens((PowerLaw(1.3, slope, q, 0.6, 0.1, -0.05), Subhalo(0.1, 0.5, 0.7, 0.01, 0.3)), 0.05, -0.03)
    e1, e2 = phi_q2_ellipticity(0.6, q)
    theirs = LensModel(["EPL", "PJAFFE", "SHEAR"])
    kwargs = [
        {"theta_E": 1.3, "gamma": slope, "e1": e1, "e2": e2, "center_x": 0.1, "center_y": -0.05},
        {"sigma0": 0.05 * (0.3 - 0.01) / (0.3 * 0.01), "Ra": 0.01, "Rs": 0.3, "center_x": 0.5, "center_y": 0.7},
        {"gamma1": 0.05, "gamma2": -0.03, "ra_0": 0.1, "dec_0": -0.05},
    ]
    x, y = positions()
    np.testing.assert_allclose(lens.deflection(x, y), theirs.alpha(x, y, kwargs), atol=1e-11)
    xx, xy, _, yy = theirs.hessian(x, y, kwargs)
    np.testing.assert_allclose(lens.hessian(x, y), (xx, xy, yy), atol=1e-11)
    assert np.ptp(lens.potential(x, y) - theirs.potential(x, y, kwargs)) < 1e-11


def test_round_isothermal_lens_without_a_core_is_lenstronomys_sis():
    x, y = positions()
    theirs = LensModel(["SIS"]).alpha(x, y, [{"theta_E": 1.3, "center_x": 0, "center_y": 0}])
    np.testing.assert_allclose(Lens((PowerLaw(1.3),)).deflection(x, y), theirs, atol=1e-12)


def test_a_small_core_changes_nothing_far_away():
    x, y = positions() + np.array([[4.0], [0.0]])
    sharp, cored = (Lens((PowerLaw(1.3, 2.0, 0.6, 0.2, core=core),)) for core in (0.0, 1e-4))
    np.testing.assert_allclose(cored.deflection(x, y), sharp.deflection(x, y), atol=3e-4)


def convergence(part, u, v):
    """Broken power law written down anew, in the frame of the major axis; amplitude from the mean within theta_E."""
    radius = np.maximum(np.sqrt(part.q * u**2 + v**2 / part.q), part.core)
    t = part.slope - 1

    def profile(r):
        return max(r, part.core) ** -t

    mean = quad(lambda r: 2 * r * profile(r), 0, part.theta_e, points=[part.core])[0] / part.theta_e**2
    return radius**-t / mean


def elliptical_integral(part, u, v):
    """Deflection of elliptical isodensities by quadrature: Keeton (2001, astro-ph/0102341) eqs. 15-17."""
    q = part.q

    def integrand(s, power):
        weight = 1 - (1 - q * q) * s
        xi = np.sqrt(s * (u * u + v * v / weight))
        return convergence(part, xi, 0.0) / weight**power

    edge = np.linspace(0, 1, 40)[1:-1]  # the core's kink may lie anywhere
    ju, jv = (quad(integrand, 0, 1, args=(power,), points=edge, limit=400, epsabs=1e-10)[0] for power in (0.5, 1.5))
    return q * u * ju, q * v * jv


@pytest.mark.parametrize("part", CORED)
def test_cored_deflection_is_the_elliptical_integral_of_its_convergence(part):
    lens = Lens((part,))
    for u, v in ((0.3, 0.02), (0.05, 0.04), (0.02, 0.33), (0.2, 0.9), (1.4, -1.1)):
        c, s = np.cos(part.pa), np.sin(part.pa)
        ax, ay = lens.deflection(part.x + c * u - s * v, part.y + s * u + c * v)
        np.testing.assert_allclose((c * ax + s * ay, c * ay - s * ax), elliptical_integral(part, u, v), atol=2e-7)


@pytest.mark.parametrize("part", CORED)
def test_half_the_divergence_is_the_convergence(part):
    x, y = positions()
    xx, _, yy = Lens((part,)).hessian(x, y)
    c, s = np.cos(part.pa), np.sin(part.pa)
    u, v = c * (x - part.x) + s * (y - part.y), c * (y - part.y) - s * (x - part.x)
    np.testing.assert_allclose((xx + yy) / 2, convergence(part, u, v), rtol=1e-9)


@pytest.mark.parametrize("core", [0.0, 0.01, 0.5, 1.0])
def test_mean_convergence_within_the_einstein_ellipse_is_one_whatever_the_core(core):
    part = PowerLaw(1.3, 2.2, 0.6, core=core)
    lens = Lens((part,))

    def density(angle, radius):
        x, y = radius * np.cos(angle) / np.sqrt(part.q), radius * np.sin(angle) * np.sqrt(part.q)
        xx, _, yy = lens.hessian(x, y)
        return float(xx + yy) / 2 * radius

    parts = [(0.0, core), (core, part.theta_e)] if core else [(1e-9, 0.01), (0.01, part.theta_e)]
    mass = sum(4 * dblquad(density, low, high, 0, np.pi / 2, epsabs=1e-6)[0] for low, high in parts)
    assert mass == pytest.approx(np.pi * part.theta_e**2, rel=1e-4)


def test_jacobian_is_the_derivative_of_the_ray_shooting():
    lens, h = everything(), 1e-6
    x, y = positions()
    dx = (np.array(lens.source_position(x + h, y)) - np.array(lens.source_position(x - h, y))) / (2 * h)
    dy = (np.array(lens.source_position(x, y + h)) - np.array(lens.source_position(x, y - h))) / (2 * h)
    a11, a12, a22 = lens.jacobian(x, y)
    np.testing.assert_allclose((dx[0], dx[1], dy[0], dy[1]), (a11, a12, a12, a22), atol=2e-6)


def test_gradient_of_the_potential_is_the_deflection_across_the_cores_edge():
    lens, h = everything(), 1e-5
    x, y = positions()
    gx = (lens.potential(x + h, y) - lens.potential(x - h, y)) / (2 * h)
    gy = (lens.potential(x, y + h) - lens.potential(x, y - h)) / (2 * h)
    np.testing.assert_allclose((gx, gy), lens.deflection(x, y), atol=1e-7)


def test_foreground_is_lenstronomys_minimal_line_of_sight():
    e1, e2 = phi_q2_ellipticity(0.6, 0.7)
    kwargs = [
        dict.fromkeys(("kappa_od", "omega_od", "kappa_los", "omega_los"), 0.0)
        | {"gamma1_od": 0.04, "gamma2_od": -0.03, "gamma1_los": 0.06, "gamma2_los": 0.02},
        {"theta_E": 1.3, "gamma": 2.1, "e1": e1, "e2": e2, "center_x": 0, "center_y": 0},
        {"theta_E": 0.2, "center_x": 0.5, "center_y": -0.8},
    ]
    parts = (PowerLaw(1.3, 2.1, 0.7, 0.6), PowerLaw(0.2, x=0.5, y=-0.8))
    lens, x, y = Lens(parts, 0.06, 0.02, 0.04, -0.03), *positions()
    theirs = LensModel(["LOS_MINIMAL", "EPL", "SIS"])
    np.testing.assert_allclose(lens.deflection(x, y), theirs.alpha(x, y, kwargs), atol=1e-11)
    np.testing.assert_allclose(lens.hessian(x, y), np.array(theirs.hessian(x, y, kwargs))[[0, 1, 3]], atol=1e-11)


def test_blocks_of_rays_go_where_single_rays_go():
    lens, (x, y) = everything(), positions(n=131)
    many = np.array(lens.deflection(x, y))
    np.testing.assert_allclose(many, np.array([lens.deflection(*p) for p in zip(x, y, strict=True)]).T, atol=1e-13)


def test_single_precision_comes_back_in_single_precision_and_shape():
    x, y = positions().astype(np.float32).reshape(2, 20, 15)
    bx, by = everything().source_position(x, y)
    assert bx.dtype == by.dtype == np.float32
    assert bx.shape == (20, 15)
    np.testing.assert_allclose((bx, by), everything().source_position(x.astype(float), y.astype(float)), atol=1e-6)
    assert everything().deflection(np.empty(0), np.empty(0))[0].shape == (0,)


def test_deflection_is_finite_at_every_centre():
    parts = (PowerLaw(1.0, 2.4), PowerLaw(1.0, 1.6, 0.4), Subhalo(0.1, 0, 0, 0, 0.2), PowerLaw(1.0, core=0.1))
    lens = Lens(parts)
    assert np.isfinite([lens.deflection(0, 0), lens.deflection(1e-300, 0)]).all()


def test_jacobian_changes_by_less_than_the_bound_that_the_image_search_builds_on():
    rng = np.random.default_rng(2)
    for _ in range(300):
        core = 0.0 if rng.uniform() < 0.2 else 10 ** rng.uniform(-2.5, -0.3)
        parts = (PowerLaw(1.0, rng.uniform(1.4, 2.6), rng.uniform(0.1, 1), rng.uniform(0, np.pi), core=core),)
        parts += (Subhalo(0.3, 0.1, 0, 0.05, 0.2),) if rng.uniform() < 0.5 else ()
        lens = Lens(parts, *rng.uniform(-0.1, 0.1, 4))
        x, y = 10 ** rng.uniform(-2.5, 0.5) * rng.normal(0, 1, 2)
        reach = np.hypot(x, y) * 10 ** rng.uniform(-2, 0)
        turn, r = rng.uniform(0, 2 * np.pi, 60), reach * np.sqrt(rng.uniform(0, 1, 60))
        here = np.array(lens.jacobian(x, y))[:, None]
        a11, a12, a22 = np.array(lens.jacobian(x + r * np.cos(turn), y + r * np.sin(turn))) - here
        change = np.abs(a11 + a22) / 2 + np.hypot((a11 - a22) / 2, a12)
        assert (change <= bend(*lens.packed[:2], x, y, reach) * r * (1 + 1e-9)).all()


def test_impossible_masses_are_refused_with_all_their_faults():
    with pytest.raises(LensError, match=r"theta_e.*slope.*axis ratio.*Change"):
        PowerLaw(-1.0, 3.5, 1.2)
    with pytest.raises(LensError, match="core must be"):
        PowerLaw(1.0, core=1.0)
    with pytest.raises(LensError, match="truncation"):
        Subhalo(0.1, 0, 0, 0.2, 0.1)
    with pytest.raises(LensError, match="foreground shear must be weaker"):
        Lens((PowerLaw(1.0),), foreground2=0.6)
    with pytest.raises(LensError, match="main deflector first"):
        Lens(())


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
def test_scaled_mass_deflects_in_proportion(factor):
    parts = (PowerLaw(1.2, 2.2, 0.6, 0.4, core=0.08), PowerLaw(0.3, 1.8, 0.9, x=1.0, y=-0.7))
    lens = Lens((*parts, Subhalo(0.02, 0.9, 0.4, 0.01, 0.3)), 0.03, -0.02)
    x, y = np.random.default_rng(3).uniform(-3, 3, (2, 50))
    want = factor * np.array(lens.deflection(x, y))
    np.testing.assert_allclose(lens.scaled(factor).deflection(x, y), want, rtol=1e-9)


def test_mass_that_would_fall_into_its_core_is_refused():
    with pytest.raises(LensError, match="core"):
        PowerLaw(0.5, core=0.3).scaled(0.05)
