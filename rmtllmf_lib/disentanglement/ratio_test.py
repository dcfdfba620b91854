"""The paper's test on the ratio of logits, R = z_u / z_d (Section II-B): its statistic, exact law and thresholds.

With g = (J_k Δθ) / z_u,k ~ N(0, σ_k²), Eq. (10), the ratio is R_k = 1 / (1 + g). The density of g at -1, where R is
infinite, is positive, so R has no moments: Eq. (11) holds for its first-order part R_k - 1 ≈ -g.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from rmtllmf_lib.arrays import Real, real_array, real_number
from rmtllmf_lib.disentanglement.first_order import FirstOrder, noise_level
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.validated import validated_call

FOLDED = math.sqrt(1 - 2 / math.pi)  # sd of |g| over sd of g, for a Gaussian g of mean zero


@validated_call
def ratio(undisturbed: ArrayLike, disturbed: ArrayLike) -> Real:
    """R = z_u / z_d, elementwise; infinite where only z_d is zero, 1 where both are.

    Raises
    ------
    InputError
        for logits that are not finite, or shapes that do not broadcast.
    """
    before, after = real_array(undisturbed, "the undisturbed logits"), real_array(disturbed, "the disturbed logits")
    try:
        before, after = np.broadcast_arrays(before, after)
    except ValueError:
        raise InputError(f"logits of shapes {before.shape} and {after.shape}: expected shapes that broadcast") from None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where((before == 0) & (after == 0), 1.0, before / after)


@validated_call
def relative_std(model: FirstOrder, std: float) -> Real:
    """Standard deviation σ_k = s ‖J_k‖ / |z_k| (n, C) of R_k − 1 to first order, Eq. (11) with its factors.

    Infinite where a logit is zero and depends on the parameters; 0 without noise.

    Parameters
    ----------
    model : FirstOrder
        Logits (n, C) and the norms of the rows of their Jacobians.
    std : float ≥ 0
        s, standard deviation of the noise of each parameter.

    Raises
    ------
    InputError
        for a noise level that is negative or not finite.
    """
    spread = noise_level(std) * model.row_norms
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(spread == 0, 0.0, spread / np.abs(model.logits))


@validated_call
def within_probability(threshold: ArrayLike, sigma: ArrayLike) -> Real:
    """Exact Pr(|R − 1| ≤ T) for Gaussian g of standard deviation σ, elementwise.

    For T < 1 it is Φ(T / ((1 − T)σ)) − Φ(−T / ((1 + T)σ)); for T > 1 the ratio may also be negative, and the second
    branch of 1 / (1 + g) adds Φ(−T / ((T − 1)σ)).

    Parameters
    ----------
    threshold : array_like ≥ 0
    sigma : array_like ≥ 0
        From `relative_std`; may be infinite.
    """
    limit = real_array(threshold, "the threshold", minimum=0)
    spread = _relative(sigma)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        above = np.where(limit < 1, limit / (1 - limit) / spread, np.inf)
        below = -limit / ((1 + limit) * spread)
        beyond = np.where(limit > 1, ndtr(-limit / ((limit - 1) * spread)), 0.0)
        inside = ndtr(above) - ndtr(below) + beyond
    inside = np.where(np.isinf(spread), limit >= 1, inside)  # a logit of zero has R = 0 for any noise
    return np.where(spread == 0, 1.0, inside)


@validated_call
def threshold(z_beta: float, sigma: ArrayLike, *, folded: bool = True) -> Real:
    """The paper's threshold T = z_β · sd, elementwise in σ.

    Parameters
    ----------
    z_beta : float > 0
        Quantile of the normal law, such as 1.96.
    sigma : array_like ≥ 0
        From `relative_std`, at the MSE for which T is set: the current one, or a reference.
    folded : bool
        Whether sd is that of |R − 1|, √(1 − 2/π) σ, as in the paper, or that of R − 1, σ.
    """
    return (FOLDED if folded else 1.0) * real_number(z_beta, "z_beta", positive=True) * _relative(sigma)


@validated_call
def first_order_probability(
    z_beta: float, mse: ArrayLike, reference_mse: ArrayLike | None = None, *, folded: bool = True
) -> Real:
    """First-order Pr(|R − 1| ≤ T), with R − 1 ≈ −g, for both readings of the paper's threshold, Eq. (12).

    Parameters
    ----------
    mse : array_like > 0
    reference_mse : array_like > 0, optional
        With T fixed at this MSE μ₀, the probability 2Φ(z_β √(μ₀/μ)) − 1 tends to 1 as μ → 0. Default: T follows the
        MSE, μ₀ = μ, and the probability is the same for every MSE: Eq. (12) is false.
    folded : bool
        As in `threshold`.
    """
    mu = real_array(mse, "mse", positive=True)
    fixed = mu if reference_mse is None else real_array(reference_mse, "reference_mse", positive=True)
    return 2 * ndtr(threshold(z_beta, np.sqrt(fixed / mu), folded=folded)) - 1


@validated_call
def rejects(ratios: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """Whether H0, "the noise does not change the prediction", is rejected: |R − 1| > T, elementwise.

    Parameters
    ----------
    ratios : from `ratio`; may be infinite.

    Raises
    ------
    InputError
        for a ratio that is NaN, which would count as no change, or a threshold that is negative or not finite.
    """
    values = np.asarray(ratios, dtype=float)
    if np.isnan(values).any():
        raise InputError(f"{int(np.isnan(values).sum())} of {values.size} ratios are NaN: expected those of `ratio`")
    return np.abs(values - 1) > real_array(thresholds, "the threshold", minimum=0)


def _relative(sigma: ArrayLike) -> Real:
    """Validated relative standard deviations ≥ 0, which may be infinite."""
    spread = np.asarray(sigma, dtype=float)
    if not (spread >= 0).all():
        raise InputError(f"sigma is {spread.min():g} at its smallest: expected numbers of at least 0")
    return spread
