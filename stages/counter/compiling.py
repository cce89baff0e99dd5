"""Machine code from Python, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile to machine code, cached on disk.

    The cache of a caller in another file does not notice a change here: remove `__pycache__` after editing a kernel.
    """
    machine_code: _Function = numba.njit(cache=True, error_model="numpy")(function)
    return machine_code


def vectorised(function: _Function) -> _Function:
    """As `compiled`, for loops that add up terms: the processor takes four or eight at a time, so in another order."""
    free = {"reassoc", "contract", "nsz"}
    machine_code: _Function = numba.njit(cache=True, error_model="numpy", fastmath=free)(function)
    return machine_code
