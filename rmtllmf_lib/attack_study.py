"""Checks and comparisons of the attacks of section II-C: what the chapter on worst-case noise computes with them.

Tables are tidy: one row for each drop, attack and setting, so that differences between attacks can be taken drop by
drop. Rates are in nats, and infinite where a user is free of noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rmtllmf_lib.adversary import attack, interference_free_rates
from rmtllmf_lib.arrays import Complex, Real, real_array, real_number, whole_number
from rmtllmf_lib.channel import Uplink, draw_uplinks
from rmtllmf_lib.csi import Estimate, imperfect_csi
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.receiver import Order, sic_mse, sic_order, sic_rates, sum_rate

SPREADS: Mapping[str, tuple[float, float]] = {"100…1000 m": (100.0, 1000.0), "all at 550 m": (550.0, 550.0)}


def jammer_power(uplink: Uplink, jnr_db: float) -> Real:
    """Budget of a jammer whose power per antenna, spread evenly, is `jnr_db` above the noise floor.

    Returns
    -------
    (...) float, W
        `P_J = N_R sigma_0^2 10^(jnr_db / 10)`.

    Raises
    ------
    InputError
        if a drop has no noise floor, or the ratio is not a finite number.
    """
    ratio = 10 ** (real_number(jnr_db, "jnr_db") / 10)
    if not (uplink.noise_floor > 0).all():
        raise InputError("noise_floor is 0 in some drop: expected one above 0 W; without it give the power itself")
    return np.asarray(uplink.num_rx_antennas * ratio * uplink.noise_floor)


def largest_rate(uplink: Uplink, noise_cov: ArrayLike, order: Order | None = None) -> Real:
    """The largest rate among the users, the objective of (P2), (...) in nats.

    Parameters
    ----------
    order : {"weakest-first", "strongest-first"}, optional
        Order of successive cancellation at full power, Eq. (3). None: the users choose their powers, and the best one
        has all the others fall silent.
    """
    rates = interference_free_rates(uplink, noise_cov) if order is None else sic_rates(uplink, noise_cov, order)
    return np.asarray(rates.max(axis=-1))


@dataclass(frozen=True)
class SaddleMargins:
    """How far random moves stay on their side of a saddle point; negative numbers are violations.

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
    """Try random powers and random covariances against `R(p, C*) <= R(p*, C*) <= R(p*, C)`, with p* full power.

    Half of the moves stay near the saddle point, where a wrong one would be seen first; covariances have every rank.

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
    budget = np.broadcast_to(real_array(power, "power", minimum=0), uplink.batch_shape)
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
    """What is left of the optimality conditions of Eq. (14), the largest over a batch; all are 0 at the optimum.

    Attributes
    ----------
    stationarity : float
        `|nu c_i (c_i + upsilon_i) / upsilon_i - 1|` over the directions that the jammer fills.
    unfilled : float
        How far the gain `upsilon_i / (c_i (c_i + upsilon_i))` of a direction left alone exceeds nu, relative to nu.
    budget : float
        `|sum (c_i - sigma_0^2) / P_J - 1|`.
    filled : int
        The fewest directions that are filled in a drop.
    """

    stationarity: float
    unfilled: float
    budget: float
    filled: int


def kkt_residuals(
    eigenvalues: ArrayLike, extra: ArrayLike, nu: ArrayLike, power: ArrayLike, noise_floor: ArrayLike = 0.0
) -> KktResiduals:
    """Residuals of the KKT conditions of the worst allocation, for what `allocate` returns.

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


def compare_attacks(
    uplink: Uplink, power: ArrayLike, kinds: Iterable[str], order: Order = "weakest-first"
) -> pd.DataFrame:
    """What each attack of this budget does to every drop.

    Parameters
    ----------
    uplink : Uplink
        Drops with batch shape (n,).
    power : float or (n,) float, W
    kinds : names of attacks
        As in `adversary.KINDS`; "none" is the thermal noise alone.
    order : {"weakest-first", "strongest-first"}

    Returns
    -------
    DataFrame with columns

    - kind, drop
    - max_rate: the largest rate of successive cancellation at full power
    - max_rate_silent: the largest rate if users may fall silent
    - sum_rate
    - mse: mean over the users, matched receiver with successive cancellation
    - strongest_is_best: whether the user with the largest received power has the rate `max_rate`
    """
    rows = []
    strongest = sic_order(uplink)[..., -1:]
    for kind in kinds:
        cov = uplink.thermal_cov if kind == "none" else attack(uplink, power, kind, order=order).noise_cov
        rates = sic_rates(uplink, cov, order)
        best = rates.max(axis=-1)
        columns = {
            "drop": np.arange(len(best)),
            "max_rate": best,
            "max_rate_silent": largest_rate(uplink, cov),
            "sum_rate": sum_rate(uplink, cov),
            "mse": sic_mse(uplink, cov, order).mean(axis=-1),
            "strongest_is_best": np.take_along_axis(rates, strongest, axis=-1)[..., 0] == best,
        }
        rows.append(pd.DataFrame(columns).assign(kind=kind))
    return pd.concat(rows, ignore_index=True)


def attack_settings(
    n: int,
    rng: np.random.Generator,
    kinds: Sequence[str],
    jnr_db: Sequence[float],
    *,
    num_users: int = 8,
    num_rx_antennas: int = 16,
) -> pd.DataFrame:
    """`compare_attacks` for every spread of the users and every noise floor, at one power of the jammer.

    The users keep their thermal noise and the jammer its power while the floor below the jammer moves: `inf` stands
    for no floor at all. Fading and places are the same for all floors.

    Parameters
    ----------
    n : int
        Drops.
    kinds : names of attacks
    jnr_db : sequence of float, dB
        Jammer over noise floor per antenna, the largest finite one with the floor of the default link budget.

    Returns
    -------
    DataFrame as of `compare_attacks` with columns spread and jnr_db in front.
    """
    finite = [value for value in jnr_db if np.isfinite(value)]
    if not finite or any(np.isnan(value) or value == -np.inf for value in jnr_db):
        raise InputError(f"jnr_db is {list(jnr_db)}: expected ratios in dB, one of them finite; inf is no floor")
    tables = []
    for spread, (nearest, farthest) in SPREADS.items():
        drops = draw_uplinks(
            n, rng, num_users=num_users, num_rx_antennas=num_rx_antennas, nearest_m=nearest, farthest_m=farthest
        )
        power = jammer_power(drops, max(finite))
        for ratio in jnr_db:
            floor = power / num_rx_antennas * 10 ** (-ratio / 10)
            table = compare_attacks(Uplink(drops.H, drops.power, floor), power, kinds)
            table.insert(0, "jnr_db", ratio)
            table.insert(0, "spread", spread)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def power_sweep(uplink: Uplink, jnr_db: Iterable[float], kinds: Sequence[str]) -> pd.DataFrame:
    """`compare_attacks` for a grid of jammer powers, with a column jnr_db in front."""
    tables = []
    for ratio in jnr_db:
        table = compare_attacks(uplink, jammer_power(uplink, ratio), kinds)
        table.insert(0, "jnr_db", ratio)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def csi_sweep(
    uplink: Uplink,
    power: ArrayLike,
    kinds: Mapping[str, Estimate],
    quality: Iterable[float],
    seed: int,
) -> pd.DataFrame:
    """What an adversary's attack is worth when it knows the channels imperfectly.

    Parameters
    ----------
    uplink : Uplink
        Drops with batch shape (n,), with a noise floor.
    power : float or (n,) float, W
    kinds : attack -> estimate
        "sum-rate" or "minimax", with what the adversary takes for the channel, see `csi.imperfect_csi`.
    quality : iterable of float
        rho in [0, 1].
    seed : int
        Of the errors of the estimate, the same for every quality.

    Returns
    -------
    DataFrame with columns kind, estimate, quality, drop, objective, best, white
        The attack's objective in nats with the estimate, with perfect knowledge, and under white noise of that power.
    """
    white = attack(uplink, power, "white").noise_cov
    objectives = {"sum-rate": sum_rate, "minimax": largest_rate}
    rows = []
    for kind, estimate in kinds.items():
        if kind not in objectives:
            raise InputError(f"kind is {kind!r}: expected {' or '.join(objectives)}")
        best, reference = attack(uplink, power, kind).objective, objectives[kind](uplink, white)
        for rho in quality:
            believed = imperfect_csi(uplink, rho, np.random.default_rng(seed), estimate=estimate)
            found = attack(uplink, power, kind, csi=believed).objective
            columns = {"drop": np.arange(len(found)), "objective": found, "best": best, "white": reference}
            rows.append(pd.DataFrame(columns).assign(kind=kind, estimate=estimate, quality=rho))
    return pd.concat(rows, ignore_index=True)


def certificates(
    sizes: Iterable[tuple[int, int]], rng: np.random.Generator, kinds: Sequence[str], jnr_db: float, n: int = 2
) -> pd.DataFrame:
    """How tightly the bounds enclose the optimum, by number of antennas and users.

    Returns
    -------
    DataFrame with columns num_rx_antennas, num_users, kind, gap (the largest of n drops, relative), iterations
    """
    rows = []
    for antennas, users in sizes:
        drops = draw_uplinks(n, rng, num_users=users, num_rx_antennas=antennas)
        for kind in kinds:
            found = attack(drops, jammer_power(drops, jnr_db), kind)
            gap = float(((found.objective - found.lower_bound) / found.objective).max())
            rows.append((antennas, users, kind, gap, found.iterations))
    return pd.DataFrame(rows, columns=["num_rx_antennas", "num_users", "kind", "gap", "iterations"])


def common_error(error_cov: ArrayLike) -> Real:
    """Power of the sum of the users' errors over the sum of their powers, `1^T E 1 / tr E`.

    1 for uncorrelated errors, the number of users for one error common to all, 0 for errors that cancel.

    Parameters
    ----------
    error_cov : (..., user, user) complex
        As of `receiver.error_cov`, of trace above 0.
    """
    E = np.asarray(error_cov)
    return np.asarray(E.real.sum(axis=(-2, -1)) / np.einsum("...ii->...", E).real)
