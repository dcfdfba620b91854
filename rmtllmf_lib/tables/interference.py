"""Interference between received task vectors (Section IV-2): their cosines, before and after protection, and the WDE.

The paper takes the cosine of two task vectors as a measure of weight disentanglement. Here is what noise does to it,
what "the task vectors of R-MTLLMF" can mean, and the WDE itself of the same models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Real, real_array
from rmtllmf_lib.disentanglement.error import wde
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion import lambda_n
from rmtllmf_lib.parts import build_parts
from rmtllmf_lib.realign import REALIGNMENT
from rmtllmf_lib.resilience import protection_named, reload_embeddings
from rmtllmf_lib.store import Store
from rmtllmf_lib.study import NO_LINK, provenance
from rmtllmf_lib.suite import Suite
from rmtllmf_lib.task_vector import TaskVector, Weights, cosine_matrix
from rmtllmf_lib.transport import Scenario
from rmtllmf_lib.transport.surrogate import ERROR_CORRELATIONS
from rmtllmf_lib.units import Bench, Unit, models

# --- cosines under noise ----------------------------------------------------------------------------------------------


def noisy_cosines(cosines: ArrayLike, noise_to_signal: ArrayLike, error_correlation: ArrayLike) -> Real:
    """Cosines of task vectors that arrive with independent or correlated noise.

    `cos_ij = (rho_ij + sqrt(k_i k_j) r_ij) / sqrt((1 + k_i)(1 + k_j))`: noise adds its power to the lengths, and what
    two users' errors have in common to the inner product. Exact in the limit of many parameters, where the noise is
    orthogonal to every task vector; the deviation is of the order of one over the root of their number.

    Parameters
    ----------
    cosines : (..., n, n) in [-1, 1]
        rho, of the vectors that were sent.
    noise_to_signal : (..., n), ≥ 0
        k, the errors' power over the vectors', per user; one number for all users too.
    error_correlation : (..., n, n) or one number, in [-1, 1]
        r, of different users' errors.

    Returns
    -------
    (..., n, n) float64, with ones on the diagonal
    """
    rho = real_array(cosines, "cosines")
    if rho.ndim < 2 or rho.shape[-1] != rho.shape[-2]:
        raise InputError(f"cosines have shape {rho.shape}: expected a square matrix (…, n, n)")
    shape = rho.shape[-1:]
    k = real_array(noise_to_signal, "noise_to_signal", minimum=0)
    if k.ndim and k.shape[-1:] != shape:
        raise InputError(f"noise_to_signal has shape {k.shape} for {shape[0]} users: expected one number, or (…, n)")
    k = np.broadcast_to(k, shape) if not k.ndim else k
    common = real_array(error_correlation, "error_correlation")
    if max(abs(rho).max(), abs(common).max()) > 1 + 1e-9:
        raise InputError("a cosine or correlation is outside [-1, 1]: give those of vectors and of their errors")
    lengths = np.sqrt((1 + k)[..., :, None] * (1 + k)[..., None, :])
    found = (rho + np.sqrt(k[..., :, None] * k[..., None, :]) * common) / lengths
    diagonal = np.arange(shape[0])
    found[..., diagonal, diagonal] = 1
    return found


def scenario_cosines(scenario: Scenario, taus: Sequence[TaskVector], base: Weights) -> Real:
    """What `noisy_cosines` says of a scenario: (n, n)."""
    errors = scenario.error_cov(taus, base)
    power = np.diagonal(errors)
    scale = np.sqrt(np.outer(power, power))
    common = np.divide(errors, scale, out=np.zeros_like(errors), where=scale > 0)
    return noisy_cosines(cosine_matrix(taus), power / np.array([tau.rms**2 for tau in taus]), common)


def needed_noise(
    cosines: tuple[float, float, float], target: tuple[float, float]
) -> tuple[float, float, float]:  # fmt: skip
    """The weakest noise, equal for all users, that moves cosines of a known spread into a narrow band.

    By `noisy_cosines` the spread shrinks by 1 + k, so k is at least the ratio of the spreads less one; and the middle
    of the band then asks for a correlation r of the errors, which falls to that middle as k grows.

    Parameters
    ----------
    cosines : smallest, mean and largest cosine of the vectors that were sent
    target : lower and upper end of the band

    Returns
    -------
    k : float
        Power of the noise over that of the vectors, at least; 0 where the band is wider than the spread.
    r, limit : float
        Correlation between users' errors that puts the mean into the middle at that k (infinite at k = 0, unless it
        is there without noise), and for very strong noise.
    """
    low, mean, high = cosines
    middle = sum(target) / 2
    if not (low <= mean <= high and target[0] < target[1]):
        raise InputError(f"cosines {cosines} and band {target}: expected smallest ≤ mean ≤ largest, and lower < upper")
    k = max((high - low) / (target[1] - target[0]) - 1, 0.0)
    if k == 0:
        return 0.0, 0.0 if mean == middle else float("inf"), middle
    return k, (middle * (1 + k) - mean) / k, middle


def cosine_bands(
    cosines: tuple[float, float, float],
    noise_to_signal: Sequence[float] | Real | None = None,
    correlations: Mapping[str, float] = ERROR_CORRELATIONS,
) -> pd.DataFrame:
    """`noisy_cosines` of equal users against the strength of the noise, for cosines of a known spread.

    Parameters
    ----------
    cosines : smallest, mean and largest cosine of the vectors that were sent
    noise_to_signal : numbers > 0, optional
        Default: from -20 to 50 dB.
    correlations : dict of name to correlation of the errors

    Returns
    -------
    DataFrame with columns correlation, noise_to_signal, low, mean, high
    """
    k = np.logspace(-2, 5, 141) if noise_to_signal is None else np.asarray(noise_to_signal, float)
    rows = []
    for name, r in correlations.items():
        low, mean, high = (noisy_cosines([[1, rho], [rho, 1]], k[:, None] * [1, 1], r)[:, 0, 1] for rho in cosines)
        rows.append(pd.DataFrame({"correlation": name, "noise_to_signal": k, "low": low, "mean": mean, "high": high}))
    return pd.concat(rows, ignore_index=True)


# --- what a protected model's task vectors are ------------------------------------------------------------------------


def _received(bench: Bench, unit: Unit) -> dict[str, TaskVector]:
    return bench.received(unit)


def _reloaded(bench: Bench, unit: Unit) -> dict[str, TaskVector]:
    base = bench.suite.backbone.weights
    return {name: reload_embeddings(base + tau, base) - base for name, tau in bench.received(unit).items()}


def _protected(bench: Bench, unit: Unit) -> list[Weights]:
    return [found.weights for _, found in models(bench, unit)]


def _own(bench: Bench, unit: Unit) -> dict[str, TaskVector]:
    names = tuple(bench.suite.taus)
    alone = replace(unit, combinations=tuple((name,) for name in names), lams=(1.0,) * len(names))
    base = bench.suite.backbone.weights
    return {name: weights - base for name, weights in zip(names, _protected(bench, alone), strict=True)}


def _share(bench: Bench, unit: Unit) -> dict[str, TaskVector]:
    (after,), (before,) = _protected(bench, unit), _protected(bench, replace(unit, protection="freeze"))
    vectors = _reloaded(bench, unit)
    part = (after - before) / (len(vectors) * unit.lams[0])
    return {name: tau + part for name, tau in vectors.items()}


def _left_out(bench: Bench, unit: Unit) -> dict[str, TaskVector]:
    names = tuple(bench.suite.taus)
    others = tuple(tuple(other for other in names if other != name) for name in names)
    (whole,) = _protected(bench, unit)
    without = _protected(bench, replace(unit, combinations=others, lams=unit.lams * len(names)))
    return {name: (whole - rest) / unit.lams[0] for name, rest in zip(names, without, strict=True)}


_Vectors = Callable[[Bench, Unit], dict[str, TaskVector]]

# Each with what it is; all but the first two are made by R-MTLLMF and need a memory.
DEFINITIONS: Mapping[str, tuple[str, _Vectors]] = {
    "received": ("as received, without protection", _received),
    "reloaded": ("as received, embeddings reloaded", _reloaded),
    "own": ("R-MTLLMF on each user's own model, less the base", _own),
    "share": ("as received, plus an equal share of the fused model's realignment", _share),
    "left out": ("R-MTLLMF with all users, less R-MTLLMF without that one", _left_out),
}


def effective_vectors(
    suite: Suite, scenario: Scenario, definition: str, *, seed: int = 0, per_class: int = 10, lam: float | None = None
) -> dict[str, TaskVector]:
    """Task vectors of a protected model, under one of `DEFINITIONS`.

    R-MTLLMF makes one model of all the users, and the paper does not say what its task vectors are. For all but "own",
    `theta_base + lam * sum of the vectors` is the model before realignment ("received", "reloaded") or after it
    ("share"); "left out" is what the protected model owes to a user, and without realignment the same as "reloaded".

    Parameters
    ----------
    lam : float, optional
        lambda_N; default `fusion.lambda_n`.
    seed, per_class
        As in `study.Study`, whose noise, memory and order of training these are.

    Returns
    -------
    dict of task name to TaskVector
    """
    if definition not in DEFINITIONS:
        raise InputError(f"unknown definition {definition!r}: expected one of {', '.join(DEFINITIONS)}")
    return DEFINITIONS[definition][1](Bench(suite), _unit(suite, scenario, "rmtllmf", seed, per_class, lam, None))


def _unit(
    suite: Suite, scenario: Scenario | None, name: str, seed: int, per_class: int, lam: float | None, images: int | None
) -> Unit:
    names = tuple(suite.taus)
    protection = protection_named(name)
    return Unit(
        scenario if protection.receives else None, name, seed, per_class if protection.remembers else 0,
        (names,), (lambda_n(len(names)) if lam is None else lam,), REALIGNMENT if protection.trains else None,
        None, "test", images,
    )  # fmt: skip


def cosine_study(
    suite: Suite,
    scenarios: Sequence[Scenario],
    definitions: Sequence[str] = ("received",),
    *,
    seeds: int = 1,
    per_class: int = 10,
    lam: float | None = None,
    store: Store | None = None,
    workers: int = 1,
) -> pd.DataFrame:
    """Cosines between the task vectors of every two users, from the store or computed.

    Parameters
    ----------
    definitions : names in `DEFINITIONS`
    seeds : int
        Realisations of the noise; the first ones of a study.
    per_class, lam
        As in `effective_vectors`.
    store, workers
        As in `run_study`.

    Returns
    -------
    DataFrame with columns scenario, definition, seed, first, second, cosine; each pair once
    """
    conditions = [*product(scenarios, definitions, range(seeds))]

    def build(place: int) -> pd.DataFrame:
        scenario, definition, seed = conditions[place]
        vectors = effective_vectors(suite, scenario, definition, seed=seed, per_class=per_class, lam=lam)
        cosines = cosine_matrix(list(vectors.values()))
        pairs = combinations(enumerate(vectors), 2)
        rows = [(first, second, cosines[i, j]) for (i, first), (j, second) in pairs]
        return pd.DataFrame(rows, columns=["first", "second", "cosine"])

    configs = [
        {"definition": definition, "unit": _unit(suite, scenario, "rmtllmf", seed, per_class, lam, None).described()}
        for scenario, definition, seed in conditions
    ]
    tables = _tables(suite, "cosines-part", configs, build, store, workers)
    labels = [(scenario.name, definition, seed) for scenario, definition, seed in conditions]
    return _joined(tables, labels, ["scenario", "definition", "seed"])


def matrix(table: pd.DataFrame, names: Sequence[str]) -> Real:
    """The (n, n) matrix of the pairs of one condition in a table of `cosine_study`, means over its seeds."""
    means = table.groupby(["first", "second"])["cosine"].mean()
    found = np.eye(len(names))
    for i, j in combinations(range(len(names)), 2):
        found[i, j] = found[j, i] = means[names[i], names[j]]
    return found


# --- the WDE itself ---------------------------------------------------------------------------------------------------


def wde_under(
    suite: Suite,
    scenarios: Sequence[Scenario],
    protections: Sequence[str],
    *,
    seeds: int = 3,
    per_class: int = 10,
    images: int | None = None,
    lam: float | None = None,
    store: Store | None = None,
    workers: int = 1,
) -> pd.DataFrame:
    """WDE of all tasks fused, Eqs. (7) and (8), after each link and protection, from the store or computed.

    A task's own model is its specialist, lambda_i = 1.

    Parameters
    ----------
    protections : names in `resilience.PROTECTIONS`
        Controls that look at nothing that was received are computed once, with the scenario "no link".
    images : int, optional
        Test images of each task; None: all.
    seeds, per_class, lam, store, workers
        As in `cosine_study`.

    Returns
    -------
    DataFrame with columns scenario, protection, seed, task, images, wde
    """
    pairs: list[tuple[Scenario | None, str]] = []
    for name in protections:
        pairs += [(scenario, name) for scenario in (scenarios if protection_named(name).receives else (None,))]
    units = [
        (name, _unit(suite, scenario, name, seed, per_class, lam, images))
        for (scenario, name), seed in product(pairs, range(seeds))
    ]
    bench = Bench(suite)

    def build(place: int) -> pd.DataFrame:
        unit = units[place][1]
        (model,) = _protected(bench, unit)
        prepared = {task: bench.prepared(task, "test", images) for task in suite.tasks}
        return wde(suite, prepared, own_lam=1.0, fused=model)[["task", "images", "wde"]]

    configs = [{"unit": unit.described()} for _, unit in units]
    tables = _tables(suite, "wde-part", configs, build, store, workers)
    labels = [(unit.scenario.name if unit.scenario else NO_LINK, name, unit.seed) for name, unit in units]
    return _joined(tables, labels, ["scenario", "protection", "seed"])


def _tables(
    suite: Suite,
    kind: str,
    configs: Sequence[Mapping[str, Any]],
    build: Callable[[int], pd.DataFrame],
    store: Store | None,
    workers: int,
) -> list[pd.DataFrame]:
    origin = provenance(suite)
    whole = [{**config, **origin} for config in configs]
    return build_parts(store or Store(), kind, whole, build, workers=workers)


def _joined(tables: Sequence[pd.DataFrame], labels: Sequence[tuple], columns: Sequence[str]) -> pd.DataFrame:
    rows = [
        table.assign(**dict(zip(columns, label, strict=True)))[[*columns, *table]]
        for table, label in zip(tables, labels, strict=True)
    ]
    return pd.concat(rows, ignore_index=True)
