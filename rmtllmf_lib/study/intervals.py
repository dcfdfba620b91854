"""How sure a mean over seeds is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from rmtllmf_lib.errors import InputError


def over_seeds(table: pd.DataFrame, by: Sequence[str], value: str = "normalized", level: float = 0.95) -> pd.DataFrame:
    """Mean over seeds with its confidence interval.

    Rows of one seed (its tasks, say) are averaged first: seeds are the independent repetitions. Values that are NaN
    are left out; NaN in a column of `by` is a value like another (what has no learning rate, say).

    Parameters
    ----------
    table : DataFrame
        Columns `by`, "seed" and `value`.
    by : names of columns
        One row of the result for each of their combinations.
    level : float
        Confidence, in (0, 1).

    Returns
    -------
    DataFrame with columns `by`, mean, half_width, n; half_width is that of Student's t interval, NaN for one seed.

    Raises
    ------
    InputError
        A column is missing, or the level is not inside (0, 1).
    """
    if missing := [name for name in (*by, "seed", value) if name not in table]:
        raise InputError(f"the table has no column {', '.join(missing)}: expected {', '.join((*by, 'seed', value))}")
    if not 0 < level < 1:
        raise InputError(f"level is {level!r}: expected a confidence between 0 and 1, such as .95")
    seeds = table.groupby([*by, "seed"], as_index=False, sort=False, dropna=False)[value].mean()
    groups = seeds.groupby([*by], sort=False, dropna=False)[value]
    n = groups.count()
    quantile = pd.Series(stats.t.ppf((1 + level) / 2, n - 1), n.index)
    half = quantile * groups.std() / np.sqrt(n)
    return pd.DataFrame({"mean": groups.mean(), "half_width": half, "n": n}).reset_index()
