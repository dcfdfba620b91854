"""Task arithmetic, Eq. (6): `theta_MTLLM = theta_base + lambda_N sum_q tau_q`, and the choice of lambda_N.

References
----------
.. [1] G. Ilharco et al., "Editing models with task arithmetic", ICLR 2023, arXiv:2212.04089.
.. [2] A. Tang et al., "Parameter-efficient multi-task model fusion with partial linearization", ICLR 2024,
   arXiv:2310.04742, with the results published in the repository tanganke/peta, `results/ViT-B-16`.
.. [3] M. Wortsman et al., "Model soups", ICML 2022, arXiv:2203.05482.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmtllmf_lib.arrays import one_of, real_number, whole_number
from rmtllmf_lib.compiled import compiled
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.threads import map_pieces
from rmtllmf_lib.validated import validated_call

LAMBDA_GRID = tuple(round(0.05 * step, 2) for step in range(21))

LAMBDA_RULES = ("published", "inverse", "constant")

_PUBLISHED = {1: 1.0, 2: 0.70, 3: 0.55, 4: 0.50, 5: 0.40, 6: 0.35, 7: 0.30}

_WIDENED = 4  # times that a search goes on beyond its grid

_WAYS = 8  # vectors summed in one pass over memory
_BLOCK = 2**18  # entries per block where several passes are needed: 1 MiB stays in the cache between them


@validated_call
def fuse(
    base: Weights, taus: Sequence[TaskVector], lam: float | Sequence[float], *, out: Tensor | None = None
) -> Weights:
    """Merge task vectors into one model, Eq. (6): base + lam * (tau_1 + … + tau_N).

    Every number is read from memory once. The vectors are summed before the base is added, so that small updates are
    not rounded to the base's precision one by one.

    Parameters
    ----------
    base : Weights
        theta_base, or a point made from it.
    taus : sequence of TaskVector
        At least one, all of this base.
    lam : float or sequence of float
        lambda_N, or one coefficient for each task vector.
    out : (layout.size,) float32 tensor on the CPU, optional
        Buffer for the result, from `layout.empty()`; default new memory, whose first use costs time. A search over many
        points can fuse them one after the other into the same buffer; each fusion overwrites the point before, which
        must not be used any more.

    Returns
    -------
    Weights
        A new point; its bits do not depend on the number of threads.

    Raises
    ------
    InputError
        if there is no vector, one has another layout or base, a coefficient is missing or not finite, or `out` has
        another shape or type, or shares memory with the base or a vector.
    """
    if not taus:
        raise InputError("there is nothing to fuse: got no task vector; give at least one, or use the base itself")
    for tau in taus:
        tau.require_base(base)
    factors = coefficients(lam, len(taus))
    values = base.layout.empty() if out is None else _writable(out, [base, *taus])
    finite = _fuse_into(values, base.values, [tau.values for tau in taus], factors)
    return Weights(base.layout, values, base.origin, checked=finite)


def _writable(out: Tensor, inputs: Sequence[Weights | TaskVector]) -> Tensor:
    base = inputs[0]
    if any(out.untyped_storage().data_ptr() == flat.values.untyped_storage().data_ptr() for flat in inputs):
        raise InputError("out is the memory of the base or of a task vector, which would be lost; use layout.empty()")
    return Weights(base.layout, out, checked=True).values


@validated_call
def coefficients(lam: Any, count: int) -> list[float]:
    """One finite coefficient for each of `count` task vectors, from one for all of them or a sequence."""
    whole_number(count, "count", minimum=0)
    given = lam.tolist() if isinstance(lam, np.ndarray | torch.Tensor) else lam
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return [real_number(given, "lambda")] * count
    if len(given) != count:
        raise InputError(f"got {len(given)} coefficients for {count} task vectors; give one number, or one for each")
    return [real_number(value, f"lambda of task vector {index}") for index, value in enumerate(given)]


def _fuse_into(out: Tensor, base: Tensor, taus: Sequence[Tensor], factors: Sequence[float]) -> bool:
    """Write base + sum of factors * taus to `out`; all are flat float32 buffers of one length.

    Returns
    -------
    bool
        Whether every number of the result is finite.
    """
    common = len(set(factors)) == 1
    one, nothing = np.float32(1), np.float32(0)
    with np.errstate(over="ignore"):  # a factor beyond float32 makes a result that is not finite
        lam = np.float32(factors[0]) if common else one
        weights = [one] * len(taus) if common else [np.float32(factor) for factor in factors]

    def work(result: NDArray[np.float32], start: NDArray[np.float32], *vectors: NDArray[np.float32]) -> bool:
        left = weights
        while len(vectors) > _WAYS:
            first, partial = 1 + _WAYS, np.empty_like(result)
            _add_up(partial, left[0], vectors[0], one, tuple(left[1:first]), vectors[1:first])
            left, vectors = [one, *left[first:]], (partial, *vectors[first:])
        spare = _WAYS - len(vectors)  # filled with a vector that is in the cache already, times 0
        return _add_up(result, one, start, lam, (*left, *[nothing] * spare), (*vectors, *vectors[:1] * spare))

    block = _BLOCK if len(taus) > _WAYS else out.numel()  # a single pass is fastest on long streams

    def in_blocks(piece: Sequence[Tensor]) -> bool:
        blocks = zip(*(tensor.split(block) for tensor in piece), strict=True)
        return all([work(*(tensor.numpy() for tensor in parts)) for parts in blocks])

    return all(map_pieces(in_blocks, [out, base, *taus]))


@compiled
def _add_up(
    out: NDArray[np.float32],
    scale: np.float32,
    start: NDArray[np.float32],
    lam: np.float32,
    w: tuple[np.float32, ...],
    t: tuple[NDArray[np.float32], ...],
) -> bool:
    """Write scale * start + lam * (sum of eight w * t) to `out`, and return whether all of it is finite.

    torch and NumPy add two vectors at a time, and write each partial sum to the cache. Compiled, the sum stays in
    registers, and memory bandwidth is the limit.
    """
    wrong = np.int32(0)
    for k in range(len(out)):
        total = w[0] * t[0][k] + w[1] * t[1][k] + w[2] * t[2][k] + w[3] * t[3][k]
        total = total + w[4] * t[4][k] + w[5] * t[5][k] + w[6] * t[6][k] + w[7] * t[7][k]
        value = scale * start[k] + lam * total
        out[k] = value
        wrong |= np.int32(value - value != 0)  # true for NaN and infinity only
    return bool(wrong == 0)


@validated_call
def lambda_n(n: int, rule: str = "published", value: float | None = None) -> float:
    """Merging coefficient lambda_N for `n` tasks, Eq. (6).

    Parameters
    ----------
    n : int
        Number of tasks, at least 1.
    rule : {"published", "inverse", "constant"}
        - "published": the best fixed lambda for ViT-B/16 in the results of [2]: .70 .55 .50 .40 .35 .30 for
          N = 2…7; for N ≥ 8 the power law fitted to them, 1.149 N^-0.663 (.29 at N = 8, where the literature
          uses .3); 1 for a single task, the fine-tuned model itself. They were chosen on test images of these
          data sets. Reference [1] gives no formula.
        - "inverse": 1/N, the average of the fine-tuned models [3].
        - "constant": `value` for every N, such as .3, which [1] recommends where there are no validation data.

        For a search on validation images see `choose_lambda`.
    value : float, optional
        The constant, for rule "constant" only.

    Raises
    ------
    InputError
        if `n` is not a positive integer, the rule is unknown, or `value` is missing, not finite, or not needed.
    """
    n = whole_number(n, "the number of tasks")
    one_of(rule, LAMBDA_RULES, "rule for lambda")
    if (value is not None) != (rule == "constant"):
        raise InputError(f"rule {rule!r} with value {value!r}: rule 'constant' needs a value, the others take none")
    if rule == "constant":
        return real_number(value, "the constant lambda")
    if rule == "inverse":
        return 1 / n
    return _PUBLISHED.get(n) or 1.149 * n**-0.663


@validated_call
def choose_lambda(
    score: Callable[[float], float], grid: Iterable[float] = LAMBDA_GRID, *, widen: bool = False
) -> tuple[float, pd.DataFrame]:
    """Choose lambda by a search over a grid, as [1] and [2] do.

    Parameters
    ----------
    score : function of lambda
        Quality of the merged model on VALIDATION images, larger is better. It must never use test images:
        a lambda chosen on them biases the accuracy on them.
    grid : iterable of float
        Values to try; default 0, 0.05, …, 1.
    widen : bool
        Whether to go on where the best value is the largest of the grid, up to 16 times that, or the smallest above 0,
        down to 1/256 of that. A grid that ends too early invents losses.

    Returns
    -------
    lam : float
        The value with the highest score; the smallest such value in a tie.
    table : DataFrame
        Columns `lam` and `score`, sorted by `lam`.

    Raises
    ------
    InputError
        if the grid is empty, or a value of the grid or a score is not a finite number.
    """
    values = sorted({real_number(lam, "a value of the grid for lambda") for lam in grid})
    if not values:
        raise InputError("the grid for lambda is empty; give at least one value")
    scores: dict[float, float] = {}
    for _ in range(1 + _WIDENED * widen):
        scores |= {lam: real_number(score(lam), f"the score at lambda = {lam:g}") for lam in values}
        best = max(sorted(scores), key=scores.__getitem__)
        values = _beyond(best, scores)
    tried = sorted(scores)
    return best, pd.DataFrame({"lam": tried, "score": [scores[lam] for lam in tried]})


def _beyond(best: float, tried: Iterable[float]) -> list[float]:
    """Values to try next to the best one, where it is the last of those that were tried in its direction."""
    positive = [lam for lam in tried if lam > 0]
    if not positive or best < 0:
        return []
    if best == max(positive):
        return [round(best * part, 6) for part in (1.25, 1.5, 2.0)]
    if best in (0, min(positive)):
        return [round(min(positive) * part, 6) for part in (0.5, 0.25)]
    return []
