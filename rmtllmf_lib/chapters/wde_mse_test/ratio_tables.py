"""How the paper's ratio of logits behaves on noisy models, as tables: its slope, variance, law, and where it fails.

Samples are a mapping of task to logits (levels, draws, images, classes), from `tables.wde.model_draws`. In the tables,
`seed` numbers the draws: images share a draw's noise, so only draws are independent repetitions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rmtllmf_lib.arrays import Real, real_array, real_number
from rmtllmf_lib.disentanglement import chi_square_test
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.noisy_logits import Perturbed
from rmtllmf_lib.disentanglement.ratio_test import ratio, rejects, relative_std, threshold, within_probability
from rmtllmf_lib.errors import InputError

Samples = Mapping[str, Real]


def ratio_against_first_order(perturbed: Mapping[str, Perturbed]) -> pd.DataFrame:
    """R − 1 of every logit next to what Eq. (10) makes of it, −J Δθ / z_u.

    Returns
    -------
    DataFrame with columns task, std, seed, image, label, first_order, measured
        Logits of zero, whose ratio says nothing, are left out.
    """
    parts = []
    for name, task in perturbed.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            first = -task.stds[:, None, None, None] * task.slopes / task.clean
        index = pd.MultiIndex.from_product(
            [task.stds, *(range(length) for length in first.shape[1:])], names=["std", "seed", "image", "label"]
        )
        columns = {"first_order": first.ravel(), "measured": ratio(task.clean, task.disturbed).ravel() - 1}
        parts.append(pd.DataFrame(columns, index).reset_index().assign(task=name))
    table = pd.concat(parts, ignore_index=True)
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
    models: Mapping[str, FirstOrder],
    samples: Samples,
    stds: ArrayLike,
    chosen: Mapping[str, NDArray[np.bool_]],
) -> pd.DataFrame:
    """Variances of R_k − 1 and |R_k − 1| over noisy models, as a share of σ_k², Eq. (11) with its factors.

    Parameters
    ----------
    chosen : mapping of task to (images, classes) bool
        Logits to look at, see `tame`: near a logit of zero, a sample's variance is that of its largest value.

    Returns
    -------
    DataFrame with columns statistic, std, seed, ratio
        The mean over `seed` is the unbiased sample variance over σ_k², averaged over the logits.
    """
    levels = _levels(models, samples, stds)
    rows = []
    for level, std in enumerate(levels):
        deviations = _deviations(models, samples, level, chosen)
        sigma = np.concatenate([relative_std(model, std)[chosen[name]] for name, model in models.items()])
        for statistic, values in (("R − 1", deviations), ("|R − 1|", np.abs(deviations))):
            centred = (values - values.mean(0)) / sigma
            shares = (centred**2).mean(1) * len(values) / (len(values) - 1)
            rows += [(statistic, std, draw, share) for draw, share in enumerate(shares)]
    return pd.DataFrame(rows, columns=["statistic", "std", "seed", "ratio"])


def acceptance(
    models: Mapping[str, FirstOrder],
    samples: Samples,
    stds: ArrayLike,
    chosen: Mapping[str, NDArray[np.bool_]],
    *,
    z_beta: float,
    reference_std: float,
) -> pd.DataFrame:
    """Pr(|R − 1| ≤ T) for both readings of the threshold of Eq. (12): T at the MSE of the moment, T at a fixed one.

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
        `accepted` is the share of the logits with |R − 1| ≤ T, `exact` what the law of R gives for it.
    """
    levels = _levels(models, samples, stds)
    rows = []
    for level, std in enumerate(levels):
        size = np.abs(_deviations(models, samples, level, chosen))
        spread = {
            at: np.concatenate([relative_std(model, at)[chosen[name]] for name, model in models.items()])
            for at in (std, reference_std)
        }
        for reading, at in (("moving", std), ("fixed", reference_std)):
            limit = threshold(z_beta, spread[at])
            exact = float(within_probability(limit, spread[std]).mean())
            rows += [(reading, std, draw, share, exact) for draw, share in enumerate((size <= limit).mean(1))]
    return pd.DataFrame(rows, columns=["reading", "std", "seed", "accepted", "exact"])


def law_fit(models: Mapping[str, FirstOrder], samples: Samples, std: float, level: int = 0) -> pd.DataFrame:
    """Kolmogorov–Smirnov distance of |R − 1| from its exact law, for each image's largest logit.

    Draws are independent for one logit of one image, so each test stands for itself; images share the noise.

    Returns
    -------
    DataFrame with columns task, image, distance, p_value
    """
    rows = []
    for name, model in models.items():
        image = np.arange(len(model))
        before, sigma = model.logits[image, model.predicted], relative_std(model, std)[image, model.predicted]
        sizes = np.abs(ratio(before, samples[name][level][:, image, model.predicted]) - 1)
        for place, values in enumerate(within_probability(sizes, sigma).T):
            found = stats.kstest(values, "uniform")
            rows.append((name, place, float(found.statistic), float(found.pvalue)))
    return pd.DataFrame(rows, columns=["task", "image", "distance", "p_value"])


def alarms(
    models: Mapping[str, FirstOrder],
    samples: Samples,
    std: float,
    level: int = 0,
    *,
    limit: float = 0.1,
    shifts: ArrayLike = (0.0,),
    significance: float = 0.05,
) -> pd.DataFrame:
    """What each test says of the same noisy models when a constant is added to all logits of all models.

    Parameters
    ----------
    std : float
        Noise level of the samples, and the one that the chi-square test takes as harmless.
    limit : float
        The ratio test raises an alarm where |R − 1| exceeds it.
    shifts : (m,)
        Constants to add; they change no prediction and no softmax.

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
            noisy = samples[name][level]
            disturbed = noisy + shift
            off = rejects(ratio(model.logits + shift, disturbed), limit)
            image = np.arange(len(model))
            shifted = FirstOrder(model.logits + shift, model.gram)
            # the constant stays in the change, so that only the test's centring can take it out
            statistic = chi_square_test.statistic(shifted, disturbed - model.logits, std)
            critical = chi_square_test.critical_value(chi_square_test.degrees_of_freedom(shifted), significance)
            columns = (
                off.any(-1),
                off[:, image, model.predicted],
                statistic > critical,
                disturbed.argmax(-1) != shifted.predicted,
            )
            found.append(np.stack([column.mean(0) for column in columns]))
        rows.append((shift, *np.concatenate(found, axis=1).mean(1)))
    return pd.DataFrame(rows, columns=["shift", "some_ratio", "own_ratio", "chi_square", "flipped"])


def alarms_against_noise(
    models: Mapping[str, FirstOrder], samples: Samples, stds: ArrayLike, *, limit: float = 0.1
) -> pd.DataFrame:
    """`alarms` without a shift at every noise level, with a column std."""
    levels = _levels(models, samples, stds)
    parts = [alarms(models, samples, std, level, limit=limit).assign(std=std) for level, std in enumerate(levels)]
    return pd.concat(parts, ignore_index=True).drop(columns="shift")


def _levels(models: Mapping[str, FirstOrder], samples: Samples, stds: ArrayLike) -> list[float]:
    """The noise levels, checked against the samples."""
    levels = np.atleast_1d(real_array(stds, "the noise levels", positive=True))
    for name, model in models.items():
        shape = samples[name].shape
        if len(shape) != 4 or shape[0] != len(levels) or shape[2:] != model.logits.shape:
            raise InputError(
                f"the samples of task {name!r} have shape {shape}: expected ({len(levels)} levels, draws, "
                f"{len(model)} images, {model.classes} classes)"
            )
    return levels.tolist()


def _deviations(
    models: Mapping[str, FirstOrder], samples: Samples, level: int, chosen: Mapping[str, NDArray[np.bool_]]
) -> Real:
    """R − 1 of the chosen logits (draws, logits) at one noise level."""
    parts = [
        ratio(model.logits[chosen[name]], samples[name][level][:, chosen[name]]) - 1 for name, model in models.items()
    ]
    together = np.concatenate(parts, axis=1)
    if together.shape[0] < 2 or together.shape[1] == 0:
        raise InputError(
            f"{together.shape[0]} draws of {together.shape[1]} chosen logits: expected two draws or more, and a logit; "
            "take less noise, or let σ be larger"
        )
    return together
