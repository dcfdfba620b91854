"""Inner loops compiled by Numba, which keep intermediate results in registers instead of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any], *, reorder: bool = False) -> Callable[..., Any]:
    """Compile a function with Numba and cache the result on disk, or for the process where the disk is read-only.

    The compiled function releases Python's lock and rounds as NumPy does: no contraction, no reordering.

    Parameters
    ----------
    reorder : bool
        Allow sums to be reordered and vectorised; the order is always the same on one machine.
    """
    freely: Any = {"reassoc", "contract", "nsz"} if reorder else False
    try:
        return numba.njit(nogil=True, fastmath=freely, cache=True)(function)
    except RuntimeError:  # neither the library's folder nor the user's cache is writable
        return numba.njit(nogil=True, fastmath=freely)(function)
