"""Paired differences between two conditions of a study, with intervals over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.study.intervals import over_seeds, require_columns
from rmtllmf_lib.validated import validated_call


@validated_call
def gap(
    table: pd.DataFrame,
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    by: Sequence[str] = (),
    value: str = "normalized",
) -> pd.DataFrame:
    """Mean difference `one` - `other` between two conditions, paired by seed, with its interval over the seeds.

    The differences are paired because a seed gives the same noise, memory and order of training in all conditions:

        d_s = mean of `value` over the rows of seed s in `one` - the same in `other`,  mean(d) ± t · std(d) / √n.

    Parameters
    ----------
    table : DataFrame
        From `run_study`.
    one, other : dict of column to value
        The rows to compare, for example `{"protection": "rmtllmf", "scenario": "SR"}`; `{}` for all.
    by : sequence of str
        Columns; the result has a row for each combination of their values that both conditions have; NaN counts as a
        value of its own.
    value : str
        Column to compare.

    Returns
    -------
    DataFrame with columns `by`, mean, half_width, n, in the order of the rows of `one`; see `over_seeds`.

    Raises
    ------
    InputError
        for a missing column, a condition without rows, or two conditions without a seed and a combination of `by` in
        common.
    """
    keys = [*by, "seed"]
    require_columns(table, [*one, *other, *keys, value])
    first, second = (
        _chosen(table, condition).groupby(keys, sort=False, dropna=False)[value].mean() for condition in (one, other)
    )
    difference = (first - second.reindex(first.index)).dropna().rename(value).reset_index()
    if difference.empty:
        raise InputError(f"{dict(one)} and {dict(other)} have no {', '.join(keys)} in common: nothing to compare")
    rows = over_seeds(difference.assign(all=0), [*by] or ["all"], value)
    return rows if by else rows.drop(columns="all")


def _chosen(table: pd.DataFrame, condition: Mapping[str, Any]) -> pd.DataFrame:
    rows = table
    for column, wanted in condition.items():
        rows = rows[rows[column] == wanted]
    if rows.empty:
        raise InputError(f"the table has no rows with {dict(condition)}: expected values that occur in it")
    return rows


@validated_call
def surely_above(gaps: pd.DataFrame, level: float = 0.0) -> bool:
    """Whether all intervals in a table of `gap` lie above a level; False for an unknown (NaN) interval."""
    require_columns(gaps, ["mean", "half_width"])
    return bool((gaps["mean"] - gaps["half_width"] > level).all())
