"""Arcs whose shape is drawn, so that their coverage is known."""

import numpy as np
import pytest

from sim.truth import arc_shape

Y, X = np.mgrid[0:81, 0:81].astype(float)
CENTRE = np.array([40.0, 40.0])
ANGLE = np.degrees(np.arctan2(Y - 40, X - 40)) % 360


def ring(radius: float, start: float = 0.0, stop: float = 360.0, width: float = 2.0) -> np.ndarray:
    return (np.abs(np.hypot(X - 40, Y - 40) - radius) < width / 2) & ((ANGLE - start) % 360 < stop - start)


@pytest.mark.parametrize("radius", [3, 4, 8, 20])
def test_a_whole_ring_covers_all_directions_however_few_its_pixels(radius: float) -> None:
    shape = arc_shape(ring(radius), CENTRE)
    assert shape.coverage_deg == 360
    assert shape.n_arcs == 1


@pytest.mark.parametrize(("start", "stop"), [(20, 70), (330, 420), (90, 270)])
def test_part_of_a_ring(start: float, stop: float) -> None:
    shape = arc_shape(ring(20, start, stop), CENTRE)
    assert stop - start - 5 <= shape.coverage_deg <= stop - start + 15  # every bin that is touched counts
    assert shape.n_arcs == 1
    assert shape.stretch == pytest.approx(np.radians(stop - start) * 20 / 2, rel=0.5)


def test_two_arcs_and_none() -> None:
    two = arc_shape(ring(20, 0, 60) | ring(12, 150, 200), CENTRE)
    assert two.n_arcs == 2
    assert 110 - 10 <= two.coverage_deg <= 110 + 25
    assert arc_shape(np.zeros((81, 81), bool), CENTRE).n_arcs == 0
