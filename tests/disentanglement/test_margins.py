"""Flip probabilities against SciPy's integrals, simulation and closed forms; the bounds on both sides of them."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from gaussians import random_model
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.margins import (
    Flips,
    flip_bounds,
    flip_probability,
    mean_flip_probabilities,
    standardised_margins,
)
from rmtllmf_lib.errors import InputError
from vectors import unhurried


def flips(model: FirstOrder, std: float, reference: object = None, **options: int) -> Flips:
    return flip_probability(model, std, reference, rng=np.random.default_rng(0), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [2, 3, 6, 10])
@pytest.mark.parametrize("std", [0.05, 0.3, 2.0])
def test_exact_probability_is_scipys(classes: int, std: float) -> None:
    model = random_model(3, classes, seed=classes)
    found = flips(model, std, points=1024)
    for image, top in enumerate(model.predicted):
        others = np.delete(np.arange(classes), top)
        covariance = std**2 * model.difference_gram()[image][np.ix_(others, others)]
        law = stats.multivariate_normal(np.zeros(classes - 1), covariance, seed=0)
        law.releps = law.abseps = 1e-5
        expected = 1 - law.cdf(model.margins()[image][others])
        assert found.probability[image] == pytest.approx(expected, abs=5 * found.error[image] + 5e-5)


@pytest.mark.parametrize("std", [0.1, 0.5])
@pytest.mark.parametrize("parameters", [30, 2])  # 2: the differences are linearly dependent
def test_probability_is_what_happens(std: float, parameters: int) -> None:
    model, draws = random_model(6, 5, seed=2, parameters=parameters), 20_000
    noisy = model.logits + std * model.sample(draws, np.random.default_rng(1))
    for reference in (model.predicted, np.array([0, 1, 2, 3, 4, 0])):
        found = flips(model, std, reference)
        counted = (noisy.argmax(2) != reference).sum(0)
        low, high = stats.binom.interval(0.9999, draws, found.probability)
        assert ((low - 3 * draws * found.error <= counted) & (counted <= high + 3 * draws * found.error)).all()


@unhurried
@given(st.integers(1, 8), st.integers(0, 100), st.floats(0, 5), st.integers(1, 12))
@example(classes=2, seed=0, std=5e-324, parameters=1)
@example(classes=5, seed=0, std=1e-308, parameters=3)
def test_bounds_hold(classes: int, seed: int, std: float, parameters: int) -> None:
    model = random_model(3, classes, seed, parameters)
    found = flips(model, std, points=32)
    assert (0 <= found.lower).all() and (found.lower <= found.probability).all()
    assert (found.probability <= found.upper).all() and (found.upper <= 1).all()
    lower, upper = flip_bounds(model, std)
    np.testing.assert_array_equal([lower, upper], [found.lower, found.upper])
    shifted = FirstOrder(model.logits + 7, model.gram)
    np.testing.assert_allclose(flips(shifted, std, points=32).probability, found.probability, rtol=1e-6, atol=1e-9)


def test_two_classes_have_a_closed_form_however_rare() -> None:
    model = FirstOrder(np.array([[3.0, 1.0]]), np.diag([0.5, 0.5])[None])
    for std in (0.1, 0.5, 4.0):
        found = flips(model, std)
        assert found.probability[0] == pytest.approx(stats.norm.sf(2 / std), rel=1e-12)
        assert found.error[0] == pytest.approx(0, abs=1e-15)


def test_rare_flips_keep_their_relative_precision() -> None:
    """Three independent rivals, each with 1e-12: the probability is three times that, despite rounding."""
    margin = stats.norm.isf(1e-12)
    gram = np.zeros((1, 4, 4))
    gram[0, 1:, 1:] = np.eye(3)
    found = flips(FirstOrder(np.array([[margin, 0, 0, 0]]), gram), 1.0)
    assert found.probability[0] == pytest.approx(3e-12, rel=1e-6)


def test_error_is_that_of_the_integral() -> None:
    """Over repetitions, deviations from a precise value are as large as the stated standard errors."""
    model, rng = random_model(20, 8, seed=4), np.random.default_rng(0)
    precise = flip_probability(model, 0.5, rng=rng, points=2**13).probability
    runs = [flip_probability(model, 0.5, rng=rng, points=64) for _ in range(10)]
    scores = np.array([(run.probability - precise) / run.error for run in runs])
    assert 0.7 < np.sqrt((np.clip(scores, -5, 5) ** 2).mean()) < 1.6
    assert max(run.error.max() for run in runs) < 0.01
    finer = flip_probability(model, 0.5, rng=rng, points=1024)
    assert finer.error.mean() < 0.3 * np.mean([run.error.mean() for run in runs])


def test_ties_at_the_top() -> None:
    """With noise, the first of two tied classes wins half of the time; without noise, always."""
    tied = FirstOrder(np.array([[1.0, 1.0, -50.0]]), np.eye(3)[None])
    assert flips(tied, 0.1).probability[0] == pytest.approx(0.5)
    assert flips(tied, 0.0).probability.tolist() == [0]
    level = FirstOrder(np.zeros((1, 4)), np.eye(4)[None])
    assert flips(level, 0.3, points=1024).probability[0] == pytest.approx(0.75, abs=1e-3)
    assert flips(FirstOrder(np.zeros((1, 4)), np.zeros((1, 4, 4))), 0.3).probability.tolist() == [0]


def test_without_noise_a_prediction_is_the_reference_or_not() -> None:
    model = FirstOrder(np.array([[2.0, 1.0], [2.0, 1.0]]), np.stack([np.eye(2)] * 2))
    found = flips(model, 0.0, [0, 1])
    assert found.probability.tolist() == [0, 1] and found.error.tolist() == [0, 0]
    assert standardised_margins(model, 0.0, [0, 1]).tolist() == [[np.inf, np.inf], [-np.inf, np.inf]]


def test_a_still_image_among_moving_ones() -> None:
    model = FirstOrder(np.array([[2.0, 1.0], [2.0, 1.0]]), np.stack([np.eye(2), np.zeros((2, 2))]))
    assert flips(model, 10.0).probability[1] == 0
    assert flips(model, 10.0, [1, 1]).probability[1] == 1


def test_one_class_and_one_image() -> None:
    assert flips(FirstOrder([1.0], [[4.0]]), 3.0).probability.tolist() == [0]
    assert flips(FirstOrder([1.0, 0.0], np.eye(2)), 0.3).probability.shape == (1,)


def test_the_same_generator_gives_the_same_numbers() -> None:
    model = random_model()
    np.testing.assert_array_equal(flips(model, 0.3).probability, flips(model, 0.3).probability)


@pytest.mark.parametrize(
    ("std", "options", "message"),
    [
        (-0.1, {}, "the standard deviation of the noise is -0.1"),
        (np.nan, {}, "std is nan"),
        (0.1, {"points": 0}, "points is 0"),
        (0.1, {"replicates": 1}, "replicates is 1"),
        (0.1, {"reference": [7, 0, 0, 0]}, "expected 4 whole numbers from 0 to 4"),
    ],
)
def test_bad_input(std: float, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        flips(random_model(), std, **options)


def test_mean_flip_probabilities() -> None:
    models = {"a": random_model(12, 5), "b": random_model(12, 3, seed=1)}
    found = mean_flip_probabilities(models, [[0.1, 0.3], [0.0, 1.0]], rng=np.random.default_rng(0))
    assert found.shape == (2, 2, 2)
    for place, model in enumerate(models.values()):
        exact = flip_probability(model, 0.3, rng=np.random.default_rng(1), points=512).probability.mean()
        assert 0.02 < exact < 0.9
        assert found[0, 1, place] == pytest.approx(exact, rel=0.02)
    assert not found[1, 0].any()
    assert (found[1, 1] > found[0, 1]).all()
