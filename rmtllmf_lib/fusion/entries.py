"""Mergers that decide on every entry of the flat vectors by itself, or by its rank among the others.

Each returns a vector for the caller to scale by lambda, and raises an `InputError` for no vector, vectors of several
bases or layouts, numbers that are not finite, or a share out of its range.

References
----------
.. [1] P. Yadav et al., "TIES-Merging: Resolving interference when merging models", NeurIPS 2023, arXiv:2306.01708.
.. [2] L. Yu et al., "Language models are super Mario", ICML 2024, arXiv:2311.03099.
.. [3] M. Davari and E. Belilovsky, "Model breadcrumbs", ECCV 2024, arXiv:2312.06795.
.. [4] D. Marczak et al., "MagMax: Leveraging model merging for seamless continual learning", ECCV 2024,
   arXiv:2407.06322.
.. [5] G. Du et al., "Parameter competition balancing for model merging", NeurIPS 2024, arXiv:2410.02396.
.. [6] K. Wang et al., "Localizing task information for improved model merging and compression", ICML 2024,
   arXiv:2405.07813.
.. [7] C. Huang et al., "EMR-Merging: Tuning-free high-performance model merging", NeurIPS 2024, arXiv:2405.17461.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmtllmf_lib.arrays import real_number, torch_generator, whole_number
from rmtllmf_lib.compiled import compiled
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tensors import Rule, by_entry, by_tensor, magnitude_of_rank, mean, require_mergeable
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.validated import validated_call

_PIECE = 1024  # entries, whose sums fit the fastest cache


@validated_call
def arithmetic(taus: Sequence[TaskVector]) -> TaskVector:
    """The sum of the task vectors, as in Eq. (6)."""
    require_mergeable(taus)
    return by_entry(taus, lambda stack: stack.sum(0))


@validated_call
def average(taus: Sequence[TaskVector]) -> TaskVector:
    """The mean of the task vectors; at lambda = 1 it gives the mean of the fine-tuned models."""
    require_mergeable(taus)
    return by_entry(taus, mean)


@validated_call
def ties(taus: Sequence[TaskVector], *, keep: float = 0.2) -> TaskVector:
    """TIES-Merging [1]: trim, elect a sign for each entry, and take the mean of those that agree.

    Parameters
    ----------
    keep : float
        Share in (0, 1] of each vector's entries that survive, the largest of the whole vector.
    """
    return _elected(taus, keep, mean=True)


@validated_call
def ties_sum(taus: Sequence[TaskVector], *, keep: float = 0.2) -> TaskVector:
    """TIES-Merging as much public code does it: the sum of the entries that agree, where [1] takes their mean."""
    return _elected(taus, keep, mean=False)


def _elected(taus: Sequence[TaskVector], keep: float, *, mean: bool) -> TaskVector:
    require_mergeable(taus)
    count = max(1, round(real_number(keep, "keep", positive=True, maximum=1) * taus[0].layout.size))
    floors = np.array([magnitude_of_rank(tau.values, count) for tau in taus], dtype=np.float32)
    return by_entry(taus, lambda stack: _agreed(stack, floors, mean))


def _agreed(stack: Tensor, floors: NDArray[np.float32], mean: bool) -> Tensor:
    """Sum or mean of the entries (N, b), of at least their user's floor, whose sign is that of the sum of all those."""
    out = torch.empty(stack.shape[1:])
    _agree(stack.numpy(), floors, mean, out.numpy())
    return out


@compiled
def _agree(stack: NDArray[np.float32], floors: NDArray[np.float32], mean: bool, out: NDArray[np.float32]) -> None:
    """A short piece at a time, whose sums stay in the cache; torch takes a dozen passes over memory."""
    users, size = stack.shape
    total, agreed, count = np.empty((3, _PIECE), dtype=np.float32)
    for start in range(0, size, _PIECE):
        places = min(_PIECE, size - start)
        total[:], agreed[:], count[:] = 0, 0, 0
        for user in range(users):
            for k in range(places):
                x = stack[user, start + k]
                total[k] += x if abs(x) >= floors[user] else np.float32(0)
        for user in range(users):
            for k in range(places):
                x = stack[user, start + k]
                agrees = abs(x) >= floors[user] and ((x > 0 and total[k] > 0) or (x < 0 and total[k] < 0))
                agreed[k] += x if agrees else np.float32(0)
                count[k] += np.float32(1) if agrees else np.float32(0)
        for k in range(places):
            out[start + k] = agreed[k] / max(count[k], np.float32(1)) if mean else agreed[k]


def agreeing(stack: Tensor) -> Tensor:
    """The entries (N, b) whose sign is that of the users' sum; 0 for the others."""
    return stack * (stack.sign() == stack.sum(0).sign())


@validated_call
def dare(taus: Sequence[TaskVector], *, drop: float = 0.5, generator: torch.Generator) -> TaskVector:
    """DARE [2]: drop entries at random, scale up the others by 1 / (1 - drop), and sum.

    Parameters
    ----------
    drop : float
        Probability in [0, 1) that an entry is dropped.
    generator : torch.Generator
        On the CPU.
    """
    return _dropped(taus, drop, generator, lambda stack: stack.sum(0))


@validated_call
def dare_ties(taus: Sequence[TaskVector], *, drop: float = 0.5, generator: torch.Generator) -> TaskVector:
    """DARE [2] in place of the trimming of TIES [1]: drop at random, then the mean of those with the elected sign."""
    floors = np.zeros(len(taus), dtype=np.float32)
    return _dropped(taus, drop, generator, lambda stack: _agreed(stack, floors, True))


def _dropped(taus: Sequence[TaskVector], drop: float, generator: torch.Generator, rule: Rule) -> TaskVector:
    require_mergeable(taus)
    torch_generator(generator)
    if real_number(drop, "drop", minimum=0, maximum=1) == 1:
        raise InputError("drop is 1: expected a probability below 1, since nothing is left to scale up")

    def thinned(stack: Tensor) -> Tensor:
        kept = torch.rand(stack.shape, generator=generator) >= drop
        return rule(stack * kept / (1 - drop))

    return by_entry(taus, thinned, in_order=True)


@validated_call
def breadcrumbs(taus: Sequence[TaskVector], *, smallest: float = 0.85, largest: float = 0.01) -> TaskVector:
    """Model Breadcrumbs [3]: in every tensor drop the smallest and the very largest entries of each user, and sum.

    Ranks are taken over a whole tensor, as in the paper; the authors' code takes them within rows.

    Parameters
    ----------
    smallest, largest : float
        Shares in [0, 1) of a tensor's entries, of less than 1 together.
    """
    require_mergeable(taus)
    low, high = (real_number(v, n, minimum=0) for v, n in ((smallest, "smallest"), (largest, "largest")))
    if low + high >= 1:
        raise InputError(f"smallest and largest are {low:g} and {high:g}: expected less than 1 together")

    def rule(stack: Tensor) -> Tensor:
        size = stack[0].numel()
        total = torch.zeros_like(stack[0])
        for tensor in stack:
            floor = magnitude_of_rank(tensor, size - int(low * size))
            ceiling = magnitude_of_rank(tensor, 1 + int(high * size))
            total += tensor * ((tensor.abs() >= floor) & (tensor.abs() <= ceiling))
        return total

    return by_tensor(taus, rule, rule)


@validated_call
def magmax(taus: Sequence[TaskVector]) -> TaskVector:
    """MagMax [4]: of every entry the one with the largest magnitude."""
    require_mergeable(taus)
    return by_entry(taus, lambda stack: stack.gather(0, stack.abs().argmax(0, keepdim=True))[0])


@validated_call
def pcb(taus: Sequence[TaskVector], *, keep: float = 0.1) -> TaskVector:
    """PCB-Merging [5]: a mean weighted by how much an entry matters within its vector and across the users.

    The weight of an entry t of a vector, with the users' sum S, is `exp(N u²) tanh(t S)`: u is |t| scaled to [0, 1]
    over the vector. Weights below the vector's `keep` largest count as 0, the others are scaled to [0, 1]. `tanh`
    knows the unit of the weights, so the result does not scale with the vectors.

    Parameters
    ----------
    keep : float
        Share in (0, 1] of each vector's entries, two at least: the smallest of those that are kept gets the weight 0.
    """
    require_mergeable(taus)
    size = taus[0].layout.size
    count = min(size, max(2, round(real_number(keep, "keep", positive=True, maximum=1) * size)))
    total = by_entry(taus, lambda stack: stack.sum(0)).values
    above, below = torch.zeros(size), torch.zeros(size)
    for tau in taus:
        low, high = tau.values.abs().aminmax()
        weight = tau.values.abs().sub_(low).div_((high - low).clamp_min(1e-30))
        weight.square_().mul_(len(taus)).exp_().mul_((tau.values * total).tanh_())
        least = float(weight.kthvalue(size - count + 1).values)
        weight.sub_(least).clamp_min_(0)
        weight.div_(weight.max().clamp_min(1e-30))
        above.addcmul_(weight, tau.values)
        below.add_(weight)
    return TaskVector(taus[0].layout, above.div_(below.clamp_min_(1e-12)), taus[0].base_hash)


@validated_call
def consensus(taus: Sequence[TaskVector], *, threshold: float = 0.4, least: int = 2) -> TaskVector:
    """Consensus Merging [6]: the sum, at the entries that at least two users claim.

    A user claims an entry where its own is more than `threshold` times the sum of the others', in magnitude.

    Parameters
    ----------
    threshold : float
        At least 0; the authors choose it from .2 to .6 on validation images.
    least : int
        Users that must claim an entry; with fewer users, all of them.
    """
    require_mergeable(taus)
    limit, users = real_number(threshold, "threshold", minimum=0), whole_number(least, "least")

    def rule(stack: Tensor) -> Tensor:
        return stack.sum(0) * (_claimed(stack, limit).sum(0) >= min(users, len(stack)))

    return by_entry(taus, rule)


def _claimed(stack: Tensor, threshold: float) -> Tensor:
    return stack.abs() > threshold * (stack.sum(0) - stack).abs()


@validated_call
def tall(taus: Sequence[TaskVector], *, task: int, threshold: float = 0.4) -> TaskVector:
    """TALL masks [6]: the sum, at the entries that one user claims; see `consensus`.

    The model of one task: whoever uses it must know the task of each image.

    Parameters
    ----------
    task : int
        Position of that user in `taus`.
    """
    require_mergeable(taus)
    user = whole_number(task, "task", 0, len(taus) - 1)
    limit = real_number(threshold, "threshold", minimum=0)
    return by_entry(taus, lambda stack: stack.sum(0) * _claimed(stack, limit)[user])


@validated_call
def emr(taus: Sequence[TaskVector], *, task: int) -> TaskVector:
    """EMR-Merging [7]: elected signs with the largest agreeing magnitudes, masked and rescaled for one task.

    The model of one task: whoever uses it must know the task of each image. The rescaler is the ratio of the sums of
    magnitudes over the whole vector, as in the paper; the authors' code takes means tensor by tensor.

    Parameters
    ----------
    task : int
        Position of that user in `taus`.
    """
    require_mergeable(taus)
    user = whole_number(task, "task", 0, len(taus) - 1)

    def rule(stack: Tensor) -> Tensor:
        unified = agreeing(stack).abs().amax(0) * stack.sum(0).sign()
        return unified * (unified * stack[user] > 0)

    masked = by_entry(taus, rule)
    size = float(masked.values.abs().sum(dtype=torch.float64))
    return masked * (float(taus[user].values.abs().sum(dtype=torch.float64)) / size if size else 1.0)
