"""Light that is narrower than a sample, shared among the samples around it so that it hardly aliases; compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, fastmath=True)
def compact(steepness):  # type: ignore[no-untyped-def]
    """Share of the light at a place that counts as a point for the grid: none below steepness 1, all above 2.5."""
    s = min(max((steepness - 1) / 1.5, 0.0), 1.0)
    return s * s * (3 - 2 * s)


@njit(cache=True, fastmath=True)
def weights(place, out):  # type: ignore[no-untyped-def]
    """Shares (6,) of a point's light that the samples from floor(place) - 2 on get, along one axis.

    The adjoint of cubic interpolation, then (1, 22, 1) / 24: the first four moments are those of the mean over a
    sample's area, wherever in it the point lies, and what is narrower than a sample hardly aliases.
    """
    u = place - math.floor(place)
    a, b = -u * (u - 1) * (u - 2) / 6, (u + 1) * (u - 1) * (u - 2) / 2
    c, d = -(u + 1) * u * (u - 2) / 2, (u + 1) * u * (u - 1) / 6
    out[0] = a / 24
    out[1] = (22 * a + b) / 24
    out[2] = (a + 22 * b + c) / 24
    out[3] = (b + 22 * c + d) / 24
    out[4] = (c + 22 * d) / 24
    out[5] = d / 24


@njit(cache=True, fastmath=True)
def share(stamp, x, y, light, across, down):  # type: ignore[no-untyped-def]
    """Share the light of a point at (x, y) samples, at most half a one from the middle, among a stamp's (7, 7)."""
    weights(x, across)
    weights(y, down)
    left, top = math.floor(x) + 1, math.floor(y) + 1
    for m in range(6):
        part = down[m] * light
        for n in range(6):
            stamp[top + m, left + n] += part * across[n]


@njit(cache=True, fastmath=True)
def deposit(image, x, y, light, steepness):  # type: ignore[no-untyped-def]
    """Add light (B, n) at samples (x, y) to an image (B, rows, columns): what is compact is shared."""
    rows, columns = image.shape[1:]
    across, down = np.empty(6), np.empty(6)
    for k in range(x.shape[0]):
        narrow = compact(steepness[k])
        i, j = math.floor(y[k] + 0.5), math.floor(x[k] + 0.5)
        for band in range(image.shape[0]):
            image[band, i, j] += light[band, k] * (1 - narrow)
        if narrow == 0.0:
            continue
        weights(x[k], across)
        weights(y[k], down)
        left, top = math.floor(x[k]) - 2, math.floor(y[k]) - 2
        inside = left >= 0 and top >= 0 and left + 6 <= columns and top + 6 <= rows
        for band in range(image.shape[0]):
            part = light[band, k] * narrow
            if inside:  # loops of fixed length are unrolled
                for m in range(6):
                    for n in range(6):
                        image[band, top + m, left + n] += part * down[m] * across[n]
            else:
                for m in range(max(0, -top), min(6, rows - top)):
                    for n in range(max(0, -left), min(6, columns - left)):
                        image[band, top + m, left + n] += part * down[m] * across[n]
