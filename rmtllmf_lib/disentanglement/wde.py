"""Weight disentanglement error (WDE), Eqs. (7) and (8), and how much link errors increase it.

References
----------
.. [1] G. Ortiz-Jiménez, A. Favero, P. Frossard, "Task arithmetic in the tangent space", NeurIPS 2023.
.. [2] A. Tang et al., "Parameter-efficient multi-task model fusion with partial linearization", ICLR 2024.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from rmtllmf_lib.arrays import one_of, real_array, whole_number
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.margins import flip_probability
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import coefficients, fuse
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.tasks.base import SPLITS
from rmtllmf_lib.threads import single_threads
from rmtllmf_lib.training.evaluate import Prepared, predictions, prepare
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.surrogate import CORRELATIONS, noise_power
from rmtllmf_lib.validated import validated_call

GRID = tuple(round(0.25 * step, 2) for step in range(-8, 9))  # of a coefficient, -2 to 2 as in [1]


@validated_call
def images_of(
    suite: Suite, names: Sequence[str] | None = None, *, split: str = "test", limit: int | None = None
) -> dict[str, Prepared]:
    """Images of each task (default: all tasks), prepared for many models.

    Parameters
    ----------
    limit : int, optional
        Use only so many images of each task, stratified by class, the same ones each time.
    """
    one_of(split, SPLITS, "split")
    return {
        name: prepare(suite.backbone, getattr(suite.tasks[name], split), limit=limit, device=suite.device)
        for name in suite.known(names)
    }


@validated_call
def own_classes(suite: Suite, images: Mapping[str, Prepared], lam: float | Sequence[float] = 1.0) -> dict[str, Tensor]:
    """Predictions of each task's own model, f(x; theta_base + lambda_i tau_i) of Eq. (8).

    Parameters
    ----------
    images : mapping of task to its images, see `images_of`
    lam : float, or one for each task
        lambda_i; 1 is the fine-tuned model itself.

    Returns
    -------
    mapping of task to (n,) int64
    """
    return {
        name: _classes(suite, fuse(suite.backbone.weights, [suite.taus[name]], factor), name, images[name])
        for name, factor in zip(images, coefficients(lam, len(images)), strict=True)
    }


@validated_call
def wde(
    suite: Suite,
    images: Mapping[str, Prepared],
    lam: float | Sequence[float] = 0.3,
    own_lam: float | Sequence[float] | None = None,
    *,
    fused: Weights | None = None,
) -> pd.DataFrame:
    """Weight disentanglement error of a set of tasks, Eqs. (7) and (8): how often fusion changes a prediction.

    Parameters
    ----------
    images : mapping of task to its images, see `images_of`
        These tasks are fused.
    lam : float, or one for each task
        lambda_N of the fused model.
    own_lam : float, or one for each task, optional
        lambda_i of each task's own model. Default: that task's coefficient in the fusion, as in [1].
    fused : Weights, optional
        A model to evaluate in place of the exact sum, such as one received over a noisy link.

    Returns
    -------
    DataFrame with columns task, own_lam, images, wde
        `wde` is the share of a task's predictions that differ, in [0, 1]; the sum over tasks is xi(lambda).

    Raises
    ------
    InputError
        for no task, or another number of coefficients than tasks.
    """
    if not images:
        raise InputError("there is no task: give the images of at least one, see images_of")
    if own_lam is None:
        own_lam = lam
    if fused is None:
        fused = fuse(suite.backbone.weights, [suite.taus[name] for name in images], lam)
    own = own_classes(suite, images, own_lam)
    rows = [
        (name, factor, len(own[name]), _differing(own[name], _classes(suite, fused, name, images[name])))
        for name, factor in zip(images, coefficients(own_lam, len(images)), strict=True)
    ]
    return pd.DataFrame(rows, columns=["task", "own_lam", "images", "wde"])


@validated_call
def wde_grid(
    suite: Suite,
    images: Mapping[str, Prepared],
    first: Sequence[float] = GRID,
    second: Sequence[float] = GRID,
    *,
    threads: int = 1,
) -> pd.DataFrame:
    """WDE of two tasks on a grid of (lambda_1, lambda_2), each also used in the task's own model: the map of [1], [2].

    Parameters
    ----------
    images : mapping of two tasks to their images, see `images_of`
    first, second : coefficients of the two tasks
    threads : int
        Threads; the table does not depend on it.

    Returns
    -------
    DataFrame with columns lam_1, lam_2, wde
        `wde` is xi, the sum over both tasks, in [0, 2].
    """
    if len(images) != 2:
        raise InputError(f"got the images of {len(images)} tasks: expected two for a map over two coefficients")
    if not len(first) or not len(second):
        raise InputError(f"the grid has {len(first)} × {len(second)} points: expected at least one of each")
    whole_number(threads, "threads")
    names = list(images)
    taus = [suite.taus[name] for name in names]
    pairs = list(product(first, second))

    def classes(lams: tuple[float, float], places: Sequence[int]) -> list[Tensor]:
        weights = fuse(suite.backbone.weights, taus, lams)
        return [_classes(suite, weights, names[place], images[names[place]]) for place in places]

    with single_threads(threads) as pool:
        own_first = dict(zip(first, pool.map(lambda lam: classes((lam, 0.0), [0])[0], first), strict=True))
        own_second = dict(zip(second, pool.map(lambda lam: classes((0.0, lam), [1])[0], second), strict=True))
        fused = list(pool.map(lambda pair: classes(pair, [0, 1]), pairs))
    rows = [
        (one, two, _differing(own_first[one], both[0]) + _differing(own_second[two], both[1]))
        for (one, two), both in zip(pairs, fused, strict=True)
    ]
    return pd.DataFrame(rows, columns=["lam_1", "lam_2", "wde"])


@validated_call
def noise_std(
    mse: ArrayLike,
    taus: Sequence[TaskVector],
    base: Weights,
    lam: float | Sequence[float],
    *,
    scale: str = "task",
    correlation: str = "independent",
) -> float:
    """Standard deviation s of every entry of Δθ = Σ_q lambda_q eps_q, Eq. (9), in the units of the parameters.

    With c_q² = lambda_q² a_q² mu_q, independent errors of the users give s² = Σ c_q². For one noise realisation common
    to all users, s = Σ c_q; for "half", s² is the mean of both squares.

    Parameters
    ----------
    mse : float or one per user, ≥ 0
    lam : float or one per user
    scale, correlation
        Of the noise, as in `transport.surrogate`: a_q² is `noise_power(tau_q, base, scale)`.

    Raises
    ------
    InputError
        for no task vector, one of another base, or a number out of its range.

    Warns
    -----
    UserWarning
        for an MSE above 1.
    """
    one_of(correlation, CORRELATIONS, "noise correlation")
    if not taus:
        raise InputError("got no task vector: give the sent ones, to which the noise is scaled")
    per_user = real_array(mse, "mse", minimum=0)
    if per_user.shape not in ((), (len(taus),)):
        raise InputError(f"mse has shape {per_user.shape}: expected one number, or one for each of {len(taus)} vectors")
    if (per_user > 1).any():
        warnings.warn(
            f"mse is {per_user.max():g} at its largest, but the estimate 0 has an mse of 1. Only a receiver that "
            "assumes a wrong noise covariance can be worse than that",
            stacklevel=3,  # the caller, past the check of the arguments
        )
    for tau in taus:
        tau.require_base(base)
    power = np.array([noise_power(tau, base, scale) for tau in taus])
    amplitudes = np.array(coefficients(lam, len(taus))) * np.sqrt(power * per_user)
    independent, common = float((amplitudes**2).sum()), float(amplitudes.sum() ** 2)
    square = {"independent": independent, "common": common, "half": (independent + common) / 2}[correlation]
    return square**0.5


@validated_call
def predict_wde_increment(
    mse: ArrayLike,
    taus: Sequence[TaskVector],
    base: Weights,
    lam: float | Sequence[float],
    models: Mapping[str, FirstOrder],
    own: Mapping[str, ArrayLike],
    *,
    scale: str = "task",
    correlation: str = "independent",
    rng: np.random.Generator,
    points: int = 128,
) -> pd.DataFrame:
    """Increase of the WDE by the MSE of a link, to first order.

    The noisy model agrees with the class a of a task's own model with the probability that a has the largest noisy
    logit. Noise therefore reduces the agreement where the fused model had it, by the flip probability, and restores a
    little of it elsewhere: the mean flip probability is an upper bound of the increment, with equality where the clean
    WDE is zero.

    Parameters
    ----------
    mse, taus, base, lam, scale, correlation
        As in `noise_std`.
    models : mapping of task to FirstOrder
        Of the clean fused model, on each task's images: `linearise.first_order`.
    own : mapping of task to (n,) classes
        From `own_classes`, on the same images.
    rng, points
        As in `margins.flip_probability`.

    Returns
    -------
    DataFrame with columns task, std, wde_clean, wde_noisy, increment, flip_probability, error
        Means over images, except `std`, the noise of each parameter; `error` is an upper bound of the standard error of
        the integral. Valid up to the noise level where the linearisation is, see `noisy_logits.valid_std`.
    """
    std = noise_std(mse, taus, base, lam, scale=scale, correlation=correlation)
    if missing := [name for name in models if name not in own]:
        raise InputError(f"got models of {', '.join(models)}, but no own classes for {', '.join(missing)}")
    rows = []
    for name, model in models.items():
        reference = model.classes_or_predicted(np.asarray(own[name]))
        clean = float((model.predicted != reference).mean())
        noisy = flip_probability(model, std, reference, rng=rng, points=points)
        moved = float(flip_probability(model, std, rng=rng, points=points).probability.mean())
        after = float(noisy.probability.mean())
        rows.append((name, std, clean, after, after - clean, moved, float(noisy.error.mean())))
    columns = ["task", "std", "wde_clean", "wde_noisy", "increment", "flip_probability", "error"]
    return pd.DataFrame(rows, columns=columns)


def _classes(suite: Suite, weights: Weights, name: str, images: Prepared) -> Tensor:
    return predictions(suite.backbone, weights, images, suite.heads[name])


def _differing(first: Tensor, second: Tensor) -> float:
    return float((first != second).double().mean())
