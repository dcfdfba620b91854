"""Suites as seeds: repetitions that differ in their images and fine-tuning too, and what the link is worth over them.

Intervals over the seeds of one suite say nothing about other images or another fine-tuning. Here repetition s is suite
s with the noise, memory and order of training of seed s; settings are chosen once, on the validation images of suite 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from pydantic import FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.compare import gap
from rmtllmf_lib.study.intervals import over_seeds, require_columns
from rmtllmf_lib.study.study import NO_LINK, Choice, Condition, Study, choose_settings, conditions, run_study
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.validated import validated_call
from rmtllmf_lib.workers import allowed

GIVEN, CHOSEN = "given", "chosen"  # in the column `lam_rule`

# Columns that tell the conditions of a table of `link_benefit` apart.
CONDITION = ("n_tasks", "per_class", "scenario", "correlation", "protection", "lam_rule")

CONTROLS = ("control", "few-shot-specialists")  # without a link, realigned on the same memory


@validated_call
def run_over_suites(
    study: Study,
    suite_of: Callable[[int], Suite],
    suites: PositiveInt,
    *,
    first: NonNegativeInt = 0,
    chosen: Mapping[Condition, Choice] | None = None,
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
    first : int
        The first of them that is computed.
    chosen : dict of condition to Choice, optional
        What suite 0 chose before, see `choices_in`. Default: chosen now, on suite 0.
    store, workers, progress
        As in `run_study`.

    Returns
    -------
    DataFrame as from `run_study`; `seed` is the number of the suite, and differences by `compare.gap` are paired.
    With `per_size`, each suite has combinations of its own.

    Raises
    ------
    InputError
        for a study with more than one seed, a first suite beyond the last, and as `run_study` does.
    """
    allowed(workers)
    if study.seeds != 1 or study.first_seed != 0:
        raise InputError(
            f"seeds is {study.seeds} and first_seed {study.first_seed}: expected 1 and 0, since each suite is one seed"
        )
    if first >= suites:
        raise InputError(f"first is {first}: expected less than suites, {suites}, which are numbered from 0")
    if chosen is None:
        chosen = choose_settings(study, suite_of(0), store=store, workers=workers, progress=progress)
    run = partial(run_study, chosen=chosen, store=store, workers=workers, progress=progress)
    tables = [run(replace(study, first_seed=number), suite_of(number)) for number in range(first, suites)]
    return pd.concat(tables, ignore_index=True)


@validated_call
def choices_in(rows: pd.DataFrame, study: Study) -> dict[Condition, Choice]:
    """What was chosen for the conditions of a study, read from a table of its results.

    Parameters
    ----------
    rows : DataFrame
        From `link_benefit` or `by_suite`, of one suite or more.

    Returns
    -------
    dict of condition to Choice, as from `choose_settings`

    Raises
    ------
    InputError
        for a missing column, and a condition with something to choose that has no rows, or rows with several values.
    """
    require_columns(rows, [*CONDITION, "lam", "lr"])
    found: dict[Condition, Choice] = {}
    for scenario, name, count in conditions(study):
        protection = protection_named(name)
        own = rows[(rows["protection"] == name) & (rows["per_class"] == count)]
        own = own[own["scenario"] == (scenario.name if scenario else NO_LINK)]
        own = own[own["correlation"] == (scenario.correlation if scenario else "")]
        own = own[own["lam_rule"] == (CHOSEN if name in study.lam_grid else GIVEN)]
        searches_lr = bool(study.lr_grid) and protection.trains and name not in study.lr
        if name not in study.lam_grid and not searches_lr:
            continue
        values = own[["n_tasks", "lam", "lr"]].drop_duplicates()
        if values.empty or values["n_tasks"].duplicated().any():
            raise InputError(
                f"rows hold {len(values)} choices for {name} under {scenario.name if scenario else NO_LINK}, {count} a "
                "class: expected one for each number of tasks; choose them anew"
            )
        lams = {int(n): float(lam) for n, lam in zip(values["n_tasks"], values["lam"], strict=True)}
        rate = float(values["lr"].iloc[-1]) if searches_lr else None
        found[scenario, name, count] = Choice(lams if name in study.lam_grid else {}, rate)
    return found


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
    run = partial(run_over_suites, suite_of=suite_of, suites=suites, store=store, workers=workers, progress=progress)
    table = run(study)
    rule = table["protection"].map(lambda name: CHOSEN if name in study.lam_grid else GIVEN)
    table = table.assign(lam_rule=rule)
    again = tuple(name for name in study.protections if name in study.lam_grid and protection_named(name).receives)
    if not again:
        return table
    given = run(replace(study, protections=again, lam_grid={}))
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
    require_columns(table, [*CONDITION, "seed", *values])
    return table.groupby([*CONDITION, "seed"], sort=False, dropna=False)[values].mean().reset_index()


@validated_call
def leads(table: pd.DataFrame, controls: Sequence[str] = CONTROLS) -> pd.DataFrame:
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
    paired difference, see `compare.gap`); NaN where the table has no such control.

    Raises
    ------
    InputError
        for a missing column, or a control without rows, or with none of another protection beside them.
    """
    require_columns(table, [*CONDITION, "seed", "normalized", "lam", "lr"])
    settings = table.groupby([*CONDITION], sort=False, dropna=False)[["lam", "lr"]].mean().reset_index()
    found = settings.merge(over_seeds(table, [*CONDITION]), on=[*CONDITION])
    cell = ["n_tasks", "per_class"]
    for name in controls:
        rows = table[table["protection"] == name]
        if rows.empty:
            raise InputError(f"the table has no rows of the control {name!r}: compute it, or leave it out")
        means = over_seeds(rows, cell)[[*cell, "mean"]].rename(columns={"mean": f"{name}_mean"})
        # `gap` pairs rows of one condition, so the control's rows are repeated under the labels of each that leads.
        labels = table.loc[table["protection"] != name, [*CONDITION]].drop_duplicates()
        repeated = labels.merge(rows[[*cell, "seed", "normalized"]], on=cell)
        both = pd.concat([table.assign(side="own"), repeated.assign(side="other")], ignore_index=True)
        gaps = gap(both, {"side": "own"}, {"side": "other"}, CONDITION)
        renamed = gaps.rename(columns={"mean": f"{name}_lead", "half_width": f"{name}_half_width"})
        found = found.merge(means, on=cell, how="left").merge(renamed.drop(columns="n"), on=[*CONDITION], how="left")
    return found


@validated_call
def grid_ends(
    rows: pd.DataFrame, lr_grid: Sequence[PositiveFloat], lam_grid: Mapping[str, Sequence[FiniteFloat]]
) -> pd.DataFrame:
    """The learning rates and lambdas that were chosen, and the end of its grid at which each lies.

    What is chosen at an end might be better beyond it: the method, be it a control, may be worth more than the table
    says.

    Parameters
    ----------
    rows : DataFrame
        From `leads`, one row for each condition.
    lr_grid, lam_grid
        Those of the study, see `Study`.

    Returns
    -------
    DataFrame with the columns of `rows` and `setting` ("lr" or "lam"), `value` (float), `end` ("smallest", "largest",
    or "" for a value inside); a row for each learning rate, then one for each lambda with the rule "chosen".

    Raises
    ------
    InputError
        for a missing column, and a chosen value that is not in its grid.
    """
    require_columns(rows, [*CONDITION, "lam", "lr"])
    found = []
    trained = rows[rows["lr"].notna()] if lr_grid else rows[:0]
    for row in trained.to_dict("records"):
        found.append({**row, "setting": "lr", "value": row["lr"], "end": _end(row["lr"], lr_grid, "lr")})
    for row in rows[rows["lam_rule"] == CHOSEN].to_dict("records"):
        end = _end(row["lam"], lam_grid.get(row["protection"], ()), f"lam of {row['protection']}")
        found.append({**row, "setting": "lam", "value": row["lam"], "end": end})
    return pd.DataFrame(found, columns=[*rows, "setting", "value", "end"])


def _end(value: float, grid: Sequence[float], what: str) -> str:
    if not np.isclose(value, grid).any():
        raise InputError(f"{what} is {value!r}: expected one of {list(grid)}; give the grid that it was chosen from")
    ends = {"smallest": min(grid), "largest": max(grid)}
    return next((end for end, bound in ends.items() if np.isclose(value, bound)), "")
