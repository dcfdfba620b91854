"""Compiled inner loops: there numbers meet in registers, while NumPy and torch go through memory for each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any], *, reorder: bool = False) -> Callable[..., Any]:
    """The function compiled, once on a machine where the result can be kept on its disk, else once a process.

    It holds no lock while it runs, and rounds as NumPy does: nothing is contracted or reordered.

    Parameters
    ----------
    reorder : bool
        Let sums be added in another order, many terms at a time; the same order every time on the same machine.
    """
    freely: Any = {"reassoc", "contract", "nsz"} if reorder else False
    try:
        return numba.njit(nogil=True, fastmath=freely, cache=True)(function)
    except RuntimeError:  # neither the library's folder nor the user's cache can be written
        return numba.njit(nogil=True, fastmath=freely)(function)
