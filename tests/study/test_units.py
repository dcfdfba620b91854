"""Units: separate random numbers for each purpose, and a cache that never mixes units."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.study.units import MEMORY, NOISE, ORDER, Bench, Unit, models, run_unit, specialists
from rmtllmf_lib.training.evaluate import predictions
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.coded_payload import LADDER, Quantised
from rmtllmf_lib.transport.mcs import measured, thresholds
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from studies import NOISY, QUICK, make_suite

UNIT = Unit(NOISY, "rmtllmf", 0, 2, (("a", "c"), ("b", "c")), (0.6, 0.6), QUICK, None, "test", 40)


@pytest.fixture(scope="module")
def suite() -> Suite:
    return make_suite()


def first(unit: Unit, purpose: int) -> float:
    return float(torch.rand((), dtype=torch.float64, generator=unit.generator(purpose)))


def test_random_numbers_are_the_seeds_and_the_purposes() -> None:
    units = [UNIT, replace(UNIT, seed=1), replace(UNIT, split="validation")]
    assert len({first(unit, purpose) for unit in units for purpose in (NOISE, MEMORY, ORDER)}) == 9
    for other in (replace(UNIT, scenario=CLEAN), replace(UNIT, protection="control"), replace(UNIT, per_class=7)):
        assert first(other, NOISE) == first(UNIT, NOISE)


def test_whether_the_seed_matters() -> None:
    assert UNIT.draws and replace(UNIT, scenario=CLEAN).draws and replace(UNIT, per_class=0).draws
    assert not replace(UNIT, scenario=CLEAN, per_class=0).draws
    assert not replace(UNIT, scenario=None, per_class=0).draws
    dropped = replace(UNIT, scenario=CLEAN, per_class=0, protection="merge-dare")  # the entries, with every seed
    assert dropped.draws and dropped.described() != replace(dropped, seed=1).described()


def test_the_cache_does_not_mix_units(suite: Suite) -> None:
    """A used bench gives the same results as a new one."""
    units = [
        UNIT, replace(UNIT, seed=1), replace(UNIT, scenario=CLEAN), replace(UNIT, per_class=1),
        replace(UNIT, split="validation"), replace(UNIT, images=7), UNIT,
    ]  # fmt: skip
    used = Bench(suite)
    served = [run_unit(used, unit).drop(columns="seconds") for unit in units]
    fresh = [run_unit(Bench(suite), unit).drop(columns="seconds") for unit in units]
    for one, other in zip(served, fresh, strict=True):
        pd.testing.assert_frame_equal(one, other)
    models_ = [tuple(table["model"]) for table in served]
    assert models_[0] == models_[5] == models_[6] and len({*models_}) == 5


def test_rows_of_a_unit(suite: Suite) -> None:
    bench = Bench(suite)
    table = run_unit(bench, UNIT)
    assert table["combination"].tolist() == ["a+c", "a+c", "b+c", "b+c"]
    assert table["task"].tolist() == ["a", "c", "b", "c"] and set(table["images"]) == {40}
    for members, protected in models(bench, UNIT):
        rows = table[table["combination"] == "+".join(members)].set_index("task")
        for name in members:
            images = bench.prepared(name, "test", 40)
            predicted = predictions(suite.backbone, protected.weights, images, suite.heads[name])
            assert rows.loc[name, "correct"] == int((predicted == images.split.labels).sum())
        assert set(rows["samples"]) == {20} and set(rows["steps"]) == {QUICK.steps}


def test_the_errors_covariance_is_that_of_the_fused_users(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    import rmtllmf_lib.study.units as module

    seen = []
    monkeypatch.setattr(module, "protect", lambda name, station, **_: seen.append(station))
    list(models(Bench(suite), UNIT))
    whole = NOISY.error_cov(list(suite.taus.values()), suite.backbone.weights)
    np.testing.assert_array_equal(seen[0].error_cov, whole[np.ix_([0, 2], [0, 2])])
    np.testing.assert_array_equal(seen[1].error_cov, whole[np.ix_([1, 2], [1, 2])])
    assert [*seen[1].received] == ["b", "c"] and seen[0].seed == seen[1].seed


def test_a_coded_payload_arrives_exactly_or_not_at_all(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenario's MSEs decide, per user; neither its scale nor its correlation nor the seed do."""
    import rmtllmf_lib.study.units as module

    worst = max(thresholds(measured()).values())
    mses = (worst - 0.01, worst + 0.01, 0.001)
    unit = replace(UNIT, scenario=Scenario("s", mses, "weight", "common"), protection="coded-tsv", per_class=0)
    assert not unit.draws and unit.described() == replace(unit, seed=1).described()
    received = Bench(suite).received(unit)
    assert [*received] == ["a", "c"]
    for name, sent in (("a", LADDER[1]), ("c", LADDER[0])):
        assert received[name].hash == sent.arrived(suite.taus[name]).hash
    seen = []
    monkeypatch.setattr(module, "protect", lambda name, station, **_: seen.append(station))
    list(models(Bench(suite), unit))
    assert [[*each.received] for each in seen] == [["a", "c"], ["c"]] and [each.outage for each in seen] == [(), ("b",)]
    assert [each.error_cov for each in seen] == [None, None]


def test_specialists(suite: Suite) -> None:
    table = specialists(Bench(suite), 40).set_index("task")
    for name, tau in suite.taus.items():
        own = suite.backbone.weights + tau
        images = Bench(suite).prepared(name, "test", 40)
        predicted = predictions(suite.backbone, own, images, suite.heads[name])
        assert table.loc[name, "correct"] == int((predicted == images.split.labels).sum())


def test_what_users_send_may_be_named_by_the_study(suite: Suite) -> None:
    """Of protections with coded payloads alone: the vectors are those that arrive of these payloads, by hand."""
    sends = (Quantised(LowRank(3), 2),)
    unit = replace(UNIT, protection="coded-tsv", per_class=0, recipe=None, lams=(1.0, 1.0))
    named = replace(unit, sends=sends)
    assert named.ladder == sends and unit.ladder == LADDER and replace(UNIT, sends=sends).ladder is None
    assert named.described() != unit.described() and not named.draws
    (_, found), *_ = models(Bench(suite), named)
    arrived = [sends[0].arrived(suite.taus[name]) for name in UNIT.combinations[0]]
    expected = suite.backbone.weights + tsv_merge(arrived)
    torch.testing.assert_close(found.weights.values, expected.values)
    uses = run_unit(Bench(suite), named)["uses"], run_unit(Bench(suite), unit)["uses"]
    assert (uses[0] < uses[1]).all()
