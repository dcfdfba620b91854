"""Tables of the chapter on interference between task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from rmtllmf_lib.arrays import Real


def matrix(table: pd.DataFrame, names: Sequence[str]) -> Real:
    """Symmetric (n, n) cosine matrix of one condition from the pairs in a table of `cosine_study`, mean over seeds."""
    means = table.groupby(["first", "second"])["cosine"].mean()
    found = np.eye(len(names))
    for i, j in combinations(range(len(names)), 2):
        found[i, j] = found[j, i] = means[names[i], names[j]]
    return found
