"""Claims about the images of point sources: the theorem, their number, their kinds, their order."""

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel

from benchmarks.images import MODELS, crossed_by_two, fold_point, lenstronomy_counts, mesh_counts, random_lens
from sim.lensing.image_search import search, window
from sim.lensing.images import MAXIMUM, MINIMUM, SADDLE, ImageSearchError, solve
from sim.lensing.lens import Lens, PowerLaw, Subhalo

QUAD = Lens((PowerLaw(1.2, 2.0, 0.7, 0.5, core=0.02),), 0.05, 0.03)


@pytest.mark.parametrize("model", MODELS)
def test_parities_add_up_to_one_and_every_image_maps_back(model):
    rng = np.random.default_rng(1)
    for _ in range(400):
        lens = random_lens(rng, model)
        fold = fold_point(lens, rng)
        sources = [rng.uniform(-1.5, 1.5, 2) * lens.theta_e]
        if fold is not None:
            sources += [fold[0] + fold[1] * lens.theta_e * 10 ** rng.uniform(-7, -1)]
        for sx, sy in sources:
            images = solve(lens, sx, sy)
            bx, by = lens.source_position(images.x, images.y)
            assert images.parity_sum == 1
            assert len(images) % 2 == 1
            assert np.hypot(bx - sx, by - sy).max() < 1e-8


@pytest.mark.parametrize("model", MODELS)
def test_theorem_holds_on_a_caustic_to_within_rounding(model):
    rng = np.random.default_rng(2)
    for _ in range(40):
        lens = random_lens(rng, model)
        fold = fold_point(lens, rng)
        if fold is not None:
            for step in (0.0, 1e-16, -1e-15, 1e-13, -1e-11, 1e-9):
                assert solve(lens, *(fold[0] + step * fold[1])).parity_sum == 1


@pytest.mark.parametrize("model", MODELS)
def test_a_source_gains_two_images_where_it_crosses_a_fold(model):
    rng, crossed = np.random.default_rng(3), 0
    for _ in range(100):
        lens = random_lens(rng, model)
        fold = fold_point(lens, rng)
        if fold is not None:
            assert crossed_by_two(lens, *fold, rng)
            crossed += 1
    assert crossed > 40


@pytest.mark.parametrize("model", MODELS)
def test_counts_are_those_of_a_triangulated_map(model):
    rng, compared = np.random.default_rng(4), 0
    for _ in range(6):
        lens = random_lens(rng, model)
        sources = rng.uniform(-0.8, 0.8, (20, 2)) * lens.theta_e
        counts = mesh_counts(lens, sources)
        found = np.array([len(solve(lens, *source)) for source in sources])
        np.testing.assert_array_equal(found[counts > 0], counts[counts > 0])
        compared += (counts > 0).sum()
    assert compared > 20


@pytest.mark.parametrize("model", MODELS)
def test_a_more_cautious_search_finds_nothing_more(model):
    rng, rows = np.random.default_rng(5), np.empty((64, 4))
    for _ in range(60):
        lens = random_lens(rng, model)
        source = rng.uniform(-1, 1, 2) * lens.theta_e
        half = window(*lens.packed, *source)
        assert search(*lens.packed, *source, 2 * half, 5.0, rows)[0] == len(solve(lens, *source))


def test_images_of_the_singular_lens_are_lenstronomys():
    assert lenstronomy_counts(np.random.default_rng(6), 40) == (0, 40)


def test_magnifications_and_delays_are_lenstronomys():
    lens = Lens((PowerLaw(1.0, x=0.1),), 0.08, 0.04)
    images = solve(lens, 0.12, 0.03)
    kwargs = [{"theta_E": 1.0, "center_x": 0.1, "center_y": 0}, {"gamma1": 0.08, "gamma2": 0.04, "ra_0": 0.1}]
    model = LensModel(["SIS", "SHEAR"])
    np.testing.assert_allclose(images.magnification, model.magnification(images.x, images.y, kwargs), rtol=1e-9)
    theirs = model.fermat_potential(images.x, images.y, kwargs)
    np.testing.assert_allclose(images.fermat - images.fermat[0], theirs - theirs[0], atol=1e-12)
    assert len(images) == 4


def test_a_quad_arrives_as_two_minima_two_saddles_and_the_maximum():
    images = solve(QUAD, 0.03, 0.01)
    assert images.kind.tolist() == [MINIMUM, MINIMUM, SADDLE, SADDLE, MAXIMUM]
    assert (np.diff(images.fermat) > 0).all()
    assert np.hypot(images.x[-1], images.y[-1]) < 0.02
    assert (np.sign(images.magnification) == np.where(images.kind == SADDLE, -1, 1)).all()


def test_images_turn_with_the_lens():
    turn = 0.7
    c, s = np.cos(turn), np.sin(turn)
    turned = Lens((PowerLaw(1.2, 2.0, 0.7, 0.5 + turn, core=0.02),), *_spin_two(0.05, 0.03, turn))
    images, again = solve(QUAD, 0.03, 0.01), solve(turned, c * 0.03 - s * 0.01, s * 0.03 + c * 0.01)
    np.testing.assert_allclose(
        (again.x, again.y), (c * images.x - s * images.y, s * images.x + c * images.y), atol=1e-9
    )
    np.testing.assert_allclose(again.magnification, images.magnification, rtol=1e-6)


def _spin_two(g1, g2, turn):
    g = (g1 + 1j * g2) * np.exp(2j * turn)
    return g.real, g.imag


def test_total_magnification_is_that_of_the_counted_rays():
    lens, radius = Lens((PowerLaw(1.0, 2.0, 0.8, core=0.1),)), 0.01
    axis = np.linspace(-2, 2, 3001)
    bx, by = lens.source_position(*np.meshgrid(axis, axis))
    rays = (np.hypot(bx - 0.3, by - 0.2) < radius).sum() * (axis[1] - axis[0]) ** 2 / (np.pi * radius**2)
    assert np.abs(solve(lens, 0.3, 0.2).magnification).sum() == pytest.approx(rays, rel=0.02)


def test_a_far_source_has_one_image_and_a_subhalo_near_an_image_adds_two_or_four():
    assert len(solve(QUAD, 5.0, 2.0)) == 1
    few = solve(QUAD, 0.03, 0.01)
    assert len(few) == 5
    for offset, number in ((0.02, 9), (0.1, 7), (0.2, 5)):  # within its caustic of a point-like mass, without, too far
        halo = Subhalo(0.05, few.x[0] + offset, few.y[0], 0.001, 0.3)
        assert len(solve(Lens((*QUAD.parts, halo), QUAD.gamma1, QUAD.gamma2), 0.03, 0.01)) == number


def test_nearly_round_lenses_are_solved_and_a_ring_is_named():
    assert len(solve(Lens((PowerLaw(1.0, 2.0, 1 - 1e-6, core=0.01),)), 0.0, 0.0)) == 5
    with pytest.raises(ImageSearchError, match=r"round lens.*Move the source"):
        solve(Lens((PowerLaw(1.0, core=0.01),)), 0.0, 0.0)
    with pytest.raises(ValueError, match="not finite"):
        solve(QUAD, np.nan, 0.0)
