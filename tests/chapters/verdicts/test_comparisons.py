"""Comparisons of means over seeds: p values agree with the intervals, and the joint rate of errors is held."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rmtllmf_lib.chapters.verdicts.comparisons import RATE, Comparison, above, adjusted, all_of, any_of, jointly
from rmtllmf_lib.chapters.verdicts.evidence import Interval, NoIntervalError
from rmtllmf_lib.errors import InputError

QUANTILES = {n: stats.t.ppf(0.975, n - 1) for n in range(2, 9)}


def interval(values: np.ndarray) -> Interval:
    n = len(values)
    return Interval(float(values.mean()), float(QUANTILES[n] * values.std(ddof=1) / np.sqrt(n)), n)


numbers = st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=2, max_size=8, unique=True).map(np.array)


@settings(deadline=None)
@given(numbers, st.floats(-3, 3))
def test_p_is_that_of_the_t_test_and_agrees_with_the_interval(values: np.ndarray, level: float) -> None:
    """An independent reference: SciPy's test on the values themselves, both sides, and one side doubled."""
    found, reference = interval(values), stats.ttest_1samp(values, level)
    assert found.apart_from(level).p == pytest.approx(reference.pvalue, rel=1e-6)
    one_side = stats.ttest_1samp(values, level, alternative="greater").pvalue
    assert found.above(level).p == pytest.approx(min(1, 2 * one_side), rel=1e-6)
    for said, sure in (
        (found.above(level), found.low > level),
        (found.below(level), found.high < level),
        (found.apart_from(level), not found.low <= level <= found.high),
        (found.within(abs(level)), -abs(level) < found.low and found.high < abs(level)),
    ):
        assert bool(said) == sure and said.seeds == len(values)
        if abs(said.p - RATE) > 1e-9:
            assert sure == (said.p < RATE)


def test_an_interval_without_width_or_ends() -> None:
    assert above(0.1, 0.0, 3, 0.0) == Comparison(True, 0.0, 3)
    assert above(-0.1, 0.0, 3, 0.0) == above(0.0, 0.0, 3, 0.0) == Comparison(False, 1.0, 3)
    with pytest.raises(NoIntervalError):
        Interval(0.5, np.nan, 1).above()
    with pytest.raises(InputError, match="seeds is 0"):
        Interval(0.5, 0.1).below()


@settings(deadline=None)
@given(numbers, numbers)
def test_a_difference_is_sure_where_intervals_are_apart(one: np.ndarray, other: np.ndarray) -> None:
    first, second = interval(one), interval(other)
    if abs(first.low - second.high) > 1e-9:  # rounding
        assert bool((first - second).above()) == (first.low > second.high)


def test_several_become_one() -> None:
    sure, clear, no = Comparison(True, 0.03, 5), Comparison(True, 0.001, 3), Comparison(False, 0.4, 4)
    assert all_of([sure, clear]) == Comparison(True, 0.03, 3) and not all_of([sure, no])
    assert any_of([sure, no]) == Comparison(True, 0.06, 4)  # by its own interval; by its p value no longer
    assert any_of([no, no, no]) == Comparison(False, 1.0, 4)


def test_adjusted_is_the_rule_of_benjamini_and_hochberg() -> None:
    """By hand: k-th smallest of m times m / k, none above the next; what was not compared is not counted."""
    p = pd.Series([0.03, np.nan, 0.01, 0.9, 0.02], index=list("abcde"))
    assert adjusted(p).round(6).to_dict() == pytest.approx(
        {"a": 0.04, "b": np.nan, "c": 0.04, "d": 0.9, "e": 0.04}, nan_ok=True
    )
    stricter = sum(1 / k for k in range(1, 5))
    assert adjusted(p, "by")["c"] == pytest.approx(0.04 * stricter)
    assert adjusted(pd.Series([np.nan, np.nan])).isna().all()


def claim(rng: np.random.Generator, effect: float, common: np.ndarray) -> Comparison:
    """Return one claim of a random form about means over five seeds; of true ones every part has the effect."""
    parts = [interval(effect + common + rng.normal(size=5)).above() for _ in range(int(rng.integers(1, 4)))]
    return all_of(parts) if rng.random() < 0.5 else any_of(parts)


@pytest.mark.parametrize(("true", "method"), [(0, "bh"), (9, "bh"), (0, "by")])
def test_the_joint_rate_is_held(true: int, method: Literal["bh", "by"]) -> None:
    """Of 18 claims, `true` of them so; those that err together, through noise in common, among them.

    The share of false ones among those called sure is 5 % at most on average; with all false, any is one too many.
    """
    rng, wrong, alone, found = np.random.default_rng(2), [], [], 0
    for _ in range(120):
        common = 0.5 * rng.normal(size=5)
        claims = [claim(rng, 4.0 if number < true else 0.0, common) for number in range(18)]
        called = (adjusted(pd.Series([each.p for each in claims]), method) <= RATE).to_numpy()
        wrong.append(called[true:].sum() / max(1, called.sum()))
        alone.append(any(each.sure for each in claims[true:]))
        found += called[:true].sum()
    error = np.std(wrong) / np.sqrt(len(wrong))
    assert np.mean(wrong) <= RATE + 2 * error
    assert np.mean(alone) > 0.1  # which single intervals do not hold
    assert found >= 0.7 * true * len(wrong)


def test_verdicts_are_told_together() -> None:
    table = pd.DataFrame(
        {
            "label": list("abcd"),
            "p": [0.001, 0.04, 0.3, np.nan],
            "sure": [True, True, False, False],
            "seeds": [3, 5, 4, 0],
        }
    )
    found = jointly(table.assign(q=adjusted(table["p"])))
    assert found == {
        "compared": 3, "others": 1, "fewest": 3, "most": 5, "sure": 2, "changed": "b", "changed_any": "b",
    }  # fmt: skip
    nothing = jointly(table.assign(p=np.nan, q=np.nan))
    assert (nothing["compared"], nothing["others"], nothing["changed"]) == (0, 4, "none")
