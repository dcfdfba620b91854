"""Tables of the chapter on sending less: rates and distortions, payloads really sent, and stored results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from rmtllmf_lib.arrays import Real, real_number, whole_number
from rmtllmf_lib.chapters.fusion.tables import CLOSEST
from rmtllmf_lib.chapters.tidy import stacked
from rmtllmf_lib.chapters.worst_case_noise.paper_link import ATTACKS
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.payload.payload import Encoded
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.study.payloads import error_ratios, task_accuracies
from rmtllmf_lib.study.units import Bench, specialists
from rmtllmf_lib.transport.coded_payload import Plan, full_uses, plan, quantised
from rmtllmf_lib.transport.link import Link, send
from rmtllmf_lib.transport.mcs import measured, mse_of, thresholds
from rmtllmf_lib.transport.scenario import inject_mse
from rmtllmf_lib.wireless.adversary import attacked_cov, jammer_power
from rmtllmf_lib.wireless.channel import Uplink, complex_normal
from rmtllmf_lib.wireless.information import capacity_bits, ideal_distortion, repeated_mse


def rates(uses: Sequence[int], draws: int, *, rng: np.random.Generator) -> pd.DataFrame:
    """What is left of a pair of numbers after some uses of each of the paper's links: by formula, and sampled.

    Returns
    -------
    DataFrame with columns link, mse, uses, coded and repeated (relative squared error by formula), feedback and
    averaged (the same, sampled: `with_feedback`, and the mean of repeated symbols)
    """
    rows = []
    for name, link in PAPER_LINKS.items():
        for count in uses:
            formulas = float(ideal_distortion(link.mse, count)), float(repeated_mse(link.mse, count))
            sampled = with_feedback(link.mse, count, draws, rng=rng), averaged(link.mse, count, draws, rng=rng)
            rows.append((name, link.mse, count, *formulas, *sampled))
    return pd.DataFrame(rows, columns=["link", "mse", "uses", "coded", "repeated", "feedback", "averaged"])


def with_feedback(mse: float, uses: int, draws: int, *, rng: np.random.Generator) -> float:
    """Return the squared error of complex numbers sent with feedback: each use carries what is still wrong [1]_.

    The sender hears the receiver's estimate, and sends its error scaled to unit power. An LMMSE receiver leaves the
    part `mse` of it, so that the error is `mse^uses` after all uses: what codes of infinite length reach without
    feedback.

    Parameters
    ----------
    mse : float
        Of a unit-power symbol in one use, in (0, 1).
    draws : int
        Numbers to average over.

    References
    ----------
    .. [1] J. P. M. Schalkwijk, T. Kailath, "A coding scheme for additive noise channels with feedback - I: No bandwidth
       constraint", IEEE Transactions on Information Theory 12 (1966) 172-182.
    """
    wrong = complex_normal((whole_number(draws, "draws"),), rng)
    power = 1.0
    for _ in range(whole_number(uses, "uses")):
        wrong = wrong - np.sqrt(power) * _estimate(wrong / np.sqrt(power), mse, rng)
        power *= mse
    return float(np.mean(np.abs(wrong) ** 2))


def sampled_bits(mse: float, draws: int, *, rng: np.random.Generator) -> float:
    """Return the mean information density of Gaussian symbols and what a use makes of them, in bits.

    What arrives, scaled so that the symbol s has the factor 1, is `y = s + z` with noise of variance
    `v = mse / (1 - mse)`, and the density `log2 p(y | s) / p(y)`.

    Parameters
    ----------
    mse : float
        In (0, 1).
    """
    s = complex_normal((whole_number(draws, "draws"),), rng)
    y = _estimate(s, mse, rng) / (1 - mse)
    v = mse / (1 - mse)
    density = np.log((1 + v) / v) - np.abs(y - s) ** 2 / v + np.abs(y) ** 2 / (1 + v)
    return float(density.mean() / np.log(2))


def averaged(mse: float, uses: int, draws: int, *, rng: np.random.Generator) -> float:
    """Return the squared error of unit-power symbols sent several times and combined linearly."""
    symbols = complex_normal((whole_number(draws, "draws"),), rng)
    received = [_estimate(symbols, mse, rng) / (1 - mse) for _ in range(whole_number(uses, "uses"))]
    mean, noise = np.mean(received, axis=0), mse / (1 - mse) / uses
    return float(np.mean(np.abs(symbols - mean / (1 + noise)) ** 2))


def _estimate(symbols: np.ndarray, mse: float, rng: np.random.Generator) -> np.ndarray:
    """LMMSE estimates of unit-power symbols from one use."""
    real_number(mse, "mse", positive=True, maximum=1)
    return np.asarray((1 - mse) * symbols + np.sqrt(mse * (1 - mse)) * complex_normal(symbols.shape, rng))


def threshold_table() -> pd.DataFrame:
    """The measured thresholds: mcs, mse (largest that decodes), snr_db, bits_per_use, capacity (bits, at that MSE)."""
    rows = [
        (str(mcs), mse, 10 * np.log10(1 / mse - 1), mcs.rate * mcs.constellation_bits, float(capacity_bits(mse)))
        for mcs, mse in thresholds(measured()).items()
    ]
    return pd.DataFrame(rows, columns=["mcs", "mse", "snr_db", "bits_per_use", "capacity"]).sort_values("mse")


def word_error_points() -> pd.DataFrame:
    """The measurements behind the thresholds: mcs, mse, words, errors."""
    table = measured()
    known = {(mcs.constellation_bits, round(mcs.rate, 6)): str(mcs) for mcs in thresholds(table)}
    names = [known[bits, round(rate, 6)] for bits, rate in zip(table["constellation_bits"], table["rate"], strict=True)]
    return table.assign(mcs=names, mse=[mse_of(float(snr)) for snr in table["snr_db"]])[
        ["mcs", "mse", "words", "errors"]
    ]


def attacked_links(drop: Uplink, jnr_db: float) -> dict[str, Link]:
    """Return the paper's three links over one drop: thermal noise alone, and both attacks, unknown to the receiver.

    The receiver decodes the strongest user first and cancels its decisions, not what was sent.

    Parameters
    ----------
    drop : Uplink
        A single drop, see `fusion.tables.closest_drop`.
    jnr_db : float, dB
        Jammer over noise per antenna.
    """
    power = jammer_power(drop, jnr_db)
    return {
        name: Link(drop, attacked_cov(drop, power, kind), drop.thermal_cov, CLOSEST.order, cancellation="hard")
        for name, kind in ATTACKS.items()
    }


def sent_coded(
    taus: Mapping[str, TaskVector], links: Mapping[str, Link], measures: bool = True, *, generator: torch.Generator
) -> tuple[pd.DataFrame, dict[str, dict[str, TaskVector]]]:
    """Send the users' payloads symbol by symbol over each link, with the code that its worst user can decode.

    Parameters
    ----------
    taus : mapping of user to TaskVector
    links : mapping of name to Link
        None may leave a user in outage.
    measures : bool
        Whether the receivers measure their noise, see `Coded`.
    generator : torch.Generator
        On the CPU; draws the noise.

    Returns
    -------
    table : DataFrame
        link, mean and worst (MSE over the users), payload (numbers of a user), bits (of each), mcs, uses (of each
        user), wrong (numbers that did not arrive as quantised, of all users)
    arrived : dict of link to dict of user to TaskVector

    Raises
    ------
    InputError
        where a user is in outage.
    """
    rows, arrived = [], {}
    for name, link in links.items():
        mse = link.symbol_mse()
        chosen = plan(float(mse.max()), next(iter(taus.values())).layout)
        if chosen is None:
            raise InputError(f"the worst user of {name!r} has an MSE of {mse.max():.2f}: no code carries its payload")
        arrived[name], wrong = _through(taus, link, chosen, measures, generator)
        numbers = chosen.sent.payload.numbers_layout(next(iter(taus.values())).layout).size
        rows.append(
            (name, mse.mean(), mse.max(), numbers, chosen.sent.bits, str(chosen.mcs), chosen.uses, wrong)
        )  # fmt: skip
    columns = ["link", "mean", "worst", "payload", "bits", "mcs", "uses", "wrong"]
    return pd.DataFrame(rows, columns=columns), arrived


def _through(
    taus: Mapping[str, TaskVector], link: Link, chosen: Plan, measures: bool, generator: torch.Generator
) -> tuple[dict[str, TaskVector], int]:
    """Return the users' vectors as decoded, and how many numbers arrived otherwise than they were quantised."""
    sent, users = chosen.sent, list(taus)
    encoded = [sent.payload.encode(tau) for tau in taus.values()]
    numbers = [each.numbers for each in encoded]
    scheme = replace(chosen.mcs.scheme(sent.bits, sent.clip), measures=measures)
    got = send(numbers, link, scheme, generator=generator, progress=False).taus
    exact = [quantised(each, sent.bits, sent.clip) for each in numbers]
    apart = [int((one.values - two.values).abs().gt(1e-6 * one.rms).sum()) for one, two in zip(exact, got, strict=True)]
    decoded = {
        user: sent.payload.decode(Encoded(each, known.side), taus[user].layout)
        for user, each, known in zip(users, got, encoded, strict=True)
    }
    return decoded, sum(apart)


def uses_of_ladder(tau: TaskVector) -> pd.DataFrame:
    """Channel uses of a user by its MSE: worst (largest MSE that is served so), payload, bits, mcs, uses, share.

    `share` is that of one whole vector sent analog, two numbers a symbol.
    """
    rows = []
    for mse in sorted(set(thresholds(measured()).values())):
        chosen = plan(mse, tau.layout)
        if chosen is not None:
            numbers = chosen.sent.payload.numbers_layout(tau.layout).size
            share = chosen.uses / full_uses(tau.layout)
            rows.append((mse, numbers, chosen.sent.bits, str(chosen.mcs), chosen.uses, share))
    return pd.DataFrame(rows, columns=["worst", "payload", "bits", "mcs", "uses", "share"])


def power_limited_bits(taus: Sequence[TaskVector], base: Weights) -> Real:
    """Bits that ideal codes carry in the uses of one whole vector, where the noise has the scale of the weights.

    Read as a limit of the power, an error of variance `mu` times the mean square of the weights leaves a task vector
    that signal-to-noise ratio in each use, and `log2(1 + SNR)` bits.

    Returns
    -------
    (link,) float
        Mean over the users, in the order of `PAPER_LINKS`.
    """
    uses, found = full_uses(taus[0].layout), []
    for link in inject_mse("independent"):
        ratios = np.array(error_ratios(link, taus, base))
        found.append(capacity_bits(ratios / (1 + ratios), uses).mean())
    return np.array(found)


# From the paper's method to the answer: step to what the stored tables call it, without a memory.
_STEPS: Mapping[str, Mapping[str, Any]] = {
    "whole vectors, SR at the scale of the weights": {"payload": "full", "scale": "weight", "merger": "arithmetic"},
    "no noise": {"payload": "full", "scale": "", "merger": "arithmetic"},
    "SR at unit power": {"payload": "full", "scale": "task", "merger": "arithmetic"},
    "merged by TSV-Merge": {"payload": "full", "scale": "task", "merger": "tsv"},
    "rank 8, 3 bits, with a code": {"payload": "rank 8", "bits": 3, "scale": "", "merger": "tsv"},
}


def decomposition(payloads: pd.DataFrame, answers: pd.DataFrame, memories: Sequence[int]) -> pd.DataFrame:
    """Rows (step, seed, normalized) from the paper's way of sending to the answer, realigned with these memories.

    Parameters
    ----------
    payloads, answers : DataFrame
        Of the book's results "payloads_suites" and "the_answer_suites".
    memories : sequence of int
        Images per class.
    """
    plain = payloads[(payloads["lost"] == 0) & ~payloads["reloaded"].astype(bool) & (payloads["repeats"] == 1)]
    plain = plain[plain["correlation"].isin(["", "half"])]
    found = {}
    for step, wanted in _STEPS.items():
        rows = plain[plain["bits"].isna()] if "bits" not in wanted else plain
        for column, value in wanted.items():
            rows = rows[rows[column] == value]
        found[step] = rows
    ours = answers[(answers["difficulty"] == "calibrated") & (answers["n_tasks"] == answers["n_tasks"].max())]
    ours = ours[(ours["protection"] == "coded-tsv-realigned") & (ours["lam_rule"] == "chosen")]
    for count in memories:
        found[f"realigned, {count} per class"] = ours[ours["per_class"] == count]
    return stacked(found, "step")[["step", "seed", "normalized"]]


def normalised_accuracy(bench: Bench, arrived: Mapping[str, TaskVector], lam: float, images: int) -> float:
    """Return the normalised accuracy of task vectors merged by TSV-Merge, mean over the tasks of a suite."""
    counts = specialists(bench, images).set_index("task")
    model = bench.suite.backbone.weights + lam * tsv_merge(list(arrived.values()))
    return float((task_accuracies(bench, model, "test", images) / (counts["correct"] / counts["images"])).mean())
