"""Vectors that arrive as what a few images do not tell."""

from dataclasses import replace

import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.payload.cores import Cores
from rmtllmf_lib.protection.few_shot_basis import received_in_basis
from rmtllmf_lib.protection.resilience import Station, few_shot_specialists
from rmtllmf_lib.study.units import NOISE, Bench, Unit
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from small import generator, small_backbone, small_tau
from studies import make_suite

BASE = small_backbone(layers=2).weights
TAUS = {name: small_tau(BASE, seed) for seed, name in enumerate("ab")}
KNOWN = {name: small_tau(BASE, 10 + seed) for seed, name in enumerate("ab")}


def test_without_noise_the_cores_arrive_and_under_noise_without_end_what_is_known() -> None:
    clean = received_in_basis(TAUS, KNOWN, 2, CLEAN, BASE, generator=generator())
    for name, tau in TAUS.items():
        payload = Cores(KNOWN[name], 2)
        wanted = payload.decode(payload.encode(tau), BASE.layout)
        torch.testing.assert_close(clean[name].values, wanted.values, rtol=1e-4, atol=1e-7)
    loud = received_in_basis(TAUS, KNOWN, 2, Scenario("loud", 1e9), BASE, generator=generator())
    for name, known in KNOWN.items():
        assert (loud[name] - known).norm < 1e-2 * (clean[name] - known).norm


def test_noise_costs_what_the_weights_say_and_no_more() -> None:
    link = Scenario("link", 0.5, "weight", "half")
    got = received_in_basis(TAUS, KNOWN, 2, link, BASE, generator=generator())
    clean = received_in_basis(TAUS, KNOWN, 2, CLEAN, BASE, generator=generator())
    for name, known in KNOWN.items():
        assert 0 < (got[name] - clean[name]).norm < (known - clean[name]).norm


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no vector of user 'b'"):
        received_in_basis(TAUS, {"a": KNOWN["a"]}, 2, CLEAN, BASE, generator=generator())
    with pytest.raises(InputError, match="rank is 0"):
        received_in_basis(TAUS, KNOWN, 0, CLEAN, BASE, generator=generator())
    with pytest.raises(InputError, match="mse has 3 values for 2 users"):
        received_in_basis(TAUS, KNOWN, 2, Scenario("s", (0.1,) * 3), BASE, generator=generator())


def test_a_study_s_users_send_in_it() -> None:
    bench, link = Bench(make_suite()), Scenario("link", 0.1, "weight")
    names, recipe = tuple(bench.suite.taus), Recipe(steps=2, batch_size=4, lr=1e-2, freeze=("embeddings",))
    unit = Unit(link, "few-shot-basis", 3, 1, (names,), (1.0,), recipe, None, "test", 4)
    got = bench.received(unit)
    assert [*got] == [*names] and bench.received(unit) is got  # one training for all combinations
    suite = bench.suite
    station = Station(
        suite.backbone, {}, 0.0, suite.heads, bench.memory(unit), recipe=recipe, seed=unit.order(), outage=names
    )  # fmt: skip
    known, base = few_shot_specialists(station), suite.backbone.weights
    wanted = received_in_basis(suite.taus, known, 4, link, base, generator=unit.generator(NOISE))
    assert {name: tau.hash for name, tau in got.items()} == {name: tau.hash for name, tau in wanted.items()}
    other = bench.received(replace(unit, seed=4))
    assert all(other[name].hash != got[name].hash for name in names)
