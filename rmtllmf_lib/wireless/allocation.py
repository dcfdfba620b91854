"""Spreading a jammer's power over the eigenvalues of the received signal's covariance, Eq. (14)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Real, fitted, real_array
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink, require_uplink


def allocate(eigenvalues: ArrayLike, power: ArrayLike, noise_floor: ArrayLike = 0.0) -> tuple[Real, Real]:
    """Spread a jammer's power over the eigenvalues of `H P H^H`, Eq. (14) with the transmit power counted once.

        c_i = max(sigma_i, sigma_0^2),  sigma_i = (2/nu) / (1 + sqrt(1 + 4/(upsilon_i nu))),

    with nu such that `sum (c_i - sigma_0^2) = P_J`. The unknown solved for is the power given to the largest
    eigenvalue, which lies in [P_J / r, P_J] at any scale; the others follow from it without cancellation.

    Parameters
    ----------
    eigenvalues : (..., r) float, W
        upsilon_i, at least 0, in any order. A direction without signal gets no noise.
    power : (...) float, W
        The jammer's budget P_J, above 0.
    noise_floor : (...) float, W
        sigma_0^2.

    Returns
    -------
    extra : (..., r) float, W
        `c_i - sigma_0^2`; their sum is the budget, or 0 where there is no signal at all.
    nu : (...) float, 1/W
        Marginal effect of the budget: `dR*/dP_J = -nu`.

    Raises
    ------
    InputError
        for negative numbers, a budget of 0, NaN, or shapes that do not fit.
    """
    values = real_array(eigenvalues, "eigenvalues", minimum=0)
    if values.ndim < 1 or not values.shape[-1]:
        raise InputError(f"eigenvalues has shape {values.shape}: expected (..., r) with r at least 1")
    batch = values.shape[:-1]
    budget = fitted(real_array(power, "power", positive=True), batch, "power", "(...)")
    floor = fitted(real_array(noise_floor, "noise_floor", minimum=0), batch, "noise_floor", "(...)")
    extra, nu, _ = allocate_unit_budget(values, budget, floor)
    return extra * budget[..., None], nu / budget


def allocate_unit_budget(eigenvalues: Real, power: Real, floor: Real) -> tuple[Real, Real, int]:
    """`allocate` with results in units of the budget, and the number of Newton steps."""
    values, floor = eigenvalues / power[..., None], (floor / power)[..., None]
    top = values.max(axis=-1, keepdims=True)
    ratio = np.divide(values, top, out=np.zeros_like(values), where=top > 0)
    missing = np.divide(top - values, top, out=np.ones_like(values), where=top > 0)
    double = 2 * floor + values
    low, high = np.full_like(top, 1 / values.shape[-1]), np.ones_like(top)
    first, steps = low, 0
    while True:
        # c (c + upsilon) = upsilon / nu in the top direction, minus the same in another direction
        product = np.maximum(ratio * first * (2 * floor + top + first) - floor**2 * missing, 0)
        root = np.sqrt(double**2 + 4 * product)
        safe = np.where(product > 0, root, 1)
        extra = 2 * product / (double + safe)
        total = extra.sum(axis=-1, keepdims=True)
        slope = ((product > 0) * ratio * (2 * floor + top + 2 * first) / safe).sum(axis=-1, keepdims=True)
        high, low = np.where(total > 1, first, high), np.where(total > 1, low, first)
        proposed = first - (total - 1) / np.where(slope > 0, slope, 1)
        following = np.where((low <= proposed) & (proposed <= high), proposed, (low + high) / 2)
        following = np.where(np.abs(total - 1) <= 1e-15, first, following)
        done = np.abs(following - first) <= 4e-16 * first
        if done[top > 0].all() or steps == 100:
            break
        first, steps = following, steps + 1
    extra = extra / np.where(top > 0, total, 1)
    level = floor + first
    return extra, (top / (level * (level + top)))[..., 0], steps


def published_covariance_eigenvalues(uplink: Uplink, power: ArrayLike) -> tuple[Real, Real]:
    """Eigenvalues of the jammer by Eq. (14) as printed, which counts the transmit power twice.

    It has `P_i upsilon_i` where upsilon_i, an eigenvalue of `H P H^H`, already includes the powers. The result depends
    on the unit of power: with powers far below 1 W the allocation is nearly that of vanishing signals. Powers and
    eigenvalues are paired from the strongest to the weakest.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops.
    power : (...) float, W
        Budget P_J, above 0.

    Returns
    -------
    extra : (..., r) float, W
        `sigma_i` minus the floor, r = min(rx, user), eigenvalues in descending order; the sum is the budget.
    eigenvalues : (..., r) float, W
        upsilon_i, descending.
    """
    values: Real = np.square(np.linalg.svd(require_uplink(uplink).G, compute_uv=False), dtype=np.float64)
    extra, _ = allocate(counted_twice(uplink, values), power, uplink.noise_floor)
    return extra, values


def counted_twice(uplink: Uplink, values: Real) -> Real:
    """`P_i upsilon_i`, powers and eigenvalues (..., r) paired from the strongest to the weakest."""
    values = real_array(values, "values", minimum=0)
    strongest = np.argsort(-require_uplink(uplink).received_power, axis=-1, kind="stable")
    return np.asarray(values * np.take_along_axis(uplink.power, strongest, axis=-1)[..., : values.shape[-1]])
