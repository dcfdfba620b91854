"""Suites as seeds: repetitions that differ in their images and fine-tuning too, and what the link is worth over them.

Intervals over the seeds of one suite say nothing about other images or another fine-tuning. Here repetition s is suite
s with the noise, memory and order of training of seed s; settings are chosen once, on the validation images of suite 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from pydantic import PositiveInt

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.compare import gap
from rmtllmf_lib.study.intervals import over_seeds, require_columns
from rmtllmf_lib.study.study import Study, choose_settings, run_study
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.validated import validated_call
from rmtllmf_lib.workers import allowed

GIVEN, CHOSEN = "given", "chosen"  # in the column `lam_rule`

_CONDITION = ("n_tasks", "per_class", "scenario", "correlation", "protection", "lam_rule")


@validated_call
def run_over_suites(
    study: Study,
    suite_of: Callable[[int], Suite],
    suites: PositiveInt,
    *,
    store: Store | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """The table of a study whose repetitions are suites.

    Parameters
    ----------
    study : Study
        With one seed, that of each suite.
    suite_of : function of a number
        The suite that was drawn, or split, and fine-tuned with this seed.
    suites : int
        Repetitions, numbered from 0.
    store, workers, progress
        As in `run_study`.

    Returns
    -------
    DataFrame as from `run_study`; `seed` is the number of the suite, and differences by `compare.gap` are paired.
    With `per_size`, each suite has combinations of its own.

    Raises
    ------
    InputError
        for a study with more than one seed, and as `run_study` does.
    """
    allowed(workers)
    if study.seeds != 1 or study.first_seed != 0:
        raise InputError(
            f"seeds is {study.seeds} and first_seed {study.first_seed}: expected 1 and 0, since each suite is one seed"
        )
    first = suite_of(0)
    options: dict[str, Any] = {"store": store, "workers": workers, "progress": progress}
    chosen = choose_settings(study, first, **options)
    tables = []
    for number in range(suites):
        suite = suite_of(number) if number else first
        tables.append(run_study(replace(study, first_seed=number), suite, chosen=chosen, **options))
    return pd.concat(tables, ignore_index=True)


@validated_call
def link_benefit(
    study: Study,
    suite_of: Callable[[int], Suite],
    suites: PositiveInt,
    *,
    store: Store | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """`run_over_suites` with lambda as given and, where the study has a grid for it, as chosen.

    Returns
    -------
    DataFrame as from `run_over_suites`, with a column `lam_rule`: "chosen" or "given".
    """
    options: dict[str, Any] = {"store": store, "workers": workers, "progress": progress}
    table = run_over_suites(study, suite_of, suites, **options)
    rule = table["protection"].map(lambda name: CHOSEN if name in study.lam_grid else GIVEN)
    table = table.assign(lam_rule=rule)
    again = tuple(name for name in study.protections if name in study.lam_grid and protection_named(name).receives)
    if not again:
        return table
    given = run_over_suites(replace(study, protections=again, lam_grid={}), suite_of, suites, **options)
    return pd.concat([table, given.assign(lam_rule=GIVEN)], ignore_index=True)


@validated_call
def by_suite(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `link_benefit` with one row for each condition and suite: means over the tasks.

    Returns
    -------
    DataFrame with columns n_tasks, per_class, scenario, correlation, protection, lam_rule, seed (the suite), lam, lr,
    accuracy, normalized.

    Raises
    ------
    InputError
        for a missing column.
    """
    values = ["lam", "lr", "accuracy", "normalized"]
    require_columns(table, [*_CONDITION, "seed", *values])
    return table.groupby([*_CONDITION, "seed"], sort=False, dropna=False)[values].mean().reset_index()


@validated_call
def leads(table: pd.DataFrame, controls: Sequence[str] = ("control", "few-shot-specialists")) -> pd.DataFrame:
    """Accuracy of every condition that uses the link, and its lead over controls that do not, paired by suite.

    Parameters
    ----------
    table : DataFrame
        From `link_benefit` or `by_suite`.
    controls : sequence of str
        Protections without a link, realigned on the same memory.

    Returns
    -------
    DataFrame with a row for each condition, the controls included: n_tasks, per_class, scenario, correlation,
    protection, lam_rule, `lam` and `lr` (means of what was used), `mean`, `half_width` and `n` of the normalised
    accuracy, and for each control `<control>_mean`, `<control>_lead` and `<control>_half_width` (95 % t interval of the
    paired difference).

    Raises
    ------
    InputError
        for a missing column, or a control without rows.
    """
    require_columns(table, [*_CONDITION, "seed", "normalized", "lam", "lr"])
    settings = table.groupby([*_CONDITION], sort=False, dropna=False)[["lam", "lr"]].mean().reset_index()
    found = settings.merge(over_seeds(table, [*_CONDITION]), on=[*_CONDITION])
    for name in controls:
        rows = table[table["protection"] == name]
        means = over_seeds(rows, ["n_tasks", "per_class"]).rename(columns={"mean": f"{name}_mean"})
        found = found.merge(means[["n_tasks", "per_class", f"{name}_mean"]], how="left")
        parts = []
        for labels, group in table[table["protection"] != name].groupby([*_CONDITION], sort=False, dropna=False):
            both = pd.concat([group, rows])
            condition = dict(zip(_CONDITION, labels, strict=True))
            row = gap(both, {"protection": condition["protection"]}, {"protection": name}, ["n_tasks", "per_class"])
            parts.append(row.assign(**condition))
        gaps = pd.concat(parts).rename(columns={"mean": f"{name}_lead", "half_width": f"{name}_half_width"})
        found = found.merge(gaps.drop(columns="n"), on=[*_CONDITION], how="left")
    return found
