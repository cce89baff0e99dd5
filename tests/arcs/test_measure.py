"""Numbers of arcs against drawn ones."""

import numpy as np
import pytest
import torch

from stages.arcs.measure import colour, find_arcs, fit_ring, signal
from stages.polar import to_polar

Y, X = np.mgrid[0:80, 0:80].astype(float)


def drawn(
    radius: float, start: float, stop: float, width: float = 3.0, centre: tuple[float, float] = (39.5, 39.5)
) -> np.ndarray:
    dx, dy = X - centre[0], Y - centre[1]
    angle = np.degrees(np.arctan2(dy, dx)) % 360
    inside = (angle - start) % 360 < (stop - start)
    return ((np.abs(np.hypot(dx, dy) - radius) < width / 2) & inside).astype(np.float32)


def polar(mask: np.ndarray) -> np.ndarray:
    return to_polar(torch.from_numpy(mask)[None, None], torch.tensor([[39.5, 39.5]]))[0, 0].double().numpy()


@pytest.mark.parametrize("start", [40, 350])  # the second crosses the seam
def test_an_arc_and_its_counter_image(start: float) -> None:
    mask = np.maximum(drawn(20, start, start + 80), drawn(12, start + 205, start + 235, 4.0))
    main, counter = find_arcs(polar(mask), 0.1)
    assert not main.is_counter_image
    assert counter.is_counter_image
    assert main.radius_arcsec == pytest.approx(2.0, abs=0.1)
    assert main.extent_deg == pytest.approx(80, abs=8)
    assert main.angle_deg == pytest.approx((start + 40) % 360, abs=3)
    assert main.length_arcsec == pytest.approx(np.radians(80) * 2.0, rel=0.12)
    assert main.width_arcsec == pytest.approx(0.3, rel=0.2)
    assert counter.radius_arcsec == pytest.approx(1.2, abs=0.1)


def test_an_arc_further_out_or_on_the_same_side_is_no_counter_image() -> None:
    outer = find_arcs(polar(np.maximum(drawn(14, 0, 90), drawn(26, 200, 220))), 0.1)
    beside = find_arcs(polar(np.maximum(drawn(20, 0, 90), drawn(12, 100, 120))), 0.1)
    assert [a.is_counter_image for a in outer + beside] == [False] * 4


def test_a_whole_ring_is_one_piece_and_specks_are_none() -> None:
    (whole,) = find_arcs(polar(drawn(15, 0, 360)), 0.1)
    assert whole.extent_deg == 360
    speck = np.zeros((80, 80), np.float32)
    speck[50, 60] = 1
    assert find_arcs(polar(speck), 0.1) == []


def test_the_ring_of_a_shifted_circle() -> None:
    ring = fit_ring(polar(drawn(18, 0, 360, centre=(41.0, 38.5))))
    assert ring.radius == pytest.approx(18, abs=0.3)
    assert (ring.dx, ring.dy) == pytest.approx((1.5, -1.0), abs=0.3)
    assert ring.axis_ratio > 0.96


def test_the_ring_of_an_ellipse() -> None:
    turn, ratio = np.radians(35), 0.85
    dx, dy = X - 39.5, Y - 39.5
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    ring = fit_ring(polar((np.abs(np.hypot(along, across / ratio) - 20) < 1.5).astype(np.float32)))
    assert ring.axis_ratio == pytest.approx(ratio, abs=0.04)
    assert ring.angle_deg == pytest.approx(35, abs=6)


def test_a_short_arc_says_little_of_the_ring() -> None:
    short, long = fit_ring(polar(drawn(18, 80, 110))), fit_ring(polar(drawn(18, 0, 300)))
    assert short.err > 3 * long.err
    assert short.axis_ratio_err > 2 * long.axis_ratio_err
    assert np.isnan(fit_ring(np.zeros((40, 96))).radius)


def test_signal_and_colour_of_known_light() -> None:
    rng = np.random.default_rng(0)
    mask, core = drawn(18, 0, 90) > 0, np.hypot(X - 39.5, Y - 39.5) < 6
    arc = np.stack([np.where(mask, height, 0.0) for height in (40.0, 30.0, 20.0)])
    galaxy = np.stack([np.where(core, height, 0.0) for height in (50.0, 100.0, 200.0)])
    lensed = arc + rng.normal(0, 1, arc.shape)
    valid = np.ones(arc.shape, bool)
    assert signal(lensed, valid, mask, 1.0) == pytest.approx(40 * np.sqrt(mask.sum()), rel=0.02)
    assert signal(lensed, valid, mask, 0.25) == pytest.approx(20 * np.sqrt(mask.sum()), rel=0.02)
    value, error = colour(lensed, galaxy, valid, mask, core, 1.0)
    assert value == pytest.approx(-2.5 * np.log10(2 * 4), abs=0.05)
    assert 0.7 < error < 0.71  # noise is next to nothing here
    faint = np.where(mask, 0.02, 1.0) * lensed
    assert colour(faint + rng.normal(0, 1, arc.shape), galaxy, valid, mask, core, 1.0)[1] > 0.71
    one = valid & np.array([False, True, False])[:, None, None]
    assert np.isnan(colour(lensed, galaxy, one, mask, core, 1.0)).all()
    assert signal(lensed, valid, np.zeros_like(mask), 1.0) == 0
