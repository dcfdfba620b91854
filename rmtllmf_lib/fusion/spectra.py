"""Mergers that change the singular values of the merged matrices: isotropic merging, and calibration.

Each raises an `InputError` for no vector, several bases or layouts, numbers that are not finite, or a setting out of
its range.

References
----------
.. [1] D. Marczak et al., "No task left behind: Isotropic model merging with common and task-specific subspaces",
   ICML 2025, arXiv:2502.04959.
.. [2] Y. Li et al., "When shared knowledge hurts: Spectral over-accumulation in model merging", ICML 2026,
   arXiv:2602.05536.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.fusion.tensors import by_tensor, nearest_orthonormal, require_mergeable, singular_triplets
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.validated import validated_call


@validated_call
def iso_c(taus: Sequence[TaskVector]) -> TaskVector:
    """Iso-C [1]: the sum of each matrix, with all its singular values replaced by their mean.

    Tensors that are no matrices are averaged. Directions without a singular value stay without.
    """
    require_mergeable(taus)

    def rule(stack: Tensor) -> Tensor:
        U, s, V = singular_triplets(stack.double().sum(0), min(stack.shape[1:]))
        return s.mean() * (U @ V.T)

    return by_tensor(taus, rule)


@validated_call
def iso_cts(taus: Sequence[TaskVector], *, common: float = 0.8) -> TaskVector:
    """Iso-CTS [1]: Iso-C, with the weakest directions of the sum replaced by directions of single users.

    Of a matrix of rank up to r, the strongest `common` r directions of the sum are kept. The rest of the r is shared
    among the users, each with the strongest directions of its matrix outside of the common column space. All are made
    orthogonal to one another, and get the mean of their singular values.

    Parameters
    ----------
    common : float
        Share in [0, 1].
    """
    require_mergeable(taus)
    share = real_number(common, "common", minimum=0, maximum=1)

    def rule(stack: Tensor) -> Tensor:
        r, users = min(stack.shape[1:]), len(stack)
        own = min(round((1 - share) * r / users), r // users)
        W = stack.double()
        U, s, V = singular_triplets(W.sum(0), r - own * users)
        size = float(s.max()) if len(s) else 0.0  # what is left outside of the common directions may be rounding
        parts = [(U, s, V), *(singular_triplets(matrix, own, size) for matrix in W - U @ (U.T @ W))]
        left, values, right = zip(*parts, strict=True)
        isometries = nearest_orthonormal(torch.cat(left, 1)), nearest_orthonormal(torch.cat(right, 1))
        return torch.cat(values).mean() * (isometries[0] @ isometries[1].T)

    return by_tensor(taus, rule)


@validated_call
def svc(taus: Sequence[TaskVector], merged: TaskVector, *, floor: float | None = None) -> TaskVector:
    """Singular value calibration [2] of any merger's result: directions that several users share count once.

    The singular value of each left vector u of a merged matrix M is multiplied by `N / sum_i max(floor, s_i)`, where
    `s_i = <u'M, u'W_i> / |u'W_i|²` says how many times user i's own answer in that direction M holds. Other tensors are
    left as they are.

    Parameters
    ----------
    merged : TaskVector
        Result of any merger of these vectors.
    floor : float, optional
        Above 0: how far a direction that is too weak may be raised; 1 never raises. Default 1/N, as in the paper.
    """
    require_mergeable(taus)
    require_mergeable([taus[0], merged])
    least = 1 / len(taus) if floor is None else real_number(floor, "floor", positive=True)

    def rule(stack: Tensor) -> Tensor:
        U, s, V = singular_triplets(stack[-1], min(stack.shape[1:]))
        answers = U.T @ stack[:-1].double()
        sizes = answers.square().sum(2)
        own = s * torch.einsum("irn,nr->ir", answers, V) / torch.where(sizes > 0, sizes, 1)
        return (U * s * len(own) / own.clamp_min(least).sum(0)) @ V.T

    return by_tensor([*taus, merged], rule, lambda stack: stack[-1])
