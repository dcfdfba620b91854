"""Task vectors merged tensor by tensor, with the matrices of a tower apart from its other parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import require_finite
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.threads import ordered
from rmtllmf_lib.validated import validated_call

SMALLEST = 1e-5  # singular values below this part of the largest are taken for the rounding of float32

Rule = Callable[[Tensor], Tensor]


@validated_call
def require_mergeable(taus: Sequence[TaskVector]) -> None:
    """`InputError` unless there is at least one task vector, all are of one layout and base, and finite."""
    if not taus:
        raise InputError("there is nothing to merge: got no task vector; give at least one")
    for index, tau in enumerate(taus):
        tau.layout.require_equal(taus[0].layout, f"task vector {index}")
        require_finite(tau.layout, tau.values, f"task vector {index}: ")
        if tau.base_hash != taus[0].base_hash:
            raise InputError(
                f"task vector {index} belongs to another base than task vector 0: {tau.base_hash[:12]}…, expected "
                f"{taus[0].base_hash[:12]}…; fine-tune from the same base"
            )


def mean(stack: Tensor) -> Tensor:
    """Mean (…) of tensors (N, …)."""
    return stack.mean(0)


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
    layout = taus[0].layout
    values = layout.empty()
    views = [tau.state_dict() for tau in taus]

    def merge(name: str) -> tuple[str, Tensor]:
        stack = torch.stack([tensors[name] for tensors in views])
        return name, matrices(stack) if stack.ndim == 3 else others(stack)

    for (name, merged), view in zip(ordered(merge, layout.names), layout.views(values).values(), strict=True):
        view.copy_(merged)
    return TaskVector(layout, values, taus[0].base_hash)


def singular_triplets(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` largest singular values of a matrix (m, n) and their vectors, in float64.

    The eigenvectors of the smaller Gram matrix take a fraction of the time of a full SVD. In float64 its squares cost
    no digit that float32 numbers have.

    Returns
    -------
    U (m, count), s (count,), V (n, count)
        In falling order; U and V are 0 where a singular value is less than `SMALLEST` of the largest.
    """
    if matrix.shape[0] < matrix.shape[1]:
        V, s, U = singular_triplets(matrix.T, count)
        return U, s, V
    A = matrix.double()
    squares, vectors = torch.linalg.eigh(A.T @ A)
    s = squares.flip(0)[:count].clamp_min(0).sqrt()
    s = s * (s > SMALLEST * s[0])
    V = vectors.flip(1)[:, :count] * (s > 0)
    return (A @ V) / torch.where(s > 0, s, 1), s, V


def nearest_orthonormal(columns: Tensor) -> Tensor:
    """The polar factor of a matrix (m, c): the nearest one with orthonormal columns, or rows where c > m.

    It is `P Q'` of the SVD `P D Q'`. Directions without a singular value are left out, since the SVD chooses them
    freely; so the factor of a singular matrix is a partial isometry.
    """
    values, vectors = torch.linalg.eigh(columns.T @ columns)
    kept = values > SMALLEST**2 * values[-1]
    scaled = vectors * torch.where(kept, values, 1).rsqrt() * kept
    return columns @ (scaled @ vectors.T)
