"""Errors of a maximum-likelihood fit by the curvature of its cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages.records import FloatArray


def curvature_errors(cost: Callable[[FloatArray], float], p: FloatArray, step: FloatArray) -> FloatArray:
    """Errors (n,) of parameters (n,), each for whatever the others are; NaN where the cost has no minimum.

    cost : minus the log likelihood; step : moves over which its second differences are taken.
    """
    n, moves, here = len(p), np.diag(step), cost(p)
    there = {(i, sign): cost(p + sign * moves[i]) for i in range(n) for sign in (1, -1)}
    second = np.zeros((n, n))
    for i in range(n):
        second[i, i] = (there[i, 1] + there[i, -1] - 2 * here) / step[i] ** 2
        for j in range(i):
            both = cost(p + moves[i] + moves[j]) + cost(p - moves[i] - moves[j]) + 2 * here
            alone = there[i, 1] + there[i, -1] + there[j, 1] + there[j, -1]
            second[i, j] = second[j, i] = (both - alone) / (2 * step[i] * step[j])
    variance = np.diag(np.linalg.pinv(second, hermitian=True))
    return np.sqrt(np.where(variance > 0, variance, np.nan))
