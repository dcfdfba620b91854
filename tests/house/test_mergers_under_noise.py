"""The script behind the results of the chapter on mergers: its conditions, its choices, and what it writes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rmtllmf_lib.chapters import results
from rmtllmf_lib.fusion.mergers import merge
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.protection.resilience import PROTECTIONS
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.study.units import NOISE, Bench
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN
from small import small_backbone, small_head, small_task, small_tau
from workflow import mergers_under_noise

NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def suite() -> Suite:
    backbone = small_backbone(layers=2)
    tasks = {name: small_task(name, seed) for seed, name in enumerate(NAMES)}
    taus = {name: small_tau(backbone.weights, seed, task=name) for seed, name in enumerate(NAMES)}
    own = {name: backbone.weights + tau for name, tau in taus.items()}
    heads = {  # for which a random specialist is right at times, as scores are divided by how often
        name: next(head for head in map(small_head, range(20)) if accuracy(backbone, own[name], task.test, head) > 0.1)
        for name, task in tasks.items()
    }
    return Suite(backbone, tasks, heads, taus)


@pytest.fixture
def small(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:  # fmt: skip
    """The script with a small suite of four users in place of the drawn ones."""
    monkeypatch.setenv("RMTLLMF_HOME", str(tmp_path))
    for name, value in {"drawn_suite": lambda seed: suite, "USERS": 4, "TEST_IMAGES": 40, "VALIDATION_IMAGES": 8,
                        "LEVELS": ((0.3, "task"),)}.items():  # fmt: skip
        monkeypatch.setattr(mergers_under_noise, name, value)
    yield mergers_under_noise


def test_the_stored_conditions_are_those_of_the_script() -> None:
    made = results.made("mergers_under_noise")
    assert made["stages"] == json.loads(json.dumps([asdict(stage) for stage in mergers_under_noise.STAGES]))
    assert (made["test_images"], made["validation_images"]) == (
        mergers_under_noise.TEST_IMAGES,
        mergers_under_noise.VALIDATION_IMAGES,
    )
    rows, expected = results.stored_results("mergers_under_noise"), set()
    for stage in mergers_under_noise.STAGES:
        faults = stage.faults if len(stage.faults) == 1 else ("nothing", *stage.faults[1:])
        expected |= {(stage.n_tasks, fault, link.name, link.correlation, merger) for fault in faults
                     for link in stage.scenarios for merger in stage.mergers}  # fmt: skip
    assert set(map(tuple, rows[["n_tasks", "faulty", "scenario", "correlation", "merger"]].to_numpy())) == expected


def test_every_merger_is_tried_under_every_level() -> None:
    for stage in mergers_under_noise.STAGES:
        assert {f"merge-{name}" for name in stage.mergers} <= set(PROTECTIONS) and "arithmetic" in stage.mergers
        study = stage.study(3)
        assert study.first_seed == 3 and study.seeds == 1 and study.per_size == 8 // stage.n_tasks
        assert len(study.scenarios) == (len(mergers_under_noise.LEVELS) if stage.correlation else 1)


def normalised(suite: Suite, model: Weights, names: Sequence[str]) -> float:
    """Mean over some tasks of a model's accuracy over the specialist's, on the images of the small script."""
    bench, base = Bench(suite), suite.backbone.weights

    def score(name: str, weights: Weights) -> float:
        return accuracy(suite.backbone, weights, bench.prepared(name, "test", 40), suite.heads[name])

    return float(np.mean([score(name, model) / score(name, base + suite.taus[name]) for name in names]))


def test_a_stage_scores_what_it_says(small: Any, suite: Suite) -> None:
    """One row against a plain computation: the noise of the suite's number, the chosen lambda, the specialists."""
    stage = small.Stage(4, "independent", ("arithmetic", "tsv"))
    rows = small.run_stage(stage, suites=2)
    assert len(rows) == 2 * 2 and (rows.groupby("merger")["lam"].nunique() == 1).all()
    row = rows[(rows["merger"] == "tsv") & (rows["seed"] == 1)].iloc[0]
    base, (link,) = suite.backbone.weights, stage.scenarios
    received = link.receive([*suite.taus.values()], base, generator=generator_for(1, NOISE, 0))
    model = base + row["lam"] * merge("tsv", received)
    assert row["normalized"] == pytest.approx(normalised(suite, model, NAMES))
    assert row["ratio"] == pytest.approx(0.3) and row["faulty"] == "none"


def test_lambda_is_the_best_on_validation_images(small: Any, suite: Suite) -> None:
    stage, bench = small.Stage(4, "", ("ties",)), Bench(suite)
    chosen, merged = small.chosen_lambda(bench, stage, CLEAN, "ties"), merge("ties", [*suite.taus.values()])

    def score(lam: float) -> float:
        return float(np.mean([
            accuracy(suite.backbone, suite.backbone.weights + lam * merged, bench.prepared(name, "validation", 8), head)
            for name, head in suite.heads.items()
        ]))  # fmt: skip

    assert score(chosen) == max(score(lam) for lam in (chosen, 0.0, 0.2, 0.6, 1.0, 2.0))


def test_what_a_faulty_user_sends(small: Any, suite: Suite) -> None:
    tau = suite.taus["b"]
    sent = {fault: small.with_fault(suite, fault, "b", 1).taus for fault in small.FAULTS}
    for taus in sent.values():
        assert list(taus) == list(NAMES) and all(taus[name] is suite.taus[name] for name in "acd")
    assert torch.equal(sent["none"]["b"].values, tau.values)
    assert torch.equal(sent["negated"]["b"].values, -tau.values)
    assert torch.allclose(sent["hundredfold"]["b"].values, 100 * tau.values)
    garbage = sent["garbage"]["b"]
    assert garbage.norm == pytest.approx(tau.norm, rel=1e-5)
    assert abs(float(garbage.values @ tau.values)) < 0.2 * tau.norm**2
    assert not torch.equal(garbage.values, small.with_fault(suite, "garbage", "b", 2).taus["b"].values)


def test_the_faulty_user_s_task_is_left_out(small: Any, suite: Suite) -> None:
    rows = small.run_stage(small.Stage(4, "", ("arithmetic",), small.FAULTS), suites=1)
    assert list(rows["faulty"]) == ["nothing", "garbage", "negated", "hundredfold"]
    model = suite.backbone.weights + rows["lam"].iloc[0] * merge("arithmetic", [*suite.taus.values()])
    assert rows["normalized"].iloc[0] == pytest.approx(normalised(suite, model, "bcd"))  # a is the faulty one
    plain = small.run_stage(small.Stage(4, "", ("arithmetic",)), suites=1)
    assert plain["lam"].iloc[0] == rows["lam"].iloc[0] and list(plain["faulty"]) == ["none"]


def test_the_summary_pairs_by_suite(tmp_path: Path) -> None:
    level = {"n_tasks": 8, "faulty": "none", "scenario": "x", "scale": "task", "correlation": "half", "mse": 0.1,
             "ratio": 0.1, "lam": 0.5, "accuracy": 0.4}  # fmt: skip
    rows = pd.DataFrame([
        {**level, "merger": name, "seed": seed, "normalized": 0.5 + 0.1 * seed - lost}
        for name, lost in (("arithmetic", 0.1), ("tsv", 0.0)) for seed in range(3)
    ])  # fmt: skip
    mergers_under_noise.write(rows, tmp_path / "new" / "out.csv", mergers_under_noise.STAGES[:1])
    found = pd.read_csv(tmp_path / "new" / "out.csv").set_index("merger")
    assert found.loc["arithmetic", "behind"] == pytest.approx(0.1) and found.loc["tsv", "behind"] == 0
    assert found["behind_width"].max() < 1e-6 < found["half_width"].min()
    again = pd.read_csv(tmp_path / "new" / "out_suites.csv")
    pd.testing.assert_frame_equal(again[rows.columns], rows, check_dtype=False)
