"""Tables on flips and weight disentanglement error under noise in the parameters, predicted beside counted.

In the tables, "seed" numbers the noise draws: images share a draw's noise, so only draws are independent repetitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from rmtllmf_lib.arrays import Real, real_array, whole_number
from rmtllmf_lib.chapters.tidy import per_seed, stacked
from rmtllmf_lib.chapters.wde_mse_test.ratio_tables import by_level
from rmtllmf_lib.disentanglement import chi_square_test
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.margins import flip_probability
from rmtllmf_lib.disentanglement.wde import noise_std
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.transport.surrogate import surrogate


def received_noise(
    taus: Sequence[TaskVector],
    base: Weights,
    lam: float,
    mse: float | Sequence[float],
    *,
    scale: str = "task",
    correlations: Sequence[str] = ("independent", "half", "common"),
    seeds: int = 3,
) -> pd.DataFrame:
    """Δθ of Eq. (9) from noisy task vectors that are fused, and its predicted standard deviation.

    Returns
    -------
    DataFrame with columns correlation, seed, predicted, measured, difference
        Root mean square of Δθ, by `wde.noise_std` and as drawn. `difference` is the largest difference between
        Δθ (fusion of the noisy vectors minus that of the clean ones) and λ times the sum of the errors.
    """
    whole_number(seeds, "seeds")
    clean = fuse(base, taus, lam).values
    rows = []
    for correlation, seed in product(correlations, range(seeds)):
        generator = torch.Generator().manual_seed(seed)
        received = surrogate(taus, base, mse, scale=scale, correlation=correlation, generator=generator)
        change = fuse(base, received, lam).values - clean
        errors = lam * sum((noisy - tau).values for noisy, tau in zip(received, taus, strict=True))
        predicted = noise_std(mse, taus, base, lam, scale=scale, correlation=correlation)
        measured = float(change.double().square().mean().sqrt())
        rows.append((correlation, seed, predicted, measured, float((change - errors).abs().max())))
    return pd.DataFrame(rows, columns=["correlation", "seed", "predicted", "measured", "difference"])


def noise_levels(
    taus: Sequence[TaskVector],
    base: Weights,
    lam: float,
    mse: Sequence[float],
    *,
    scales: Sequence[str] = ("task", "weight"),
    correlations: Sequence[str] = ("independent", "common"),
) -> pd.DataFrame:
    """Standard deviation of each parameter's noise for given MSEs under every scale and correlation.

    Returns
    -------
    DataFrame with columns scale, correlation, mse, std
    """
    rows = [
        (scale, correlation, mu, noise_std(mu, taus, base, lam, scale=scale, correlation=correlation))
        for scale, correlation, mu in product(scales, correlations, mse)
    ]
    return pd.DataFrame(rows, columns=["scale", "correlation", "mse", "std"])


def flips(
    models: Mapping[str, FirstOrder], noisy: Mapping[str, Real], std: float, *, rng: np.random.Generator
) -> pd.DataFrame:
    """Flip probability of every image, predicted from its margins and counted on noisy models.

    Parameters
    ----------
    noisy : mapping of task to (draws, images, classes)
        Logits at this noise level, one of the levels of `noisy_logits.model_draws`.

    Returns
    -------
    DataFrame with columns task, image, lower, predicted, upper, counted, draws
    """
    tables = {}
    for name, changed in _changed(models, noisy).items():
        found = flip_probability(models[name], std, rng=rng)
        bounds = {"lower": found.lower, "predicted": found.probability, "upper": found.upper}
        columns = {"image": np.arange(changed.shape[1]), **bounds, "counted": changed.mean(0), "draws": len(changed)}
        tables[name] = pd.DataFrame(columns)
    return stacked(tables, "task")


def _changed(models: Mapping[str, FirstOrder], noisy: Mapping[str, Real]) -> dict[str, NDArray[np.bool_]]:
    """Return where the noisy logits of each task predict another class: (draws, images)."""
    return {name: noisy[name].argmax(-1) != model.predicted for name, model in models.items()}


def flip_rates(models: Mapping[str, FirstOrder], noisy: Mapping[str, Real], table: pd.DataFrame) -> pd.DataFrame:
    """Flip rate of each task and of all, counted and predicted, and their difference in standard errors.

    Parameters
    ----------
    noisy : as in `flips`
    table : DataFrame
        From `flips`, of the same models and logits.

    Returns
    -------
    DataFrame with columns task, lower, predicted, upper, counted, error, z
        The last row is the mean over all images, "all". z is NaN where no draw flipped anything.
    """
    flipped = _changed(models, noisy)
    flipped["all"] = np.concatenate(list(flipped.values()), axis=1)
    means = table.groupby("task")[["lower", "predicted", "upper"]].mean()
    means.loc["all"] = table[["lower", "predicted", "upper"]].mean()
    rows = means.loc[list(flipped)].reset_index(names="task")
    per_draw = np.array([each.mean(1) for each in flipped.values()])
    rows["counted"] = per_draw.mean(1)
    rows["error"] = per_draw.std(1, ddof=1) / np.sqrt(per_draw.shape[1])
    rows["z"] = (rows["counted"] - rows["predicted"]) / rows["error"].where(rows["error"] > 0)
    return rows


def flips_against_noise(
    models: Mapping[str, FirstOrder], samples: Mapping[str, Real], stds: ArrayLike, *, rng: np.random.Generator
) -> pd.DataFrame:
    """Mean flip rate of all images at several noise levels, counted, predicted, and its bounds.

    Parameters
    ----------
    samples : mapping of task to (levels, draws, images, classes)
    stds : (levels,)

    Returns
    -------
    DataFrame with columns std, seed, counted, lower, predicted, upper
    """
    tables = {}
    for std, noisy in by_level(models, samples, stds):
        means = flips(models, noisy, std, rng=rng)[["lower", "predicted", "upper"]].mean()
        changed = np.concatenate([*_changed(models, noisy).values()], axis=1)
        tables[std] = per_seed(counted=changed.mean(1), **means)
    return stacked(tables, "std")


def rejections(
    models: Mapping[str, FirstOrder],
    samples: Mapping[str, Real],
    stds: ArrayLike,
    *,
    reference_std: float,
    level: float = 0.05,
) -> pd.DataFrame:
    """Rejections of the chi-square test on noisy models, for each task, noise level and draw.

    Parameters
    ----------
    samples : mapping of task to (levels, draws, images, classes)
    stds : (levels,)
    reference_std : float
        s₀, the noise taken as harmless.

    Returns
    -------
    DataFrame with columns task, classes, std, seed, rejected, theory
        Shares of the task's images; `theory` is the first-order power.
    """
    tables = {}
    for std, noisy in by_level(models, samples, stds):
        for name, model in models.items():
            dof = chi_square_test.degrees_of_freedom(model)
            statistic = chi_square_test.statistic(model, noisy[name] - model.logits, reference_std)
            rejected = (statistic > chi_square_test.critical_value(dof, level)).mean(1)
            theory = float(chi_square_test.power(dof, level, reference_std, std).mean())
            tables[name, model.classes, std] = per_seed(rejected=rejected, theory=theory)
    return stacked(tables, "task", "classes", "std")


def power_curve(models: Mapping[str, FirstOrder], multiples: ArrayLike, level: float = 0.05) -> pd.DataFrame:
    """First-order power of the chi-square test against the noise, as a multiple s / s₀ of the harmless one.

    Returns
    -------
    DataFrame with columns task, classes, multiple, power
    """
    factors = np.atleast_1d(real_array(multiples, "the multiples", positive=True)).tolist()
    rows = []
    for name, model in models.items():
        dof = chi_square_test.degrees_of_freedom(model)
        rows += [(name, model.classes, k, float(chi_square_test.power(dof, level, 1.0, k).mean())) for k in factors]
    return pd.DataFrame(rows, columns=["task", "classes", "multiple", "power"])


def wde_against_noise(
    models: Mapping[str, FirstOrder],
    samples: Mapping[str, Real],
    stds: ArrayLike,
    own: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """WDE ξ of the noisy fused model, Eq. (7), counted and predicted to first order.

    Parameters
    ----------
    samples : mapping of task to (levels, draws, images, classes)
    stds : (levels,)
    own : mapping of task to (images,) classes
        Predictions of each task's own model, from `wde.own_classes`.

    Returns
    -------
    DataFrame with columns std, seed, wde, predicted, bound
        Sums over the tasks; `bound` is the clean WDE plus the mean flip probabilities.
    """
    tables = {}
    reference = {name: model.classes_or_predicted(np.asarray(own[name])) for name, model in models.items()}
    clean = sum(float((model.predicted != reference[name]).mean()) for name, model in models.items())
    for std, noisy in by_level(models, samples, stds):
        counted = np.sum([(noisy[name].argmax(-1) != reference[name]).mean(1) for name in models], axis=0)
        predicted = [flip_probability(model, std, reference[name], rng=rng) for name, model in models.items()]
        moved = [flip_probability(model, std, rng=rng) for model in models.values()]
        wde, flipped = (sum(float(each.probability.mean()) for each in found) for found in (predicted, moved))
        tables[std] = per_seed(wde=counted, predicted=wde, bound=clean + flipped)
    return stacked(tables, "std")
