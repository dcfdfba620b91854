"""Claims about the link: Section II-A, the attacks of Section II-C, and the link numbers of Section IV-1."""

from __future__ import annotations

import numpy as np

from rmtllmf_lib.chapters.system_model import tables as link_tables
from rmtllmf_lib.chapters.verdicts.claims import Claim, Finding
from rmtllmf_lib.chapters.verdicts.evidence import Evidence
from rmtllmf_lib.chapters.worst_case_noise import paper_link
from rmtllmf_lib.chapters.worst_case_noise.optimality import saddle_margins
from rmtllmf_lib.chapters.worst_case_noise.tables import compare_attacks
from rmtllmf_lib.wireless.adversary import attack, attacked_cov, largest_rate
from rmtllmf_lib.wireless.receiver import lmmse_mse, sic_mse, sic_rates, sum_rate, sum_rate_published
from rmtllmf_lib.wireless.simulate import covariance_root, draw_symbols

SYMBOLS = 20_000  # of each user, where symbols are sent
ERRORS = 4.0  # standard errors that a measured number may be off
ROUNDING = 1e-6  # relative, of two formulas that are the same


def _channel(evidence: Evidence) -> Finding:
    drop, rng = evidence.cells[0], evidence.rng()
    noise = covariance_root(drop.thermal_cov) @ draw_symbols((drop.num_rx_antennas, SYMBOLS), rng)
    y = drop.G @ draw_symbols((drop.num_users, SYMBOLS), rng) + noise
    expected = drop.G @ drop.G.conj().T + drop.thermal_cov
    off = float(np.linalg.norm(y @ y.conj().T / SYMBOLS - expected))
    usual = float(np.trace(expected).real / np.sqrt(SYMBOLS))
    told = f"covariance of what arrives within {100 * (off / np.linalg.norm(expected)):.0f} %"
    return Finding("holds" if off < 1.5 * usual else "does not hold", told)


def _largest_score(evidence: Evidence) -> float:
    """How many standard errors the measured MSEs of a drop are off Eq. (5) at most."""
    found = link_tables.measured_mse(evidence.cells[0], SYMBOLS, evidence.rng())
    return float((abs(found["measured"] - found["theory"]) / found["standard_error"]).max())


def _rates(evidence: Evidence) -> Finding:
    sent = link_tables.coded_distortion(evidence.cells)
    share = float((sent["qam64_rate"] / sent["rate"]).mean())
    told = f"Gaussian symbols carry them; 64-QAM carries {100 * share:.0f} % on average"
    if _largest_score(evidence) > ERRORS:
        return Finding("does not hold", told)
    return Finding("holds" if share > 0.95 else "holds with caveat", told)


def _sum_rate_printed(evidence: Evidence) -> Finding:
    cells = evidence.cells
    printed, total = sum_rate_published(cells, cells.thermal_cov), sic_rates(cells, cells.thermal_cov).sum(axis=-1)
    same = np.allclose(printed, total, rtol=ROUNDING)
    told = f"{printed.mean():.1f} nats where the rates add up to {total.mean():.1f}"
    return Finding("holds" if same else "does not hold", told)


def _mse(evidence: Evidence) -> Finding:
    cells = evidence.cells
    linear, ideal = (float(f(cells, cells.thermal_cov).mean()) for f in (lmmse_mse, sic_mse))
    told = f"mean {ideal:.4f} with perfect cancellation, {linear:.4f} for a receiver that is linear throughout"
    if _largest_score(evidence) > ERRORS:
        return Finding("does not hold", told)
    return Finding("holds" if linear < 1.05 * ideal else "holds with caveat", told)


def _saddle(evidence: Evidence) -> Finding:
    cells = evidence.cells[:50]
    cov = attack(cells, evidence.power[:50], "sum-rate").noise_cov
    margins = saddle_margins(sum_rate, cells, evidence.power[:50], cov, evidence.rng(), trials=6)
    safe = min(margins.users, margins.jammer) > -1e-9
    return Finding("holds" if safe else "does not hold", f"no gain for either side in 2 × {margins.trials} trials")


def _determinant(evidence: Evidence) -> Finding:
    cells = evidence.cells
    cov = attacked_cov(cells, evidence.power, "sum-rate")
    off = float(np.abs(sum_rate(cells, cov) / sic_rates(cells, cov).sum(axis=-1) - 1).max())
    return Finding("holds" if off < ROUNDING else "does not hold", "equals the sum of the users' rates, to rounding")


def _allocation(evidence: Evidence) -> Finding:
    cells, power = evidence.cells, evidence.power
    printed, ours = (attack(cells, power, kind) for kind in ("sum-rate-published", "sum-rate"))
    told = f"as printed {printed.objective.mean():.1f} nats are left, with $P_i$ left out {ours.objective.mean():.1f}"
    certified = bool((ours.objective - ours.lower_bound < 1e-6 * ours.objective).all())
    told += ", and no noise of this power leaves fewer" if certified else ""
    same = np.allclose(printed.objective, ours.objective, rtol=ROUNDING)
    return Finding("holds" if same and certified else "does not hold", told)


def _strongest_is_best(evidence: Evidence) -> Finding:
    share = float(compare_attacks(evidence.cells, evidence.power, ["strongest-user"])["strongest_is_best"].mean())
    told = f"after the attack user $Q$ is the best in {100 * share:.0f} % of the cells"
    return Finding("holds" if share == 1 else "holds with caveat" if share > 0.9 else "does not hold", told)


def _strongest_user(evidence: Evidence) -> Finding:
    cells, power = evidence.cells[:50], evidence.power[:50]
    rates = {
        kind: float(largest_rate(cells, attacked_cov(cells, power, kind), "weakest-first").mean())
        for kind in ("strongest-user", "white", "minimax-sic")
    }
    published, white, best = rates.values()
    told = f"the best user keeps {published:.1f} nats; under white noise {white:.1f}, at the optimum {best:.1f}"
    close = published < 1.01 * best
    return Finding("holds" if close else "holds with caveat" if published < white else "does not hold", told)


def _ideal_pair(evidence: Evidence) -> Finding:
    snr, mse = paper_link.PAPER.loc["none", ["snr_db", "mse"]]
    bound = paper_link.white_noise_bound(snr, evidence.cells.num_rx_antennas)
    forced = float(paper_link.snr_readings(evidence.cells)["mse_at_paper_snr"].min())
    least = min(bound, forced)
    told = f"at that SNR the mean MSE is at least {least:.2f}, in any reading tried"
    return Finding("does not hold" if least > 2 * mse else "holds", told)


def _attacked_snrs(evidence: Evidence) -> Finding:
    traces = [
        np.einsum("nii->n", attacked_cov(evidence.cells, evidence.power, kind)).real
        for kind in ("strongest-user", "sum-rate")
    ]
    apart = float(np.abs(10 * np.log10(traces[0] / traces[1])).max())
    paper = float(np.ptp(paper_link.PAPER["snr_db"].drop("none")))
    told = f"attacks of equal power differ by {apart:.1f} dB"
    return Finding("does not hold" if abs(apart - paper) > 1 else "holds", told)


def _mses(evidence: Evidence) -> Finding:
    strongest = paper_link.Setting(order="strongest-first", knowledge="unaware")
    found = paper_link.closest_settings([paper_link.Setting(), strongest], 100, evidence.seed).set_index("setting")
    rows = found.loc[[str(paper_link.Setting()), str(strongest)]]
    names = ("free space, weakest first, matched", "strongest first, unaware of the jammer")
    told = "with the jammer power that fits best: " + "; ".join(
        f"{name} {row['none']:.3f}, {row['strongest-user']:.2f}, {row['sum-rate']:.2f}"
        for name, (_, row) in zip(names, rows.iterrows(), strict=True)
    )
    own, other = rows["distance"]
    return Finding("holds" if own < 0.15 else "holds with caveat" if other < 0.15 else "does not hold", told)


CLAIMS = (
    Claim(
        "Eq. (2)", "II-A", r"Users' signals add up at the antennas, with Gaussian noise of covariance $\mathbf C_z$.",
        "", "({numref}`fig-sm-drop`, {eq}`eq-sm-uplink`)", _channel,
    ),
    Claim(
        "Eq. (3)", "II-A", "Under successive cancellation each user can have this rate.", "",
        "({numref}`fig-sm-monte-carlo`, {numref}`fig-sm-distortion`)", _rates,
    ),
    Claim(
        "Eq. (4)", "II-A", "All users together have this rate.", "",
        "({numref}`fig-sm-sum-rate`, {prf:ref}`thm-sm-sum`)", _sum_rate_printed,
    ),
    Claim(
        "Eq. (5)", "II-A", r"The MSE of a user is $e^{-R_q}$.", "",
        "({numref}`fig-sm-monte-carlo`, {numref}`fig-sm-orders`)", _mse,
    ),
    Claim(
        "(P1)", "II-C", "Full power and a worst-case covariance form a saddle point of the sum rate.", "",
        "({prf:ref}`thm-wcn-saddle`)", _saddle,
    ),
    Claim(
        "Eq. (13)", "II-C", "The sum rate that (P1) minimises is a log-determinant.", "",
        "({prf:ref}`thm-sm-sum`, {eq}`eq-wcn-p1`)", _determinant,
    ),
    Claim(
        "Eq. (14)", "II-C", "The worst noise for the sum rate has these eigenvalues.", "",
        "({prf:ref}`thm-wcn-allocation`, {numref}`fig-wcn-units`)", _allocation,
    ),
    Claim(
        "(P2)", "II-C", "The largest rate is that of the strongest user, $Q$.", "",
        "({numref}`fig-wcn-user-rates`)", _strongest_is_best,
    ),
    Claim(
        "Eq. (15)", "II-C", "Noise along the strongest user's channel solves (P2).", "",
        "({numref}`fig-wcn-user-rates`, {prf:ref}`thm-wcn-sdp`)", _strongest_user,
    ),
    Claim(
        "Ideal link", "IV-1", "Without a jammer, this SNR goes with this mean MSE.", "−16.2 dB, .013",
        "({eq}`eq-wcn-snr`)", _ideal_pair,
    ),
    Claim(
        "Attacked SNRs", "IV-1", "If the two attacks have the same power, they have these SNRs.",
        "SU −21.7 dB, SR −27.3 dB", "({eq}`eq-wcn-snr`)", _attacked_snrs,
    ),
    Claim(
        "Mean MSEs", "IV-1", "Ideal, SU and SR have these mean MSEs.", ".013, .16, .21",
        "({numref}`fig-wcn-plane`)", _mses,
    ),
)  # fmt: skip
