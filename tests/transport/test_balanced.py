"""Balanced signs: what is common cancels, what is independent stays, and both ends need the same seed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.transport.balanced import balanced_signs, scramble, sign_correlation, unscramble
from rmtllmf_lib.transport.scenario import Scenario
from small import generator, small_backbone, small_tau
from vectors import BASE, unhurried, vector


@pytest.mark.parametrize("users", range(1, 9))
def test_signs_are_balanced_and_fair(users: int) -> None:
    """Five standard errors of the means over the places."""
    n = 20_000
    signs = balanced_signs(users, n, generator=generator())
    assert set(signs.unique().tolist()) <= {-1.0, 1.0}
    assert (signs.sum(0).abs() == users % 2).all()
    assert signs.mean(1).abs().max() < 5 / n**0.5
    products = (signs @ signs.T / n).numpy()[~np.eye(users, dtype=bool)]
    if users > 1:
        assert abs(products - sign_correlation(users)).max() < 5 / n**0.5


@unhurried
@given(st.integers(1, 5), st.integers(0, 9))
def test_scrambling_is_undone(users: int, seed: int) -> None:
    taus = [vector(k, task=str(k)) for k in range(users)]
    sent = scramble(taus, seed)
    back = unscramble(sent, seed)
    assert [tau.hash for tau in back] == [tau.hash for tau in taus] and [tau.info for tau in back] == [
        tau.info for tau in taus
    ]
    assert all(torch.equal(one.values.abs(), other.values.abs()) for one, other in zip(sent, taus, strict=True))


def test_both_ends_need_the_same_seed() -> None:
    sent = scramble([vector(0), vector(1)], 3)
    with pytest.raises(InputError, match="seed 3, and seed is 4"):
        unscramble(sent, 4)
    with pytest.raises(InputError, match="not scrambled"):
        unscramble([vector(0)], 3)
    with pytest.raises(InputError, match="already, with seed 3"):
        scramble(sent, 3)


def errors(scenario: Scenario, taus: list[TaskVector]) -> torch.Tensor:
    base = small_backbone().weights
    arrived = scenario.receive(taus, base, generator=generator())
    return torch.stack([after.values.double() - tau.values for tau, after in zip(taus, arrived, strict=True)])


@pytest.mark.parametrize("users", [2, 3, 4])
@pytest.mark.parametrize("correlation", ["independent", "half", "common"])
def test_common_errors_cancel_in_the_sum(users: int, correlation: str) -> None:
    """Against the covariance that the scenario states, which also is that of the errors themselves."""
    base = small_backbone().weights
    taus = [small_tau(base, seed, 0.02) for seed in range(users)]
    scenario = Scenario("a", 0.3, "weight", correlation, "balanced")
    noise, known = errors(scenario, taus), scenario.error_cov(taus, base)
    n, size = noise.shape[1], known[0, 0]
    assert (abs((noise @ noise.T / n).numpy() - known) < 5 * (2 / n) ** 0.5 * size).all()
    total = float(noise.sum(0).square().mean())
    assert total == pytest.approx(known.sum(), abs=6 * (2 / n) ** 0.5 * users * size)
    if correlation == "common":
        assert total < (1e-6 if users % 2 == 0 else 1.01) * size
    plain = errors(Scenario("a", 0.3, "weight", correlation), taus)
    torch.testing.assert_close(noise.abs(), plain.abs(), atol=1e-6, rtol=1e-4)  # the same noise, with signs


def test_no_users_are_refused() -> None:
    with pytest.raises(InputError, match="no task vector"):
        scramble([])
    assert Scenario("a", 0.1, signs="balanced").error_cov([], BASE).shape == (0, 0)
