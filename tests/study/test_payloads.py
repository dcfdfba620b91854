"""Payloads as they arrive: exact with a code, with the errors of the link without, and scored task by task."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.payload.payload import Full
from rmtllmf_lib.study.payloads import Way, arrivals, error_ratios, task_accuracies
from rmtllmf_lib.study.units import Bench, specialists
from rmtllmf_lib.transport.coded_payload import Quantised
from rmtllmf_lib.transport.scenario import CLEAN, Scenario, inject_mse
from rmtllmf_lib.transport.surrogate import surrogate
from studies import make_suite

SUITE = make_suite()
TAUS, BASE = list(SUITE.taus.values()), SUITE.backbone.weights


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_with_a_code_it_arrives_as_it_was_quantised() -> None:
    way = Way(LowRank(3), 4, Scenario("jammed", 0.9, "weight"))
    arrived = arrivals(way, TAUS, BASE, generator=generator())
    for tau, got in zip(TAUS, arrived, strict=True):
        assert torch.equal(got.values, Quantised(LowRank(3), 4).arrived(tau).values)


def test_without_noise_it_is_what_the_payload_says() -> None:
    for tau, got in zip(TAUS, arrivals(Way(LowRank(3)), TAUS, BASE, generator=generator()), strict=True):
        payload = LowRank(3)
        assert torch.equal(got.values, payload.decode(payload.encode(tau), tau.layout).values)


@pytest.mark.parametrize("scale", ["task", "weight", "snr"])
@pytest.mark.parametrize("correlation", ["independent", "half", "common"])
def test_a_whole_vector_sent_once_meets_the_noise_of_the_surrogate(scale: str, correlation: str) -> None:
    link = Scenario("noisy", (0.02, 0.1, 0.05), scale, correlation)
    expected = surrogate(TAUS, BASE, link.mse, scale=scale, correlation=correlation, generator=generator(4))
    arrived = arrivals(Way(Full(), link=link), TAUS, BASE, generator=generator(4))
    for one, other in zip(arrived, expected, strict=True):
        torch.testing.assert_close(one.values, other.values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", ["task", "weight"])
def test_numbers_in_place_of_a_vector_have_its_ratio_of_noise_to_signal(scale: str) -> None:
    link = Scenario("noisy", (0.02, 0.1, 0.05), scale)
    payload, repeats = LowRank(20), 4
    ratios = error_ratios(link, TAUS, BASE, repeats)
    # rank 20 of noisy factors is no vector with noise: compare the factors themselves, by a payload that shows them
    seen = []

    class Shown(LowRank):
        def decode(self, encoded, layout):  # type: ignore[no-untyped-def]
            seen.append(encoded.numbers.values)
            return super().decode(encoded, layout)

    arrivals(Way(Shown(20), link=link, repeats=repeats), TAUS, BASE, generator=generator())
    for tau, got, ratio in zip(TAUS, seen, ratios, strict=True):
        sent = payload.encode(tau).numbers
        found = float((got - sent.values).square().mean()) / sent.rms**2
        assert found == pytest.approx(ratio, rel=5 * np.sqrt(2 / len(got)))


@settings(deadline=None)
@given(st.floats(1e-3, 0.9), st.integers(1, 9))
def test_repetition_divides_the_noise(mse: float, repeats: int) -> None:
    link = Scenario("noisy", mse)
    one, many = (np.array(error_ratios(link, TAUS, BASE, n)) for n in (1, repeats))
    np.testing.assert_allclose(many, one / repeats)
    of_task = np.array(error_ratios(Scenario("noisy", mse, "task"), TAUS, BASE, repeats))
    np.testing.assert_allclose(1 / of_task - 1, repeats * (1 / mse - 1))
    assert error_ratios(CLEAN, TAUS, BASE, repeats) == [0.0] * len(TAUS)


def test_balanced_signs_take_common_errors_out_of_the_sum() -> None:
    off = {}
    for signs in ("plain", "balanced"):
        link = Scenario("noisy", 0.1, "weight", "common", signs)  # type: ignore[arg-type]
        arrived = arrivals(Way(Full(), link=link), TAUS[:2], BASE, generator=generator())
        total = sum(got.values - tau.values for got, tau in zip(arrived, TAUS[:2], strict=True))
        off[signs] = float(total.norm())  # type: ignore[union-attr]
    assert off["balanced"] < 1e-4 * off["plain"]


def test_accuracies_are_those_of_the_models() -> None:
    bench = Bench(SUITE)
    own = specialists(bench, 20).set_index("task")
    for name, tau in SUITE.taus.items():
        found = task_accuracies(bench, BASE + tau, "test", 20)
        assert found[name] == pytest.approx(own.loc[name, "correct"] / own.loc[name, "images"])
        assert list(found.index) == list(SUITE.taus)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="mse has 2 values for 3 users"):
        arrivals(Way(Full(), link=Scenario("x", (0.1, 0.2))), TAUS, BASE, generator=generator())
    with pytest.raises(InputError, match="repeats"):
        Way(Full(), repeats=0)
    with pytest.raises(InputError, match="bits"):
        Way(Full(), 0)
    with pytest.raises(InputError, match="rank is 400"):
        arrivals(Way(LowRank(400), link=inject_mse()[0]), TAUS, BASE, generator=generator())
    with pytest.raises(InputError, match="split"):
        task_accuracies(Bench(SUITE), BASE, "exam", 5)
