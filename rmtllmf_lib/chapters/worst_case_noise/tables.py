"""Tables of the chapter on worst-case noise, Section II-C: what the attacks do to users, rates and errors.

Tables are tidy, one row for each drop, attack and setting, so that attacks can be compared drop by drop. Rates are in
nats, and infinite where a user is free of noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Real
from rmtllmf_lib.chapters.tidy import ranked, stacked
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attack, attacked_cov, jammer_power, largest_rate
from rmtllmf_lib.wireless.allocation import allocate
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks
from rmtllmf_lib.wireless.csi import Estimate, imperfect_csi
from rmtllmf_lib.wireless.receiver import (
    Order,
    by_rank,
    interference_free_rates,
    sic_mse,
    sic_order,
    sic_rates,
    sum_rate,
)

SPREADS: Mapping[str, tuple[float, float]] = {"100…1000 m": (100.0, 1000.0), "all at 550 m": (550.0, 550.0)}


def compare_attacks(
    uplink: Uplink, power: ArrayLike, kinds: Iterable[str], order: Order = "weakest-first"
) -> pd.DataFrame:
    """Rates and MSEs of every drop under each attack of this budget.

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
    tables = {}
    strongest = sic_order(uplink)[..., -1:]
    for kind in kinds:
        cov = attacked_cov(uplink, power, kind, order)
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
        tables[kind] = pd.DataFrame(columns)
    return stacked(tables, "kind")


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

    The jammer keeps its power while the noise floor moves; `inf` is no floor. All floors share fading and places.

    Parameters
    ----------
    n : int
        Drops.
    kinds : names of attacks
    jnr_db : sequence of float, dB
        Jammer over noise floor per antenna; the largest finite one has the floor of the default link budget.

    Returns
    -------
    DataFrame as of `compare_attacks` with columns spread and jnr_db in front.
    """
    finite = [value for value in jnr_db if np.isfinite(value)]
    if not finite or any(np.isnan(value) or value == -np.inf for value in jnr_db):
        raise InputError(f"jnr_db is {list(jnr_db)}: expected ratios in dB, one of them finite; inf is no floor")
    tables = {}
    for spread, (nearest, farthest) in SPREADS.items():
        drops = draw_uplinks(
            n, rng, num_users=num_users, num_rx_antennas=num_rx_antennas, nearest_m=nearest, farthest_m=farthest
        )
        power = jammer_power(drops, max(finite))
        for ratio in jnr_db:
            floor = power / num_rx_antennas * 10 ** (-ratio / 10)
            tables[spread, ratio] = compare_attacks(Uplink(drops.H, drops.power, floor), power, kinds)
    return stacked(tables, "spread", "jnr_db")


def power_sweep(uplink: Uplink, jnr_db: Iterable[float], kinds: Sequence[str]) -> pd.DataFrame:
    """`compare_attacks` for a grid of jammer powers, with a column jnr_db in front."""
    return stacked({ratio: compare_attacks(uplink, jammer_power(uplink, ratio), kinds) for ratio in jnr_db}, "jnr_db")


def csi_sweep(
    uplink: Uplink,
    power: ArrayLike,
    kinds: Mapping[str, Estimate],
    quality: Iterable[float],
    seed: int,
) -> pd.DataFrame:
    """Objectives of attacks by an adversary that knows the channels imperfectly.

    Parameters
    ----------
    uplink : Uplink
        Drops with batch shape (n,), with a noise floor.
    power : float or (n,) float, W
    kinds : attack -> estimate
        "sum-rate" or "minimax", with the adversary's estimate of the channel, see `csi.imperfect_csi`.
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
    tables = {}
    for kind, estimate in kinds.items():
        if kind not in objectives:
            raise InputError(f"kind is {kind!r}: expected {' or '.join(objectives)}")
        best, reference = attack(uplink, power, kind).objective, objectives[kind](uplink, white)
        for rho in quality:
            believed = imperfect_csi(uplink, rho, np.random.default_rng(seed), estimate=estimate)
            found = attack(uplink, power, kind, csi=believed).objective
            columns = {"drop": np.arange(len(found)), "objective": found, "best": best, "white": reference}
            tables[kind, estimate, rho] = pd.DataFrame(columns)
    return stacked(tables, "kind", "estimate", "quality")


def user_rates(uplink: Uplink, power: float, kinds: Iterable[str], order: Order = "weakest-first") -> pd.DataFrame:
    """Every user's rates in one drop.

    Parameters
    ----------
    uplink : Uplink
        One drop.
    power : float, W
    kinds : names of attacks
        "none" is the thermal noise alone.

    Returns
    -------
    DataFrame with columns kind, seed (0), rank (1 is the weakest user), alone (the others silent), sic (full power)
    """
    tables = {}
    for kind in kinds:
        cov = attacked_cov(uplink, power, kind, order)
        alone, sic = interference_free_rates(uplink, cov), sic_rates(uplink, cov, order)
        tables[kind] = ranked(uplink, alone=alone, sic=sic)
    return stacked(tables, "kind")


def allocation_table(uplink: Uplink, power: float, jnr_db: Mapping[str, float]) -> pd.DataFrame:
    """The worst allocation of Eq. (14) in one drop, over several noise floors.

    Parameters
    ----------
    uplink : Uplink
        One drop.
    power : float, W
        The jammer's, the same for all floors.
    jnr_db : panel -> dB
        How far the floor lies below the jammer's power per antenna; inf is no floor.

    Returns
    -------
    DataFrame with columns panel, direction (1 has the most signal), signal_db, level_db, floor_db, filled
        Powers in dB over the jammer's power per antenna; level is the noise with the jammer in it.
    """
    white = power / uplink.num_rx_antennas
    values = np.square(np.linalg.svd(uplink.G, compute_uv=False))
    tables = {}
    for panel, ratio in jnr_db.items():
        floor = white * 10 ** (-ratio / 10)
        extra, _ = allocate(values, power, floor)
        with np.errstate(divide="ignore"):
            columns = {
                "direction": np.arange(1, len(values) + 1),
                "signal_db": 10 * np.log10(values / white),
                "level_db": 10 * np.log10((floor + extra) / white),
                "floor_db": np.full(len(values), -float(ratio)),
                "filled": extra > 0,
            }
        tables[panel] = pd.DataFrame(columns)
    return stacked(tables, "panel")


def mse_by_rank(uplink: Uplink, jnr_db: Sequence[float], kinds: Sequence[str]) -> Real:
    """Return the mean MSE over the drops by rank of the user, weakest first: (power, kind, user), matched receiver."""
    powers = [jammer_power(uplink, ratio) for ratio in jnr_db]
    mses = [[sic_mse(uplink, attacked_cov(uplink, power, kind)) for kind in kinds] for power in powers]
    return np.array([[by_rank(mse, uplink).mean(axis=0) for mse in row] for row in mses])


def certificates(
    sizes: Iterable[tuple[int, int]], rng: np.random.Generator, kinds: Sequence[str], jnr_db: float, n: int = 2
) -> pd.DataFrame:
    """Relative gaps of the attacks' bounds, by number of antennas and users.

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
