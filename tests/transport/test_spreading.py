"""A few numbers over all places of a vector."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.transport.spreading import despread, spread
from vectors import unhurried

HASH = "a" * 64


def numbers(count: int, seed: int = 0, scale: float = 1.0) -> TaskVector:
    layout = Layout(("visual.numbers",), ((count,),))
    return TaskVector(layout, scale * torch.randn(count, generator=torch.Generator().manual_seed(seed)), HASH)


def places(count: int) -> Layout:
    return Layout(("visual.places",), ((count,),))


@unhurried
@given(count=st.integers(1, 40), more=st.integers(0, 200), scale=st.floats(1e-6, 1e6), seed=st.integers(0, 5))
def test_without_errors_they_arrive(count: int, more: int, scale: float, seed: int) -> None:
    sent = numbers(count, scale=scale)
    vector = spread(sent, places(count + more), 0.01, seed)
    found = despread(vector, sent.layout, 0.01, sent.rms, 0.0, seed)
    torch.testing.assert_close(found.values, sent.values, rtol=1e-5, atol=0)
    if more % count == 0:
        assert vector.rms == pytest.approx(0.01, rel=1e-5)


def test_the_error_is_that_of_the_best_weights() -> None:
    """Mean square error of `P v/L / (P + v/L)`, in units of the numbers."""
    k, n, rms, variance = 500, 500 * 40, 0.02, 0.03
    sent, errors = numbers(k), []
    generator = torch.Generator().manual_seed(1)
    for seed in range(20):
        vector = spread(sent, places(n), rms, seed)
        noisy = vector.values + variance**0.5 * torch.randn(n, generator=generator)
        found = despread(TaskVector(vector.layout, noisy, HASH), sent.layout, rms, sent.rms, variance, seed)
        errors.append(float((found.values - sent.values).square().mean()) / sent.rms**2)
    power, left = rms**2, variance / 40
    assert np.mean(errors) == pytest.approx(left / (power + left), rel=4 / np.sqrt(20 * k / 2))


def test_errors_that_all_share_do_not_stay_so() -> None:
    common = 0.1 * torch.randn(40_000, generator=torch.Generator().manual_seed(2))
    found = []
    for seed in (0, 1):
        received = TaskVector(places(40_000), spread(numbers(100), places(40_000), 1.0, seed).values + common, HASH)
        found.append(despread(received, numbers(100).layout, 1.0, numbers(100).rms, 0.0, seed).values)
    errors = torch.stack(found) - numbers(100).values
    assert abs(float(torch.corrcoef(errors)[0, 1])) < 0.4  # four standard deviations for a hundred numbers


def test_nothing_to_send() -> None:
    silent = spread(TaskVector(places(3), torch.zeros(3), HASH), places(10), 0.5)
    assert not silent.values.any()
    noisy = TaskVector(places(10), torch.ones(10), HASH)
    assert not despread(noisy, places(3), 0.5, 0.0, 0.1).values.any()
    assert not despread(noisy, places(3), 0.0, 1.0, 0.1).values.any()


def test_bad_input() -> None:
    with pytest.raises(InputError, match="11 numbers for 10 places"):
        spread(numbers(11), places(10), 1.0)
    with pytest.raises(InputError, match="11 numbers for 10 places"):
        despread(TaskVector(places(10), torch.ones(10), HASH), places(11), 1.0, 1.0, 0.0)
    with pytest.raises(InputError, match="rms is -1"):
        spread(numbers(2), places(10), -1.0)
    for wrong in ((-1.0, 1.0, 0.0), (1.0, -1.0, 0.0), (1.0, 1.0, -0.5)):
        with pytest.raises(InputError, match="expected at least 0"):
            despread(TaskVector(places(10), torch.ones(10), HASH), places(2), *wrong)
