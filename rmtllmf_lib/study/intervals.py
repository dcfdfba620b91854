"""Confidence intervals of means over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from rmtllmf_lib.arrays import fitted, real_array, real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.validated import validated_call


@validated_call
def over_seeds(table: pd.DataFrame, by: Sequence[str], value: str = "normalized", level: float = 0.95) -> pd.DataFrame:
    """Mean over seeds with Student's t interval, for each combination of values of the columns `by`.

    The rows of one seed (its tasks, for example) are averaged first, since only the seeds are independent repetitions:

        x_s = mean of `value` over the rows of seed s,  mean(x) ± t_{n-1} · std(x) / √n.

    Parameters
    ----------
    table : DataFrame
        Columns `by`, "seed" and `value`. NaN in `value` is left out; in `by` it counts as a value of its own.
    by : sequence of str
        At least one.
    level : float
        Confidence level, in (0, 1).

    Returns
    -------
    DataFrame with columns `by`, mean, half_width, n; half_width is NaN for one seed.

    Raises
    ------
    InputError
        for a missing column, or a level outside (0, 1).
    """
    if not by:
        raise InputError("by is empty: expected at least one column, such as 'protection'")
    require_columns(table, [*by, "seed", value])
    if not 0 < level < 1:
        raise InputError(f"level is {level!r}: expected a number between 0 and 1, such as 0.95")
    seeds = table.groupby([*by, "seed"], as_index=False, sort=False, dropna=False)[value].mean()
    groups = seeds.groupby([*by], sort=False, dropna=False)[value]
    n = groups.count()
    quantile = pd.Series(stats.t.ppf((1 + level) / 2, n - 1), n.index)
    half = quantile * groups.std() / np.sqrt(n)
    return pd.DataFrame({"mean": groups.mean(), "half_width": half, "n": n}).reset_index()


@validated_call
def agrees(table: pd.DataFrame, expected: ArrayLike, errors: float = 3.0) -> bool:
    """Whether every mean lies within so many standard errors of its expected value.

    Parameters
    ----------
    table : DataFrame
        mean, half_width, n, from `over_seeds` at its default level.
    expected : float or (rows,) float
    """
    require_columns(table, ["mean", "half_width", "n"])
    values = fitted(real_array(expected, "expected"), (len(table),), "expected", "(rows,)")
    real_number(errors, "errors", positive=True)
    error = table["half_width"] / stats.t.ppf(0.975, table["n"] - 1)
    return bool(((table["mean"] - values).abs() <= errors * error).all())


@validated_call
def require_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise an `InputError` that names the columns which a table does not have."""
    if missing := [repr(name) for name in names if name not in table]:
        raise InputError(f"the table has no column {', '.join(missing)}: it has {', '.join(map(str, table))}")
