"""Arcs whose shape is drawn, so that their coverage is known."""

import numpy as np
import pytest

from sim.truth import arc_shape, point_share

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


def test_points_share_the_light_of_their_place() -> None:
    """A round Gaussian on dark sky, on a level that the PSF takes in as much of, and beside an equal one."""
    y, x = np.mgrid[-8:9, -8:9]
    kernel = np.exp(-0.5 * (x**2 + y**2) / 1.5**2)
    kernel /= kernel.sum()
    pixels = np.zeros((1, 60, 60))
    for row, column, flux in ((15, 15, 2.0), (40, 15, 2.0), (40, 18, 2.0), (15, 45, 2.0)):
        pixels[0, row - 8 : row + 9, column - 8 : column + 9] += flux * kernel
    level = 2.0 * (kernel**2).sum()  # a matched filter finds the flux 2 in it
    pixels[0, :31, 31:] += level
    xy, flux = np.array([[15, 15], [15, 40], [18, 40], [45, 15]], float), np.full((4, 1), 2.0)
    share = point_share(xy, flux, kernel[None], pixels)
    beside = np.exp(-0.25 * 3.0**2 / 1.5**2)  # the overlap of two Gaussians 3 pixels apart
    np.testing.assert_allclose(share, [1.0, 1 / (1 + beside), 1 / (1 + beside), 0.5], rtol=2e-3)
    assert len(point_share(np.empty((0, 2)), np.empty((0, 1)), kernel[None], pixels)) == 0
