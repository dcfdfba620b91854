import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.allocation import allocate, published_covariance_eigenvalues
from rmtllmf_lib.wireless.channel import Uplink

EXPONENTS = st.floats(-12, 12)


def price(values: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Minus the derivative of `log(1 + upsilon/c)` by c."""
    return np.where(values > 0, values / np.where(values > 0, level * (level + values), 1), 0)


@settings(deadline=None, max_examples=60)
@given(arrays(float, 5, elements=EXPONENTS), EXPONENTS, st.none() | EXPONENTS)
def test_meets_the_optimality_conditions(exponents: np.ndarray, budget: float, floor: float | None) -> None:
    values, power, noise = 10**exponents, 10**budget, 0.0 if floor is None else 10**floor
    extra, nu = allocate(values, power, noise)
    assert (extra >= 0).all()
    assert extra.sum() == pytest.approx(power, rel=1e-12)
    prices = price(values, noise + extra)
    assert (prices <= nu * (1 + 1e-9)).all()
    clear = extra > 1e-6 * (noise + power)
    np.testing.assert_allclose(prices[clear], nu, rtol=1e-7)


def test_is_the_stable_form_of_the_corrected_equation() -> None:
    values = np.array([3.0, 1e-9, 0.0, 2e5])
    extra, nu = allocate(values, 0.7)
    positive = values > 0
    sigma = (2 / nu) / (1 + np.sqrt(1 + 4 / (values[positive] * nu)))
    np.testing.assert_allclose(extra[positive], sigma, rtol=1e-12)
    assert extra[2] == 0
    assert 0 < nu <= 4 / 0.7


def test_floor_is_filled_from_below() -> None:
    values, floor = np.array([10.0, 1.0, 0.01]), 0.5
    extra, nu = allocate(values, 0.2, floor)
    sigma = (2 / nu) / (1 + np.sqrt(1 + 4 / (values * nu)))
    np.testing.assert_allclose(floor + extra, np.maximum(sigma, floor), rtol=1e-12)
    assert extra[2] == 0


@pytest.mark.parametrize("floor", [1e6, 1e12, 1e20])
def test_survives_a_floor_far_above_the_budget(floor: float) -> None:
    extra, nu = allocate([2.0, 2.0, 1.0], 1e-3, floor)
    np.testing.assert_allclose(extra, [5e-4, 5e-4, 0], rtol=1e-9)
    assert nu == pytest.approx(2 / floor / floor, rel=1e-5)


def test_goes_through_a_batch_and_through_silence() -> None:
    values = np.array([[4.0, 1.0], [0.0, 0.0], [0.0, 2.0]])
    extra, nu = allocate(values, [1.0, 2.0, 3.0], 0.1)
    np.testing.assert_allclose(extra.sum(axis=-1), [1, 0, 3])
    assert nu[1] == 0
    for row, budget, alone in zip(values, [1.0, 2.0, 3.0], extra, strict=True):
        np.testing.assert_allclose(allocate(row, budget, 0.1)[0], alone, rtol=1e-14)


def test_printed_equation_counts_the_power_twice() -> None:
    uplink = Uplink(np.diag([3.0, 2.0, 1.0]), [0.5, 0.25, 2.0], 0.0)
    extra, values = published_covariance_eigenvalues(uplink, 1.0)
    np.testing.assert_allclose(values, [4.5, 2.0, 1.0])
    np.testing.assert_allclose(extra, allocate([4.5 * 0.5, 2.0 * 2.0, 1.0 * 0.25], 1.0)[0])
    assert not np.allclose(extra, allocate(values, 1.0)[0], rtol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([-1.0, 2.0], 1.0), "eigenvalues is -1"),
        (([], 1.0), r"eigenvalues has shape \(0,\)"),
        (([1.0], 0.0), "power is 0"),
        (([1.0], [1.0, 2.0]), r"power has shape \(2,\)"),
        (([1.0], 1.0, -1.0), "noise_floor is -1"),
        (([np.nan], 1.0), "eigenvalues holds NaN"),
    ],
)
def test_bad_input(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        allocate(*arguments)
