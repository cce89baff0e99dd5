"""What stage 3 reads from its mask against the truth."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stages.arcs.compare import against, true_colour
from stages.arcs.evaluate import precision_at
from stages.arcs.measure import find_arcs, fit_ring
from stages.records import ArcScore, FloatArray

CENTRE = np.array([39.5, 39.5])


def circle(radius: float, columns: slice) -> FloatArray:
    """A polar mask: three circles about a radius in some of the directions."""
    mask = np.zeros((40, 96))
    mask[int(radius) - 1 : int(radius) + 2, columns] = 1.0
    return mask


def said(mask: FloatArray, pixel: float = 0.2) -> ArcScore:
    """As the stage would, were this its mask: cutout pixels are half as large as the grid's."""
    ring = fit_ring(mask)
    middle = 2 * (CENTRE + np.array([ring.dx, ring.dy]))
    return ArcScore(
        "a", 0.9, 90.0, 10.0, 1.0, 0.1, 2 * CENTRE, np.zeros((80, 80), np.float16), np.zeros(2), 2.0,
        tuple(find_arcs(mask, pixel)), 0.2, 0.3, 9.0, -1.0, 0.7, middle, 2 * ring.err,
        ring.axis_ratio, ring.axis_ratio_err, ring.angle_deg,
    )  # fmt: skip


def test_the_same_mask_differs_in_nothing() -> None:
    mask = circle(15, slice(0, 30)) + circle(9, slice(60, 70))
    got = against(said(mask), mask, CENTRE, 0.2, -1.0)
    assert (got["same_arcs"], got["same_counter_images"]) == (1.0, 1.0)
    for name in ("length", "width", "ring_x", "ring_axis_ratio", "colour"):
        assert got[f"{name}_wrong"] == pytest.approx(0.0, abs=1e-9)
        assert got[f"{name}_err"] > 0


def test_a_longer_arc_and_a_lost_counter_image() -> None:
    true = circle(15, slice(0, 30)) + circle(9, slice(60, 70))
    got = against(said(circle(15, slice(0, 60))), true, CENTRE, 0.2, float("nan"))
    assert got["length_wrong"] == pytest.approx(np.log(2))
    assert got["width_wrong"] == pytest.approx(0.0, abs=1e-9)
    assert (got["same_arcs"], got["same_counter_images"]) == (1.0, 0.0)
    assert np.isnan(got["colour_wrong"])


def test_nothing_said_or_nothing_there_has_no_differences() -> None:
    mask = circle(15, slice(0, 30))
    for some, true in ((np.zeros_like(mask), mask), (mask, np.zeros_like(mask))):
        got = against(said(some), true, CENTRE, 0.2, 0.0)
        assert np.isnan(got["length_wrong"])
        assert got["same_arcs"] == 0.0


def test_the_ring_centre_is_compared_in_arcsec() -> None:
    true = circle(15, slice(0, 96))
    here = said(true)
    shifted = replace(here, ring_xy_pix=here.ring_xy_pix + np.array([3.0, 0.0]))
    assert against(shifted, true, CENTRE, 0.2, 0.0)["ring_x_wrong"] == pytest.approx(0.3)


def test_true_colour_is_that_of_all_light_of_the_source_and_of_the_galaxy_at_the_centre() -> None:
    light = [{"flux": [1.0, 5.0, 2.0]}, {"flux": [3.0, 5.0, 2.0]}]
    galaxy = [{"flux": [1.0, 5.0, 10.0], "x": 0.0, "y": 0.0}, {"flux": [9.0, 9.0, 9.0], "x": 3.0, "y": 0.0}]
    drawn = json.dumps({"sources": [{"light": light, "stamp_flux": None}], "deflector": {"light": galaxy}})
    assert true_colour(drawn, ("g", "r", "i")) == pytest.approx(-2.5 * np.log10(4 / 4 * 10))
    assert np.isnan(true_colour(drawn, ("r",)))
    assert np.isnan(true_colour("{}", ("g", "r", "i")))


def test_precision_where_the_mean_recall_is_three_quarters() -> None:
    rows = np.array([[0.6, 0.8, 1.0, 0.9, 0.7, 0.5], [0.6, 0.8, 1.0, 0.9, 0.7, 0.5]])
    assert precision_at(rows) == pytest.approx(0.75)
    assert np.isnan(precision_at(rows * [1, 1, 1, 0.5, 0.5, 0.5]))
