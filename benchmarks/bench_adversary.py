"""The worst-case covariances against a general convex solver, at 16 antennas and 8 users, and up to 64 and 32."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor
from scipy.optimize import brentq
from threadpoolctl import threadpool_limits

from benchmarks import Row, apart, available_memory, medians, resident
from benchmarks.bench_receiver import rates_and_mse
from benchmarks.cost_figure import cost as cost_figure
from benchmarks.cost_figure import save
from rmtllmf_lib.wireless.adversary import attack, largest_rate
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import sic_order, sic_rates

BUDGET, FLOOR = 2.0, 0.05
DROPS = 10_000
KINDS = ("sum-rate", "minimax", "minimax-sic")
SWEEPS = [
    *(("antennas", antennas, 8) for antennas in (2, 4, 8, 16, 32, 64)),
    *(("users", 64, users) for users in (1, 2, 4, 8, 16, 32)),
]
REDUCED = {"sum-rate": 250, "minimax": 50, "minimax-sic": 30}  # bounds against cvxpy in range(G)
AT_ONCE = 20  # calls that are timed together: the first after another's work finds its caches empty
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


def convex_optimum(uplink: Uplink, kind: str) -> float:
    """The problem as the semidefinite program that a user would write down: the objective in nats."""
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

    return sum_rate() if kind == "sum-rate" else largest_rate(interference=kind == "minimax-sic")


def run() -> list[Row]:
    costs = pd.DataFrame(cost())
    solved, rows = against_a_solver()
    save(pd.concat([costs, pd.DataFrame(solved)], ignore_index=True), cost_figure, "cost")
    return [*rows, *reduced(), *interior_point(), *large(), *batched(), *certificates(costs)]


def cost() -> list[dict[str, Any]]:
    """Times of single drops against the antennas and against the users, with the certified gaps of the attacks."""
    table = []
    for sweep, antennas, users in SWEEPS:
        uplink = link(antennas, users)
        cov = attack(uplink, BUDGET).noise_cov
        place = {"sweep": sweep, "antennas": antennas, "users": users}
        table.append({**place, "method": "rates", "seconds": seconds(partial(sic_rates, uplink, cov), 9)})
        for kind in KINDS:
            found = attack(uplink, BUDGET, kind)
            gap = float((found.objective - found.lower_bound) / found.objective)
            taken = seconds(partial(attack, uplink, BUDGET, kind), 5)
            table.append({**place, "method": kind, "seconds": taken, "gap": gap, "steps": found.iterations})
    return table


def certificates(costs: pd.DataFrame) -> list[Row]:
    """Relative distance of objective and bound with the most antennas, for a few and for the most users."""
    ends = costs["sweep"].eq("users") & costs["users"].isin([8, 32])
    return [
        Row(
            f"{row['method']}, {row['antennas']}×{row['users']}: certified gap",
            1e6 * row["gap"],
            1.0,
            unit="ppm",
            at_least=False,
            detail=f"{1e3 * row['seconds']:.1f} ms, {row['steps']:.0f} steps",
        )
        for row in costs[ends].dropna(subset="gap").to_dict("records")
    ]


def against_a_solver() -> tuple[list[dict[str, Any]], list[Row]]:
    """At 16×8 as ratios; the smaller sizes are for the figure alone."""
    bounds = dict(zip(KINDS, (1000, 1000, 200), strict=True))
    if find_spec("cvxpy") is None:
        return [], [Row(f"{kind}, 16×8 / cvxpy", None, bound, detail="needs cvxpy") for kind, bound in bounds.items()]
    convex_optimum(link(2, 2), "sum-rate")  # untimed: the import
    table, rows = [], []
    for kind, bound in bounds.items():
        for antennas in (2, 4, 8, 16):
            uplink = link(antennas, 8)
            start = time.perf_counter()
            value = convex_optimum(uplink, kind)
            taken = time.perf_counter() - start
            found = attack(uplink, BUDGET, kind)
            assert abs(float(found.objective) / value - 1) < 1e-5
            place = {"sweep": "antennas", "antennas": antennas, "users": 8}
            table.append({**place, "method": f"{kind}, cvxpy", "seconds": taken})
        ours = seconds(partial(attack, uplink, BUDGET, kind), 21)
        detail = f"{1e3 * ours:.2f} ms, reference {taken:.2f} s"
        rows.append(Row(f"{kind}, 16×8 / cvxpy with CLARABEL", taken / ours, bound, detail=detail))
    return table, rows


@threadpool_limits.wrap(limits=1)  # threads of one library's pool, waiting for work, slow the other's small products
def reduced() -> list[Row]:
    """The same solver on programs that are reduced to range(G) beforehand, as attacks are: 8 dimensions, not 16."""
    if find_spec("cvxpy") is None:
        return [Row(f"{kind}, 16×8 / cvxpy in range(G)", None, detail="needs cvxpy") for kind in KINDS]
    uplink, rows = link(16, 8), []
    inside = Uplink(np.linalg.qr(uplink.H)[1], uplink.power, FLOOR)
    for kind in KINDS:
        found = attack(uplink, BUDGET, kind).objective
        assert abs(float(found) / convex_optimum(inside, kind) - 1) < 1e-5
        ways = {
            "ours": lambda kind=kind: [attack(uplink, BUDGET, kind) for _ in range(AT_ONCE)],
            "reduced": partial(convex_optimum, inside, kind),
            "full": partial(convex_optimum, uplink, kind),
        }
        taken = medians(ways, repeats=3)
        taken["ours"] /= AT_ONCE
        detail = f"{1e3 * taken['ours']:.2f} ms, reduced {taken['reduced']:.2f} s, full {taken['full']:.2f} s"
        ratio = taken["reduced"] / taken["ours"]
        rows.append(Row(f"{kind}, 16×8 / cvxpy in range(G)", ratio, REDUCED[kind], detail=detail))
    return rows


@threadpool_limits.wrap(limits=1)
def interior_point() -> list[Row]:
    """(P2) at full power with 32 users, against what its ten steps would cost an interior-point method at least.

    Its unknowns are the r^2 real numbers of the jammer; a step factors a system of that size.
    """
    uplink, size = link(64, 32), 32**2
    system = np.cov(np.random.default_rng(0).standard_normal((size, 2 * size)))
    ways = {
        "ours": partial(attack, uplink, BUDGET, "minimax-sic"),
        "steps": lambda: [cho_factor(system, lower=True) for _ in range(10)],
    }
    taken = medians(ways, repeats=5)
    detail = f"{1e3 * taken['ours']:.1f} ms, ten factorisations {1e3 * taken['steps']:.0f} ms"
    name = "minimax-sic, 64×32 / ten Cholesky factorisations of r² × r²"
    return [Row(name, taken["steps"] / taken["ours"], 5, detail=detail)]


def large() -> list[Row]:
    """The largest rate, the objective of (P2), of many large drops."""
    name, memory = f"largest_rate, {DROPS:,} drops of 64×32: memory", available_memory()
    if memory is None or memory < 6 * 2**30:
        return [Row(name, None, detail="needs Linux and 6 GiB of free memory")]
    found = apart("benchmarks.bench_adversary", "largest")
    detail = f"peak in a process of its own, {found['inputs']:.1f} GB before; {found['seconds']:.1f} s"
    return [Row(name, found["peak"], 4, "GB", at_least=False, detail=detail)]


def largest() -> dict[str, float]:
    """GB and seconds of one call."""
    uplink = link(64, 32, DROPS)
    cov = uplink.H @ uplink.H.conj().swapaxes(-1, -2)
    cov[:, range(64), range(64)] += FLOOR
    before, start = resident("VmRSS"), time.perf_counter()
    assert np.isfinite(largest_rate(uplink, cov)).all()
    return {"seconds": time.perf_counter() - start, "peak": resident("VmHWM"), "inputs": before}


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
