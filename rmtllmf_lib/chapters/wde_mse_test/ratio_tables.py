"""Tables on the paper's ratio of logits for noisy models: its slope, its variance, its law, and where it fails.

`samples` is a mapping of task to logits (levels, draws, images, classes), from `noisy_logits.model_draws`; `noisy` are
those of one level. In the tables, "seed" numbers the draws: images share a draw's noise, so only draws are independent
repetitions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rmtllmf_lib.arrays import Real, real_array, real_number
from rmtllmf_lib.chapters.tidy import per_seed, stacked
from rmtllmf_lib.disentanglement import chi_square_test
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.noisy_logits import Perturbed
from rmtllmf_lib.disentanglement.ratio_test import ratio, rejects, relative_std, threshold, within_probability
from rmtllmf_lib.errors import InputError

Logits = Mapping[str, Real]


def by_level(models: Mapping[str, FirstOrder], samples: Logits, stds: ArrayLike) -> list[tuple[float, dict[str, Real]]]:
    """Return each noise level with its logits (draws, images, classes) of every task.

    Raises
    ------
    InputError
        if the samples of a task do not have the shape (levels, draws, images, classes).
    """
    levels = np.atleast_1d(real_array(stds, "the noise levels", positive=True))
    for name, model in models.items():
        shape = samples[name].shape
        if len(shape) != 4 or shape[0] != len(levels) or shape[2:] != model.logits.shape:
            raise InputError(
                f"the samples of task {name!r} have shape {shape}: expected ({len(levels)} levels, draws, "
                f"{len(model)} images, {model.classes} classes)"
            )
    return [(std, {name: samples[name][place] for name in models}) for place, std in enumerate(levels.tolist())]


def ratio_against_first_order(perturbed: Mapping[str, Perturbed]) -> pd.DataFrame:
    """R − 1 of every logit beside its first-order prediction by Eq. (10), −J Δθ / z_u.

    Returns
    -------
    DataFrame with columns task, std, seed, image, label, first_order, measured
        Without logits of zero, whose ratio is undefined.
    """
    tables = {}
    for name, task in perturbed.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            first = -task.stds[:, None, None, None] * task.slopes / task.clean
        places = [task.stds, *(range(length) for length in first.shape[1:])]
        index = pd.MultiIndex.from_product(places, names=["std", "seed", "image", "label"])
        columns = {"first_order": first.ravel(), "measured": ratio(task.clean, task.disturbed).ravel() - 1}
        tables[name] = pd.DataFrame(columns, index).reset_index()
    table = stacked(tables, "task")
    return table[np.isfinite(table["first_order"])]


def slopes(table: pd.DataFrame, within: float = 0.1) -> pd.DataFrame:
    """Slope through the origin of R − 1 against its first-order prediction, for every noise level and draw.

    Parameters
    ----------
    table : DataFrame
        From `ratio_against_first_order`.
    within : float
        Only logits with a prediction of at most this size: R − 1 is a hyperbola, with an infinite branch.

    Returns
    -------
    DataFrame with columns std, seed, slope
    """
    near = table[table["first_order"].abs() <= real_number(within, "within", positive=True)]
    sums = near.assign(xy=near["first_order"] * near["measured"], xx=near["first_order"] ** 2)
    grouped = sums.groupby(["std", "seed"])[["xy", "xx"]].sum()
    return (grouped["xy"] / grouped["xx"]).rename("slope").reset_index()


def tame(models: Mapping[str, FirstOrder], std: float, largest: float = 0.1) -> dict[str, NDArray[np.bool_]]:
    """Logits (images, classes) of each task whose relative standard deviation σ_k is at most `largest`."""
    return {name: relative_std(model, std) <= largest for name, model in models.items()}


def variance_ratios(
    models: Mapping[str, FirstOrder], samples: Logits, stds: ArrayLike, chosen: Mapping[str, NDArray[np.bool_]]
) -> pd.DataFrame:
    """Variances of R_k − 1 and |R_k − 1| over noisy models, as a share of σ_k², Eq. (11) with its factors.

    Parameters
    ----------
    chosen : mapping of task to (images, classes) bool
        Logits to include, see `tame`: near a logit of zero, the sample variance is dominated by the largest value.

    Returns
    -------
    DataFrame with columns statistic, std, seed, ratio
        The mean over `seed` is the unbiased sample variance over σ_k², averaged over the logits.
    """
    tables = {}
    for std, noisy in by_level(models, samples, stds):
        deviations, sigma = _deviations(models, noisy, chosen), _relative_std(models, std, chosen)
        for statistic, values in (("R − 1", deviations), ("|R − 1|", np.abs(deviations))):
            centred = (values - values.mean(0)) / sigma
            tables[statistic, std] = per_seed(ratio=(centred**2).mean(1) * len(values) / (len(values) - 1))
    return stacked(tables, "statistic", "std")


def acceptance(
    models: Mapping[str, FirstOrder],
    samples: Logits,
    stds: ArrayLike,
    chosen: Mapping[str, NDArray[np.bool_]],
    *,
    z_beta: float,
    reference_std: float,
) -> pd.DataFrame:
    """Pr(|R − 1| ≤ T) for both readings of the threshold of Eq. (12): T at the current MSE, T at a fixed one.

    Parameters
    ----------
    chosen : as in `variance_ratios`
    z_beta : float
        T is so many standard deviations of |R − 1|.
    reference_std : float
        Noise level at which the second reading fixes T.

    Returns
    -------
    DataFrame with columns reading ("moving" or "fixed"), std, seed, accepted, exact
        `accepted` is the share of the logits with |R − 1| ≤ T, `exact` its value by the exact law of R.
    """
    tables = {}
    for std, noisy in by_level(models, samples, stds):
        size, sigma = np.abs(_deviations(models, noisy, chosen)), _relative_std(models, std, chosen)
        for reading, at in (("moving", std), ("fixed", reference_std)):
            limit = threshold(z_beta, _relative_std(models, at, chosen))
            exact = float(within_probability(limit, sigma).mean())
            tables[reading, std] = per_seed(accepted=(size <= limit).mean(1), exact=exact)
    return stacked(tables, "reading", "std")


def law_fit(models: Mapping[str, FirstOrder], noisy: Logits, std: float) -> pd.DataFrame:
    """Kolmogorov–Smirnov distance of |R − 1| from its exact law, for each image's largest logit.

    The draws of one logit are independent, so each test is valid by itself; different images share the noise.

    Returns
    -------
    DataFrame with columns task, image, distance, p_value
    """
    rows = []
    for name, model in models.items():
        image = np.arange(len(model))
        before, sigma = model.logits[image, model.predicted], relative_std(model, std)[image, model.predicted]
        sizes = np.abs(ratio(before, noisy[name][:, image, model.predicted]) - 1)
        for place, values in enumerate(within_probability(sizes, sigma).T):
            found = stats.kstest(values, "uniform")
            rows.append((name, place, float(found.statistic), float(found.pvalue)))
    return pd.DataFrame(rows, columns=["task", "image", "distance", "p_value"])


def alarms(
    models: Mapping[str, FirstOrder],
    noisy: Logits,
    std: float,
    *,
    limit: float = 0.1,
    shifts: ArrayLike = (0.0,),
    significance: float = 0.05,
) -> pd.DataFrame:
    """Shares of alarms of each test on the same noisy models, with a constant added to all logits of all models.

    Parameters
    ----------
    std : float
        Noise level of the models, which the chi-square test takes as harmless.
    limit : float
        The ratio test raises an alarm where |R − 1| exceeds it.
    shifts : (m,)
        Constants to add; they change neither predictions nor probabilities.

    Returns
    -------
    DataFrame with columns shift, some_ratio, own_ratio, chi_square, flipped
        Shares of all images and draws: some class's ratio is off; that of the predicted class is; the chi-square test
        rejects; the prediction has changed.
    """
    rows = []
    for shift in real_array(shifts, "the shifts").ravel().tolist():
        found = []
        for name, model in models.items():
            disturbed = noisy[name] + shift
            off = rejects(ratio(model.logits + shift, disturbed), limit)
            image = np.arange(len(model))
            shifted = FirstOrder(model.logits + shift, model.gram)
            # the constant stays in the change, so that only the test's centring can take it out
            statistic = chi_square_test.statistic(shifted, disturbed - model.logits, std)
            critical = chi_square_test.critical_value(chi_square_test.degrees_of_freedom(shifted), significance)
            flipped = disturbed.argmax(-1) != shifted.predicted
            columns = (off.any(-1), off[:, image, model.predicted], statistic > critical, flipped)
            found.append(np.stack([column.mean(0) for column in columns]))
        rows.append((shift, *np.concatenate(found, axis=1).mean(1)))
    return pd.DataFrame(rows, columns=["shift", "some_ratio", "own_ratio", "chi_square", "flipped"])


def alarms_against_noise(
    models: Mapping[str, FirstOrder], samples: Logits, stds: ArrayLike, *, limit: float = 0.1
) -> pd.DataFrame:
    """Return `alarms` without a shift at every noise level, with a column std."""
    levels = by_level(models, samples, stds)
    tables = {std: alarms(models, noisy, std, limit=limit) for std, noisy in levels}
    return stacked(tables, "std").drop(columns="shift")


def _relative_std(models: Mapping[str, FirstOrder], std: float, chosen: Mapping[str, NDArray[np.bool_]]) -> Real:
    """Return σ_k of the chosen logits (logits,)."""
    return np.concatenate([relative_std(model, std)[chosen[name]] for name, model in models.items()])


def _deviations(models: Mapping[str, FirstOrder], noisy: Logits, chosen: Mapping[str, NDArray[np.bool_]]) -> Real:
    """Return R − 1 of the chosen logits (draws, logits)."""
    parts = [ratio(model.logits[chosen[name]], noisy[name][:, chosen[name]]) - 1 for name, model in models.items()]
    together = np.concatenate(parts, axis=1)
    if together.shape[0] < 2 or together.shape[1] == 0:
        raise InputError(
            f"{together.shape[0]} draws of {together.shape[1]} chosen logits: expected two draws or more and one logit "
            "or more; take less noise, or allow a larger σ"
        )
    return together
