"""Task vectors merged entry by entry or tensor by tensor, and the linear algebra that the mergers of matrices share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmtllmf_lib.compiled import compiled
from rmtllmf_lib.model.layout import require_finite
from rmtllmf_lib.model.task_vector import TaskVector, require_alike
from rmtllmf_lib.threads import map_pieces, ordered, single_blas
from rmtllmf_lib.validated import validated_call

SMALLEST = 1e-5  # singular values below this part of the largest are taken for the rounding of float32

_BLOCK = 2**18  # entries of every user: with eight users 8 MiB

Rule = Callable[[Tensor], Tensor]


@validated_call
def require_mergeable(taus: Sequence[TaskVector]) -> None:
    """`InputError` unless there is at least one task vector, all are of one layout and base, and finite."""
    require_alike(taus)
    for index, tau in enumerate(taus):
        require_finite(tau.layout, tau.values, f"task vector {index}: ")


def mean(stack: Tensor) -> Tensor:
    """Mean (…) of tensors (N, …)."""
    return stack.mean(0)


def by_entry(taus: Sequence[TaskVector], rule: Rule, *, in_order: bool = False) -> TaskVector:
    """Merge entry by entry: a rule maps a block (N, b) of the N users' entries to the merged ones (b,).

    Blocks are shared among threads unless they are taken `in_order`, for a rule that draws random numbers.
    """
    values = taus[0].layout.empty()

    def work(pieces: Sequence[Tensor]) -> None:
        for out, *parts in zip(*(piece.split(_BLOCK) for piece in pieces), strict=True):
            out.copy_(rule(torch.stack(parts)))

    buffers = [values, *(tau.values for tau in taus)]
    if in_order:
        work(buffers)
    else:
        map_pieces(work, buffers)
    return TaskVector(taus[0].layout, values, taus[0].base_hash)


def weighted_sum(taus: Sequence[TaskVector], weights: Sequence[float]) -> TaskVector:
    """The sum of weight times task vector."""
    row = torch.tensor([float(weight) for weight in weights])
    return by_entry(taus, lambda stack: row @ stack)


def by_tensor(taus: Sequence[TaskVector], matrices: Rule, others: Rule = mean) -> TaskVector:
    """Merge each tensor alone, so that what a rule needs beyond its result is as large as one tensor, not as a tower.

    Parameters
    ----------
    matrices : function of (N, m, n) float32
        Merges the N users' matrices of one name to (m, n), of any floating-point type. open_clip's names decide what
        is a matrix: queries, keys and values are one, positions and projection are two more, and the convolution that
        embeds the patches is none.
    others : function of (N, …) float32
        Merges all other tensors to (…); default their mean.
    """
    return by_name(taus, lambda _, stack: matrices(stack) if stack.ndim == 3 else others(stack))


def by_name(taus: Sequence[TaskVector], rule: Callable[[str, Tensor], Tensor]) -> TaskVector:
    """The same by one rule for all tensors, which is given the tensor's name as well."""
    layout = taus[0].layout
    values = layout.empty()
    views, users = layout.views(values), [tau.state_dict() for tau in taus]

    def merge(name: str) -> None:
        views[name].copy_(rule(name, torch.stack([tensors[name] for tensors in users])))

    with single_blas:
        for _ in ordered(merge, sorted(layout.names, key=lambda name: -views[name].numel())):  # no large one comes last
            pass
    return TaskVector(layout, values, taus[0].base_hash)


def magnitude_of_rank(values: Tensor, count: int) -> float:
    """Magnitude of the `count`-th largest entry, so that at least `count` entries are as large.

    The bits of a float32 without its sign, as an integer, are in the order of magnitudes. Counting them by their upper
    half, and those of one upper half by their lower one, takes two passes and no copy.
    """
    bits = values.reshape(-1).numpy().view(np.int32)
    counts = np.zeros((2, 2**16), dtype=np.int64)
    _count_upper(bits, counts[0])
    upper, left = _last_with(counts[0], count)
    _count_lower(bits, upper, counts[1])
    lower, _ = _last_with(counts[1], left)
    return float(np.array([upper << 16 | lower], dtype=np.int32).view(np.float32)[0])


def _last_with(counts: NDArray[np.int64], count: int) -> tuple[int, int]:
    """The last place from which on there are so many, and how many of them are at that place itself."""
    at_least = counts[::-1].cumsum()[::-1]
    place = int(np.flatnonzero(at_least >= count)[-1])
    return place, count - int(at_least[place] - counts[place])


@compiled
def _count_upper(bits: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
    for each in bits:
        counts[(each & 0x7FFFFFFF) >> 16] += 1


@compiled
def _count_lower(bits: NDArray[np.int32], upper: int, counts: NDArray[np.int64]) -> None:
    for each in bits:
        if (each & 0x7FFFFFFF) >> 16 == upper:
            counts[each & 0xFFFF] += 1


def singular_triplets(matrix: Tensor, count: int, scale: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` largest singular values of a matrix (m, n) and their vectors, in float64.

    The eigenvectors of the smaller Gram matrix take a fraction of the time of a full SVD, and in float64 its squares
    cost no digit that float32 numbers have.

    Returns
    -------
    U (m, count), s (count,), V (n, count)
        In falling order; U and V are 0 where a singular value is less than `SMALLEST` of the largest, or of `scale`.
    """
    if matrix.shape[0] < matrix.shape[1]:
        V, s, U = singular_triplets(matrix.T, count, scale)
        return U, s, V
    A = matrix.double()
    columns = A.numpy()  # NumPy multiplies a matrix with itself in half the time
    # all of them: SciPy finds a few in as much time, and holds Python's lock meanwhile
    squares, vectors = torch.linalg.eigh(torch.from_numpy(columns.T @ columns))
    s = squares.clamp_min(0).sqrt().flip(0)
    s = (s * (s > SMALLEST * max(scale, float(s[0]))))[:count]
    V = vectors.flip(1)[:, :count] * (s > 0)
    return (A @ V) / torch.where(s > 0, s, 1), s, V


def nearest_orthonormal(columns: Tensor) -> Tensor:
    """The polar factor of a matrix (m, c): the nearest one with orthonormal columns, or rows where c > m.

    It is `P Q'` of the SVD `P D Q'`. Directions without a singular value are left out, since the SVD chooses them
    freely; so the factor of a singular matrix is a partial isometry.
    """
    return columns @ symmetric_power(columns.T @ columns, -0.5)


def symmetric_power(gram: Tensor, exponent: float) -> Tensor:
    """A negative power of a positive semidefinite matrix, on its range: 0 where an eigenvalue is rounding."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > SMALLEST**2 * values[-1]
    return (vectors * torch.where(kept, values, 1).pow(exponent) * kept) @ vectors.T
