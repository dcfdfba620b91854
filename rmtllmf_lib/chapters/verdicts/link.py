"""Claims about the link: Section II-A, the attacks of Section II-C, and the link numbers of Section IV-1."""

from __future__ import annotations

import numpy as np

from rmtllmf_lib.chapters.checks import covariance_bound, standard_errors
from rmtllmf_lib.chapters.system_model import tables as link_tables
from rmtllmf_lib.chapters.verdicts.claims import Finding, graded, measures
from rmtllmf_lib.chapters.verdicts.evidence import Evidence
from rmtllmf_lib.chapters.worst_case_noise import paper_link
from rmtllmf_lib.chapters.worst_case_noise.tables import compare_attacks
from rmtllmf_lib.wireless.adversary import attack, attacked_cov, largest_rate
from rmtllmf_lib.wireless.optimality import saddle_margins
from rmtllmf_lib.wireless.receiver import lmmse_mse, sic_mse, sic_rates, sum_rate, sum_rate_published
from rmtllmf_lib.wireless.simulate import covariance_root, draw_symbols

SYMBOLS = 20_000  # of each user, where symbols are sent
ERRORS = standard_errors(32)  # that a measured number may be off: two orders, two kinds of symbols, eight users
ROUNDING = 1e-6  # relative difference of two formulas that are the same


@measures("Eq. (2)")
def _channel(evidence: Evidence) -> Finding:
    drop, rng = evidence.drops[0], evidence.rng()
    noise = covariance_root(drop.thermal_cov) @ draw_symbols((drop.num_rx_antennas, SYMBOLS), rng)
    y = drop.G @ draw_symbols((drop.num_users, SYMBOLS), rng) + noise
    expected = drop.G @ drop.G.conj().T + drop.thermal_cov
    off = float(np.linalg.norm(y @ y.conj().T / SYMBOLS - expected))
    summary = f"covariance of what arrives within {100 * (off / np.linalg.norm(expected)):.0f} %"
    return graded(summary, off < covariance_bound(expected, SYMBOLS))


def _largest_score(evidence: Evidence) -> float:
    """Return the largest difference of the measured MSEs of a drop from Eq. (5), in standard errors."""
    found = link_tables.measured_mse(evidence.drops[0], SYMBOLS, evidence.rng())
    return float((abs(found["measured"] - found["theory"]) / found["standard_error"]).max())


@measures("Eq. (3)")
def _rates(evidence: Evidence) -> Finding:
    sent = link_tables.coded_distortion(evidence.drops)
    share = float((sent["qam64_rate"] / sent["rate"]).mean())
    summary = f"Gaussian symbols carry them; 64-QAM carries {100 * share:.0f} % on average"
    if _largest_score(evidence) > ERRORS:
        return Finding("does not hold", summary)
    return graded(summary, share > 0.95, caveat=True)


@measures("Eq. (4)")
def _sum_rate_printed(evidence: Evidence) -> Finding:
    drops = evidence.drops
    printed, total = sum_rate_published(drops, drops.thermal_cov), sic_rates(drops, drops.thermal_cov).sum(axis=-1)
    same = np.allclose(printed, total, rtol=ROUNDING)
    summary = f"{printed.mean():.1f} nats where the rates add up to {total.mean():.1f}"
    return graded(summary, same)


@measures("Eq. (5)")
def _mse(evidence: Evidence) -> Finding:
    drops = evidence.drops
    linear, ideal = (float(f(drops, drops.thermal_cov).mean()) for f in (lmmse_mse, sic_mse))
    summary = f"mean {ideal:.4f} with perfect cancellation, {linear:.4f} for a receiver that is linear throughout"
    if _largest_score(evidence) > ERRORS:
        return Finding("does not hold", summary)
    return graded(summary, linear < 1.05 * ideal, caveat=True)


@measures("(P1)")
def _saddle(evidence: Evidence) -> Finding:
    drops = evidence.drops[:50]
    cov = attack(drops, evidence.power[:50], "sum-rate").noise_cov
    margins = saddle_margins(sum_rate, drops, evidence.power[:50], cov, evidence.rng(), trials=6)
    safe = min(margins.users, margins.jammer) > -1e-9
    return graded(f"no gain for either side in 2 × {margins.trials} trials", safe)


@measures("Eq. (13)")
def _determinant(evidence: Evidence) -> Finding:
    drops = evidence.drops
    cov = attacked_cov(drops, evidence.power, "sum-rate")
    off = float(np.abs(sum_rate(drops, cov) / sic_rates(drops, cov).sum(axis=-1) - 1).max())
    return graded("equals the sum of the users' rates, to rounding", off < ROUNDING)


@measures("Eq. (14)")
def _allocation(evidence: Evidence) -> Finding:
    drops, power = evidence.drops, evidence.power
    printed, ours = (attack(drops, power, kind) for kind in ("sum-rate-published", "sum-rate"))
    summary = (
        f"as printed {printed.objective.mean():.1f} nats are left, with $P_i$ left out {ours.objective.mean():.1f}"
    )
    certified = bool((ours.objective - ours.lower_bound < 1e-6 * ours.objective).all())
    summary += ", and no noise of this power leaves fewer" if certified else ""
    same = np.allclose(printed.objective, ours.objective, rtol=ROUNDING)
    return graded(summary, same and certified)


@measures("(P2)")
def _strongest_is_best(evidence: Evidence) -> Finding:
    share = float(compare_attacks(evidence.drops, evidence.power, ["strongest-user"])["strongest_is_best"].mean())
    summary = f"after the attack user $Q$ is the best in {100 * share:.0f} % of the cells"
    return graded(summary, share == 1, share > 0.9)


@measures("Eq. (15)")
def _strongest_user(evidence: Evidence) -> Finding:
    drops, power = evidence.drops[:50], evidence.power[:50]
    rates = {
        kind: float(largest_rate(drops, attacked_cov(drops, power, kind), "weakest-first").mean())
        for kind in ("strongest-user", "white", "minimax-sic")
    }
    published, white, best = rates.values()
    summary = f"the best user keeps {published:.1f} nats; under white noise {white:.1f}, at the optimum {best:.1f}"
    close = published < 1.01 * best
    return graded(summary, close, published < white)


@measures("Ideal link")
def _ideal_pair(evidence: Evidence) -> Finding:
    snr, mse = paper_link.PAPER.loc["none", ["snr_db", "mse"]]
    bound = paper_link.white_noise_bound(snr, evidence.drops.num_rx_antennas)
    forced = float(paper_link.snr_readings(evidence.drops)["mse_at_paper_snr"].min())
    least = min(bound, forced)
    summary = f"at that SNR the mean MSE is at least {least:.2f}, in any reading tried"
    return Finding("does not hold" if least > 2 * mse else "holds", summary)


@measures("Attacked SNRs")
def _attacked_snrs(evidence: Evidence) -> Finding:
    traces = [
        np.einsum("nii->n", attacked_cov(evidence.drops, evidence.power, kind)).real
        for kind in ("strongest-user", "sum-rate")
    ]
    apart = float(np.abs(10 * np.log10(traces[0] / traces[1])).max())
    paper = float(np.ptp(paper_link.PAPER["snr_db"].drop("none")))
    summary = f"attacks of equal power differ by {apart:.1f} dB"
    return Finding("does not hold" if abs(apart - paper) > 1 else "holds", summary)


@measures("Mean MSEs")
def _mses(evidence: Evidence) -> Finding:
    strongest = paper_link.Setting(order="strongest-first", knowledge="unaware")
    found = paper_link.closest_settings([paper_link.Setting(), strongest], 100, evidence.seed).set_index("setting")
    rows = found.loc[[str(paper_link.Setting()), str(strongest)]]
    names = ("free space, weakest first, matched", "strongest first, unaware of the jammer")
    summary = "with the jammer power that fits best: " + "; ".join(
        f"{name} {row['none']:.3f}, {row['strongest-user']:.2f}, {row['sum-rate']:.2f}"
        for name, (_, row) in zip(names, rows.iterrows(), strict=True)
    )
    own, other = rows["distance"]
    return graded(summary, own < 0.15, other < 0.15)
