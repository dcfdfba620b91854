"""Studies: equal to a plain loop, test images used for the score only, the same table after a kill."""

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import rmtllmf_lib.study.study as module
from benchmarks.bench_study import fast_study, plain_study
from forks import die, exit_code, forked
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse, lambda_n
from rmtllmf_lib.protection.resilience import PROTECTIONS
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.study import NO_LINK, provenance, run_study, study_units, write_table
from rmtllmf_lib.study.units import Bench, Unit, models, run_unit
from rmtllmf_lib.tasks.base import Split
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.coded_payload import full_uses, plan
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from studies import NOISY, QUICK, SHORT, STUDY, make_suite, require_same, short


@pytest.fixture(scope="module")
def suite() -> Suite:
    return make_suite()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def table(suite: Suite, store: Store) -> pd.DataFrame:
    return run_study(STUDY, suite, store=store)


# --- what is computed -------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_a_plain_loop(suite: Suite) -> None:
    """One model at a time with open_clip, noise and memory drawn again for each."""
    study = replace(STUDY, seeds=1, per_class=(2,))
    found, expected = fast_study(study, suite), plain_study(study, suite)
    assert found.keys() == expected.keys() and len(found) == len({*found}) > 50
    for key, predicted in expected.items():
        assert torch.equal(found[key], predicted), key
    assert len({tuple(part.tolist()) for part in found.values()}) > 10  # the models differ


def test_the_table_scores_these_models(suite: Suite, table: pd.DataFrame) -> None:
    rows = table.set_index(["scenario", "protection", "per_class", "seed", "combination", "task"])
    assert rows.index.is_unique
    found, bench = 0, Bench(suite)
    own = {
        name: accuracy(suite.backbone, suite.backbone.weights + tau, bench.prepared(name, "test", 20), head)
        for (name, tau), head in zip(suite.taus.items(), suite.heads.values(), strict=True)
    }
    for unit in study_units(STUDY, suite):
        shown = unit.scenario.name if unit.scenario else NO_LINK
        for members, protected in models(bench, unit) if unit.seed else ():
            for name in members:
                row = rows.loc[(shown, unit.protection, unit.per_class, unit.seed, "+".join(members), name)]
                images = bench.prepared(name, "test", 20)
                assert row["accuracy"] == accuracy(suite.backbone, protected.weights, images, suite.heads[name])
                assert row["reference"] == own[name] and row["normalized"] == row["accuracy"] / own[name]
                assert row["model"] == protected.weights.hash[:16] and row["images"] == 20
                assert row["n_tasks"] == len(members) and row["lam"] == protected.lam
                found += 1
    assert found == (table["seed"] == 1).sum()


def test_rows_of_every_condition_and_no_other(table: pd.DataFrame) -> None:
    combos = ["a+b", "a+c", "b+c", "a+b+c"]
    assert set(table["combination"]) == {*combos} and set(table["seed"]) == {0, 1}
    conditions = table.groupby(["scenario", "protection", "per_class"]).size()
    each = [("unprotected", 0), *((name, count) for name in ("rmtllmf", "noise-aware") for count in (1, 2))]
    expected = {(scenario, *condition) for scenario in ("clean", "noisy") for condition in each}
    expected |= {(NO_LINK, "control", 1), (NO_LINK, "control", 2), (NO_LINK, "base", 0)}
    assert set(conditions.index) == expected
    assert set(conditions) == {2 * (3 * 2 + 3)}  # seeds × (pairs × 2 + the three)
    noisy = table[table["scenario"] == "noisy"]
    assert set(noisy["scale"]) == {"weight"} and set(noisy["correlation"]) == {"half"}
    assert noisy["mse"].unique() == pytest.approx([0.17 / 3])
    assert table.loc[table["scenario"] == NO_LINK, "mse"].isna().all()
    realigned = table["protection"].isin(["rmtllmf", "noise-aware", "control"])
    assert (table["lr"].notna() == realigned).all() and set(table.loc[realigned, "steps"]) == {2}
    assert (table["samples"] == table["per_class"] * 5 * table["n_tasks"]).all()


def test_what_depends_on_nothing_drawn_is_the_same_for_all_seeds(table: pd.DataFrame) -> None:
    for protection, scenario, differ in [
        ("base", NO_LINK, 1),
        ("unprotected", "clean", 1),
        ("unprotected", "noisy", 2),
    ]:
        rows = table[(table["protection"] == protection) & (table["scenario"] == scenario)]
        assert set(rows.groupby("combination")["model"].nunique()) == {differ}


def test_one_noise_for_all_protections_one_memory_for_all_scenarios(suite: Suite) -> None:
    """Differences between conditions of one seed are paired."""
    bench = Bench(suite)
    units = [unit for unit in study_units(STUDY, suite) if unit.seed == 1 and unit.per_class == 2]
    noisy = [unit for unit in units if unit.scenario == NOISY]
    assert len({tuple(tau.hash for tau in bench.received(unit).values()) for unit in noisy}) == 1
    images = {bench.memory(unit).splits["b"].inputs.numpy().tobytes() for unit in units}  # type: ignore[union-attr]
    assert len(images) == 1 and {unit.protection for unit in units} == {"rmtllmf", "noise-aware", "control"}


def poisoned(suite: Suite, part: str, *, images: bool) -> Suite:
    """The labels of one split turned by one class, and its images made noise, if asked for."""

    def poison(split: Split) -> Split:
        assert isinstance(split.inputs, torch.Tensor)
        noise = torch.randint(256, split.inputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return Split(noise if images else split.inputs, (split.labels + 1) % 5)

    tasks = {name: replace(task, **{part: poison(getattr(task, part))}) for name, task in suite.tasks.items()}
    return replace(suite, tasks=tasks)


CHOOSING = replace(
    STUDY, test_images=None, seeds=1, per_class=(2,), sizes=(3,), lr_grid=(1e-4, 1e-2), validation_images=None,
    scenarios=(NOISY,),
    protections=("freeze", "realign", "rmtllmf", "noise-aware-lambda", "noise-aware", "wiener", "control",
                 "few-shot-specialists"),
    lam_grid={"rmtllmf": (0.05, 0.3, 0.9), "freeze": (0.1, 0.8), "few-shot-specialists": (0.5, 1.5)},
)  # fmt: skip
SCORES = ["accuracy", "reference", "normalized"]


def test_test_images_change_nothing_but_the_score(suite: Suite, tmp_path: Path) -> None:
    """Every protection and every choice: models, coefficients and learning rates are bit for bit the same."""

    def run(name: str, changed: Suite) -> pd.DataFrame:
        return run_study(CHOOSING, changed, store=Store(tmp_path / name))

    clean = run("clean", suite)
    other = run("test", poisoned(suite, "test", images=True))
    require_same(clean.drop(columns=SCORES), other.drop(columns=SCORES))
    assert not np.allclose(clean["accuracy"], other["accuracy"])
    # and the test can fail: what may be seen does change the models
    trained = run("trained", poisoned(suite, "train", images=False))
    seen = clean["protection"].map(lambda name: PROTECTIONS[name].trains)
    assert (clean["model"] != trained["model"])[seen].all() and (clean["model"] == trained["model"])[~seen].sum() > 0


def test_learning_rates_are_chosen_on_validation_images(suite: Suite, tmp_path: Path) -> None:
    study = replace(CHOOSING, protections=("rmtllmf", "control", "realign"), lr={"realign": 0.5e-3})
    found = run_study(study, suite, store=Store(tmp_path))
    assert set(found.loc[found["protection"] == "realign", "lr"]) == {0.5e-3}
    chosen = found[found["protection"] != "realign"].groupby(["scenario", "protection"])["lr"].first()
    bench = Bench(suite)
    for unit in study_units(study, suite):
        shown = unit.scenario.name if unit.scenario else NO_LINK
        if unit.protection == "realign":
            continue
        scores = {}
        for lr in study.lr_grid:
            tried = replace(unit, recipe=replace(QUICK, lr=lr), split="validation", seed=0)
            ((members, protected),) = models(bench, tried)
            scores[lr] = sum(
                accuracy(suite.backbone, protected.weights, suite.tasks[name].validation, suite.heads[name])
                for name in members
            )
        assert chosen[shown, unit.protection] == max(scores, key=scores.__getitem__)
    # with random numbers that no scored model has
    test, validation = (bench.received(replace(unit, scenario=NOISY, split=split)) for split in ("test", "validation"))
    assert test["a"].hash != validation["a"].hash


def test_lambda_is_the_studys(suite: Suite, tmp_path: Path) -> None:
    study = replace(STUDY, protections=("unprotected",), scenarios=(CLEAN,), seeds=1, lam={2: 0.6, 3: 0.35})
    found = run_study(study, suite, store=Store(tmp_path)).drop_duplicates("combination").set_index("combination")
    assert found["lam"].to_dict() == {"a+b+c": 0.35, "a+b": 0.6, "a+c": 0.6, "b+c": 0.6}
    expected = fuse(suite.backbone.weights, [suite.taus["a"], suite.taus["c"]], 0.6)
    assert found.loc["a+c", "model"] == expected.hash[:16]
    published = run_study(replace(study, lam=None), suite, store=Store(tmp_path))
    assert set(published["lam"]) == {lambda_n(2), lambda_n(3)}


def test_a_grid_is_the_studies_of_its_values(suite: Suite, tmp_path: Path) -> None:
    study = replace(SHORT, protections=("rmtllmf", "base"), per_class=(2,))
    grid = {"lam": [{3: 0.2}, {3: 0.4}], "realignment": [QUICK, replace(QUICK, steps=1)]}
    store = Store(tmp_path)
    found = run_study(study, suite, grid=grid, store=store)
    single = [
        run_study(replace(study, lam=lam, realignment=recipe), suite, store=store)
        for lam in grid["lam"] for recipe in grid["realignment"]
    ]  # fmt: skip
    require_same(found, pd.concat(single, ignore_index=True))
    assert found.groupby("protection")["model"].nunique().to_dict() == {"base": 1, "rmtllmf": 8}
    require_same(run_study(study, suite, grid=grid, store=store), found)  # not one of the single tables


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"seeds": [1, 2]}, "grid is 'seeds'"),
        ({"lam": []}, r"\[\] for lam"),
        ({"lam": [{2: 0.5}]}, r"lam has no value for 3"),
    ],
)
def test_grids_that_are_none(suite: Suite, tmp_path: Path, grid: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_study(STUDY, suite, grid=grid, store=Store(tmp_path))
    assert os.listdir(tmp_path) == []


# --- how it is computed -----------------------------------------------------------------------------------------------


def test_a_second_time_nothing_is_computed(
    suite: Suite, store: Store, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_unit", None)
    pd.testing.assert_frame_equal(run_study(STUDY, suite, store=store), table)
    # not even for a study that is part of it, under other names
    smaller = replace(STUDY, scenarios=(replace(NOISY, name="other"),), seeds=1, per_class=(2,))
    found = run_study(smaller, suite, store=store)
    wanted = table[
        table["scenario"].isin(["noisy", NO_LINK]) & (table["seed"] == 0) & table["per_class"].isin([0, 2])
    ].replace({"scenario": {"noisy": "other"}})
    pd.testing.assert_frame_equal(found, wanted.reset_index(drop=True))


@pytest.mark.parametrize(
    "change",
    [
        {"scenarios": (replace(NOISY, scale="task"),)},
        {"realignment": replace(QUICK, steps=4)},
        {"test_images": 19},
        {"lam": {2: 0.5, 3: 0.5}},
        {"lr": {"rmtllmf": 1e-2, "noise-aware": 1e-2, "control": 1e-2}},
    ],
)
def test_what_decides_the_table_is_in_its_provenance(suite: Suite, tmp_path: Path, change: dict[str, Any]) -> None:
    written = []
    for study in (replace(STUDY, **change), STUDY):
        write_table(pd.DataFrame({"seed": [0]}), tmp_path / "table.parquet", study, suite)
        written.append((tmp_path / "table.provenance.json").read_text())
    assert written[0] != written[1]


def test_another_suite_has_another_key(suite: Suite) -> None:
    keys = {config_key(provenance(suite)), config_key(provenance(replace(suite, device="cuda")))}
    for change in (
        {"taus": {**suite.taus, "a": suite.taus["b"]}},
        {"heads": {**suite.heads, "a": suite.heads["b"]}},
        {"tasks": {**suite.tasks, "a": replace(suite.tasks["a"], fingerprint="other")}},
        {"tasks": dict(reversed(suite.tasks.items()))},
    ):
        keys.add(config_key(provenance(replace(suite, **change))))  # type: ignore[arg-type]
    assert len(keys) == 6


def parts(root: Path) -> int:
    return sum(len(path.name) == 64 for path in root.glob("study-part/*"))


def test_killed_and_run_again(
    suite: Suite, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real SIGKILL in the middle; then the same table, to the bit, and no finished part is computed again."""

    def killed(bench: Bench, unit: Unit) -> pd.DataFrame:
        if parts(tmp_path) == 5:
            die()
        return run_unit(bench, unit)

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_unit", killed)
        process = forked(partial(run_study, SHORT, suite, store=Store(tmp_path), progress=False))
    assert exit_code(process) == -signal.SIGKILL
    assert parts(tmp_path) == 5 < len({config_key(unit.described()) for unit in study_units(SHORT, suite)}) // 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("study-part/*/data.parquet")}
    require_same(run_study(SHORT, suite, store=Store(tmp_path)), short(table))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert Store(tmp_path).verify() == []


def test_the_table_on_disk_with_its_provenance(suite: Suite, table: pd.DataFrame, tmp_path: Path) -> None:
    write_table(table, tmp_path / "sub" / "fig.parquet", STUDY, suite)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "sub" / "fig.parquet"), table)
    origin = json.loads((tmp_path / "sub" / "fig.provenance.json").read_text())
    assert origin["study"]["seeds"] == 2 and origin["base"] == suite.backbone.weights.hash
    assert origin["tasks"]["b"]["tau"] == suite.taus["b"].hash and origin["versions"]["torch"] == torch.__version__


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protections": ("prayer",)}, "protection is 'prayer'"),
        ({"protections": ()}, r"protections are \[\]"),
        ({"protections": ("base", "base")}, "protections are .*'base'"),
        ({"scenarios": ()}, r"scenarios are \[\]"),
        ({"scenarios": (CLEAN, replace(NOISY, name="clean"))}, "scenarios are .*'clean'"),
        ({"scenarios": (replace(NOISY, name=NO_LINK),)}, NO_LINK),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": 1.5}, "seeds is 1.5"),
        ({"per_class": (5, 0)}, r"per_class\[1\] is 0"),
        ({"per_class": (5, 5)}, "per_class are .*5, 5"),
        ({"sizes": ()}, r"sizes are \[\]"),
        ({"sizes": (2, 2)}, "sizes are .*2, 2"),
        ({"test_images": -1}, "test_images is -1"),
        ({"per_size": 0}, "per_size is 0"),
        ({"lr_grid": (1e-3, -1e-3)}, r"lr_grid\[1\] is -0.001"),
        ({"lr": {"rmtllmf": 0.0}}, "lr is 0.0"),
        ({"lr": {"prayer": 1e-3}}, "protection is 'prayer'"),
        ({"lam": {3: float("nan")}}, r"lam\[3\] is nan"),
        ({"autocast": "float8"}, "autocast is 'float8'"),
    ],
)
def test_invalid_studies(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(STUDY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (4,)}, r"sizes \(4,\) for 3 tasks"),
        ({"lam": {2: 0.5}}, r"lam has no value for 3 tasks.*\[2\]"),
        ({"scenarios": (replace(NOISY, mse=(0.1, 0.2)),)}, "mse has 2 values for 3 users"),
    ],
)
def test_studies_that_do_not_fit_the_suite(suite: Suite, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_study(replace(STUDY, **change), suite, store=Store(tmp_path))
    assert os.listdir(tmp_path) == []  # before anything is computed


def test_users_in_outage_are_counted(suite: Suite, tmp_path: Path) -> None:
    """Those who are heard send the payload of their links; if a combination loses all, nothing is computed."""
    weak = Scenario("weak", (0.99, 0.01, 0.01))
    study = replace(STUDY, scenarios=(CLEAN, weak), protections=("unprotected", "coded-tsv"), seeds=1)
    found = run_study(study, suite, store=Store(tmp_path))
    found = found.set_index(["protection", "scenario", "combination"]).sort_index()
    layout = suite.backbone.weights.layout
    assert set(found.loc["unprotected", "uses"] / found.loc["unprotected", "n_tasks"]) == {full_uses(layout)}
    assert not found.loc["unprotected", "outage"].any() and not found.loc[("coded-tsv", "clean"), "outage"].any()
    coded = found.loc[("coded-tsv", "weak")]
    best = plan(0.01, layout)
    assert best is not None
    for combination, row in coded.iterrows():
        lost = int("a" in combination)
        assert row["outage"] == lost and row["uses"] == (row["n_tasks"] - lost) * best.uses
    with pytest.raises(InputError, match="all users of a.b are in outage under scenario 'weak'"):
        run_study(replace(study, scenarios=(replace(weak, mse=(0.9, 0.9, 0.1)),)), suite, store=Store(tmp_path / "new"))
    assert not (tmp_path / "new").exists() or os.listdir(tmp_path / "new") == []


def test_controls_need_no_scenario(suite: Suite, tmp_path: Path) -> None:
    found = run_study(replace(STUDY, scenarios=(), protections=("base",)), suite, store=Store(tmp_path))
    assert set(found["scenario"]) == {NO_LINK}


@pytest.mark.parametrize("count", [0, -1, 10**12, 2.0, True])
def test_counts_of_a_study_are_bounded(count: int) -> None:
    """A study file comes from others: one with a trillion seeds is refused at once."""
    with pytest.raises(InputError, match=f"seeds is {count}"):
        replace(STUDY, seeds=count)
    with pytest.raises(InputError, match=f"steps is {count}"):
        replace(QUICK, steps=count)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("lam", 0.3), ("lam", [0.3]), ("lam", {2: "0.3"}), ("sizes", "23"), ("sizes", 2), ("per_size", -1)],
)
def test_a_study_names_the_field_that_is_wrong(name: str, wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        replace(STUDY, **{name: wrong})
    assert name in str(caught.value) and repr(wrong).strip("[{}]").split(": ")[-1] in str(caught.value)
