"""Cosine similarity of noisy task vectors (Section IV-2): the effect of a link, and the noise behind given cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Real, real_array
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights, cosine_matrix
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.transport.surrogate import ERROR_CORRELATIONS
from rmtllmf_lib.validated import validated_call


@validated_call
def noisy_cosines(cosines: ArrayLike, noise_to_signal: ArrayLike, error_correlation: ArrayLike) -> Real:
    """Cosine similarity of task vectors received with independent or correlated noise.

    `cos_ij = (rho_ij + sqrt(k_i k_j) r_ij) / sqrt((1 + k_i)(1 + k_j))`: the noise adds its power to the squared norms,
    and its correlation to the inner product. Exact in the limit of many parameters, where noise is orthogonal to every
    task vector; for P parameters the deviation is of the order 1 / sqrt(P).

    Parameters
    ----------
    cosines : (..., n, n) in [-1, 1]
        rho, of the sent vectors.
    noise_to_signal : (..., n) or one number, ≥ 0
        k, the power of each user's error over that of the sent vector.
    error_correlation : (..., n, n) or one number, in [-1, 1]
        r, between the errors of different users.

    Returns
    -------
    (..., n, n) float64, with ones on the diagonal

    Raises
    ------
    InputError
        for shapes that do not match, a cosine or correlation outside [-1, 1], or a negative k.
    """
    rho = real_array(cosines, "cosines")
    if rho.ndim < 2 or rho.shape[-1] != rho.shape[-2]:
        raise InputError(f"cosines have shape {rho.shape}: expected a square matrix (…, n, n)")
    shape = rho.shape[-1:]
    k = real_array(noise_to_signal, "noise_to_signal", minimum=0)
    if k.ndim and k.shape[-1:] != shape:
        raise InputError(f"noise_to_signal has shape {k.shape} for {shape[0]} users: expected one number, or (…, n)")
    k = np.broadcast_to(k, shape) if not k.ndim else k
    common = real_array(error_correlation, "error_correlation")
    if (largest := max(abs(rho).max(), abs(common).max())) > 1 + 1e-9:
        raise InputError(f"the largest absolute cosine or correlation is {largest:g}: expected values in [-1, 1]")
    lengths = np.sqrt((1 + k)[..., :, None] * (1 + k)[..., None, :])
    found = (rho + np.sqrt(k[..., :, None] * k[..., None, :]) * common) / lengths
    return np.where(np.eye(shape[0], dtype=bool), 1.0, found)


@validated_call
def scenario_cosines(scenario: Scenario, taus: Sequence[TaskVector], base: Weights) -> Real:
    """Expected cosine similarity (n, n) of the task vectors received in a scenario, by `noisy_cosines`."""
    errors = scenario.error_cov(taus, base)
    power = np.diagonal(errors)
    sizes = np.sqrt(np.outer(power, power))
    common = np.divide(errors, sizes, out=np.zeros_like(errors), where=sizes > 0)
    return noisy_cosines(cosine_matrix(taus), power / np.array([tau.rms**2 for tau in taus]), common)


@validated_call
def needed_noise(cosines: tuple[float, float, float], target: tuple[float, float]) -> tuple[float, float, float]:
    """The weakest noise, equal for all users, that moves cosines of a known spread into a narrow band.

    By `noisy_cosines` the spread shrinks by the factor 1 + k, so k is at least the ratio of the spreads minus one. The
    middle of the band then determines the correlation r of the errors, which tends to that middle as k grows.

    Parameters
    ----------
    cosines : smallest, mean and largest cosine of the sent vectors
    target : lower and upper end of the band

    Returns
    -------
    k : float
        Smallest power of the noise over that of the vectors; 0 where the band is wider than the spread.
    r, limit : float
        Correlation between users' errors that moves the mean to the middle of the band, at that k (infinite at k = 0,
        unless the mean is there without noise) and for k → ∞.
    """
    low, mean, high = cosines
    middle = sum(target) / 2
    if not (low <= mean <= high and target[0] < target[1]):
        raise InputError(f"cosines {cosines} and band {target}: expected smallest ≤ mean ≤ largest, and lower < upper")
    k = max((high - low) / (target[1] - target[0]) - 1, 0.0)
    if k == 0:
        return 0.0, 0.0 if mean == middle else float("inf"), middle
    return k, (middle * (1 + k) - mean) / k, middle


@validated_call
def cosine_bands(
    cosines: tuple[float, float, float],
    noise_to_signal: Sequence[float] | Real | None = None,
    correlations: Mapping[str, float] = ERROR_CORRELATIONS,
) -> pd.DataFrame:
    """`noisy_cosines` for equal users as a function of the noise-to-signal ratio, for cosines of a known spread.

    Parameters
    ----------
    cosines : smallest, mean and largest cosine of the sent vectors
    noise_to_signal : numbers > 0, optional
        Default: from -20 to 50 dB.
    correlations : dict of name to correlation of the errors

    Returns
    -------
    DataFrame with columns correlation, noise_to_signal, low, mean, high
    """
    if not correlations:
        raise InputError("correlations is empty: expected at least one correlation of the errors, with its name")
    k = np.logspace(-2, 5, 141) if noise_to_signal is None else real_array(noise_to_signal, "noise_to_signal")
    rows = []
    for name, r in correlations.items():
        low, mean, high = (noisy_cosines([[1, rho], [rho, 1]], k[:, None] * [1, 1], r)[:, 0, 1] for rho in cosines)
        rows.append(pd.DataFrame({"correlation": name, "noise_to_signal": k, "low": low, "mean": mean, "high": high}))
    return pd.concat(rows, ignore_index=True)
