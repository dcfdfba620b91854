"""Size and power of the test where its assumptions hold exactly, and its invariances."""

import numpy as np
import pytest
from scipy import stats

from gaussians import random_model
from rmtllmf_lib.disentanglement.chi_square_test import critical_value, degrees_of_freedom, power, statistic
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.errors import InputError

DRAWS, S0 = 4000, 0.02


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("level", [0.05, 0.3])
def test_size_and_power(classes: int, level: float) -> None:
    """Counted rejections within the binomial interval around the predicted power, at and around s₀."""
    model = random_model(3, classes, seed=classes)
    noise = model.sample(DRAWS, np.random.default_rng(classes))
    dof = degrees_of_freedom(model)
    assert dof.tolist() == [classes - 1] * 3
    assert power(dof, level, S0, S0) == pytest.approx(level)
    for std in (0.5 * S0, S0, 2 * S0):
        rejected = (statistic(model, std * noise, S0) > critical_value(dof, level)).sum(0)
        low, high = stats.binom.interval(0.9995, DRAWS, power(dof, level, S0, std))
        assert ((low <= rejected) & (rejected <= high)).all()


def test_law_of_the_statistic() -> None:
    model = random_model(1, 6)
    values = statistic(model, S0 * model.sample(DRAWS, np.random.default_rng(5)), S0)[:, 0]
    assert stats.kstest(values, stats.chi2(5).cdf).pvalue > 0.01
    assert stats.kstest(values, stats.chi2(6).cdf).pvalue < 1e-6


def test_statistic_is_the_pseudo_inverse_of_the_centred_covariance() -> None:
    model, change = random_model(4, 5), np.random.default_rng(0).standard_normal((7, 4, 5))
    centring = np.eye(5) - 1 / 5
    inverse = np.linalg.pinv(S0**2 * centring @ model.gram @ centring, rcond=1e-8, hermitian=True)
    expected = np.einsum("dnk,nkl,dnl->dn", change, inverse, change)
    np.testing.assert_allclose(statistic(model, change, S0), expected, rtol=1e-6)


def test_a_shift_of_all_logits_is_no_change() -> None:
    model, change = random_model(2, 5), np.random.default_rng(0).standard_normal((2, 5))
    np.testing.assert_allclose(statistic(model, change + 100, S0), statistic(model, change, S0))
    np.testing.assert_allclose(statistic(model, np.ones((2, 5)), S0), 0, atol=1e-18)
    # nor does a gradient that all logits share
    shared = FirstOrder(model.logits, model.gram + 10)
    np.testing.assert_allclose(statistic(shared, change, S0), statistic(model, change, S0))


def test_fewer_directions_than_classes() -> None:
    """Three parameters move five logits in three dimensions only."""
    model = random_model(2, 5, parameters=3)
    assert degrees_of_freedom(model).tolist() == [3, 3]
    values = statistic(model, S0 * model.sample(DRAWS, np.random.default_rng(0)), S0)
    assert stats.kstest(values[:, 0], stats.chi2(3).cdf).pvalue > 0.01


def test_power_without_noise_and_with_much() -> None:
    assert power([1, 9], 0.05, S0, 0).tolist() == [0, 0]
    assert power(9, 0.05, S0, 100 * S0) == pytest.approx(1)


def test_one_image_and_equal_logits() -> None:
    model = FirstOrder(np.zeros(3), random_model(1, 3).gram[0])
    assert statistic(model, np.zeros((1, 3)), S0).tolist() == [0]
    assert degrees_of_freedom(model).tolist() == [2]


def test_bad_input() -> None:
    model = random_model(2, 3)
    with pytest.raises(InputError, match="one class: centred logits are all zero"):
        degrees_of_freedom(FirstOrder([1.0], [[1.0]]))
    still = FirstOrder(np.zeros((2, 3)), np.stack([np.eye(3), np.ones((3, 3))]))
    with pytest.raises(InputError, match="image 1 is zero"):
        statistic(still, np.zeros((2, 3)), S0)
    for change, message in (
        (np.zeros((3, 3)), "expected .…, 2, 3."),
        (np.zeros(3), "expected .…, 2, 3."),
        (np.full((2, 3), np.nan), "the change of the logits holds NaN"),
    ):
        with pytest.raises(InputError, match=message):
            statistic(model, change, S0)
    for level in (0, 1, -0.1):
        with pytest.raises(InputError, match="expected a probability between 0 and 1"):
            critical_value(2, level)
    with pytest.raises(InputError, match="the reference standard deviation is 0"):
        statistic(model, np.zeros((2, 3)), 0)
    with pytest.raises(InputError, match="the degrees of freedom is 0"):
        power(0, 0.05, S0, S0)
