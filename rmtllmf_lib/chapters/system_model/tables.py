"""Tables of the chapter on the system model, Section II-A: rates and MSEs of the uplink.

Tables are tidy, one row for each drop and user. "seed" numbers the drops, the independent repetitions over which
`intervals.over_seeds` averages. Rates are in nats, powers in W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, get_args

import numpy as np
import pandas as pd

from rmtllmf_lib.arrays import Real, whole_number
from rmtllmf_lib.chapters.tidy import per_seed, ranked, stacked
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks, snr_db, with_floor
from rmtllmf_lib.wireless.information import qam64_information
from rmtllmf_lib.wireless.receiver import (
    ORDERS,
    Order,
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
    step, position = (index.ravel() for index in np.indices((len(sequence), len(sequence))))
    user, rate = sequence[position], rates[sequence[step]]
    state = np.select([position < step, position == step], ["decoded", "wanted"], "interferes")
    columns = {"step": step + 1, "position": position + 1, "user": user, "state": state}
    return pd.DataFrame(columns | {"snr_db": snr[user], "rate": rate, "mse": np.exp(-rate)})


def _single(uplink: Uplink) -> Uplink:
    if uplink.batch_shape:
        raise InputError(f"uplink has the batch shape {uplink.batch_shape}: expected one drop, such as uplink[0]")
    return uplink


def measured_mse(uplink: Uplink, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """MSEs of one drop by Eq. (5), and as measured with `n` symbols of each user, in both orders and of both kinds.

    Returns
    -------
    DataFrame
        order, symbols, position (1 is decoded first), theory, measured, standard_error.
    """
    C, tables = _single(uplink).thermal_cov, {}
    for order, symbols in product(ORDERS, get_args(Symbols)):
        sequence = sic_order(uplink, order)
        found = measure_mse(uplink, C, n=n, rng=rng, symbols=symbols, order=order)
        columns = {
            "position": np.arange(1, uplink.num_users + 1),
            "theory": sic_mse(uplink, C, order)[sequence],
            "measured": found.mse[sequence],
            "standard_error": found.standard_error[sequence],
        }
        tables[order, symbols] = pd.DataFrame(columns)
    return stacked(tables, "order", "symbols")


def sum_rates(users: Sequence[int], drops: int, rng: np.random.Generator, **setting: Any) -> pd.DataFrame:
    """Both formulas of the sum rate in new drops for each number of users.

    Parameters
    ----------
    setting
        Of `channel.draw_uplinks`.

    Returns
    -------
    DataFrame
        users, seed, published (Eq. (4)) and right (Eq. (13)), in nats.
    """
    tables = {}
    for number in users:
        cells = draw_uplinks(drops, rng, num_users=number, **setting)
        C = cells.thermal_cov
        tables[number] = per_seed(published=sum_rate_published(cells, C), right=sum_rate(cells, C))
    return stacked(tables, "users")


def mse_by_receiver(uplink: Uplink) -> pd.DataFrame:
    """MSE of each user under the three receivers: receiver, seed, rank (1 is the weakest user), mse.

    Receivers are "weakest-first" and "strongest-first", with perfect cancellation, and "joint LMMSE".
    """
    C = uplink.thermal_cov
    receivers: dict[str, Real] = {order: sic_mse(uplink, C, order) for order in ORDERS}
    receivers["joint LMMSE"] = lmmse_mse(uplink, C)
    return stacked({receiver: ranked(uplink, mse=mse) for receiver, mse in receivers.items()}, "receiver")


def propagation(uplink: Uplink, gains_db: Sequence[float], n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Excess MSE of real cancellation: SIC on 64-QAM symbols that subtracts its own decisions or estimates.

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
        symbol_errors. Cancellations are "genie", "soft" and "hard", see `simulate.receive`, and "linear", which
        subtracts linear estimates and is the joint LMMSE receiver; its excess is computed, not measured.
    """
    tables = {}
    for gain, order in product(gains_db, ORDERS):
        cells = with_floor(uplink, -gain)
        C = cells.thermal_cov
        ideal = sic_mse(cells, C, order).mean(axis=-1)
        linear = lmmse_mse(cells, C).mean(axis=-1) / ideal
        tables[order, "linear", gain] = per_seed(excess=linear, symbol_errors=np.nan)
        for how in ("genie", "soft", "hard"):
            found = measure_mse(cells, C, n=n, rng=rng, symbols="qam64", order=order, cancellation=how)
            excess, errors = found.mse.mean(axis=-1) / ideal, found.symbol_errors.mean(axis=-1)
            tables[order, how, gain] = per_seed(excess=excess, symbol_errors=errors)
    return stacked(tables, "order", "cancellation", "gain_db")


def budgets(settings: Mapping[str, Mapping[str, Any]], drops: int, seed: int) -> pd.DataFrame:
    """Mean MSE over the users, Eq. (5), in the drops of several settings.

    Parameters
    ----------
    settings : mapping
        Name to keyword arguments of `channel.draw_uplinks`. All are drawn from the same seed, so that settings with the
        same places and fading can be compared drop by drop.
    drops : int
    seed : int

    Returns
    -------
    DataFrame with setting, order, seed, mse.
    """
    whole_number(seed, "seed", minimum=0)
    tables = {}
    for name, setting in settings.items():
        cells = draw_uplinks(drops, np.random.default_rng(seed), **setting)
        for order in ORDERS:
            tables[name, order] = per_seed(mse=sic_mse(cells, cells.thermal_cov, order).mean(axis=-1))
    return stacked(tables, "setting", "order")


def coded_distortion(uplink: Uplink) -> pd.DataFrame:
    """Distortion of Gaussian numbers sent with ideal codes, two numbers per symbol, in the paper's order.

    Returns
    -------
    DataFrame
        seed, rank (1 is the weakest user), rate (nats, Eq. (3)), qam64_rate (what a symbol of 64-QAM carries there) and
        the two distortions `e^(-rate)`: gaussian and qam64.
    """
    rates = sic_rates(uplink, uplink.thermal_cov)
    qam64 = qam64_information(np.exp(-rates))
    return ranked(uplink, rate=rates, qam64_rate=qam64, gaussian=np.exp(-rates), qam64=np.exp(-qam64))
