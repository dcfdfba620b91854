"""Byzantine-robust means: a minority of wrong vectors, by noise or by intent, cannot move them far.

All but the coordinate-wise ones are combinations of the vectors whose coefficients follow from the vectors' inner
products alone. Each raises an `InputError` for no vector, several bases or layouts, or numbers that are not finite.

References
----------
.. [1] D. Yin et al., "Byzantine-robust distributed learning: Towards optimal statistical rates", ICML 2018,
   arXiv:1803.01498.
.. [2] K. Pillutla et al., "Robust aggregation for federated learning", IEEE Trans. Signal Process. 70, 2022,
   arXiv:1912.13445.
.. [3] P. Blanchard et al., "Machine learning with adversaries: Byzantine tolerant gradient descent", NeurIPS 2017.
.. [4] S. P. Karimireddy et al., "Learning from history for Byzantine robust optimization", ICML 2021,
   arXiv:2012.10333.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from rmtllmf_lib.arrays import Real, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tensors import by_entry, require_mergeable, weighted_sum
from rmtllmf_lib.model.gram import inner_products
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.validated import validated_call


@validated_call
def coordinate_median(taus: Sequence[TaskVector]) -> TaskVector:
    """The median of every entry [1]; for an even number of users the mean of the middle two."""
    require_mergeable(taus)
    return by_entry(taus, lambda stack: _middle(stack, (len(stack) - 1) // 2))


@validated_call
def trimmed_mean(taus: Sequence[TaskVector], *, trim: float = 0.25) -> TaskVector:
    """The mean of every entry without the largest and the smallest ones [1].

    Parameters
    ----------
    trim : float
        Share in [0, .5) of the users that is left out at each end, rounded down.
    """
    require_mergeable(taus)
    if real_number(trim, "trim", minimum=0) >= 0.5:
        raise InputError(f"trim is {trim!r}: expected less than 0.5, since nobody is left otherwise")
    return by_entry(taus, lambda stack: _middle(stack, int(trim * len(stack))))


def _middle(stack: Tensor, left_out: int) -> Tensor:
    return stack.sort(0).values[left_out : len(stack) - left_out].mean(0)


@validated_call
def geometric_median(taus: Sequence[TaskVector], *, rounds: int = 200) -> TaskVector:
    """The point with the smallest sum of distances to the vectors, by Weiszfeld's iteration [2].

    Parameters
    ----------
    rounds : int
        Iterations at most; it stops before, where no coefficient changes any more.
    """
    require_mergeable(taus)
    whole_number(rounds, "rounds")
    gram = inner_products([tau.values for tau in taus])
    c = np.full(len(taus), 1 / len(taus))
    smallest = 1e-8 * np.sqrt(np.trace(gram)) or 1.0  # a vector at the median itself has distance 0
    for _ in range(rounds):
        weights = 1 / np.maximum(_distances(gram, c), smallest)
        new = weights / weights.sum()
        c, change = new, abs(new - c).max()
        if change < 1e-12:
            break
    return weighted_sum(taus, c.tolist())


def _distances(gram: Real, c: Real) -> Real:
    """Distance of every vector to the combination with coefficients c."""
    return np.sqrt(np.maximum(np.diag(gram) - 2 * gram @ c + c @ gram @ c, 0))


@validated_call
def multi_krum(taus: Sequence[TaskVector], *, faulty: int | None = None) -> TaskVector:
    """The mean of the N - f vectors with the smallest sums of squared distances to their N - f - 2 nearest [3].

    Parameters
    ----------
    faulty : int, optional
        f, from 0 to (N - 3) / 2; default the most.
    """
    require_mergeable(taus)
    n = len(taus)
    f = whole_number(max(0, (n - 3) // 2) if faulty is None else faulty, "faulty", 0, max(0, (n - 3) // 2))
    gram = inner_products([tau.values for tau in taus])
    square = np.add.outer(np.diag(gram), np.diag(gram)) - 2 * gram
    np.fill_diagonal(square, np.inf)
    scores = np.sort(square, axis=1)[:, : max(0, n - f - 2)].sum(axis=1)
    chosen = np.sort(np.argsort(scores, kind="stable")[: n - f])
    return weighted_sum([taus[k] for k in chosen], [1 / (n - f)] * (n - f))


@validated_call
def centred_clipping(taus: Sequence[TaskVector], *, radius: float | None = None, rounds: int = 5) -> TaskVector:
    """A centre, moved by the mean of the users' differences to it, each clipped to a radius [4]; it starts at 0.

    Parameters
    ----------
    radius : float, optional
        Above 0; default, in every round, the median distance of the vectors to the centre.
    rounds : int
    """
    require_mergeable(taus)
    whole_number(rounds, "rounds")
    limit = None if radius is None else real_number(radius, "radius", positive=True)
    gram, c = inner_products([tau.values for tau in taus]), np.zeros(len(taus))
    for _ in range(rounds):
        distances = _distances(gram, c)
        clip = np.median(distances) if limit is None else limit
        moved = np.minimum(1, clip / np.where(distances > 0, distances, 1)) / len(taus)
        c = c * (1 - moved.sum()) + moved
    return weighted_sum(taus, c.tolist())
