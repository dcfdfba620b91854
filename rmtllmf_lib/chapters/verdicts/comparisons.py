"""Comparisons of means over seeds: what makes one of several, and how many of all are wrong.

A comparison is sure where the 95 % intervals of its means say so, each by itself. Beside that stands a p value, from
which the joint error rate of all claims follows: some of many true nulls are below 5 % by chance alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit
from scipy.stats import false_discovery_control

RATE = 0.05  # of single intervals, which leave this much outside; and of false ones among all that are called sure


@dataclass(frozen=True)
class Comparison:
    """Something said of one mean over seeds or of several. It is true where it is sure.

    Attributes
    ----------
    sure : bool
        Whether the intervals say so.
    p : float
        Bound on the probability that they would say so, this clearly, if it were not so; of this comparison alone,
        not of others that a rule looked at before.
    seeds : int
        Behind the mean that has the fewest.
    """

    sure: bool
    p: float
    seeds: int

    def __bool__(self) -> bool:
        return self.sure


def above(mean: float, half_width: float, seeds: int, level: float) -> Comparison:
    """Say that a mean over seeds is above a level.

    The p value is that of Student's t test on both sides, so that it is below .05 where the interval excludes the
    level: with the quantile q of the interval and n - 1 degrees of freedom,

        t = q · (mean - level) / half_width,  p = min(1, 2 · P(T > t)).

    Parameters
    ----------
    mean, half_width : float
        From `study.intervals.over_seeds`, at 95 %.
    seeds : int
        Number of seeds, two or more.
    level : float
    """
    quantile = stdtrit(seeds - 1, 1 - RATE / 2)
    off = mean - level
    t = quantile * off / half_width if half_width > 0 else np.inf * np.sign(off) if off else 0.0
    return Comparison(bool(mean - half_width > level), float(min(1.0, 2 * stdtr(seeds - 1, -t))), seeds)


def all_of(comparisons: Iterable[Comparison]) -> Comparison:
    """Say that all are so, with the largest p value: the intersection–union test."""
    each = list(comparisons)
    return Comparison(all(each), max(one.p for one in each), min(one.seeds for one in each))


def any_of(comparisons: Iterable[Comparison]) -> Comparison:
    """Say that at least one is so, with the smallest p value times their number: Bonferroni's correction.

    It is sure where one of the intervals says so, uncorrected: what the correction changes is told with the joint rate.
    """
    each = list(comparisons)
    p = min(1.0, len(each) * min(one.p for one in each))
    return Comparison(any(each), p, min(one.seeds for one in each))


def adjusted(p: pd.Series, method: Literal["bh", "by"] = "bh") -> pd.Series:
    """Return p values adjusted for their number: those of at most .05 are called sure, and 5 % of them are wrong.

    Parameters
    ----------
    p : Series of float
        NaN where nothing was compared; such entries stay NaN and are not counted.
    method : "bh" or "by"
        The rule of Benjamini and Hochberg (1995), for comparisons that are independent or depend positively on each
        other; or that of Benjamini and Yekutieli (2001), for any dependence.
    """
    known = p.astype(float).dropna()
    return pd.Series(false_discovery_control(known, method=method) if len(known) else [], known.index, float).reindex(
        p.index
    )


def jointly(table: pd.DataFrame) -> dict[str, float | str]:
    """Tell how the verdicts of a table stand together.

    Parameters
    ----------
    table : DataFrame
        label, p, q, sure, seeds; from `findings.collected`.

    Returns
    -------
    dict with

        compared, others     number of claims whose verdict rests on means over seeds, and of all others
        fewest, most         seeds behind the means
        sure                 comparisons that the 95 % intervals call sure, each by itself
        changed              labels of those among them that are not sure at a joint rate of 5 %
        changed_any          the same for any dependence between the comparisons
    """
    compared = table[table["p"].notna()]
    sure, any_dependence = compared["sure"].astype(bool), adjusted(compared["p"], "by")
    return {
        "compared": len(compared),
        "others": len(table) - len(compared),
        "fewest": int(compared["seeds"].min()) if len(compared) else 0,
        "most": int(compared["seeds"].max()) if len(compared) else 0,
        "sure": int(sure.sum()),
        "changed": ", ".join(compared["label"][sure & (compared["q"] > RATE)]) or "none",
        "changed_any": ", ".join(compared["label"][sure & (any_dependence > RATE)]) or "none",
    }
