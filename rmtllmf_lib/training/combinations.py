"""Accuracy of every combination of tasks, normalised by the specialists', and the choice of lambda_N by it.

The models of a table are shared among threads. torch uses one core in each of them, so the bits of a table do not
depend on their number.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from pydantic import NonNegativeInt, PositiveInt

from rmtllmf_lib.arrays import one_of, real_array, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse, lambda_n
from rmtllmf_lib.progress import tqdm
from rmtllmf_lib.tasks.base import SPLITS
from rmtllmf_lib.threads import single_threads
from rmtllmf_lib.training.evaluate import accuracy, prepare
from rmtllmf_lib.training.loading import resolve_device
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.validated import validated_call


@validated_call
def normalized_accuracy(accuracy: ArrayLike, reference: ArrayLike) -> Any:
    """Accuracy divided by that of the model fine-tuned on the task alone, elementwise; 1 equals the specialist.

    Raises
    ------
    InputError
        if an accuracy is not a finite number, or a reference not a positive one.
    """
    given = real_array(accuracy, "accuracy")
    if not (valid := np.isfinite(reference) & (np.asarray(reference) > 0)).all():
        found = np.asarray(reference)[~valid].flat[0]
        raise InputError(
            f"a reference accuracy is {found}: expected a number above 0; evaluate the specialist on more images, "
            "or fine-tune it longer"
        )
    ratio = given / np.asarray(reference)
    return float(ratio) if ratio.ndim == 0 else ratio


@validated_call
def task_combinations(names: Iterable[str], sizes: Iterable[int] | None = None) -> list[tuple[str, ...]]:
    """All combinations of tasks of the given sizes (default: 2 to all), smaller ones first, names in the given order.

    Eight tasks have 247 combinations of two or more.
    """
    names = tuple(names)
    if len(set(names)) < len(names):
        raise InputError(f"task names {names} are not all different; give each task once")
    chosen = range(2, len(names) + 1) if sizes is None else tuple(sizes)
    if not names or not (chosen or sizes is None) or any(not 1 <= size <= len(names) for size in chosen):
        raise InputError(f"sizes {tuple(chosen)} for {len(names)} tasks; expected whole numbers from 1 to that")
    return [combination for size in chosen for combination in itertools.combinations(names, size)]


@validated_call
def sample_combinations(
    names: Sequence[str],
    sizes: Sequence[PositiveInt] | None = None,
    per_size: PositiveInt | None = None,
    seed: NonNegativeInt = 0,
) -> list[tuple[str, ...]]:
    """Combinations of tasks: all, or `per_size` of each size in which the tasks occur about equally often.

    The choice depends on the arguments alone.
    """
    chosen: list[tuple[str, ...]] = []
    for size, group in itertools.groupby(sorted(task_combinations(names, sizes), key=len), len):
        candidates = list(group)
        if per_size is None or per_size >= len(candidates):
            chosen += candidates
            continue
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(size + 2**16 * seed)).tolist()
        used: Counter[str] = Counter()
        picked = []
        for _ in range(per_size):
            best = min(order, key=lambda place: sum(used[name] ** 2 + 2 * used[name] for name in candidates[place]))
            order.remove(best)
            picked.append(best)
            used.update(candidates[best])
        chosen += [candidates[place] for place in sorted(picked)]
    return chosen


@validated_call
def evaluate_combinations(
    suite: Suite,
    lam: Callable[[int], float],
    *,
    split: str = "test",
    limit: int | None = None,
    sizes: Sequence[int] | None = None,
    per_size: int | None = None,
    all_tasks: bool = False,
    threads: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Fuse every combination of task vectors, Eq. (6), and evaluate it on the tasks in it.

    Parameters
    ----------
    suite : Suite
        Its task vectors are fused; each needs its task and head.
    lam : callable
        The coefficient lambda_N for N fused tasks; `fusion.lambda_n`, for example.
    split : "test", "validation" or "train"
    limit : int, optional
        Images of each task, see `prepare`.
    sizes : sequence of int, optional
        Numbers of tasks in a combination; default 2 to all.
    per_size : int, optional
        Combinations of each size, see `sample_combinations`; default all.
    all_tasks : bool
        Evaluate each combination on all tasks; a column `member` marks those in it.
    threads : int
        Threads that share the combinations; always one on a GPU. The table does not depend on their number.
    progress : bool
        Show a bar, on a terminal only.

    Returns
    -------
    DataFrame with one row for each combination and task: `combination` (names joined by +), `n_tasks`, `task`, `lam`,
    `accuracy`, `reference` (accuracy of base + tau of the task alone, on the same images) and their ratio `normalized`.

    Raises
    ------
    InputError
        if a task vector has no task or head, a head belongs to another task, or for the reasons of `accuracy` and
        `fuse`.
    """
    whole_number(threads, "threads")
    backbone, taus, heads, names = suite.backbone, suite.taus, suite.heads, list(suite.taus)
    one_of(split, SPLITS, "split")
    for what, mapping in (("tasks", suite.tasks), ("heads", heads)):
        if missing := [name for name in names if name not in mapping]:
            raise InputError(f"there are task vectors of {', '.join(names)}, but no {what} for {', '.join(missing)}")
    for name in names:
        heads[name].require_classes(suite.tasks[name])
    if not (combinations := sample_combinations(names, sizes, per_size)):
        raise InputError(f"the suite has {len(names)} task vector: expected two or more to combine, or sizes=[1]")
    prepared = {
        name: prepare(backbone, getattr(suite.tasks[name], split), limit=limit, device=suite.device) for name in names
    }
    factors = {size: float(lam(size)) for size in sorted({len(c) for c in combinations})}

    def evaluate(combination: Sequence[str], factor: float, tested: Sequence[str]) -> list[tuple[str, float]]:
        weights = fuse(backbone.weights, [taus[name] for name in combination], factor)
        return [(name, accuracy(backbone, weights, prepared[name], heads[name])) for name in tested]

    with single_threads(1 if resolve_device(suite.device).type == "cuda" else threads) as pool:
        reference = dict(itertools.chain(*pool.map(lambda name: evaluate([name], 1.0, [name]), names)))
        if useless := [name for name, value in reference.items() if value == 0]:
            raise InputError(
                f"the accuracy of the fine-tuned models of {', '.join(useless)} is 0: expected some correct images to "
                "normalise by; fine-tune them longer, or evaluate on more images"
            )
        # The largest ones first, so that all threads finish at about the same time.
        found = pool.map(lambda c: evaluate(c, factors[len(c)], names if all_tasks else c), reversed(combinations))
        shown = None if progress else True  # None: on a terminal only
        results = [*tqdm(found, "combinations", len(combinations), leave=False, disable=shown)]
    rows = [
        ("+".join(c), len(c), name, factors[len(c)], value, reference[name], name in c)
        for c, result in zip(combinations, reversed(results), strict=True)
        for name, value in result
    ]
    columns = ["combination", "n_tasks", "task", "lam", "accuracy", "reference", "member"]
    table = pd.DataFrame(rows, columns=columns)
    table["normalized"] = normalized_accuracy(table["accuracy"], table["reference"])
    return table if all_tasks else table.drop(columns="member")


@validated_call
def choose_lambdas(
    suite: Suite, grid: Sequence[float], *, limit: int | None = None, per_size: int | None = None, threads: int = 1
) -> tuple[dict[int, float], pd.DataFrame]:
    """The best lambda_N of a grid for every N, chosen on validation images.

    The score of a lambda is the normalised accuracy of Eq. (6) on the validation images of the fused tasks, averaged
    over combinations of N tasks. Test images are not used.

    Parameters
    ----------
    grid : sequence of float
    limit : int, optional
        Validation images per task.
    per_size : int, optional
        Combinations of each N, see `sample_combinations`; default all.
    threads : int

    Returns
    -------
    chosen : dict N → lambda_N
    table : DataFrame with columns n_tasks, lam, score

    Raises
    ------
    InputError
        for an empty grid, or fewer than two tasks.
    """
    if not len(grid) or len(suite.taus) < 2:
        raise InputError(
            f"the grid holds {len(grid)} numbers and the suite {len(suite.taus)} tasks: "
            "expected at least one number to try, and two tasks to fuse"
        )
    parts = []
    for lam in sorted(grid):
        constant = partial(lambda_n, rule="constant", value=lam)
        rows = evaluate_combinations(
            suite, constant, split="validation", limit=limit, per_size=per_size, threads=threads
        )
        scores = rows.groupby("n_tasks", as_index=False).agg(lam=("lam", "first"), score=("normalized", "mean"))
        parts.append(scores)
    table = pd.concat(parts, ignore_index=True)
    best = table.loc[table.groupby("n_tasks")["score"].idxmax()]
    return {int(n): float(lam) for n, lam in zip(best["n_tasks"], best["lam"], strict=True)}, table
