"""Probability that noise changes a prediction, from the Gaussian law of the margins (Section II-B, corrected).

Class c stays the prediction while every margin m_k = z_c − z_k exceeds the change of z_k − z_c, which has standard
deviation s_k = s ‖J_c − J_k‖. So Pr(flip) = 1 − Pr(all changes below their margins) is a Gaussian orthant probability,
and lies between max_k Q(m_k / s_k) and Σ_k Q(m_k / s_k). Unlike the ratio, none of this changes when a constant is
added to all logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from rmtllmf_lib.arrays import Real, real_array, whole_number
from rmtllmf_lib.disentanglement.first_order import FirstOrder, noise_level
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.validated import validated_call

_SMALLEST = 1e-300  # keeps the normal quantile finite
_SINGULAR = 1e-12  # of a variance: a smaller remainder is rounding


@dataclass(frozen=True, eq=False)
class Flips:
    """Probability that noise moves the prediction of each image away from its reference class.

    Attributes
    ----------
    probability, lower, upper : (n,) float64
        The orthant probability, the largest of the probabilities of single classes, and their sum (at most 1).
    error : (n,) float64
        Standard error of `probability`, from independent randomisations of the same points.
    """

    probability: Real
    lower: Real
    upper: Real
    error: Real

    __repr__ = short_repr


@validated_call
def standardised_margins(model: FirstOrder, std: float, reference: ArrayLike | None = None) -> Real:
    """m_k / s_k (n, C), infinite for k = c; without noise +∞ where class c wins or ties, else −∞."""
    spread = noise_level(std) * model.difference_norms(reference)
    margins = model.margins(reference)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scaled = np.where(spread > 0, margins / spread, np.where(margins >= 0, np.inf, -np.inf))
    np.put_along_axis(scaled, model.classes_or_predicted(reference)[:, None], np.inf, axis=1)
    return scaled


@validated_call
def flip_bounds(model: FirstOrder, std: float, reference: ArrayLike | None = None) -> tuple[Real, Real]:
    """Lower and union bound (n,) of the probability that the prediction is not the reference class.

    Parameters
    ----------
    std : float ≥ 0
        Standard deviation s of the noise of each parameter.
    reference : (n,) classes, optional
        Default: the prediction without noise.
    """
    tails = ndtr(-standardised_margins(model, std, reference))
    return tails.max(1), np.minimum(tails.sum(1), 1.0)


@validated_call
def flip_probability(
    model: FirstOrder,
    std: float,
    reference: ArrayLike | None = None,
    *,
    rng: np.random.Generator,
    points: int = 128,
    replicates: int = 8,
) -> Flips:
    """Probability that noise changes predictions, to first order in it, up to the error of a numerical integral.

    The orthant probability is integrated by Genz's transformation [1] on a randomly shifted Sobol sequence, the class
    most likely to win first. It is a sum of positive terms, so small probabilities keep their relative precision.

    Parameters
    ----------
    std : float ≥ 0
        Standard deviation s of the noise of each parameter, see `wde.noise_std`.
    reference : (n,) classes, optional
        Compared with the noisy prediction. Default: the prediction without noise.
    rng : Generator
        Draws the shifts of the points.
    points : int
        Points per randomisation; powers of two are best.
    replicates : int
        Randomisations, at least 2, from which the standard error follows.

    Raises
    ------
    InputError
        for a negative noise level, or invalid reference classes.

    References
    ----------
    .. [1] A. Genz, "Numerical computation of multivariate normal probabilities", J. Comput. Graph. Stat., 1992.
    """
    whole_number(points, "points")
    whole_number(replicates, "replicates", minimum=2)
    lower, upper = flip_bounds(model, std, reference)
    if model.classes == 1 or std == 0:
        return Flips(lower, lower, upper, np.zeros(len(model)))
    order = np.argsort(standardised_margins(model, std, reference), axis=1)[:, :-1]  # the last one is c
    with np.errstate(over="ignore"):  # almost no noise: an infinite limit is never exceeded
        limits = np.take_along_axis(model.margins(reference), order, axis=1) / std
    image = np.arange(len(model))[:, None, None]
    covariance = model.difference_gram(reference)[image, order[:, :, None], order[:, None, :]]
    factor = _factor(covariance)
    dimension = factor.shape[1]
    sobol = qmc.Sobol(dimension, scramble=False).random(points)
    estimates = np.stack([_violation(limits, factor, (sobol + rng.random(dimension)) % 1) for _ in range(replicates)])
    error = estimates.std(0, ddof=1) / np.sqrt(replicates)
    return Flips(np.clip(estimates.mean(0), lower, upper), lower, upper, error)


@validated_call
def mean_flip_probabilities(models: Mapping[str, FirstOrder], stds: ArrayLike, *, rng: np.random.Generator) -> Real:
    """Predicted flip probability of each task, the mean over its images, for noise levels of any shape.

    Returns
    -------
    (*stds.shape, tasks) float64
    """
    if not models:
        raise InputError("models is empty: expected the first order of at least one task")
    levels = real_array(stds, "the noise levels", minimum=0)
    few = {"points": 32, "replicates": 2}  # the errors of single images average out
    means = [
        [flip_probability(model, std, rng=rng, **few).probability.mean() for model in models.values()]
        for std in levels.ravel().tolist()
    ]
    return np.reshape(means, (*levels.shape, len(models)))


def _factor(covariance: Real) -> Real:
    """Lower triangular L (n, r, r) with L Lᵀ = covariance; columns of singular directions are zero."""
    factor = np.zeros_like(covariance)
    for k in range(covariance.shape[1]):
        column = covariance[:, k:, k] - np.einsum("nij,nj->ni", factor[:, k:, :k], factor[:, k, :k])
        pivot = column[:, 0]
        regular = pivot > _SINGULAR * covariance[:, k, k]
        scale = np.sqrt(np.where(regular, pivot, 1.0))
        factor[:, k:, k] = np.where(regular[:, None], column / scale[:, None], 0.0)
    return factor


def _violation(limits: Real, factor: Real, uniforms: Real) -> Real:
    """Pr(some component of N(0, L Lᵀ) exceeds its limit) (n,), from points (points, r) in the unit cube."""
    n, r = limits.shape
    normal = np.zeros((n, r, len(uniforms)))
    holding = np.ones((n, len(uniforms)))  # probability that no component so far has exceeded its limit
    violated = np.zeros_like(holding)
    for k in range(r):
        room = limits[:, k, None] - np.einsum("nj,njp->np", factor[:, k, :k], normal[:, :k])
        scale = factor[:, k, k, None]
        with np.errstate(over="ignore"):
            bound = np.where(scale > 0, room / np.where(scale > 0, scale, 1.0), np.where(room >= 0, np.inf, -np.inf))
        violated += holding * ndtr(-bound)
        below = ndtr(bound)
        holding *= below
        normal[:, k] = ndtri(np.clip(uniforms[:, k] * below, _SMALLEST, 1 - 1e-16))
    return violated.mean(1)
