"""Checks of the attacks of Section II-C: saddle points by random moves, and KKT conditions of Eq. (14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Complex, Real, fitted, numpy_generator, real_array, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink, require_uplink
from rmtllmf_lib.wireless.receiver import require_noise_cov


@dataclass(frozen=True)
class SaddleMargins:
    """Margins by which random moves stay on their side of a saddle point; negative ones are violations.

    Attributes
    ----------
    users : float
        Smallest relative loss of the users over all powers tried, `1 - R(p, C*) / R(p*, C*)`.
    jammer : float
        Smallest relative loss of the adversary over all covariances tried, `R(p*, C) / R(p*, C*) - 1`.
    trials : int
        Moves tried on each side.
    """

    users: float
    jammer: float
    trials: int


def saddle_margins(
    rate: Callable[[Uplink, Complex], Real],
    uplink: Uplink,
    power: ArrayLike,
    noise_cov: Complex,
    rng: np.random.Generator,
    trials: int = 20,
) -> SaddleMargins:
    """Return the smallest margins of `R(p, C*) <= R(p*, C*) <= R(p*, C)` over random p and C, with p* full power.

    Half of the moves stay near the saddle point, where a wrong one would show first; covariances have every rank.

    Parameters
    ----------
    rate : callable
        R; takes an uplink and a covariance (..., rx, rx) in W, returns (...) nats.
    uplink : Uplink
        A batch of drops at full power.
    power : (...) float, W
        The adversary's budget.
    noise_cov : (..., rx, rx) complex, W
        C*.
    trials : int
        Moves tried on each side in every drop.
    """
    count = whole_number(trials, "trials")
    numpy_generator(rng)
    if not callable(rate):
        raise InputError(f"rate is {rate!r}: expected a function of an uplink and a covariance")
    batch = require_uplink(uplink).batch_shape
    budget = fitted(real_array(power, "power", minimum=0), batch, "power", "(...)")
    require_noise_cov(noise_cov, uplink)
    value = rate(uplink, noise_cov)
    users, jammer = np.inf, np.inf
    for trial in range(count):
        step = 0.05 if trial % 2 else 1.0
        drawn = uplink.power * (1 - step * rng.random(uplink.power.shape))
        users = min(users, float((1 - rate(Uplink(uplink.H, drawn, uplink.noise_floor), noise_cov) / value).min()))
        rival = (1 - step) * noise_cov + step * (uplink.thermal_cov + _random_jammer(uplink, budget, rng))
        jammer = min(jammer, float((rate(uplink, rival) / value - 1).min()))
    return SaddleMargins(users, jammer, count * int(np.prod(uplink.batch_shape)))


def _random_jammer(uplink: Uplink, budget: Real, rng: np.random.Generator) -> Complex:
    rank = int(rng.integers(1, uplink.num_rx_antennas + 1))
    parts = rng.standard_normal((2, *uplink.batch_shape, uplink.num_rx_antennas, rank))
    factor = parts[0] + 1j * parts[1]
    scale = budget / np.square(np.abs(factor)).sum(axis=(-2, -1))
    jammer: Complex = scale[..., None, None] * (factor @ factor.conj().swapaxes(-1, -2))
    return jammer


@dataclass(frozen=True)
class KktResiduals:
    """Residuals of the KKT conditions of Eq. (14), the largest over a batch; all are 0 at the optimum.

    Attributes
    ----------
    stationarity : float
        `|nu c_i (c_i + upsilon_i) / upsilon_i - 1|` over the directions that the jammer fills.
    unfilled : float
        Excess of the gain `upsilon_i / (c_i (c_i + upsilon_i))` over nu in directions without jammer, relative to nu.
    budget : float
        `|sum (c_i - sigma_0^2) / P_J - 1|`.
    filled : int
        The fewest directions with jammer in a drop.
    """

    stationarity: float
    unfilled: float
    budget: float
    filled: int


def kkt_residuals(
    eigenvalues: ArrayLike, extra: ArrayLike, nu: ArrayLike, power: ArrayLike, noise_floor: ArrayLike = 0.0
) -> KktResiduals:
    """Return the residuals of the KKT conditions of the worst allocation, of what `allocate` returns.

    Parameters
    ----------
    eigenvalues : (..., r) float, W
        upsilon_i, with signal in one direction at least.
    extra : (..., r) float, W
        `c_i - sigma_0^2`.
    nu : (...) float, 1/W
    power, noise_floor : (...) float, W
    """
    values, added = real_array(eigenvalues, "eigenvalues", minimum=0), real_array(extra, "extra", minimum=0)
    price = real_array(nu, "nu", positive=True)[..., None]
    level = real_array(noise_floor, "noise_floor", minimum=0)[..., None] + added
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(values > 0, values / (level * (level + values)), 0) / price
    filled = added > 0
    return KktResiduals(
        stationarity=float(np.abs(gain - 1).max(where=filled, initial=0)),
        unfilled=float((gain - 1).max(where=~filled, initial=0)),
        budget=float(np.abs(added.sum(axis=-1) / real_array(power, "power", positive=True) - 1).max()),
        filled=int(filled.sum(axis=-1).min()),
    )
