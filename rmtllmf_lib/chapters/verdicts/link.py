"""Claims about the link: Section II-A, the attacks of Section II-C, and the link numbers of Section IV-1."""

from __future__ import annotations

import numpy as np

from rmtllmf_lib.chapters.checks import covariance_bound, standard_errors
from rmtllmf_lib.chapters.system_model import tables as link_tables
from rmtllmf_lib.chapters.verdicts.claims import Finding, graded, measures
from rmtllmf_lib.chapters.verdicts.evidence import LinkEvidence
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
def _channel(evidence: LinkEvidence) -> Finding:
    drop, rng = evidence.drops[0], evidence.rng()
    noise = covariance_root(drop.thermal_cov) @ draw_symbols((drop.num_rx_antennas, SYMBOLS), rng)
    y = drop.G @ draw_symbols((drop.num_users, SYMBOLS), rng) + noise
    expected = drop.G @ drop.G.conj().T + drop.thermal_cov
    off = float(np.linalg.norm(y @ y.conj().T / SYMBOLS - expected))
    return graded(off < covariance_bound(expected, SYMBOLS), off=100 * (off / np.linalg.norm(expected)))


def _as_measured(evidence: LinkEvidence) -> bool:
    """Return whether the measured MSEs of a drop are those of Eq. (5)."""
    found = link_tables.measured_mse(evidence.drops[0], SYMBOLS, evidence.rng())
    return bool((abs(found["measured"] - found["theory"]) <= ERRORS * found["standard_error"]).all())


@measures("Eq. (3)")
def _rates(evidence: LinkEvidence) -> Finding:
    sent = link_tables.coded_distortion(evidence.drops)
    share = float((sent["qam64_rate"] / sent["rate"]).mean())
    measured = _as_measured(evidence)
    return graded(measured and share > 0.95, measured, share=100 * share)


@measures("Eq. (4)")
def _sum_rate_printed(evidence: LinkEvidence) -> Finding:
    drops = evidence.drops
    printed, total = sum_rate_published(drops, drops.thermal_cov), sic_rates(drops, drops.thermal_cov).sum(axis=-1)
    return graded(np.allclose(printed, total, rtol=ROUNDING), printed=printed.mean(), total=total.mean())


@measures("Eq. (5)")
def _mse(evidence: LinkEvidence) -> Finding:
    drops = evidence.drops
    linear, ideal = (float(f(drops, drops.thermal_cov).mean()) for f in (lmmse_mse, sic_mse))
    measured = _as_measured(evidence)
    return graded(measured and linear < 1.05 * ideal, measured, ideal=ideal, linear=linear)


@measures("(P1)")
def _saddle(evidence: LinkEvidence) -> Finding:
    drops = evidence.drops[:50]
    cov = attack(drops, evidence.power[:50], "sum-rate").noise_cov
    margins = saddle_margins(sum_rate, drops, evidence.power[:50], cov, evidence.rng(), trials=6)
    return graded(min(margins.users, margins.jammer) > -1e-9, trials=margins.trials)


@measures("Eq. (13)")
def _determinant(evidence: LinkEvidence) -> Finding:
    drops = evidence.drops
    cov = attacked_cov(drops, evidence.power, "sum-rate")
    off = float(np.abs(sum_rate(drops, cov) / sic_rates(drops, cov).sum(axis=-1) - 1).max())
    return graded(off < ROUNDING)


@measures("Eq. (14)")
def _allocation(evidence: LinkEvidence) -> Finding:
    drops, power = evidence.drops, evidence.power
    printed, ours = (attack(drops, power, kind) for kind in ("sum-rate-published", "sum-rate"))
    certified = bool((ours.objective - ours.lower_bound < 1e-6 * ours.objective).all())
    bound = ", and no noise of this power leaves fewer" if certified else ""
    same = np.allclose(printed.objective, ours.objective, rtol=ROUNDING)
    return graded(same and certified, printed=printed.objective.mean(), ours=ours.objective.mean(), bound=bound)


@measures("(P2)")
def _strongest_is_best(evidence: LinkEvidence) -> Finding:
    share = float(compare_attacks(evidence.drops, evidence.power, ["strongest-user"])["strongest_is_best"].mean())
    return graded(share == 1, share > 0.9, share=100 * share)


@measures("Eq. (15)")
def _strongest_user(evidence: LinkEvidence) -> Finding:
    drops, power = evidence.drops[:50], evidence.power[:50]
    published, white, best = (
        float(largest_rate(drops, attacked_cov(drops, power, kind), "weakest-first").mean())
        for kind in ("strongest-user", "white", "minimax-sic")
    )
    return graded(published < 1.01 * best, published < white, published=published, white=white, best=best)


@measures("Ideal link")
def _ideal_pair(evidence: LinkEvidence) -> Finding:
    snr, mse = paper_link.PAPER.loc["none", ["snr_db", "mse"]]
    bound = paper_link.white_noise_bound(snr, evidence.drops.num_rx_antennas)
    forced = float(paper_link.snr_readings(evidence.drops)["mse_at_paper_snr"].min())
    least = min(bound, forced)
    return graded(least <= 2 * mse, least=least)


@measures("Attacked SNRs")
def _attacked_snrs(evidence: LinkEvidence) -> Finding:
    traces = [
        np.einsum("nii->n", attacked_cov(evidence.drops, evidence.power, kind)).real
        for kind in ("strongest-user", "sum-rate")
    ]
    apart = float(np.abs(10 * np.log10(traces[0] / traces[1])).max())
    paper = float(np.ptp(paper_link.PAPER["snr_db"].drop("none")))
    return graded(abs(apart - paper) <= 1, apart=apart)


@measures("Mean MSEs")
def _mses(evidence: LinkEvidence) -> Finding:
    strongest = paper_link.Setting(order="strongest-first", knowledge="unaware")
    found = paper_link.closest_settings([paper_link.Setting(), strongest], 100, evidence.seed).set_index("setting")
    own, other = found.loc[str(paper_link.Setting())], found.loc[str(strongest)]
    return graded(own["distance"] < 0.15, other["distance"] < 0.15, own=own, other=other)
