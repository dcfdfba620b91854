"""Inner products of long flat buffers, each number read from memory once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rmtllmf_lib.arrays import Real
from rmtllmf_lib.compiled import compiled
from rmtllmf_lib.threads import map_pieces

_BLOCK = 2**15  # entries per block: those of eight vectors fill 1 MiB of cache


def inner_products(rows: Sequence[Tensor]) -> Real:
    """Inner products (n, n) of flat float32 buffers, in float64; one block of each at a time stays in the cache."""
    n = len(rows)

    def work(piece: Sequence[Tensor]) -> Real:
        products = np.zeros((n + n % 2, n + n % 2))
        for block in zip(*(row.split(_BLOCK) for row in piece), strict=True):
            parts = [part.numpy() for part in block]
            parts += parts[-1:] * (n % 2)  # pairs of rows: an odd last row is duplicated, and the copy dropped below
            for i in range(0, n, 2):
                for j in range(0, i + 1, 2):
                    _add_products(*parts[i : i + 2], *parts[j : j + 2], products, i, j)
        return products

    lower = np.tril(np.sum(map_pieces(work, rows), axis=0)[:n, :n])
    return lower + np.tril(lower, -1).T


def _products(
    a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32], d: NDArray[np.float32],
    out: NDArray[np.float64], i: int, j: int,
) -> None:  # fmt: skip
    """Add the inner products of a and b with c and d to `out`[i : i + 2, j : j + 2], loading each number once."""
    ac = ad = bc = bd = 0.0
    for k in range(len(a)):
        w, x, y, z = np.float64(a[k]), np.float64(b[k]), np.float64(c[k]), np.float64(d[k])
        ac += w * y
        ad += w * z
        bc += x * y
        bd += x * z
    out[i, j] += ac
    out[i, j + 1] += ad
    out[i + 1, j] += bc
    out[i + 1, j + 1] += bd


_add_products = compiled(_products, reorder=True)
