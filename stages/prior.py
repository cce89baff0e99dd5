"""The share of lenses at which a probability is stated. The stages state theirs at equal numbers."""

from __future__ import annotations

from argparse import ArgumentTypeError

import numpy as np

from stages.records import FloatArray


def share(text: str) -> float:
    """A number between 0 and 1, of an option."""
    if not 0 < (number := float(text)) < 1:
        raise ArgumentTypeError(f"{text}: expected a share between 0 and 1")
    return number


def restated(p: FloatArray, prior: float) -> FloatArray:
    """Probabilities at equal numbers of lenses and others, stated for a share `prior` of lenses (1 - prior: undone)."""
    return np.asarray(p * prior / (p * prior + (1 - p) * (1 - prior)))


def restated_error(p: FloatArray, error: FloatArray, prior: float) -> FloatArray:
    """Errors of probabilities at equal numbers, stated likewise (to first order)."""
    return np.asarray(error * prior * (1 - prior) / (p * prior + (1 - p) * (1 - prior)) ** 2)
