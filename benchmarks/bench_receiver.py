"""Rates and MSEs of 10,000 drops at once, against one drop after another."""

from __future__ import annotations

import numpy as np

from benchmarks import Row, medians
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks
from rmtllmf_lib.wireless.receiver import sic_mse, sic_rates

DROPS = 10_000
LOOPED = 500  # drops of the reference, whose time is proportional to their number


def rates_and_mse(H: np.ndarray, power: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eqs. (3) and (5) of one drop as they are written: one solve per user."""
    rates, mse, X = np.empty(len(power)), np.empty(len(power)), C.copy()
    for q in np.argsort(power * np.linalg.norm(H, axis=0) ** 2)[::-1]:
        h = H[:, q]
        sinr = power[q] * (h.conj() @ np.linalg.solve(X, h)).real
        rates[q], mse[q] = np.log1p(sinr), 1 / (1 + sinr)
        X += power[q] * np.outer(h, h.conj())
    return rates, mse


def rates_and_mse_one_by_one(uplink: Uplink, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    drops = [rates_and_mse(*drop) for drop in zip(uplink.H, uplink.power, C, strict=True)]
    return np.array([rates for rates, _ in drops]), np.array([mse for _, mse in drops])


def one_by_one(uplink: Uplink, C: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same functions, called drop after drop."""
    found = []
    for i in range(len(C)):
        rates = sic_rates(uplink[i], C[i])
        found.append((rates, np.exp(-rates)))
    return found


def run() -> list[Row]:
    rng = np.random.default_rng(0)
    uplink = draw_uplinks(DROPS, rng)
    few = uplink[:LOOPED]
    jammer = rng.standard_normal((DROPS, 16, 64)).view(np.complex128)
    colored = uplink.thermal_cov + 1e-15 * jammer @ jammer.conj().swapaxes(-1, -2) / 32
    rows = []
    for name, C in (("thermal noise", uplink.thermal_cov), ("a covariance for each drop", colored)):
        rates, mse = rates_and_mse_one_by_one(few, C[:LOOPED])
        assert np.allclose(sic_rates(few, C[:LOOPED]), rates, rtol=1e-9)
        assert np.allclose(sic_mse(few, C[:LOOPED]), mse, rtol=1e-9)

        def batched(C: np.ndarray = C) -> tuple[np.ndarray, np.ndarray]:
            rates = sic_rates(uplink, C)
            return rates, np.exp(-rates)

        def looped(C: np.ndarray = C) -> tuple[np.ndarray, np.ndarray]:
            return rates_and_mse_one_by_one(few, C[:LOOPED])

        def called(C: np.ndarray = C) -> list[tuple[np.ndarray, np.ndarray]]:
            return one_by_one(few, C[:LOOPED])

        seconds = medians({"batched": batched, "same functions": called, "written out": looped}, repeats=3)
        for loop, bound in (("same functions", 20), ("written out", None)):
            whole = seconds[loop] * DROPS / LOOPED
            rows.append(
                Row(
                    f"rates and MSEs of {DROPS:,} drops, {name} / loop over drops, {loop}",
                    whole / seconds["batched"],
                    bound,
                    detail=f"batched {seconds['batched']:.3f} s, loop {whole:.2f} s (from {LOOPED} drops)",
                )
            )
    return rows
