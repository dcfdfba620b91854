"""TSV-Merge: the strongest singular directions of every user, made orthogonal to one another.

References
----------
.. [1] A. A. Gargiulo et al., "Task singular vectors: Reducing task interference in model merging", CVPR 2025,
   arXiv:2412.00081.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rmtllmf_lib.fusion.tensors import by_tensor, nearest_orthonormal, require_mergeable, singular_triplets
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.validated import validated_call


@validated_call
def tsv_merge(taus: Sequence[TaskVector]) -> TaskVector:
    """Merge task vectors by TSV-Merge [1].

    Of each user's matrix of rank up to r, the r/N strongest singular triplets are kept. Their left vectors are stacked
    to U and replaced by the nearest orthonormal columns, and so are the right ones; the result is `U diag(s) V'`.
    Tensors that are no matrices are averaged.

    Parameters
    ----------
    taus : sequence of TaskVector
        At least one, of one base. Their order does not matter, beyond rounding.

    Returns
    -------
    TaskVector
        To be scaled by the caller; the authors take lambda = 1. One vector is its own result.

    Raises
    ------
    InputError
        if there is no vector, they have several layouts or bases, or one is not finite.

    Notes
    -----
    Where singular vectors of different users coincide, the paper's orthonormal factors are not unique; here they have
    no component outside of what the users' vectors span, so N equal vectors give their strongest r/N directions.
    """
    require_mergeable(taus)
    return by_tensor(taus, _merged)


def _merged(stack: Tensor) -> Tensor:
    if not stack.any():  # as frozen embeddings are, which may be most of a model
        return stack[0]
    count = max(1, min(stack.shape[1:]) // len(stack))
    U, s, V = zip(*(singular_triplets(matrix, count) for matrix in stack), strict=True)
    left, right = nearest_orthonormal(torch.cat(U, 1)), nearest_orthonormal(torch.cat(V, 1))
    return (left * torch.cat(s)) @ right.T
