"""The Gaussian surrogate: variances and correlations within what chance allows, and nothing else changed."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES, noise_power, surrogate
from small import small_backbone, small_tau
from vectors import BASE, vector

WANTED = {"independent": 0.0, "half": 0.5, "common": 1.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def base() -> Weights:
    return small_backbone().weights


@pytest.fixture(scope="module")
def taus(base: Weights) -> list[TaskVector]:
    return [small_tau(base, seed, size, f"task {seed}") for seed, size in ((1, 0.01), (2, 0.02), (3, 0.04))]


def errors(taus: Sequence[TaskVector], received: Sequence[TaskVector]) -> torch.Tensor:
    """Noise (users, parameters), float64."""
    return torch.stack([after.values.double() - tau.values for tau, after in zip(taus, received, strict=True)])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_variance_and_correlation(base: Weights, taus: list[TaskVector], scale: str, correlation: str) -> None:
    """Bounds of five standard deviations of the estimates, n numbers each."""
    mse = [0.01, 0.2, 0.05]
    noise = errors(taus, surrogate(taus, base, mse, scale=scale, correlation=correlation, generator=generator()))
    n = noise.shape[1]
    for row, tau, mu in zip(noise, taus, mse, strict=True):
        power = {"task": tau.values.double().square().mean(), "weight": base.values.double().square().mean(), "unit": 1}
        variance = mu * float(power["task" if scale == "snr" else scale])
        assert float(row.square().mean()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n) + 1e-5)
        assert abs(float(row.mean())) < 5 * math.sqrt(variance / n)
        fourth = float((row / row.std()).pow(4).mean())
        assert fourth == pytest.approx(3, abs=5 * math.sqrt(96 / n))  # as Gaussian as that moment tells
    rho = WANTED[correlation]
    found = torch.corrcoef(noise)[~torch.eye(3, dtype=torch.bool)]
    # float32 sums round the noise at the size of tau: the common noise is not exactly the same any more
    assert (found - rho).abs().max() < 5 * (1 - rho**2) / math.sqrt(n) + 1e-5
    with_tau = torch.corrcoef(torch.stack([noise[0], taus[0].values.double()]))[0, 1]
    assert abs(float(with_tau)) < 5 / math.sqrt(n)


@pytest.mark.parametrize("scale", SCALES)
def test_noise_power(scale: str) -> None:
    tau = vector(3)
    task = tau.values.square().mean()
    expected = {"task": task, "snr": task, "weight": BASE.values.square().mean(), "unit": 1.0}[scale]
    assert noise_power(tau, BASE, scale) == pytest.approx(float(expected))


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_without_an_error_everything_arrives_exactly(correlation: str) -> None:
    taus = [vector(1, task="a"), vector(2, task="b")]
    for mse in (0, 0.0, [0.0, 0.0], np.zeros(2)):
        received = surrogate(taus, BASE, mse, scale="weight", correlation=correlation, generator=generator())
        assert all(torch.equal(tau.values, after.values) for tau, after in zip(taus, received, strict=True))
    mixed = surrogate(taus, BASE, [0.0, 0.1], scale="weight", correlation=correlation, generator=generator())
    assert torch.equal(mixed[0].values, taus[0].values) and not torch.equal(mixed[1].values, taus[1].values)


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_the_same_state_gives_the_same_noise(correlation: str) -> None:
    taus = [vector(1), vector(2)]

    def bits(seed: int) -> list[str]:
        return [x.hash for x in surrogate(taus, BASE, 0.1, correlation=correlation, generator=generator(seed))]

    assert bits(0) == bits(0)
    assert not set(bits(0)) & set(bits(1))
    ongoing = generator()
    first, second = (surrogate(taus, BASE, 0.1, correlation=correlation, generator=ongoing) for _ in range(2))
    assert first[0].hash != second[0].hash
    with torch.random.fork_rng():
        torch.manual_seed(1)  # the global generator has no say
        again = bits(0)
    assert again == bits(0)


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-4, 1.0), st.floats(1e-4, 1.0), st.sampled_from(SCALES), st.sampled_from(CORRELATIONS))
def test_noise_grows_with_the_root_of_the_mse(first: float, second: float, scale: str, correlation: str) -> None:
    taus = [vector(1), vector(2)]
    options = {"scale": scale, "correlation": correlation}
    small, large = (
        errors(taus, surrogate(taus, BASE, mse, generator=generator(5), **options))  # type: ignore[arg-type]
        for mse in (first, second)
    )
    torch.testing.assert_close(large, small * math.sqrt(second / first), rtol=1e-3, atol=1e-5)


def test_one_number_stands_for_every_user() -> None:
    taus = [vector(1), vector(2)]
    kinds = (
        0.25,
        [0.25, 0.25],
        (0.25, 0.25),
        np.array(0.25),
        np.array([0.25, 0.25]),
        np.float32(0.25),
        np.float64(0.25),
    )
    hashes = {tuple(x.hash for x in surrogate(taus, BASE, mse, generator=generator())) for mse in kinds}
    assert len(hashes) == 1


def test_what_arrives_is_still_the_users_vector() -> None:
    tau = vector(1, task="signs", seed="3")
    before = tau.values.clone()
    (received,) = surrogate([tau], BASE, 0.1, generator=generator())
    assert received.info == tau.info and received.base_hash == tau.base_hash and received.layout is tau.layout
    assert torch.equal(tau.values, before)
    assert surrogate([], BASE, 0.1, generator=generator()) == []
    on_the_way = BASE + vector(4)  # a point that stands on the base will do as well
    assert len(surrogate([tau], on_the_way, 0.1, generator=generator())) == 1


@pytest.mark.parametrize(
    ("mse", "options", "message"),
    [
        (0.1, {"scale": "size"}, "noise scale is 'size'"),
        (0.1, {"correlation": "full"}, "noise correlation is 'full'"),
        ([0.1], {}, "mse has 1 values for 2 users"),
        ([0.1, 0.1, 0.1], {}, "mse has 3 values for 2 users"),
        (-0.1, {}, "mse is -0.1"),
        ([0.1, -1e-9], {}, "mse is -1e-09"),
        (math.nan, {}, "mse is nan"),
        ([0.1, math.inf], {}, "mse is inf"),
        ("ab", {}, "mse is 'a'"),
        (None, {}, "mse is None"),
        (True, {}, "mse is True"),
    ],
)
def test_bad_scenarios_are_refused(mse: object, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        surrogate([vector(1), vector(2)], BASE, mse, generator=generator(), **options)  # type: ignore[arg-type]


def test_another_base_is_refused() -> None:
    with pytest.raises(InputError, match="belongs to another base"):
        surrogate([vector(1)], Weights(BASE.layout, BASE.values + 1), 0.1, generator=generator())
