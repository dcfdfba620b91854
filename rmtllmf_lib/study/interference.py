"""Interference between received task vectors (Section IV-2): their cosines, before and after protection, and the WDE.

The paper takes the cosine of two task vectors as a measure of weight disentanglement. The results are stored in parts,
one for each scenario, definition or protection, and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pandas as pd
from pydantic import NonNegativeInt, PositiveInt

from rmtllmf_lib.arrays import known_names, one_of
from rmtllmf_lib.disentanglement.wde import wde
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import lambda_n
from rmtllmf_lib.model.task_vector import TaskVector, Weights, cosine_matrix
from rmtllmf_lib.protection.embeddings import reload_embeddings
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.protection.resilience import PROTECTIONS, protection_named
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts
from rmtllmf_lib.study.study import NO_LINK, provenance
from rmtllmf_lib.study.units import Bench, Unit, models
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.validated import validated_call


def _reloaded(bench: Bench, unit: Unit) -> dict[str, TaskVector]:
    base = bench.suite.backbone.weights
    return {name: reload_embeddings(base + tau, base) - base for name, tau in bench.received(unit).items()}


def _protected(bench: Bench, unit: Unit, **changes: Any) -> list[Weights]:
    """Weights of the unit's models, with some of its settings changed."""
    return [found.weights for _, found in models(bench, replace(unit, **changes))]


def _own(bench: Bench, unit: Unit) -> dict[str, TaskVector]:
    names = tuple(bench.suite.taus)
    alone = _protected(bench, unit, combinations=tuple((name,) for name in names), lams=(1.0,) * len(names))
    return {name: weights - bench.suite.backbone.weights for name, weights in zip(names, alone, strict=True)}


def _share(bench: Bench, unit: Unit) -> dict[str, TaskVector]:
    (after,), (before,) = _protected(bench, unit), _protected(bench, unit, protection="freeze")
    vectors = _reloaded(bench, unit)
    part = (after - before) / (len(vectors) * unit.lams[0])
    return {name: tau + part for name, tau in vectors.items()}


def _left_out(bench: Bench, unit: Unit) -> dict[str, TaskVector]:
    names = tuple(bench.suite.taus)
    others = tuple(tuple(other for other in names if other != name) for name in names)
    (whole,) = _protected(bench, unit)
    without = _protected(bench, unit, combinations=others, lams=unit.lams * len(names))
    return {name: (whole - rest) / unit.lams[0] for name, rest in zip(names, without, strict=True)}


_Vectors = Callable[[Bench, Unit], dict[str, TaskVector]]

# Name to (description, function); all but the first two apply R-MTLLMF and need a memory.
DEFINITIONS: Mapping[str, tuple[str, _Vectors]] = {
    "received": ("as received, without protection", Bench.received),
    "reloaded": ("as received, embeddings reloaded", _reloaded),
    "own": ("R-MTLLMF on each user's own model, less the base", _own),
    "share": ("as received, plus an equal share of the fused model's realignment", _share),
    "left out": ("R-MTLLMF with all users, less R-MTLLMF without that one", _left_out),
}


@validated_call
def effective_vectors(
    suite: Suite,
    scenario: Scenario,
    definition: str,
    *,
    seed: NonNegativeInt = 0,
    per_class: PositiveInt = 10,
    lam: float | None = None,
    realignment: Recipe = REALIGNMENT,
) -> dict[str, TaskVector]:
    """Task vectors of a protected model, by one of `DEFINITIONS`.

    R-MTLLMF makes one model for all users, and the paper does not say what its task vectors are. For "received" and
    "reloaded", `theta_base + lam * sum of the vectors` is the model before realignment, for "share" the model after
    it. "left out" is the contribution of each user to the protected model; without realignment it equals "reloaded".

    Parameters
    ----------
    lam : float, optional
        lambda_N; default `fusion.lambda_n`.
    seed, per_class, realignment
        As in `study.Study`: the same noise, memory and order of training images.

    Returns
    -------
    dict of task name to TaskVector
    """
    _, vectors = DEFINITIONS[one_of(definition, DEFINITIONS, "definition")]
    return vectors(Bench(suite), _unit(suite, scenario, "rmtllmf", seed, per_class, lam, None, realignment))


def _unit(
    suite: Suite, scenario: Scenario | None, name: str, seed: int, per_class: int, lam: float | None,
    images: int | None, realignment: Recipe,
) -> Unit:  # fmt: skip
    names = tuple(suite.taus)
    protection = protection_named(name)
    return Unit(
        scenario if protection.receives else None, name, seed, per_class if protection.remembers else 0,
        (names,), (lambda_n(len(names)) if lam is None else lam,), realignment if protection.trains else None,
        None, "test", images,
    )  # fmt: skip


@validated_call
def cosine_study(
    suite: Suite,
    scenarios: Sequence[Scenario],
    definitions: Sequence[str] = ("received",),
    *,
    seeds: PositiveInt = 1,
    per_class: PositiveInt = 10,
    lam: float | None = None,
    realignment: Recipe = REALIGNMENT,
    store: Store | None = None,
    workers: int = 1,
) -> pd.DataFrame:
    """Cosine similarity of every pair of users' task vectors, from the store or computed.

    Parameters
    ----------
    definitions : names in `DEFINITIONS`
    seeds : int
        Realisations of the noise, the same as in a study with these seeds.
    per_class, lam, realignment
        As in `effective_vectors`.
    store, workers
        As in `run_study`.

    Returns
    -------
    DataFrame with columns scenario, definition, seed, first, second, cosine; each pair once
    """
    _require_some(scenarios=scenarios, definitions=definitions)
    cases = []
    definitions = known_names(definitions, DEFINITIONS, "definition")
    for scenario, definition, seed in product(scenarios, definitions, range(seeds)):
        labels = {"scenario": scenario.name, "definition": definition, "seed": seed}
        unit = _unit(suite, scenario, "rmtllmf", seed, per_class, lam, None, realignment)
        cases.append((labels, {"unit": unit, "definition": definition}))
    return _stored(suite, "cosines-part", cases, _cosines, store, workers)


def _cosines(bench: Bench, unit: Unit, definition: str) -> pd.DataFrame:
    vectors = DEFINITIONS[definition][1](bench, unit)
    cosines = cosine_matrix(list(vectors.values()))
    pairs = combinations(enumerate(vectors), 2)
    rows = [(first, second, cosines[i, j]) for (i, first), (j, second) in pairs]
    return pd.DataFrame(rows, columns=["first", "second", "cosine"])


@validated_call
def wde_under(
    suite: Suite,
    scenarios: Sequence[Scenario],
    protections: Sequence[str],
    *,
    seeds: PositiveInt = 3,
    per_class: PositiveInt = 10,
    images: PositiveInt | None = None,
    lam: float | None = None,
    realignment: Recipe = REALIGNMENT,
    store: Store | None = None,
    workers: int = 1,
) -> pd.DataFrame:
    """WDE of all tasks fused, Eqs. (7) and (8), for each link and protection, from the store or computed.

    The single-task reference of a task is its fine-tuned model, lambda_i = 1.

    Parameters
    ----------
    protections : names in `resilience.PROTECTIONS`
        Protections that ignore the link are computed once, with the scenario "no link".
    images : int, optional
        Test images of each task; None: all.
    seeds, per_class, lam, realignment, store, workers
        As in `cosine_study`.

    Returns
    -------
    DataFrame with columns scenario, protection, seed, task, images, wde
    """
    _require_some(scenarios=scenarios, protections=protections)
    cases = []
    for name in known_names(protections, PROTECTIONS, "protection"):
        for scenario in scenarios if protection_named(name).receives else (None,):
            for seed in range(seeds):
                unit = _unit(suite, scenario, name, seed, per_class, lam, images, realignment)
                labels = {"scenario": scenario.name if scenario else NO_LINK, "protection": name, "seed": seed}
                cases.append((labels, {"unit": unit}))
    return _stored(suite, "wde-part", cases, _wde, store, workers)


def _wde(bench: Bench, unit: Unit) -> pd.DataFrame:
    (model,) = _protected(bench, unit)
    prepared = {task: bench.prepared(task, "test", unit.images) for task in bench.suite.tasks}
    return wde(bench.suite, prepared, own_lam=1.0, fused=model)[["task", "images", "wde"]]


def _require_some(**lists: Sequence[Any]) -> None:
    for name, items in lists.items():
        if not items:
            raise InputError(f"{name} is empty: expected at least one")


def _stored(
    suite: Suite,
    kind: str,
    cases: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    build: Callable[..., pd.DataFrame],
    store: Store | None,
    workers: int,
) -> pd.DataFrame:
    """One table of the parts of all cases, given as (labels, arguments of `build`); labels are the first columns."""
    bench, origin = Bench(suite), provenance(suite)
    configs = [{**case, "unit": case["unit"].described(), **origin} for _, case in cases]

    def table(place: int) -> pd.DataFrame:
        return build(bench, **cases[place][1])

    tables = build_parts(store or Store(), kind, configs, table, workers=workers)
    rows = [table.assign(**labels)[[*labels, *table]] for (labels, _), table in zip(cases, tables, strict=True)]
    return pd.concat(rows, ignore_index=True)
