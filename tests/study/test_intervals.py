"""Intervals over seeds against SciPy's, and their coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.study.intervals import agrees, over_seeds


def _table(values: np.ndarray) -> pd.DataFrame:
    rows = [(0.1, seed, task, v) for seed, of_seed in enumerate(values) for task, v in enumerate(of_seed)]
    return pd.DataFrame(rows, columns=["mse", "seed", "task", "normalized"])


def test_equals_the_t_interval_of_the_seeds_means() -> None:
    values = np.random.default_rng(0).random((6, 3))
    row = over_seeds(_table(values), ["mse"]).iloc[0]
    means = values.mean(1)
    low, high = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
    assert row["n"] == 6
    np.testing.assert_allclose([row["mean"] - row["half_width"], row["mean"] + row["half_width"]], [low, high])


def test_coverage_is_the_confidence_level() -> None:
    rng, trials = np.random.default_rng(1), 2000
    shared = rng.standard_normal((trials, 5, 1))  # what the tasks of one seed have in common
    values = shared + 0.3 * rng.standard_normal((trials, 5, 4))
    labels = pd.MultiIndex.from_product([range(count) for count in values.shape], names=["trial", "seed", "task"])
    rows = over_seeds(labels.to_frame(index=False).assign(normalized=values.ravel()), ["trial"])
    assert len(rows) == trials
    assert abs((rows["mean"].abs() <= rows["half_width"]).mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / trials)


def test_one_seed_has_no_interval() -> None:
    row = over_seeds(_table(np.ones((1, 3))), ["mse"]).iloc[0]
    assert row["mean"] == 1
    assert np.isnan(row["half_width"])


def test_nan_values_and_groups() -> None:
    """NaN values are left out; NaN is a group of its own."""
    table = _table(np.array([[0.5], [0.6], [np.nan]])).assign(lr=np.nan)
    both = pd.concat([table, _table(np.array([[0.5], [0.6]])).assign(lr=1e-3)])
    found = over_seeds(both, ["mse", "lr"])
    assert found["n"].tolist() == [2, 2] and found["lr"].isna().tolist() == [True, False]
    np.testing.assert_allclose(found["half_width"], 0.05 * stats.t.ppf(0.975, 1))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="protection"):
        over_seeds(_table(np.ones((2, 2))), ["mse", "protection"])


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_outside_the_open_interval_is_refused(level: float) -> None:
    with pytest.raises(InputError, match="level"):
        over_seeds(_table(np.ones((2, 2))), ["mse"], level=level)


def test_agreement_is_counted_in_standard_errors() -> None:
    values = pd.DataFrame({"seed": range(9), "x": 1, "value": [0.0, 1, 2, 0, 1, 2, 0, 1, 2]})
    error = values["value"].std(ddof=1) / 3
    table = over_seeds(values, ["x"], "value")
    assert agrees(table, 1 + 2.9 * error) and agrees(table, [1 - 2.9 * error])
    assert not agrees(table, 1 + 3.1 * error) and not agrees(table, 1 + 2 * error, 1.9)
