"""Tables of the uplink of section II-A, its rates and its MSEs: what the chapter on the system model computes.

Tables are tidy, a row for each drop and user. Where a table is averaged, its column "seed" numbers the drops: they are
the independent repetitions that `intervals.over_seeds` wants. Rates are in nats, powers in W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd

from rmtllmf_lib.arrays import Real, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks, snr_db, with_floor
from rmtllmf_lib.wireless.information import qam64_information
from rmtllmf_lib.wireless.receiver import (
    ORDERS,
    Order,
    by_rank,
    lmmse_mse,
    sic_mse,
    sic_order,
    sic_rates,
    sum_rate,
    sum_rate_published,
)
from rmtllmf_lib.wireless.simulate import Symbols, measure_mse


def ladder(uplink: Uplink, order: Order = "weakest-first") -> pd.DataFrame:
    """Successive cancellation in one drop, a row for each step and user.

    Returns
    -------
    DataFrame
        step and position (1 is decoded first), user (index), state ("decoded", "wanted" or "interferes"), snr_db of
        that user, and the rate (nats) and mse of the user wanted in this step.
    """
    sequence = sic_order(_single(uplink), order)
    snr, rates = snr_db(uplink), sic_rates(uplink, uplink.thermal_cov, order)
    rows = []
    for step, wanted in enumerate(sequence):
        for position, user in enumerate(sequence):
            state = "decoded" if position < step else "wanted" if position == step else "interferes"
            rows.append((step + 1, position + 1, user, state, snr[user], rates[wanted], np.exp(-rates[wanted])))
    return pd.DataFrame(rows, columns=["step", "position", "user", "state", "snr_db", "rate", "mse"])


def _single(uplink: Uplink) -> Uplink:
    if uplink.batch_shape:
        raise InputError(f"uplink has the batch shape {uplink.batch_shape}: expected one drop, such as uplink[0]")
    return uplink


def measured_mse(uplink: Uplink, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """MSEs of one drop by Eq. (5) beside those of `n` symbols that were sent, in both orders and of both kinds.

    Returns
    -------
    DataFrame
        order, symbols, position (1 is decoded first), theory, measured, standard_error.
    """
    C, parts = _single(uplink).thermal_cov, []
    for order in ORDERS:
        sequence = sic_order(uplink, order)
        for symbols in get_args(Symbols):
            found = measure_mse(uplink, C, n=n, rng=rng, symbols=symbols, order=order)
            columns = {
                "position": np.arange(1, uplink.num_users + 1),
                "theory": sic_mse(uplink, C, order)[sequence],
                "measured": found.mse[sequence],
                "standard_error": found.standard_error[sequence],
            }
            parts.append(pd.DataFrame(columns).assign(order=order, symbols=symbols))
    return pd.concat(parts, ignore_index=True)


def sum_rates(users: Sequence[int], drops: int, rng: np.random.Generator, **setting: Any) -> pd.DataFrame:
    """Both formulas of the sum rate in new drops for each number of users: users, seed, published, right (nats).

    `setting` goes to `channel.draw_uplinks`.
    """
    parts = []
    for number in users:
        cells = draw_uplinks(drops, rng, num_users=number, **setting)
        C = cells.thermal_cov
        columns = {"published": sum_rate_published(cells, C), "right": sum_rate(cells, C)}
        parts.append(pd.DataFrame(columns).assign(users=number, seed=np.arange(drops)))
    return pd.concat(parts, ignore_index=True)


def mse_by_receiver(uplink: Uplink) -> pd.DataFrame:
    """MSE of each user under the three receivers: receiver, seed, rank (1 is the weakest user), mse.

    Receivers are "weakest-first" and "strongest-first", with perfect cancellation, and "joint LMMSE".
    """
    C = uplink.thermal_cov
    receivers: dict[str, Real] = {order: sic_mse(uplink, C, order) for order in ORDERS}
    receivers["joint LMMSE"] = lmmse_mse(uplink, C)
    parts = []
    for receiver, mse in receivers.items():
        ranked = by_rank(mse, uplink).reshape(-1, uplink.num_users)
        seed, rank = np.indices(ranked.shape)
        columns = {"seed": seed.ravel(), "rank": rank.ravel() + 1, "mse": ranked.ravel()}
        parts.append(pd.DataFrame(columns).assign(receiver=receiver))
    return pd.concat(parts, ignore_index=True)


def propagation(uplink: Uplink, gains_db: Sequence[float], n: int, rng: np.random.Generator) -> pd.DataFrame:
    """What real cancellation costs: 64-QAM symbols through SIC that subtracts what it believes.

    Parameters
    ----------
    uplink : Uplink
        A batch of drops (drop,).
    gains_db : sequence of float
        SNRs to try, relative to the uplink's.
    n : int
        Symbols of each user in each drop.

    Returns
    -------
    DataFrame
        order, cancellation, gain_db, seed, and the means over the users: excess (MSE over that of Eq. (5)) and
        symbol_errors. Cancellations are "genie", "soft" and "hard", see `monte_carlo.receive`, and "linear", which
        subtracts linear estimates and is the joint LMMSE receiver; its excess is computed, not measured.
    """
    parts = []
    for gain in gains_db:
        cells = with_floor(uplink, -gain)
        C = cells.thermal_cov
        for order in ORDERS:
            ideal = sic_mse(cells, C, order).mean(axis=-1)
            row = {"order": order, "gain_db": gain, "seed": np.arange(len(ideal))}
            linear = lmmse_mse(cells, C).mean(axis=-1) / ideal
            parts.append(pd.DataFrame(row | {"cancellation": "linear", "excess": linear, "symbol_errors": np.nan}))
            for cancellation in ("genie", "soft", "hard"):
                found = measure_mse(cells, C, n=n, rng=rng, symbols="qam64", order=order, cancellation=cancellation)
                excess, errors = found.mse.mean(axis=-1) / ideal, found.symbol_errors.mean(axis=-1)
                columns = {"cancellation": cancellation, "excess": excess, "symbol_errors": errors}
                parts.append(pd.DataFrame(row | columns))
    return pd.concat(parts, ignore_index=True)


def budgets(settings: Mapping[str, Mapping[str, Any]], drops: int, seed: int) -> pd.DataFrame:
    """Mean MSE over the users, Eq. (5), in the drops of several settings.

    Parameters
    ----------
    settings : mapping
        Name to keyword arguments of `channel.draw_uplinks`; all are drawn from the same seed, so that settings which
        share places and fading can be compared drop by drop.
    drops : int
    seed : int

    Returns
    -------
    DataFrame with setting, order, seed, mse.
    """
    whole_number(seed, "seed", minimum=0)
    parts = []
    for name, setting in settings.items():
        cells = draw_uplinks(drops, np.random.default_rng(seed), **setting)
        for order in ORDERS:
            mse = sic_mse(cells, cells.thermal_cov, order).mean(axis=-1)
            parts.append(pd.DataFrame({"setting": name, "order": order, "seed": np.arange(drops), "mse": mse}))
    return pd.concat(parts, ignore_index=True)


def coded_distortion(uplink: Uplink) -> pd.DataFrame:
    """What is left of Gaussian numbers that ideal codes carry, two numbers per symbol, in the paper's order.

    Returns
    -------
    DataFrame
        seed, rank (1 is the weakest user), rate (nats, Eq. (3)), qam64_rate (what a symbol of 64-QAM carries there) and
        the two distortions `e^(-rate)`: gaussian and qam64.
    """
    rates = by_rank(sic_rates(uplink, uplink.thermal_cov), uplink).reshape(-1, uplink.num_users)
    seed, rank = np.indices(rates.shape)
    qam64 = qam64_information(np.exp(-rates))
    columns = {"rate": rates, "qam64_rate": qam64, "gaussian": np.exp(-rates), "qam64": np.exp(-qam64)}
    flat = {name: column.ravel() for name, column in columns.items()}
    return pd.DataFrame({"seed": seed.ravel(), "rank": rank.ravel() + 1, **flat})
