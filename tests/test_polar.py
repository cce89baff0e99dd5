"""Circles about a centre against planes whose values are known everywhere."""

import numpy as np
import pytest
import torch

from stages.polar import N_ANGLES, N_RADII, JoinEnds, to_polar, to_square

CENTRE = torch.tensor([[38.3, 41.6]])


def plane(function) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    return function(x - CENTRE[0, 0], y - CENTRE[0, 1])[None, None]


def test_rows_are_radii_and_columns_angles() -> None:
    row = torch.arange(30) + 0.5
    angle = torch.arange(N_ANGLES) * 2 * np.pi / N_ANGLES
    x = to_polar(plane(lambda dx, dy: dx), CENTRE)[0, 0, :30]
    y = to_polar(plane(lambda dx, dy: dy), CENTRE)[0, 0, :30]
    np.testing.assert_allclose(x, row[:, None] * torch.cos(angle), atol=1e-3)
    np.testing.assert_allclose(y, row[:, None] * torch.sin(angle), atol=1e-3)


def test_there_and_back() -> None:
    smooth = plane(
        lambda dx, dy: torch.exp(-((torch.hypot(dx, dy) - 12) ** 2) / 18) * (1.5 + torch.cos(torch.atan2(dy, dx)))
    )
    back = to_square(to_polar(smooth, CENTRE), CENTRE, 80)
    inside = plane(torch.hypot)[0, 0] < N_RADII - 6
    np.testing.assert_allclose(back[0, 0][inside], smooth[0, 0][inside], atol=0.08)


def test_ends_are_joined_as_torch_does_it_and_keep_the_memory_layout() -> None:
    polar = torch.randn(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    joined = JoinEnds()(polar)
    torch.testing.assert_close(joined, torch.nn.CircularPad2d((1, 1, 0, 0))(polar))
    assert joined.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("column", [0, N_ANGLES - 1])
def test_no_seam(column: int) -> None:
    polar = torch.zeros(1, 1, N_RADII, N_ANGLES)
    polar[..., column] = 1
    square = to_square(polar, torch.tensor([[39.5, 39.5]]), 80)[0, 0]
    assert square[39:41, 50:70].max() > 0.4
    assert square[:, :30].max() == 0


def test_beyond_the_last_circle_is_zero() -> None:
    square = to_square(torch.ones(1, 1, N_RADII, N_ANGLES), torch.tensor([[39.5, 39.5]]), 80)[0, 0]
    assert square[0, 0] == 0
    assert square[39, 39] == pytest.approx(1)
