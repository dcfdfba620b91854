"""Gaussian surrogate of the link: errors in parameters with a variance proportional to the link's MSE (Section IV).

The paper adds "Gaussian noise with variance proportional to" the MSE and gives no constant. All later results depend on
that constant, so it has a name here: the scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from rmtllmf_lib.arrays import Real, instance_of, one_of, per_user
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.transport.statistics import require_vectors

SCALES = ("task", "weight", "unit", "snr")
ERROR_CORRELATIONS: Mapping[str, float] = {"independent": 0.0, "half": 0.5, "common": 1.0}  # between two users
CORRELATIONS = tuple(ERROR_CORRELATIONS)


def noise_power(tau: TaskVector, base: Weights, scale: str) -> float:
    """Error variance per parameter at an MSE of 1.

    Parameters
    ----------
    scale : str
        "task": mean square of tau, as for a link that sends unit-power symbols; "weight": mean square of theta_base;
        "unit": 1; "snr": mean square of tau, as for "task", but with a noise-to-signal ratio 10^(-SNR/10), which may
        be far above 1, in place of the MSE.
    """
    one_of(scale, SCALES, "noise scale")
    instance_of(tau, TaskVector, "tau")
    instance_of(base, Weights, "base")
    return {"task": tau.rms**2, "snr": tau.rms**2, "weight": base.rms**2, "unit": 1.0}[scale]


def error_covariance(
    taus: Sequence[TaskVector],
    base: Weights,
    mse: float | Sequence[float],
    *,
    scale: str = "task",
    correlation: str = "independent",
) -> Real:
    """Covariance of the users' errors in one parameter, E[eps_p eps_q], for errors drawn by `surrogate`.

    Parameters, errors: as `surrogate`.

    Returns
    -------
    (user, user) float64
    """
    variance = np.array(_variances(taus, base, mse, scale, correlation))
    rho = np.full((len(taus), len(taus)), ERROR_CORRELATIONS[correlation])
    np.fill_diagonal(rho, 1)
    return rho * np.sqrt(np.outer(variance, variance))


def _variances(
    taus: Sequence[TaskVector], base: Weights, mse: float | Sequence[float], scale: str, correlation: str
) -> list[float]:
    """Error variance per parameter of each user; checks the scenario."""
    one_of(correlation, CORRELATIONS, "noise correlation")
    require_vectors(taus, "taus")
    instance_of(base, Weights, "base")
    numbers = per_user(mse, len(taus), "mse", minimum=0)
    for tau in taus:
        tau.require_base(base)
    return [mu * noise_power(tau, base, scale) for tau, mu in zip(taus, numbers, strict=True)]


def surrogate(
    taus: Sequence[TaskVector],
    base: Weights,
    mse: float | Sequence[float],
    *,
    scale: str = "task",
    correlation: str = "independent",
    generator: torch.Generator,
) -> list[TaskVector]:
    """Received task vectors under the paper's Gaussian surrogate, tau^_q = tau_q + eps_q (Section IV).

    Parameters
    ----------
    taus : sequence of TaskVector
        One per user.
    base : Weights
        theta_base, for the scale "weight".
    mse : float or one per user
        mu_q ≥ 0; the variance of every entry of eps_q is `noise_power(tau_q, base, scale) * mu_q`.
    scale : {"task", "weight", "unit", "snr"}
        See `noise_power`.
    correlation : {"independent", "half", "common"}
        Errors of different users have correlation 0, 1/2 or 1. "half" is (n_q − n_0)/√2: the shared base is noisy too.
    generator : torch.Generator
        Source of all draws; the same state and scenario give the same noise.

    Raises
    ------
    InputError
        for an unknown scale or correlation, an MSE that is negative or not finite, or not one per user.
    """
    variances = _variances(taus, base, mse, scale, correlation)
    instance_of(generator, torch.Generator, "generator")
    draw = partial(torch.randn, base.layout.size, generator=generator)
    shared = None if correlation == "independent" else draw()
    received = []
    for tau, variance in zip(taus, variances, strict=True):
        if shared is None:
            noise = draw()
        else:
            noise = shared if correlation == "common" else (draw() - shared) / 2**0.5
        received.append(replace(tau, values=torch.add(tau.values, noise, alpha=variance**0.5)))
    return received
