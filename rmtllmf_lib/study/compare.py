"""Paired differences between the conditions of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.study.intervals import over_seeds


def gap(
    table: pd.DataFrame,
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    by: Sequence[str] = (),
    value: str = "normalized",
) -> pd.DataFrame:
    """How much better one condition is than another, paired by seed, with its interval over the seeds.

    Paired, because a seed has the same noise, the same memory and the same order of training under all conditions.

    Parameters
    ----------
    table : DataFrame
        Of `run_study`.
    one, other : dict of column to value
        Which rows to compare, `{"protection": "rmtllmf", "scenario": "SR"}`.
    by : names of columns
        One row of the result for each of their combinations that both conditions have.

    Returns
    -------
    DataFrame with columns `by`, mean, half_width, n, in the order of the rows of `one`; see `over_seeds`.

    Raises
    ------
    InputError
        A condition without rows, or two without a seed and a combination of `by` in common.
    """
    keys = [*by, "seed"]
    first, second = (_chosen(table, condition).groupby(keys, sort=False)[value].mean() for condition in (one, other))
    difference = (first - second.reindex(first.index)).dropna().rename(value).reset_index()
    if difference.empty:
        raise InputError(f"{dict(one)} and {dict(other)} have no {', '.join(keys)} in common: nothing to compare")
    rows = over_seeds(difference.assign(all=0), [*by] or ["all"], value)
    return rows if by else rows.drop(columns="all")


def _chosen(table: pd.DataFrame, condition: Mapping[str, Any]) -> pd.DataFrame:
    rows = table
    for column, wanted in condition.items():
        if column not in table:
            raise InputError(f"the table has no column {column!r}: expected some of {', '.join(table)}")
        rows = rows[rows[column] == wanted]
    if rows.empty:
        raise InputError(f"the table has no rows with {dict(condition)}: name values that it holds")
    return rows


def surely_above(gaps: pd.DataFrame, level: float = 0.0) -> bool:
    """Whether every interval of a table of `gap` lies above a level; an interval that is not known does not."""
    return bool((gaps["mean"] - gaps["half_width"] > level).all())
