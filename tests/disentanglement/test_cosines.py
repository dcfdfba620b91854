"""Cosines of task vectors under noise: the formula, its limits, and the noise that gives a published band."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from rmtllmf_lib.disentanglement.cosines import cosine_bands, needed_noise, noisy_cosines, scenario_cosines
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights, cosine_matrix
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from rmtllmf_lib.transport.surrogate import CORRELATIONS, surrogate
from small import small_backbone, small_tau
from vectors import unhurried


@pytest.fixture(scope="module")
def base() -> Weights:
    return small_backbone(layers=1).weights


@pytest.fixture(scope="module")
def taus(base: Weights) -> list[TaskVector]:
    return [small_tau(base, seed + 1) for seed in range(3)]


@unhurried
@given(
    st.integers(0, 10**6),
    st.lists(st.floats(0, 50), min_size=3, max_size=3),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_the_formula_is_that_of_vectors_and_orthogonal_noise(seed: int, k: list[float], r: float) -> None:
    """Vectors in three dimensions and noise in others, with exact powers and correlations."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(3, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    own = np.eye(3) * np.sqrt(1 - r)
    noise = np.sqrt(np.array(k))[:, None] * np.hstack([own, np.full((3, 1), np.sqrt(r))])
    noisy = np.hstack([vectors, noise])
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    assert_allclose(noisy_cosines(vectors @ vectors.T, k, r), noisy @ noisy.T, atol=1e-12)


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("scale", ["task", "weight"])
def test_cosines_of_received_vectors(base: Weights, taus: list[TaskVector], scale: str, correlation: str) -> None:
    scenario = Scenario("s", (0.2, 1.0, 3.0), scale, correlation)
    received = surrogate(
        taus, base, scenario.mse, scale=scale, correlation=correlation, generator=torch.Generator().manual_seed(99)
    )  # fmt: skip
    tolerance = 4 / np.sqrt(base.layout.size)
    assert_allclose(scenario_cosines(scenario, taus, base), cosine_matrix(received), atol=tolerance)


def test_without_noise_cosines_stay(base: Weights, taus: list[TaskVector]) -> None:
    assert_allclose(scenario_cosines(CLEAN, taus, base), cosine_matrix(taus), atol=1e-12)


def test_limits_of_strong_noise() -> None:
    rho = np.array([[1, 0.2], [0.2, 1]])
    assert_allclose([noisy_cosines(rho, 1e9, r)[0, 1] for r in (0, 0.5, 1)], [0, 0.5, 1], atol=1e-8)
    many = noisy_cosines(rho, np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 4.0]]), 0.5)
    assert_allclose(many[:, 0, 1], [0.2, (0.2 + 0.5) / 2, (0.2 + 2 * 0.5) / np.sqrt(2 * 5)])


@pytest.mark.parametrize(
    ("cosines", "k", "r", "message"),
    [
        ([1.0, 0.0], 1.0, 0.0, "cosines"),
        (np.ones((2, 3)), 1.0, 0.0, "cosines"),
        (np.eye(2) * 2, 1.0, 0.0, r"\[-1, 1\]"),
        (np.eye(2), 1.0, -1.5, r"\[-1, 1\]"),
        (np.eye(2), -1.0, 0.0, "noise_to_signal"),
        (np.eye(2), [1.0, 1.0, 1.0], 0.0, r"noise_to_signal .*\(3,\)"),
    ],
)
def test_invalid_input(cosines: object, k: float, r: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        noisy_cosines(cosines, k, r)  # type: ignore[arg-type]


@unhurried
@given(st.floats(-0.1, 0.2), st.floats(0.05, 0.3), st.floats(0.1, 0.9), st.floats(0.01, 0.04))
def test_needed_noise_just_fills_the_band(low: float, spread: float, middle: float, width: float) -> None:
    cosines = (low, low + spread / 2, low + spread)
    target = (middle - width / 2, middle + width / 2)
    k, r, limit = needed_noise(cosines, target)
    assert limit == pytest.approx(middle)
    assert k > 0
    found = [(rho + k * r) / (1 + k) for rho in cosines]
    assert_allclose(found, [target[0], middle, target[1]], atol=1e-9)


def test_needed_noise_of_the_published_cosines() -> None:
    k, r, limit = needed_noise((0.138, 0.202, 0.265), (0.48, 0.52))
    assert_allclose([k, r, limit], [2.175, 0.637, 0.5], atol=1e-3)
    assert needed_noise((0.5, 0.5, 0.51), (0.48, 0.52)) == (0.0, 0.0, 0.5)
    assert needed_noise((0.1, 0.1, 0.11), (0.48, 0.52))[:2] == (0.0, float("inf"))
    with pytest.raises(InputError, match=r"\(0.5, 0.5\)"):
        needed_noise((0.1, 0.2, 0.3), (0.5, 0.5))


def test_bands_are_the_formula_for_equal_users() -> None:
    found = cosine_bands((0.1, 0.2, 0.3), [1.0, 4.0], {"mine": 0.25})
    assert list(found["correlation"]) == ["mine", "mine"]
    assert_allclose(found["low"], [(0.1 + 0.25) / 2, (0.1 + 1) / 5])
    assert_allclose(found["mean"], [(0.2 + 0.25) / 2, (0.2 + 1) / 5])
    assert_allclose(found["high"], [(0.3 + 0.25) / 2, (0.3 + 1) / 5])
    assert set(cosine_bands((0.1, 0.2, 0.3))["correlation"]) == set(CORRELATIONS)
