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

from rmtllmf_lib.arrays import Real, one_of
from rmtllmf_lib.disentanglement.wde import wde
from rmtllmf_lib.model.fusion import lambda_n
from rmtllmf_lib.model.task_vector import TaskVector, Weights, cosine_matrix
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.protection.resilience import protection_named, reload_embeddings
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts
from rmtllmf_lib.study.study import NO_LINK, provenance
from rmtllmf_lib.study.units import Bench, Unit, models
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario

# --- cosines under noise ----------------------------------------------------------------------------------------------


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
    _, made = DEFINITIONS[one_of(definition, DEFINITIONS, "definition")]
    return made(Bench(suite), _unit(suite, scenario, "rmtllmf", seed, per_class, lam, None))


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
