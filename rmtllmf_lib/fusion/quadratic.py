"""Mergers whose result minimises a sum of quadratic forms, one for each user, in closed form.

Each raises an `InputError` for no vector, several bases or layouts, numbers that are not finite, or a setting out of
its range.

References
----------
.. [1] R. Cheng et al., "Whoever started the interference should end it: Guiding data-free model merging via task
   vectors", ICML 2025, arXiv:2503.08099.
.. [2] X. Jin et al., "Dataless knowledge fusion by merging weights of language models", ICLR 2023, arXiv:2212.09849.
.. [3] M. Matena and C. Raffel, "Merging models with Fisher-weighted averaging", NeurIPS 2022, arXiv:2111.09832.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tensors import SMALLEST, by_entry, by_name, by_tensor, require_mergeable, symmetric_power
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.validated import validated_call


@validated_call
def wudi(taus: Sequence[TaskVector]) -> TaskVector:
    """WUDI-Merging [1], solved exactly: matrices M that change each user's answers to its own rows the least.

    The authors minimise `sum_i |(M - W_i) W_i'|² / |W_i|²` by gradient descent from the sum S of the matrices. The
    loss is a convex quadratic; with `G_i = W_i' W_i / |W_i|²`, its minimum nearest to S is
    `M = S + (sum_i (W_i - S) G_i) (sum_i G_i)^-1`. Other tensors are averaged.
    """
    require_mergeable(taus)

    def rule(stack: Tensor) -> Tensor:
        start = stack.sum(0, dtype=torch.float64)
        gram, right = torch.zeros(2 * stack.shape[2:], dtype=torch.float64), torch.zeros_like(start)
        for matrix in stack:  # a wide one has a Gram matrix far larger than itself, and one at a time is enough
            W = matrix.double()
            unit = W / (W.norm() or 1.0)
            own, change = unit.T @ unit, W - start
            gram += own
            right += change @ own if len(W) > W.shape[1] else (change @ unit.T) @ unit
        return start + right @ _inverse(gram)

    return by_tensor(taus, rule)


def _minimum(W: Tensor, G: Tensor, start: Tensor) -> Tensor:
    """The M nearest to `start` that minimises `sum_i tr (M - W_i) G_i (M - W_i)'`."""
    return start + ((W - start) @ G).sum(0) @ _inverse(G.sum(0))


def _inverse(gram: Tensor) -> Tensor:
    """`symmetric_power(gram, -1)`: by Cholesky, which takes a tenth of the time, where no eigenvalue counts as 0."""
    factor, failed = torch.linalg.cholesky_ex(gram)
    if not failed:
        inverse = torch.cholesky_inverse(factor)
        if float(gram.norm() * inverse.norm()) < SMALLEST**-2:  # at least the ratio of the extreme eigenvalues
            return inverse
    return symmetric_power(gram, -1)


@validated_call
def regmean(taus: Sequence[TaskVector], *, grams: Sequence[Mapping[str, Tensor]], shrink: float = 0.95) -> TaskVector:
    """RegMean [2]: matrices M whose outputs are nearest to every user's own on that user's inputs.

    With the inputs' Gram matrices `G_i`, `M = (sum_i W_i G_i) (sum_i G_i)^-1`; where no input reaches, and for tensors
    without a Gram matrix, it is the mean.

    Parameters
    ----------
    grams : sequence of mappings of name to (n, n) tensor
        For each user the sum of `x x'` over inputs x of the matrix (m, n) of that name, see
        `training.merging.input_grams`; for `visual.proj` (m, n), whose inputs come from the left, it is (m, m).
    shrink : float
        Factor in [0, 1] of the entries outside of the diagonal.
    """
    require_mergeable(taus)
    factor = real_number(shrink, "shrink", minimum=0, maximum=1)
    if len(grams) != len(taus):
        raise InputError(f"grams has {len(grams)} items for {len(taus)} task vectors: expected one for each")

    def rule(name: str, stack: Tensor) -> Tensor:
        if any(name not in each for each in grams):
            return stack.mean(0)
        W = stack.double().mT if name == "visual.proj" else stack.double()
        G = torch.stack([each[name].double() for each in grams])
        if G.shape[1:] != (W.shape[2],) * 2 or not G.isfinite().all():
            raise InputError(
                f"the Gram matrices of {name!r} have shape {tuple(G.shape[1:])}: expected finite numbers of shape "
                f"{(W.shape[2],) * 2}; measure them with the same backbone"
            )
        diagonal = torch.diag_embed(G.diagonal(dim1=1, dim2=2))
        M = _minimum(W, factor * G + (1 - factor) * diagonal, W.mean(0))
        return M.mT if name == "visual.proj" else M

    return by_name(taus, rule)


@validated_call
def fisher(taus: Sequence[TaskVector], *, fishers: Sequence[Tensor], floor: float = 1e-6) -> TaskVector:
    """Fisher merging [3]: a mean of every entry weighted by the diagonal of each user's Fisher information.

    Each diagonal is divided by its mean, so that no user outweighs the others for the size of its gradients.

    Parameters
    ----------
    fishers : sequence of (layout.size,) tensors
        At least 0, see `training.merging.fisher_diagonal`.
    floor : float
        Above 0; added to the divided diagonals, so that entries that no user needs are averaged.
    """
    require_mergeable(taus)
    least, size = real_number(floor, "floor", positive=True), taus[0].layout.size
    if len(fishers) != len(taus):
        raise InputError(f"fishers has {len(fishers)} items for {len(taus)} task vectors: expected one for each")
    for index, diagonal in enumerate(fishers):
        if diagonal.shape != (size,) or not bool(diagonal.isfinite().all()) or bool((diagonal < 0).any()):
            raise InputError(
                f"fishers[{index}] has shape {tuple(diagonal.shape)}: expected {(size,)}, finite and at least 0; "
                "measure it with the same backbone"
            )
    weights = [
        TaskVector(tau.layout, diagonal.float() / float(diagonal.mean().clamp_min(1e-30)) + least, tau.base_hash)
        for tau, diagonal in zip(taus, fishers, strict=True)
    ]

    def rule(stack: Tensor) -> Tensor:
        t, w = stack.chunk(2)
        return (w * t).sum(0) / w.sum(0)

    return by_entry([*taus, *weights], rule)
