"""From an arc mask to numbers: how much of a circle it covers."""

from __future__ import annotations

import numpy as np

from stages.records import FloatArray

N_BINS = 72
_CORE_ARCSEC = 0.25  # nearer to the centre a direction means nothing
_FINER = 3  # the mask is interpolated before its directions are counted, so that pixels leave no gaps


def coverage_deg(mask: FloatArray, centre: FloatArray, pixel_arcsec: float, threshold: float = 0.5) -> float:
    """Part of 360 degrees about a centre (x, y) on the grid in which a mask (S, S) is above a threshold."""
    size = mask.shape[0]
    fine = np.linspace(0, size - 1, _FINER * (size - 1) + 1)
    lower = np.minimum(fine.astype(int), size - 2)
    share = fine - lower
    rows = mask[lower] * (1 - share)[:, None] + mask[lower + 1] * share[:, None]
    dense = rows[:, lower] * (1 - share) + rows[:, lower + 1] * share
    y, x = np.nonzero(dense > threshold)
    dx, dy = fine[x] - centre[0], fine[y] - centre[1]
    far = np.hypot(dx, dy) * pixel_arcsec > _CORE_ARCSEC
    bins = np.floor(np.mod(np.arctan2(dy[far], dx[far]), 2 * np.pi) / (2 * np.pi / N_BINS))
    return 360.0 * len(np.unique(np.minimum(bins, N_BINS - 1))) / N_BINS
