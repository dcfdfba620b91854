"""Vectors that arrive as what a few images do not tell."""

from dataclasses import replace

import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.payload.cores import Cores
from rmtllmf_lib.protection.few_shot_basis import received_cores
from rmtllmf_lib.protection.resilience import Station, few_shot_specialists
from rmtllmf_lib.study import units
from rmtllmf_lib.study.units import FITTING, NOISE, Bench, Unit
from rmtllmf_lib.training.cores import finetune_cores
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from small import generator, small_backbone, small_tau
from studies import make_suite

BASE = small_backbone(layers=2).weights
TAUS = {name: small_tau(BASE, seed) for seed, name in enumerate("ab")}
PAYLOADS = {name: Cores(small_tau(BASE, 10 + seed), 2) for seed, name in enumerate("ab")}
NUMBERS = {name: PAYLOADS[name].encode(tau).numbers for name, tau in TAUS.items()}
RMS = [tau.rms for tau in TAUS.values()]


def test_without_noise_the_cores_arrive_and_under_noise_without_end_what_is_known() -> None:
    clean = received_cores(NUMBERS, PAYLOADS, RMS, CLEAN, BASE, generator=generator())
    for name, tau in TAUS.items():
        wanted = PAYLOADS[name].decode(PAYLOADS[name].encode(tau), BASE.layout)
        torch.testing.assert_close(clean[name].values, wanted.values, rtol=1e-4, atol=1e-7)
    loud = received_cores(NUMBERS, PAYLOADS, RMS, Scenario("loud", 1e9), BASE, generator=generator())
    for name, payload in PAYLOADS.items():
        assert (loud[name] - payload.known).norm < 1e-2 * (clean[name] - payload.known).norm


def test_noise_costs_less_than_not_to_hear() -> None:
    link = Scenario("link", 0.5, "weight", "half")
    got = received_cores(NUMBERS, PAYLOADS, RMS, link, BASE, generator=generator())
    clean = received_cores(NUMBERS, PAYLOADS, RMS, CLEAN, BASE, generator=generator())
    for name, payload in PAYLOADS.items():
        assert 0 < (got[name] - clean[name]).norm < (payload.known - clean[name]).norm


def test_bad_input() -> None:
    with pytest.raises(InputError, match="none of user 'b'"):
        received_cores(NUMBERS, {"a": PAYLOADS["a"]}, RMS, CLEAN, BASE, generator=generator())
    with pytest.raises(InputError, match="rms has 3 values for 2 users"):
        received_cores(NUMBERS, PAYLOADS, [0.1] * 3, CLEAN, BASE, generator=generator())
    with pytest.raises(InputError, match="mse has 3 values for 2 users"):
        received_cores(NUMBERS, PAYLOADS, RMS, Scenario("s", (0.1,) * 3), BASE, generator=generator())
    swapped = {"a": Cores(PAYLOADS["a"].known, 3), "b": PAYLOADS["b"]}
    with pytest.raises(InputError, match="payload's numbers"):
        received_cores(NUMBERS, swapped, RMS, CLEAN, BASE, generator=generator())


def test_a_study_s_users_send_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Recipe(steps=3, batch_size=8, lr=1e-2)
    monkeypatch.setattr(units, "FIT", fit)
    bench, link = Bench(make_suite()), Scenario("link", 0.1, "weight")
    suite, names = bench.suite, tuple(bench.suite.taus)
    recipe = Recipe(steps=2, batch_size=4, lr=1e-2, freeze=("embeddings",))
    unit = Unit(link, "few-shot-basis", 3, 1, (names,), (1.0,), recipe, None, "test", 4)
    got = bench.received(unit)
    assert [*got] == [*names] and bench.received(unit) is got  # one training for all combinations
    station = Station(
        suite.backbone, {}, 0.0, suite.heads, bench.memory(unit), recipe=recipe, seed=unit.order(), outage=names
    )  # fmt: skip
    payloads = {name: Cores(own, 4) for name, own in few_shot_specialists(station).items()}
    numbers = {
        name: finetune_cores(
            suite.backbone, suite.tasks[name], suite.heads[name], payload, fit, generator=unit.generator(FITTING)
        )
        for name, payload in payloads.items()
    }
    power, base = [tau.rms for tau in suite.taus.values()], suite.backbone.weights
    wanted = received_cores(numbers, payloads, power, link, base, generator=unit.generator(NOISE))
    assert {name: tau.hash for name, tau in got.items()} == {name: tau.hash for name, tau in wanted.items()}
    other = bench.received(replace(unit, seed=4))
    assert all(other[name].hash != got[name].hash for name in names)
