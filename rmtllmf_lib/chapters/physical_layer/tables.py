"""Tables of the chapter on the physical layer: what a base station knows, and whom it still hears.

Tables are tidy, with one row for each drop, so that receivers can be compared drop by drop. Every MSE is a mean over
the users. "scaled" MSEs are those of `mismatch.scaled_mse`: the receiver has measured the gain of each user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from rmtllmf_lib.arrays import Complex, Real
from rmtllmf_lib.chapters.tidy import stacked
from rmtllmf_lib.chapters.verdicts.evidence import Interval
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.transport.coded_payload import plan
from rmtllmf_lib.transport.mcs import measured_thresholds
from rmtllmf_lib.wireless.adversary import attacked_cov, jammer_power
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.linear_array import (
    arriving_cov,
    azimuths,
    draw_places,
    sensed_directions,
    surrogate_cov,
    uplinks_from,
)
from rmtllmf_lib.wireless.mismatch import Cancelled, mismatched_error_cov, scaled_mse
from rmtllmf_lib.wireless.pilots import channel_from_pilots, pilot_quality, with_estimation_error
from rmtllmf_lib.wireless.receiver import ORDERS, Order, sic_mse
from rmtllmf_lib.wireless.sensing import draw_snapshots, nulling_cov, sensed_cov

UNAWARE, GAIN, MATCHED = "unaware", "gain measured", "matched"


def snapshots_named(count: int) -> str:
    """Return how the tables call a receiver that has sensed the noise with so many snapshots."""
    return f"{count} snapshots"


def _mse(uplink: Uplink, noise_cov: Complex, design_cov: Complex, order: Order) -> Real:
    """MSE of each user, (drop, user), as the filters leave it."""
    return np.einsum("...ii->...i", mismatched_error_cov(uplink, noise_cov, design_cov, order)).real


def sense(uplink: Uplink, jnr_db: float, kinds: Iterable[str], snapshots: Sequence[int], seed: int) -> pd.DataFrame:
    """MSE of receivers that know more and more of the jammer, in both orders of decoding.

    Parameters
    ----------
    uplink : Uplink
        Drops with batch shape (n,).
    jnr_db : float, dB
        Jammer over noise per antenna.
    kinds : names of attacks
    snapshots : sequence of int
        K, numbers of silent snapshots.
    seed : int
        Of the snapshots, the same for all attacks.

    Returns
    -------
    DataFrame with columns kind, order, knowledge ("unaware", "sensed", "nulled": the jammer's strongest direction,
    "matched"), snapshots (K; 0 for the others), drop, mse, scaled
    """
    tables = {}
    for kind in kinds:
        C = attacked_cov(uplink, jammer_power(uplink, jnr_db), kind)
        designs = {(UNAWARE, 0): uplink.thermal_cov, ("nulled", 0): nulling_cov(C, 1), (MATCHED, 0): C}
        for count in snapshots:
            heard = draw_snapshots(uplink, C, count, np.random.default_rng(seed))
            designs["sensed", count] = sensed_cov(heard, uplink.noise_floor)
        for order in ORDERS:
            for (knowledge, count), design in designs.items():
                raw = _mse(uplink, C, design, order)
                # a true null leaves nothing of a user in its direction that could be scaled
                scaled = raw if knowledge == "nulled" else scaled_mse(uplink, C, design, order)
                columns = {"drop": np.arange(len(raw)), "mse": raw.mean(axis=-1), "scaled": scaled.mean(axis=-1)}
                tables[kind, order, knowledge, count] = pd.DataFrame(columns)
    return stacked(tables, "kind", "order", "knowledge", "snapshots")


def needed(table: pd.DataFrame, value: str = "mse", margin: float = 0.1) -> pd.DataFrame:
    """The fewest snapshots of the grid from which on a mean MSE stays within a margin of the matched receiver's.

    Parameters
    ----------
    table : DataFrame
        From `sense`.
    value : {"mse", "scaled"}
    margin : float
        Relative.

    Returns
    -------
    DataFrame with columns kind, order, needed (inf where the grid ends before), gains (the fewest from which on sensing
    has a lower mean than the unaware receiver), unaware, matched (means)
    """
    rows = []
    for (kind, order), part in table.groupby(["kind", "order"], sort=False):
        means = part.groupby(["knowledge", "snapshots"])[value].mean()
        unaware, matched, sensed = means[UNAWARE, 0], means[MATCHED, 0], means["sensed"].sort_index(ascending=False)
        least = [_from_on(sensed <= level) for level in ((1 + margin) * matched, unaware)]
        rows.append((kind, order, *least, unaware, matched))
    return pd.DataFrame(rows, columns=["kind", "order", "needed", "gains", "unaware", "matched"])


def _from_on(good: pd.Series) -> float:
    """The smallest index down to which all of a series, its largest index first, are good; infinity if none."""
    kept = good.index[good.cummin()]
    return float(kept[-1]) if len(kept) else np.inf


def over_drops(values: pd.Series | Real) -> Interval:
    """Return the mean over independent drops with the half width of its 95 % interval."""
    x = np.asarray(values, float)
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5 if len(x) > 1 else np.nan
    return Interval(float(x.mean()), float(half), len(x))


def pilots(
    uplink: Uplink, jammed: Mapping[str, Complex], lengths: Sequence[int], limit: float, seed: int, order: Order
) -> pd.DataFrame:
    """MSE and users lost of a receiver that knows the channels from pilots, in otherwise matched noise.

    Parameters
    ----------
    uplink : Uplink
        Drops with batch shape (n,).
    jammed : mapping of name to (drop, rx, rx) complex, W
        Noise covariances, which hit pilots and data alike.
    lengths : sequence of int
        L, pilot symbols of each user.
    limit : float
        Largest MSE at which a user is heard, see `largest_mse`.
    seed : int
        Of the noise in the pilots, the same for all lengths.
    order : {"weakest-first", "strongest-first"}

    Returns
    -------
    DataFrame with columns noise, cancelled ("estimated", "exact"), length (0: the channels are known), drop, mse (after
    scaling), lost (users), quality (mean over the users), worst (the least quality)
    """
    tables = {}
    for name, C in jammed.items():
        for length in (0, *lengths):
            csi, design = uplink, C
            rho = np.ones(uplink.power.shape)
            if length:
                csi = channel_from_pilots(uplink, C, length, np.random.default_rng(seed))
                noise = np.einsum("...ii->...", C).real / uplink.num_rx_antennas
                rho = pilot_quality(uplink, length, noise=noise)
                design = with_estimation_error(C, uplink, rho)
            ways: tuple[Cancelled, ...] = ("estimated", "exact")
            for way in ways:
                mse = scaled_mse(uplink, C, design, order, csi=csi, cancelled=way)
                columns = {
                    "drop": np.arange(len(mse)),
                    "mse": mse.mean(axis=-1),
                    "lost": (mse > limit).sum(axis=-1),
                    "quality": rho.mean(axis=-1),
                    "worst": rho.min(axis=-1),
                }
                tables[name, way, length] = pd.DataFrame(columns)
    return stacked(tables, "noise", "cancelled", "length")


def directions(
    n: int,
    seed: int,
    *,
    jnr_db: float,
    jammers: int,
    user_spread_deg: float,
    jammer_spreads_deg: Sequence[float],
    errors_deg: Sequence[float],
    snapshots: Sequence[int],
    order: Order,
) -> pd.DataFrame:
    """Protection by sensed directions and by snapshots, before a uniform linear array of 16 antennas.

    Eight users and the jammers stand at random places before the array; each jammer brings an equal share of the power.
    The surrogate covariance assumes the true power of each.

    Parameters
    ----------
    n : int
        Drops, the same for all spreads of the jammers.
    seed : int
    jnr_db : float, dB
        All jammers together over noise, per antenna.
    user_spread_deg, jammer_spreads_deg : float, sequence of float, degrees
        Angular spread of the users' channels, and of the jammers'.
    errors_deg : sequence of float, degrees
        Standard deviations of the sensed directions.
    snapshots : sequence of int
    order : {"weakest-first", "strongest-first"}

    Returns
    -------
    DataFrame with columns jammer_spread, protection ("no jammer", "none", "directions", "snapshots", "matched"),
    setting (error in degrees, or K; 0 for the others), drop, mse (after scaling), plain (before it)
    """
    rng = np.random.default_rng(seed)
    uplink = uplinks_from(draw_places((n, 8), rng), rng, spread=np.deg2rad(user_spread_deg))
    theta = azimuths(draw_places((n, jammers), rng))
    rx, floor, thermal = uplink.num_rx_antennas, uplink.noise_floor, uplink.thermal_cov
    power = jammer_power(uplink, jnr_db)[:, None] / jammers
    tables = {}
    for spread in jammer_spreads_deg:
        C = thermal + arriving_cov(theta, power * np.ones(jammers), np.deg2rad(spread), rx)
        designs = {("none", 0.0): (C, thermal), ("matched", 0.0): (C, C), ("no jammer", 0.0): (thermal, thermal)}
        for error in errors_deg:
            sensed = sensed_directions(theta, np.deg2rad(error), np.random.default_rng(seed + 1))
            designs["directions", error] = C, surrogate_cov(sensed, power[:, 0] / rx, floor, rx)
        for count in snapshots:
            heard = draw_snapshots(uplink, C, count, np.random.default_rng(seed + 2))
            designs["snapshots", float(count)] = C, sensed_cov(heard, floor)
        for (name, setting), (true, design) in designs.items():
            mse, plain = scaled_mse(uplink, true, design, order), _mse(uplink, true, design, order)
            columns = {"drop": np.arange(n), "mse": mse.mean(axis=-1), "plain": plain.mean(axis=-1)}
            tables[spread, name, setting] = pd.DataFrame(columns)
    return stacked(tables, "jammer_spread", "protection", "setting")


def largest_mse(layout: Layout) -> float:
    """Return the largest MSE at which the ladder of `transport.coded_payload` still sends a task vector."""
    return max(mse for mse in measured_thresholds().values() if plan(mse, layout) is not None)


def users_lost(
    uplink: Uplink, jnr_db: Sequence[float], kinds: Iterable[str], snapshots: Sequence[int], limit: float, seed: int
) -> pd.DataFrame:
    """Users in outage for each power of the jammer and each receiver.

    Parameters
    ----------
    uplink : Uplink
        Drops with batch shape (n,).
    jnr_db : sequence of float, dB
    kinds : names of attacks
    snapshots : sequence of int
    limit : float
        Largest MSE at which a user is heard.
    seed : int
        Of the snapshots.

    Returns
    -------
    DataFrame with columns kind, order, jnr_db, knowledge, drop, lost (users), mse, ratio (noise over signal of
    the estimates, `mu / (1 - mu)`, mean over the users). The unaware receiver's MSE is as the filters leave it, and
    stands for the ratio as well; those of all others are scaled.
    """
    tables = {}
    for kind in kinds:
        for ratio in jnr_db:
            C = attacked_cov(uplink, jammer_power(uplink, ratio), kind)
            sensed = {
                snapshots_named(count): sensed_cov(
                    draw_snapshots(uplink, C, count, np.random.default_rng(seed)), uplink.noise_floor
                )
                for count in snapshots
            }
            for order in ORDERS:
                mses = {
                    UNAWARE: _mse(uplink, C, uplink.thermal_cov, order),
                    GAIN: scaled_mse(uplink, C, uplink.thermal_cov, order),
                    **{name: scaled_mse(uplink, C, design, order) for name, design in sensed.items()},
                    MATCHED: sic_mse(uplink, C, order),
                }
                for name, mse in mses.items():
                    heard = np.minimum(mse, 1 - 1e-9)
                    noise = mse if name == UNAWARE else heard / (1 - heard)
                    columns = {
                        "drop": np.arange(len(mse)),
                        "lost": (mse > limit).sum(axis=-1),
                        "mse": mse.mean(axis=-1),
                        "ratio": noise.mean(axis=-1),
                    }
                    tables[kind, order, ratio, name] = pd.DataFrame(columns)
    return stacked(tables, "kind", "order", "jnr_db", "knowledge")


def accuracies(lost: pd.DataFrame, stored: pd.DataFrame, users: int) -> pd.DataFrame:
    """Normalised accuracy of the merged model for each power, receiver and way of sending, mean over the drops.

    With a code it is that of as many users lost, whoever they are: tasks fall to users at random. Without one it is
    linear in the logarithm of the mean error between the errors of the table, and constant beyond them. That error is
    the ratio of noise to signal for errors relative to the task vectors, whose symbols have unit power; it is the MSE
    for those relative to the weights, which is how the paper reads its MSEs.

    Parameters
    ----------
    lost : DataFrame
        From `users_lost`.
    stored : DataFrame
        From `stored_results("users_lost")`, see `study.outage.by_users_lost`.
    users : int
        Q; with all of them lost the base is left.

    Returns
    -------
    DataFrame with columns kind, order, jnr_db, knowledge, sent ("coded" or a scale of errors), seed (the suite),
    normalized
    """
    keys = ["kind", "order", "jnr_db", "knowledge"]
    tables = []
    for (sent, seed), rows in stored[stored["sent"] != "base"].groupby(["sent", "seed"], sort=False):
        if sent == "coded":
            base = stored.query("sent == 'base' and seed == @seed")["normalized"].iloc[0]
            left = np.append(rows.sort_values("lost")["normalized"], base)
            if len(left) != users + 1:
                raise InputError(
                    f"the table has accuracies for {len(left) - 1} numbers of lost users: expected {users}"
                )
            found = left[lost["lost"]]
        else:
            ordered = rows.sort_values("mse")
            error = lost["ratio" if sent == "task" else "mse"]
            found = np.interp(np.log(error), np.log(ordered["mse"]), ordered["normalized"])
        means = lost.assign(normalized=found).groupby(keys, sort=False)["normalized"].mean().reset_index()
        tables.append(means.assign(sent=sent, seed=seed))
    return pd.concat(tables, ignore_index=True)[[*keys, "sent", "seed", "normalized"]]
