"""The law of the ratio against simulation, the thresholds at their size, and why the statistic misleads."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from gaussians import random_model
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.ratio_test import (
    FOLDED,
    first_order_probability,
    ratio,
    rejects,
    relative_std,
    threshold,
    within_probability,
)
from rmtllmf_lib.errors import InputError
from vectors import unhurried

DRAWS = 20_000


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("logit", [2.5, -0.4])
def test_law_of_the_deviation(sigma: float, logit: float) -> None:
    """Kolmogorov and Smirnov's distance to the simulated ratio, from far below to far above T = 1."""
    noise = np.random.default_rng(3).normal(0, sigma * abs(logit), DRAWS)
    deviations = np.abs(ratio(logit, logit + noise) - 1)
    assert stats.kstest(deviations, lambda t: within_probability(t, sigma)).pvalue > 0.01


def test_law_is_not_the_first_order_one() -> None:
    """The test above can detect a deviation of that size."""
    noise = np.random.default_rng(3).normal(0, 0.5, DRAWS)
    deviations = np.abs(ratio(1.0, 1.0 + noise) - 1)
    assert stats.kstest(deviations, lambda t: 2 * stats.norm.cdf(t / 0.5) - 1).pvalue < 1e-9


@unhurried
@given(st.floats(0.0, 5.0), st.floats(0.02, 10.0))
def test_law_is_the_integral_of_the_noise(limit: float, sigma: float) -> None:
    """Over all g with |1/(1 + g) - 1| ≤ T, solved for by hand on each side of g = -1."""
    right = stats.norm.cdf(np.inf if limit >= 1 else limit / (1 - limit), scale=sigma)
    expected = right - stats.norm.cdf(-limit / (1 + limit), scale=sigma)
    if limit > 1:
        expected += stats.norm.cdf(-1 - 1 / (limit - 1), scale=sigma)
    assert within_probability(limit, sigma) == pytest.approx(expected, abs=1e-12)


@unhurried
@given(st.floats(0.0, 3.0), st.floats(0.0, 3.0), st.floats(0.0, 3.0))
def test_law_rises_with_the_threshold(first: float, second: float, sigma: float) -> None:
    low, high = sorted((first, second))
    assert 0 <= within_probability(low, sigma) <= within_probability(high, sigma) + 1e-12 <= 1 + 1e-11


def test_the_ratio_has_no_variance() -> None:
    """Pr(|R - 1| > T) ~ c/T: the integral of T Pr(|R − 1| > T) diverges."""
    tails = [
        integrate.quad(lambda t: t * (1 - float(within_probability(t, 0.8))), 2, end, limit=500)[0]
        for end in (1e2, 1e3, 1e4)
    ]
    assert tails[1] > 5 * tails[0] and tails[2] > 5 * tails[1]


def test_variances_to_first_order() -> None:
    sigma = 0.001
    deviations = ratio(1.0, 1.0 + np.random.default_rng(0).normal(0, sigma, DRAWS)) - 1
    spread = 3 * math.sqrt(2 / DRAWS)
    assert deviations.var() / sigma**2 == pytest.approx(1, abs=spread)
    assert np.abs(deviations).var() / sigma**2 == pytest.approx(1 - 2 / math.pi, abs=spread)
    assert pytest.approx(1 - 2 / math.pi) == FOLDED**2


def test_relative_std() -> None:
    model = FirstOrder(np.array([[2.0, -0.5, 0.0, 0.0]]), np.diag([9.0, 1.0, 4.0, 0.0])[None])
    np.testing.assert_allclose(relative_std(model, 0.1), [[0.15, 0.2, np.inf, 0.0]])
    np.testing.assert_array_equal(relative_std(model, 0), np.zeros((1, 4)))


@pytest.mark.parametrize(("folded", "expected"), [(False, 0.950), (True, 0.7626)])
def test_a_threshold_that_follows_the_mse(folded: bool, expected: float) -> None:
    """Eq. (12) is false for it: the probability is the same over four decades of MSE, in theory and in counts."""
    mse = np.logspace(-6, -2, 5)
    np.testing.assert_allclose(first_order_probability(1.96, mse, folded=folded), expected, atol=5e-5)
    model, rng = random_model(3, 4), np.random.default_rng(1)
    moves = model.sample(DRAWS, rng)
    for mu in mse:
        sigma = relative_std(model, 1e-2 * math.sqrt(mu))
        limits = threshold(1.96, sigma, folded=folded)
        kept = ~rejects(ratio(model.logits, model.logits + 1e-2 * math.sqrt(mu) * moves), limits)
        exact = within_probability(limits, sigma)
        low, high = stats.binom.interval(0.9999, DRAWS, exact)
        assert ((low <= kept.sum(0)) & (kept.sum(0) <= high)).all()
        assert np.abs(exact - expected)[limits < 0.1].max() < 0.005  # not for logits near zero
        assert (limits < 0.1).sum() >= 8


def test_a_threshold_fixed_at_a_reference() -> None:
    mse = np.array([1e-5, 1e-4, 1e-3, 1e-2])
    found = first_order_probability(1.96, mse, 1e-3, folded=False)
    np.testing.assert_allclose(found, 2 * stats.norm.cdf(1.96 * np.sqrt(1e-3 / mse)) - 1)
    assert found[0] == pytest.approx(1) and found[2] == pytest.approx(0.95, abs=1e-4) and found[3] < 0.5


def test_a_shift_of_all_logits_changes_the_ratio_only() -> None:
    model = random_model()
    shifted = FirstOrder(model.logits + 10, model.gram)
    assert (shifted.predicted == model.predicted).all()
    assert not np.allclose(relative_std(shifted, 0.1), relative_std(model, 0.1))


def test_zero_logits_and_zero_noise() -> None:
    np.testing.assert_array_equal(ratio([0.0, 0.0, 1.0], [0.0, 2.0, 0.0]), [1, 0, np.inf])
    assert rejects(ratio(0.0, 2.0), 0.5) and rejects(ratio(1.0, 0.0), 0.5) and not rejects(ratio(0.0, 0.0), 0.5)
    np.testing.assert_array_equal(within_probability([0, 0.5, 1, 2], np.inf), [0, 0, 1, 1])  # R = 0, |R - 1| = 1
    np.testing.assert_array_equal(within_probability([0, 0.5, 1, 2], 0.0), [1, 1, 1, 1])
    assert within_probability(0.0, 0.3) == 0


def test_one_class_and_one_image() -> None:
    model = FirstOrder([2.0], [[4.0]])
    assert relative_std(model, 0.1).tolist() == [[0.1]]
    assert within_probability(threshold(1.96, 0.1), 0.1).shape == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ratio(np.nan, 1.0), "the undisturbed logits holds NaN"),
        (lambda: ratio(1.0, np.inf), "the disturbed logits holds NaN or infinity"),
        (lambda: ratio(np.ones(2), np.ones(3)), "expected shapes that broadcast"),
        (lambda: within_probability(-0.1, 1.0), "the threshold is -0.1"),
        (lambda: within_probability(0.1, -1.0), "sigma is -1 at its smallest"),
        (lambda: within_probability(0.1, np.nan), "sigma is nan at its smallest"),
        (lambda: threshold(0, 0.1), "z_beta is 0"),
        (lambda: threshold(1.96, np.nan), "sigma is nan at its smallest"),
        (lambda: rejects([1.0, np.nan], 0.1), "1 of 2 ratios are NaN"),
        (lambda: first_order_probability(1.96, 0.0), "mse is 0"),
        (lambda: first_order_probability(1.96, 0.1, -1.0), "reference_mse is -1"),
        (lambda: relative_std(random_model(), -1), "expected at least 0"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
