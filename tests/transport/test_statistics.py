"""Statistics of errors against NumPy on whole arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.transport.statistics import Moments, error_statistics
from rmtllmf_lib.transport.surrogate import surrogate
from sending import generator, normalised, vectors
from vectors import unhurried

LONG = 150_000  # more than two blocks


def plus(taus: list[TaskVector], errors: np.ndarray) -> list[TaskVector]:
    """Received vectors, for errors (user, n) in units of the scale."""
    return [
        TaskVector(tau.layout, (tau.values.double() + tau.rms * torch.from_numpy(e)).float(), tau.base_hash)
        for tau, e in zip(taus, errors, strict=True)
    ]


def test_against_numpy() -> None:
    """Skewed, correlated errors that depend on what was sent."""
    rng = np.random.default_rng(0)
    taus = vectors(3, LONG)
    x = normalised(taus, taus)
    noise = rng.exponential(size=(3, LONG))
    errors = np.array([[1, 0, 0], [0.5, 1, 0], [-0.3, 0, 0.1]]) @ noise - 0.2 * x
    received = plus(taus, errors)
    found = error_statistics(taus, received)
    e = normalised(received, taus) - x
    table = found.table
    assert table.user.tolist() == [0, 1, 2] and table.scale.tolist() == [tau.rms for tau in taus]
    np.testing.assert_allclose(table.variance, (e**2).mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(table.standard_error, (e**2).std(axis=1) / np.sqrt(LONG), rtol=1e-9)
    np.testing.assert_allclose(table.bias, e.mean(axis=1), rtol=1e-7)
    np.testing.assert_allclose(table.gain, (x * (x + e)).sum(axis=1) / (x * x).sum(axis=1), rtol=1e-9)
    np.testing.assert_allclose(table.excess_kurtosis, (e**4).mean(axis=1) / (e**2).mean(axis=1) ** 2 - 3, rtol=1e-8)
    np.testing.assert_allclose(found.correlation, (e @ e.T) / np.sqrt(np.outer((e**2).sum(1), (e**2).sum(1))))


def test_kurtosis_of_known_distributions() -> None:
    rng = np.random.default_rng(1)
    errors = np.stack([rng.standard_normal(LONG), rng.uniform(-1, 1, LONG), rng.laplace(size=LONG)])
    table = error_statistics(taus := vectors(3, LONG), plus(taus, 0.1 * errors)).table
    assert abs(table.excess_kurtosis[0]) < 3 * table.kurtosis_error[0]
    assert table.excess_kurtosis[1] == pytest.approx(stats.uniform.stats(moments="k"), abs=0.02)
    assert table.excess_kurtosis[2] == pytest.approx(stats.laplace.stats(moments="k"), rel=0.1)


@unhurried
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 2**31))
def test_blocks_add_up(lengths: list[int], seed: int) -> None:
    draws = generator(seed)
    sent, received = torch.randn(2, 2, sum(lengths), generator=draws)
    whole, parts = Moments(2), Moments(2)
    whole.add(sent, received)
    for x, arrived in zip(sent.split(lengths, dim=1), received.split(lengths, dim=1), strict=True):
        parts.add(x, arrived)
    one, other = whole.statistics([1.0, 1.0]), parts.statistics([1.0, 1.0])
    np.testing.assert_allclose(one.table, other.table, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.correlation, other.correlation, rtol=1e-9, atol=1e-12)


def test_of_the_surrogate() -> None:
    """A link and the paper's surrogate are set side by side with the same numbers."""
    layout = Layout(("visual.proj",), ((LONG,),))
    base = Weights(layout, torch.randn(LONG, generator=generator()))
    taus = [TaskVector(layout, tau.values, base.hash) for tau in vectors(3, LONG)]
    found = error_statistics(taus, surrogate(taus, base, [0.1, 0.2, 0.3], correlation="half", generator=generator(1)))
    table = found.table
    assert (np.abs(table.variance - [0.1, 0.2, 0.3]) < 3 * table.standard_error).all()
    assert (np.abs(table.excess_kurtosis) < 3 * table.kurtosis_error).all()
    np.testing.assert_allclose(found.correlation[~np.eye(3, dtype=bool)], 0.5, atol=3 / np.sqrt(LONG))


def test_without_errors_or_numbers() -> None:
    taus = vectors(3, 1000)
    taus[1] = taus[1] * 0
    found = error_statistics(taus, plus(taus, np.array([[0.0], [0.0], [1e-3]]) * np.ones(1000)))
    assert found.table.variance[[0]].tolist() == [0] and found.table.gain[0] == 1
    assert np.isnan(found.table.excess_kurtosis[0]) and np.isnan(found.table.kurtosis_error[0])
    assert found.table.drop(columns=["user", "scale"]).loc[1].isna().all() and found.table.scale[1] == 0
    assert found.correlation[2, 2] == pytest.approx(1)
    assert np.isnan(found.correlation).sum() == 8


def test_bad_input() -> None:
    taus = vectors(2, 10)
    with pytest.raises(InputError, match="2 task vectors were sent and 1 received"):
        error_statistics(taus, taus[:1])
    with pytest.raises(InputError, match="got no task vector"):
        error_statistics([], [])
    with pytest.raises(InputError, match="task vector 2"):
        error_statistics(taus, vectors(2, 11))
    foreign = TaskVector(taus[0].layout, taus[0].values, "other")
    with pytest.raises(InputError, match="task vector 3 belongs to another base than task vector 0: other"):
        error_statistics(taus, [taus[0], foreign])
