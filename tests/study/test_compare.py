"""Paired differences between conditions, against SciPy's paired interval."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.study.compare import gap, surely_above
from vectors import unhurried


def table(rows: list[tuple], *columns: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))


SEEDS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6)


@unhurried
@given(SEEDS)
def test_gap_is_a_paired_t_interval(pairs: list[tuple[float, float]]) -> None:
    rows = [(name, seed, value) for seed, pair in enumerate(pairs) for name, value in zip("ab", pair, strict=True)]
    data = table(rows, "protection", "seed", "normalized").sample(frac=1, random_state=0)
    found = gap(data, {"protection": "a"}, {"protection": "b"})
    assert list(found) == ["mean", "half_width", "n"]
    difference = np.array([a - b for a, b in pairs])
    half = stats.t.ppf(0.975, len(pairs) - 1) * difference.std(ddof=1) / np.sqrt(len(pairs))
    assert_allclose(found.iloc[0].to_numpy(float), [difference.mean(), half, len(pairs)], atol=1e-12)
    assert surely_above(found) == (difference.mean() - found["half_width"].item() > 0)
    swapped = gap(data, {"protection": "b"}, {"protection": "a"})
    assert_allclose(swapped["mean"], -found["mean"])


def test_gap_of_each_size_of_the_memory_uses_what_both_have() -> None:
    rows = [("a", k, seed, task, k + seed + task) for k in (1, 2) for seed in (0, 1) for task in (0, 2)]
    rows += [("b", k, seed, 1, seed) for k in (2, 3) for seed in (0, 1, 2)]
    data = table(rows, "protection", "per_class", "seed", "task", "score")
    found = gap(data, {"protection": "a"}, {"protection": "b"}, ["per_class"], value="score")
    assert found.to_dict("list") == {"per_class": [2], "mean": [3.0], "half_width": [0.0], "n": [2]}


def test_a_comparison_with_nothing_is_refused() -> None:
    data = table([("a", 0, 0.5), ("b", 1, 0.5)], "protection", "seed", "normalized")
    with pytest.raises(InputError, match="nothing to compare"):
        gap(data, {"protection": "a"}, {"protection": "b"})
    with pytest.raises(InputError, match="no rows with {'protection': 'c'}"):
        gap(data, {"protection": "a"}, {"protection": "c"})
    with pytest.raises(InputError, match="no column 'accuracy'"):
        gap(data, {"protection": "a"}, {"protection": "b"}, value="accuracy")
    with pytest.raises(InputError, match="no column 'scenario'"):
        gap(data, {"scenario": "a"}, {"protection": "b"})


def test_one_seed_makes_nothing_sure() -> None:
    data = table([("a", 0, 0.9), ("b", 0, 0.1)], "protection", "seed", "normalized")
    assert not surely_above(gap(data, {"protection": "a"}, {"protection": "b"}))


def test_surely_above_asks_for_every_row() -> None:
    rows = pd.DataFrame({"mean": [0.5, 0.2], "half_width": [0.1, 0.1]})
    assert surely_above(rows)
    assert not surely_above(rows, 0.1)
    assert not surely_above(-rows)
