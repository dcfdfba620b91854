"""The worst-case covariances against a general convex solver, at 16 antennas and 8 users, and up to 64 and 32."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq

from benchmarks import Row, medians
from benchmarks.bench_receiver import rates_and_mse
from rmtllmf_lib.adversary import attack
from rmtllmf_lib.channel import Uplink
from rmtllmf_lib.receiver import sic_order, sic_rates

BUDGET, FLOOR = 2.0, 0.05
DROPS = 10_000
LOOPED = 200  # drops of the references, whose time is proportional to their number


def link(antennas: int, users: int, *batch: int) -> Uplink:
    generator = np.random.default_rng(0)
    shape = (*batch, antennas, users)
    power = 10 ** (-2 * generator.random((*batch, users)))
    return Uplink(generator.normal(size=shape) + 1j * generator.normal(size=shape), power, FLOOR)


def seconds(way: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        way()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def references(uplink: Uplink) -> dict[str, Callable[[], float]]:
    """The three problems as the semidefinite programs that a user would write down: objectives in nats."""
    import cvxpy as cp

    def sum_rate() -> float:
        G = np.block([[uplink.G.real, -uplink.G.imag], [uplink.G.imag, uplink.G.real]])
        error = cp.Variable((G.shape[1],) * 2, symmetric=True)
        jammer = cp.Variable((len(G),) * 2, PSD=True)
        noise = jammer + FLOOR * np.eye(len(G))
        block = cp.bmat([[np.eye(G.shape[1]) - error, G.T], [G, noise + G @ G.T]])
        problem = cp.Problem(cp.Minimize(-cp.log_det(error)), [block >> 0, cp.trace(jammer) <= 2 * BUDGET])
        return float(problem.solve(solver="CLARABEL")) / 2

    def largest_rate(interference: bool) -> float:
        G = uplink.G[:, sic_order(uplink)]
        jammer, scale = cp.Variable((len(G),) * 2, hermitian=True), cp.Variable()
        limits = [jammer >> 0, cp.real(cp.trace(jammer)) <= BUDGET]
        for user, g in enumerate(G.T):
            later = G[:, user + 1 :] * interference
            left = jammer + FLOOR * np.eye(len(G)) + later @ later.conj().T
            limits.append(left - scale * np.outer(g, g.conj()) >> 0)
        with warnings.catch_warnings():  # what it calls inaccurate is compared below
            warnings.simplefilter("ignore", UserWarning)
            cp.Problem(cp.Maximize(scale), limits).solve(solver="CLARABEL")
        return float(np.log1p(1 / scale.value))

    return {
        "sum-rate": sum_rate,
        "minimax": lambda: largest_rate(False),
        "minimax-sic": lambda: largest_rate(True),
    }


def run() -> list[Row]:
    return [*against_a_solver(), *batched(), *sizes()]


def against_a_solver() -> list[Row]:
    titles = {
        "sum-rate": ("(P1), sum rate", 1000),
        "minimax": ("(P2)(i), minimax", 1000),
        "minimax-sic": ("(P2)(ii), minimax of SIC", 200),
    }
    uplink = link(16, 8)
    try:
        others = references(uplink)
    except ImportError:
        return [Row(f"{title} / cvxpy", None, bound, detail="needs cvxpy") for title, bound in titles.values()]
    rows = []
    for kind, (title, bound) in titles.items():
        start = time.perf_counter()
        value = others[kind]()
        reference = time.perf_counter() - start
        found = attack(uplink, BUDGET, kind)
        assert abs(float(found.objective) / value - 1) < 1e-4
        ours = seconds(lambda kind=kind: attack(uplink, BUDGET, kind), 21)
        detail = f"{1e3 * ours:.2f} ms, reference {reference:.2f} s"
        rows.append(Row(f"{title}, 16×8 / cvxpy with CLARABEL", reference / ours, bound, detail=detail))
    return rows


def whole(uplink: Uplink) -> tuple[np.ndarray, np.ndarray]:
    """(P1), then rates and MSEs, which are `e^-R`."""
    rates = sic_rates(uplink, attack(uplink, BUDGET).noise_cov)
    return rates, np.exp(-rates)


def written_out(drop: Uplink) -> tuple[np.ndarray, np.ndarray]:
    """The same for one drop, the equations as they are written: a root of Eq. (14), one solve for each user."""
    values, vectors = np.linalg.eigh(drop.G @ drop.G.conj().T)
    values = values.clip(1e-12)

    def levels(price: float) -> np.ndarray:
        return np.maximum(2 / price / (1 + np.sqrt(1 + 4 / (values * price))), FLOOR)

    highest = len(values) / BUDGET
    price = brentq(lambda nu: (levels(nu) - FLOOR).sum() - BUDGET, 1e-9 * highest, highest, xtol=1e-15)
    return rates_and_mse(drop.H, drop.power, (vectors * levels(price)) @ vectors.conj().T)


def batched() -> list[Row]:
    uplink = link(16, 8, DROPS)

    few = [uplink[drop] for drop in range(LOOPED)]
    ways = {
        "batched": lambda: whole(uplink),
        "same functions": lambda: [whole(drop) for drop in few],
        "written out": lambda: [written_out(drop) for drop in few],
    }
    for ours, plain in zip(whole(uplink[:LOOPED]), zip(*ways["written out"](), strict=True), strict=True):
        assert np.allclose(ours, plain, rtol=1e-6)
    taken = medians(ways, repeats=5)
    rows = []
    for loop, bound in (("same functions", 20), ("written out", None)):
        reference = taken[loop] * DROPS / LOOPED
        detail = f"batched {taken['batched']:.2f} s, loop {reference:.1f} s (from {LOOPED} drops)"
        name = f"{DROPS:,} drops: (P1), rates, MSE, 16×8 / drop by drop, {loop}"
        rows.append(Row(name, reference / taken["batched"], bound, detail=detail))
    return rows


def sizes() -> list[Row]:
    rows = []
    for antennas, users in ((4, 8), (16, 8), (32, 16), (64, 32)):
        uplink = link(antennas, users)
        for kind in ("sum-rate", "minimax", "minimax-sic"):
            found = attack(uplink, BUDGET, kind)
            ours = seconds(lambda uplink=uplink, kind=kind: attack(uplink, BUDGET, kind), 3)
            gap = float((found.objective - found.lower_bound) / found.objective)
            detail = f"certified gap {gap:.1e}, {found.iterations} steps"
            rows.append(Row(f"{kind}, {antennas}×{users}", 1e3 * ours, unit="ms", at_least=False, detail=detail))
    return rows
