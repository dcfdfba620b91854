"""The link of Section IV: what its numbers can mean, what rules them out, and which settings come closest.

The paper gives an SNR and a mean MSE for three scenarios. It leaves open the path loss, the noise power, the jammer's
power, what the receiver knows of the jammer, and which SNR is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.optimize import brentq, minimize_scalar

from rmtllmf_lib.arrays import Complex, Real, real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.wireless.adversary import attacked_cov, jammer_power
from rmtllmf_lib.wireless.channel import LinkBudget, Uplink, draw_uplinks, with_floor
from rmtllmf_lib.wireless.path_loss import PathLoss
from rmtllmf_lib.wireless.receiver import Order, Receiver, error_cov, lmmse_mse, sic_mse

ATTACKS = {"ideal": "none", "SU": "strongest-user", "SR": "sum-rate"}

# The paper's "SNR of around" in dB, and mean MSE over the eight users, by the kind of attack.
PAPER = pd.DataFrame(
    [(kind, PAPER_LINKS[name].snr_db, PAPER_LINKS[name].mse) for name, kind in ATTACKS.items()],
    columns=["scenario", "snr_db", "mse"],
).set_index("scenario")

Knowledge = Literal["matched", "unaware"]


def _decibel(ratio: Real) -> Real:
    return np.asarray(10 * np.log10(ratio))


# received powers (..., user) and the trace of the noise covariance (...), both in W, to an SNR in dB, (...)
SNR_READINGS: Mapping[str, Callable[[Real, Real], Real]] = {
    "all users' power over all noise": lambda power, noise: _decibel(power.sum(axis=-1) / noise),
    "one user's power over all noise": lambda power, noise: _decibel(power.mean(axis=-1) / noise),
    "the same, averaged in dB": lambda power, noise: _decibel(power / noise[..., None]).mean(axis=-1),
    "the weakest user's": lambda power, noise: _decibel(power.min(axis=-1) / noise),
}


def mean_snr_db(uplink: Uplink, noise_cov: Complex, reading: str) -> float:
    """Return the mean over the drops of the SNR in dB, in one of the `SNR_READINGS`.

    "One user's power over all noise", `p ||h||^2 / tr C`, is also that user's mean SNR at one antenna.
    """
    if reading not in SNR_READINGS:
        raise InputError(f"reading is {reading!r}: expected one of {', '.join(SNR_READINGS)}")
    noise = np.einsum("...ii->...", noise_cov).real
    return float(np.mean(SNR_READINGS[reading](uplink.received_power, noise)))


OVER_ALL_ELSE = "one user's power over all else, averaged in dB"

# matched receivers, behind which an SNR can be read
DETECTORS: Mapping[str, Callable[[Uplink, Complex], Real]] = {
    "joint LMMSE": lmmse_mse,
    "SIC, weakest first": sic_mse,
    "SIC, strongest first": partial(sic_mse, order="strongest-first"),
}

# MSEs behind one of them to an SNR in dB; an unbiased estimate with the MSE mu has noise of variance mu / (1 - mu)
AVERAGES: Mapping[str, Callable[[Real], float]] = {
    "one over the mean noise": lambda mse: -10 * float(np.log10(np.mean(mse / (1 - mse)))),
    "the mean in dB": lambda mse: float(np.mean(_decibel((1 - mse) / mse))),
    "one over the mean MSE": lambda mse: -10 * float(np.log10(np.mean(mse))),
}


def all_snrs_db(uplink: Uplink, noise_cov: Complex) -> dict[str, float]:
    """Return the SNR in dB, a mean over the drops, in every reading that was tried.

    They are the `SNR_READINGS`; `OVER_ALL_ELSE`, in which the other users count as noise, as they do before detection;
    and, "behind" each of the `DETECTORS`, each of the `AVERAGES`.
    """
    found = {reading: mean_snr_db(uplink, noise_cov, reading) for reading in SNR_READINGS}
    power, noise = uplink.received_power, np.einsum("...ii->...", noise_cov).real[..., None]
    found[OVER_ALL_ELSE] = float(np.mean(_decibel(power / (power.sum(axis=-1, keepdims=True) - power + noise))))
    for name, mses in DETECTORS.items():
        mse = mses(uplink, noise_cov)
        found |= {f"{average} behind {name}": of(mse) for average, of in AVERAGES.items()}
    return found


def white_noise_bound(snr_db: float, num_rx_antennas: int) -> float:
    """Return the least mean MSE, Eq. (5), under white noise at an SNR of "one user's power over all noise".

    With the others cancelled, a user's MSE is `1 / (1 + p ||h||^2 / sigma^2)`, and `p ||h||^2 / sigma^2` is N_R times
    this SNR; the mean over users is least where all are equal (Jensen).
    """
    return 1 / (1 + num_rx_antennas * 10 ** (real_number(snr_db, "snr_db") / 10))


def snr_readings(uplink: Uplink, order: Order = "weakest-first") -> pd.DataFrame:
    """For every reading of SNR: its value without a jammer, and the mean MSE where it has the paper's value.

    Returns
    -------
    DataFrame, one row per reading, with columns snr_db (of `uplink` without a jammer) and mse_at_paper_snr (mean over
    users and drops, with the noise floor that gives the paper's SNR).
    """
    rows = {}
    for reading in SNR_READINGS:
        ours = mean_snr_db(uplink, uplink.thermal_cov, reading)
        moved = with_floor(uplink, ours - PAPER.loc["none", "snr_db"])
        rows[reading] = {"snr_db": ours, "mse_at_paper_snr": float(sic_mse(moved, moved.thermal_cov, order).mean())}
    return pd.DataFrame(rows).T


def jnr_of_snr_drop(drop_db: float) -> float:
    """Return the jammer over noise per antenna, dB, that lowers an SNR over all noise, `tr C`, by `drop_db` > 0.

    `tr C = N_R sigma_0^2 + P_J`, so the drop is `1 + P_J / (N_R sigma_0^2)` whatever the shape of the attack.
    """
    return float(10 * np.log10(np.expm1(real_number(drop_db, "drop_db", positive=True) * np.log(10) / 10)))


@dataclass(frozen=True)
class Setting:
    """One choice of what the paper leaves open.

    Attributes
    ----------
    exponent : float
        Of a log-distance path loss; 2 is free space.
    receiver : {"sic", "lmmse"}
    order : {"weakest-first", "strongest-first"}
        Of "sic".
    knowledge : {"matched", "unaware"}
        Whether the receiver knows the jammer's covariance, or believes that there is thermal noise alone.
    """

    exponent: float = 2.0
    receiver: Receiver = "sic"
    order: Order = "weakest-first"
    knowledge: Knowledge = "matched"

    @property
    def detection(self) -> str:
        """Receiver and order in words."""
        return "joint LMMSE" if self.receiver == "lmmse" else f"SIC {self.order}"

    def __str__(self) -> str:
        return f"exponent {self.exponent:g}, {self.detection}, {self.knowledge}"


def user_mse(uplink: Uplink, noise_cov: Complex, setting: Setting) -> Real:
    """Return the MSE of each user (..., user) with the receiver of `setting`."""
    design = uplink.thermal_cov if setting.knowledge == "unaware" else None
    found = error_cov(uplink, noise_cov, design, setting.order, receiver=setting.receiver)
    return np.asarray(np.einsum("...ii->...i", found).real)


def mean_mse(uplink: Uplink, noise_cov: Complex, setting: Setting) -> float:
    """Return the mean MSE over users and drops with the receiver of `setting`."""
    return float(user_mse(uplink, noise_cov, setting).mean())


# What a receiver may be and know, over ways that power falls with distance; 3.6 is an ordinary exponent of a city.
_DETECTIONS: tuple[tuple[Receiver, Order], ...] = (
    ("sic", "weakest-first"),
    ("sic", "strongest-first"),
    ("lmmse", "weakest-first"),
)
CANDIDATES = tuple(
    Setting(exponent, receiver, order, knowledge)
    for exponent in (1.0, 2.0, 3.0, 3.6)
    for receiver, order in _DETECTIONS
    for knowledge in get_args(Knowledge)
)


def ideal_link(n: int, rng: np.random.Generator, setting: Setting, *, num_rx_antennas: int = 16) -> Uplink:
    """Draw drops with the noise floor for which the mean MSE without a jammer is the paper's .013."""
    budget = LinkBudget(path_loss=PathLoss("log-distance", exponent=setting.exponent))
    drops = draw_uplinks(n, rng, num_rx_antennas=num_rx_antennas, budget=budget)
    target = PAPER.loc["none", "mse"]

    def excess(gain_db: float) -> float:
        moved = with_floor(drops, gain_db)
        return float(np.log(mean_mse(moved, moved.thermal_cov, setting) / target))

    return with_floor(drops, brentq(excess, -150, 150, xtol=1e-6))


def attacked_mse(uplink: Uplink, jnr_db: float, setting: Setting) -> dict[str, float]:
    """Return the mean MSE under the paper's two attacks, at one ratio of jammer to noise per antenna."""
    power = jammer_power(uplink, jnr_db)
    scenarios = PAPER.index.drop("none")
    return {kind: mean_mse(uplink, attacked_cov(uplink, power, kind), setting) for kind in scenarios}


def _distance(found: Mapping[str, float]) -> float:
    """Return the root mean square of the natural logarithms of the attacked MSEs over the paper's."""
    paper = PAPER["mse"].drop("none")
    return float(np.sqrt(np.mean([np.log(found[kind] / mse) ** 2 for kind, mse in paper.items()])))


def closest_power(uplink: Uplink, setting: Setting) -> float:
    """Return the jammer-to-noise ratio, dB, at which the two attacked MSEs are closest to the paper's."""
    found = minimize_scalar(
        lambda jnr_db: _distance(attacked_mse(uplink, jnr_db, setting)), bounds=(-5.0, 30.0), options={"xatol": 1e-3}
    )
    return float(found.x)


def closest_settings(settings: Sequence[Setting], n: int, seed: int) -> pd.DataFrame:
    """Every setting with the jammer power for which it is closest to the paper's three MSEs, the closest first.

    Parameters
    ----------
    settings : sequence of Setting
    n : int
        Drops; places and fading are the same for all settings.
    seed : int

    Returns
    -------
    DataFrame with columns

    - setting, its name
    - jnr_db: jammer over noise per antenna
    - none, strongest-user, sum-rate: mean MSE; the noise floor makes "none" the paper's
    - distance: root mean square of the natural logarithms of the two attacked MSEs over the paper's
    - lmmse: mean MSE of a joint LMMSE receiver without a jammer
    """
    rows = []
    for setting in settings:
        drops = ideal_link(n, np.random.default_rng(seed), setting)
        jnr_db = closest_power(drops, setting)
        mses = {"none": mean_mse(drops, drops.thermal_cov, setting), **attacked_mse(drops, jnr_db, setting)}
        lmmse = float(lmmse_mse(drops, drops.thermal_cov).mean())
        rows.append({"setting": str(setting), "jnr_db": jnr_db, **mses, "distance": _distance(mses), "lmmse": lmmse})
    return pd.DataFrame(rows).sort_values("distance", kind="stable", ignore_index=True)


def search_snrs(settings: Sequence[Setting], n: int, seed: int) -> pd.DataFrame:
    """Every reading of SNR in every setting, each with the floor and the jammer power that suit the paper's MSEs best.

    Parameters
    ----------
    settings : sequence of Setting
        As n and seed, see `closest_settings`.

    Returns
    -------
    DataFrame with the columns of `closest_settings`, and

    - reading, one of `all_snrs_db`
    - exponent, knowledge: of the setting
    - snr: dB, without a jammer
    - off: dB, how far that or an attacked SNR is from the paper's
    - snr_off: dB, how far it is without a jammer
    - fall_strongest-user, fall_sum-rate: dB, by how much the attacks lower it
    - fall_off: dB, how far one of these is from what the paper's SNRs fall by
    - constant: dB, what has to be added to the SNR without a jammer to have the paper's
    """
    closest, rows, paper = closest_settings(settings, n, seed).set_index("setting"), [], PAPER["snr_db"]
    for setting in settings:
        drops, fit = ideal_link(n, np.random.default_rng(seed), setting), closest.loc[str(setting)]
        power = jammer_power(drops, fit["jnr_db"])
        covs = {kind: attacked_cov(drops, 0 * power if kind == "none" else power, kind) for kind in PAPER.index}
        snrs = pd.DataFrame({kind: all_snrs_db(drops, cov) for kind, cov in covs.items()})
        for reading, snr in snrs.iterrows():
            falls = (snr["none"] - snr).drop("none")
            columns = {"setting": str(setting), **fit, "reading": reading, "snr": snr["none"]}
            columns |= {"exponent": setting.exponent, "knowledge": setting.knowledge, "off": abs(snr - paper).max()}
            columns |= {f"fall_{kind}": fall for kind, fall in falls.items()}
            columns["fall_off"] = abs(falls - (paper["none"] - paper).drop("none")).max()
            constant = paper["none"] - snr["none"]
            rows.append(columns | {"constant": constant, "snr_off": abs(constant)})
    return pd.DataFrame(rows)


def mse_curves(settings: Sequence[Setting], jnr_db: Sequence[float], n: int, seed: int) -> pd.DataFrame:
    """Attacked MSEs of every setting against the jammer's power.

    Returns
    -------
    DataFrame with columns setting, detection, knowledge, jnr_db, strongest-user, sum-rate
    """
    rows = []
    for setting in settings:
        drops = ideal_link(n, np.random.default_rng(seed), setting)
        names = {"setting": str(setting), "detection": setting.detection, "knowledge": setting.knowledge}
        rows += [{**names, "jnr_db": x, **attacked_mse(drops, x, setting)} for x in jnr_db]
    return pd.DataFrame(rows)


def beside_paper(
    cases: Mapping[str, tuple[Setting, Mapping[str, float]]],
    n: int,
    seed: int,
    reading: str = "one user's power over all noise",
) -> pd.DataFrame:
    """The paper's table of SNR and MSE, and the same numbers of some settings.

    Parameters
    ----------
    cases : label -> (setting, attack -> jammer over noise in dB, where "none" needs no entry)
    n : int
        Drops.
    seed : int
    reading : str
        One of `SNR_READINGS`.

    Returns
    -------
    DataFrame, the paper first, with columns ("SNR (dB)", scenario) and ("MSE", scenario)
    """
    snrs, mses = {"the paper": PAPER["snr_db"].to_dict()}, {"the paper": PAPER["mse"].to_dict()}
    for label, (setting, jnr_db) in cases.items():
        drops = ideal_link(n, np.random.default_rng(seed), setting)
        powers = {kind: 0.0 if kind == "none" else jammer_power(drops, jnr_db[kind]) for kind in PAPER.index}
        covs = {kind: attacked_cov(drops, power, kind) for kind, power in powers.items()}
        snrs[label] = {kind: mean_snr_db(drops, cov, reading) for kind, cov in covs.items()}
        mses[label] = {kind: mean_mse(drops, cov, setting) for kind, cov in covs.items()}
    return pd.concat({"SNR (dB)": pd.DataFrame(snrs).T, "MSE": pd.DataFrame(mses).T}, axis=1)
