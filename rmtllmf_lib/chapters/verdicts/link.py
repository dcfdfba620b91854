"""Claims about the link: Section II-A, the attacks of Section II-C, and the link numbers of Section IV-1."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmtllmf_lib.chapters.checks import covariance_bound, standard_errors
from rmtllmf_lib.chapters.system_model import tables as link_tables
from rmtllmf_lib.chapters.verdicts.claims import Finding, graded, measures
from rmtllmf_lib.chapters.verdicts.evidence import LinkEvidence
from rmtllmf_lib.chapters.words import beyond_rounding
from rmtllmf_lib.chapters.worst_case_noise import paper_link
from rmtllmf_lib.chapters.worst_case_noise.tables import compare_attacks, csi_sweep
from rmtllmf_lib.recorded import typeset
from rmtllmf_lib.wireless.adversary import attack, attacked_cov, largest_rate
from rmtllmf_lib.wireless.optimality import saddle_margins
from rmtllmf_lib.wireless.receiver import ORDERS, lmmse_mse, sic_mse, sic_rates, sum_rate, sum_rate_published
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
    sent = link_tables.coded_distortion(evidence.drops[:200])
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


@measures("Order")
def _order(evidence: LinkEvidence) -> Finding:
    drops = evidence.drops
    own, other = (float(sic_mse(drops, drops.thermal_cov, order).mean()) for order in ORDERS)
    cost = own / other - 1
    return graded(cost < 0.02, cost < 1, cost=100 * cost)


@measures("Linear SIC")
def _linear(evidence: LinkEvidence) -> Finding:
    """Compare with Eq. (5), at the link's SNR and with 10 dB more: linear estimates cancelled, and decisions."""
    table = link_tables.propagation(evidence.drops[:60], [0, 10], 500, evidence.rng())
    found = table[table["order"] == ORDERS[0]].groupby(["cancellation", "gain_db"])["excess"].mean()
    (linear, louder), decided = found["linear"].loc[[0, 10]], found["hard"].loc[[0, 10]].tolist()
    return graded(linear < 1.05, decided[0] < 1.05, linear=linear, louder=louder, decided=decided)


@measures("(P1)")
def _saddle(evidence: LinkEvidence) -> Finding:
    drops, power = evidence.drops, evidence.power
    cov = attack(drops, power, "sum-rate").noise_cov
    margins = saddle_margins(sum_rate, drops, power, cov, evidence.rng())
    gain = -min(margins.users, margins.jammer)
    lost = f"every one lost at least {-100 * gain:.1f} % of the sum rate"
    most = lost if gain < 0 else f"the best gained {100 * gain:.1f} % of the sum rate"
    return graded(gain < 1e-9, trials=margins.trials, gain=round(100 * gain, 4), most=most)


@measures("Eq. (13)")
def _determinant(evidence: LinkEvidence) -> Finding:
    """Check the numbers of an identity."""
    drops = evidence.drops
    cov = attacked_cov(drops, evidence.power, "sum-rate")
    off = float(np.abs(sum_rate(drops, cov) / sic_rates(drops, cov).sum(axis=-1) - 1).max())
    return graded(off < ROUNDING, off=beyond_rounding(off, ROUNDING))


@measures("Eq. (14)")
def _allocation(evidence: LinkEvidence) -> Finding:
    drops, power = evidence.drops, evidence.power
    printed, ours = (attack(drops, power, kind) for kind in ("sum-rate-published", "sum-rate"))
    certified = bool((ours.objective - ours.lower_bound < 1e-6 * ours.objective).all())
    bound = ", and no noise of this power leaves fewer" if certified else ""
    same = np.allclose(printed.objective, ours.objective, rtol=ROUNDING)
    numbers: dict[str, Any] = {"printed": printed.objective.mean(), "ours": ours.objective.mean(), "bound": bound}
    return graded(same and certified, jnr_db=evidence.jnr_db, **numbers)


@measures("(P2)")
def _strongest_is_best(evidence: LinkEvidence) -> Finding:
    share = float(compare_attacks(evidence.drops, evidence.power, ["strongest-user"])["strongest_is_best"].mean())
    often = "never the best" if share == 0 else f"the best in {100 * share:.0f} % of the cells"
    others = f"in {'every cell' if share == 0 else 'the others'} another user has the largest rate"
    return graded(share == 1, share > 0.9, share=100 * share, often=often, others=others)


@measures("(P2), full power")
def _full_power(evidence: LinkEvidence) -> Finding:
    kinds = ["strongest-user", "minimax-sic"]
    table = compare_attacks(evidence.drops, evidence.power, kinds)
    table["gain"] = table["max_rate_silent"] / table["max_rate"] - 1
    published, best = table.groupby("kind")["gain"].mean()[kinds]
    most = max(published, best)
    return graded(most < ROUNDING, most < 0.01, published=100 * published, best=100 * best)


@measures("Eq. (15)")
def _strongest_user(evidence: LinkEvidence) -> Finding:
    drops, power = evidence.drops, evidence.power
    published, white, best = (
        largest_rate(drops, attacked_cov(drops, power, kind), "weakest-first")
        for kind in ("strongest-user", "white", "minimax-sic")
    )
    numbers = {"published": published.mean(), "white": white.mean(), "best": best.mean()}
    lower = 100 * (white < published).mean()
    return graded(published.mean() < 1.01 * best.mean(), published.mean() < white.mean(), lower=lower, **numbers)


@measures("Knowledge")
def _knowledge(evidence: LinkEvidence) -> Finding:
    """Share of the attack's gain over white noise that is left with estimates of the channels."""
    quality = [0.9, 0.99, 0.999]
    table = csi_sweep(evidence.drops, evidence.power, {"sum-rate": "noisy"}, quality, evidence.seed)
    mean = table.groupby("quality")[["objective", "best", "white"]].mean()
    kept = ((mean["white"] - mean["objective"]) / (mean["white"] - mean["best"])).loc[quality].tolist()
    harm = "more" if kept[0] > 0 else "less"
    return graded(kept[0] > 0.5, kept[-1] > 0.5, quality=quality, kept=[100 * each for each in kept], harm=harm)


FITS = 0.5  # dB within which an SNR is the paper's "around"
CLOSE = 0.15  # distance of MSEs within which a setting has the paper's, see `closest_settings`


@measures("Ideal link")
def _ideal_pair(evidence: LinkEvidence) -> Finding:
    snr, tried = paper_link.PAPER.loc["none", "snr_db"], evidence.snrs[evidence.snrs["knowledge"] == "matched"]
    best, fits = tried.loc[tried["snr_off"].idxmin()], tried[tried["snr_off"] <= FITS]
    usual = fits["reading"].isin(paper_link.SNR_READINGS).any()
    bound = paper_link.white_noise_bound(snr, evidence.drops.num_rx_antennas)
    return graded(usual, not fits.empty, bound=bound, tried=len(tried), fits=len(fits), best=best)


@measures("Attacked SNRs")
def _attacked_snrs(evidence: LinkEvidence) -> Finding:
    tried = evidence.snrs
    same_mses = tried[tried["distance"] <= CLOSE]
    if same_mses.empty:
        same_mses = tried
    best, falls = same_mses.loc[same_mses["fall_off"].idxmin()], same_mses["fall_off"] <= FITS
    levels = falls & (same_mses["off"] <= FITS)
    numbers = {"tried": len(tried), "fits": int(falls.sum()), "best": best, "power": 10 ** (best["constant"] / 10)}
    has_mses = best["distance"] <= CLOSE
    numbers["has_mses"] = "with all three MSEs" if has_mses else "without all three MSEs"
    return graded(has_mses and levels.any(), has_mses and falls.any(), **numbers)


@measures("Mean MSEs")
def _mses(evidence: LinkEvidence) -> Finding:
    found = evidence.snrs.drop_duplicates("setting").set_index("setting", drop=False)
    own, other = found.loc[str(paper_link.Setting())], found.loc[found["distance"].idxmin()]
    numbers = {"settings": len(found), "reachable": found["lmmse"].max() + 1 / 8, "own": own, "other": other}
    return graded(own["distance"] < CLOSE, other["distance"] < CLOSE, **numbers)


@measures("Noise on task vectors")
def _noise_sent(evidence: LinkEvidence) -> Finding:
    """Whether errors are Gaussian, of a variance that is Eq. (5) times the mean square of what was sent."""
    drop = evidence.drops[0]
    mse = sic_mse(drop, drop.thermal_cov)
    fits, numbers = {}, {}
    for way, errors in evidence.sent.items():
        ratio = float(np.median(errors.table["variance"] / mse))
        fits[way] = 0.9 < ratio < 1.1 and bool((errors.table["excess_kurtosis"].abs() < 0.3).all())
        numbers[way] = typeset(f"{ratio:.2g}") if ratio < 1000 else "over 1000"
    real = [fit for way, fit in fits.items() if "genie" not in way]
    ways = "; ".join(f"{way} {ratio}" for way, ratio in numbers.items())
    as_claimed = ", ".join(way for way, fit in fits.items() if fit) or "none"
    return graded(all(real), any(fits.values()), ways=ways, as_claimed=as_claimed)
