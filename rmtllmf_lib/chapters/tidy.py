"""Building blocks of the chapters' tidy tables: one row for each observation, one column for each variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import by_rank


def stacked(tables: Mapping[Any, pd.DataFrame], *names: str) -> pd.DataFrame:
    """Return the tables one below the other, with their keys as the first columns.

    Parameters
    ----------
    tables : mapping of key to DataFrame
    names : str
        Names of the columns of the keys; with several names the keys are tuples.
    """
    return pd.concat(tables, names=names).reset_index(names).reset_index(drop=True)


def per_seed(**columns: ArrayLike) -> pd.DataFrame:
    """Return a table of these columns, whose rows are numbered in the column "seed", and scalars repeated."""
    return pd.DataFrame(columns).rename_axis("seed").reset_index()


def ranked(uplink: Uplink, **columns: ArrayLike) -> pd.DataFrame:
    """Return a table of values of each user (..., user): seed (the drop), rank (1 is the weakest user), `columns`."""
    in_order = {name: by_rank(values, uplink).reshape(-1, uplink.num_users) for name, values in columns.items()}
    seed, rank = np.indices(next(iter(in_order.values())).shape)
    flat = {name: values.ravel() for name, values in in_order.items()}
    return pd.DataFrame({"seed": seed.ravel(), "rank": rank.ravel() + 1, **flat})
