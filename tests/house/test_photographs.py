"""The page *On photographs*: its tables and numbers are those of the committed measurements, which can be repeated."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.file import load_study
from rmtllmf_lib.study.suites import CONDITION, leads
from rmtllmf_lib.study.units import Bench, Unit, run_unit
from rmtllmf_lib.tasks.sources import parse_tasks
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.suite import assemble_suite
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from studies import STUDY, make_suite
from unmarked import unbacked
from workflow import photographs


@pytest.fixture(scope="module")
def page() -> str:
    return photographs.PAGE.read_text(encoding="utf-8")


def test_the_page_says_what_was_measured(page: str) -> None:
    assert photographs.filled(page, *photographs.read()) == page


def test_no_number_of_the_page_is_without_a_source(page: str) -> None:
    assert unbacked(page) == []


def test_other_measurements_change_the_page(page: str) -> None:
    conditions, tasks = photographs.read()
    conditions.loc[conditions["protection"] == "control", "normalized"] -= 0.5
    assert photographs.filled(page, conditions, tasks) != page
    with pytest.raises(InputError, match="'won' is marked in the prose but not recorded"):
        photographs.filled(f"{page}<!--=won-->1<!--/-->", conditions, tasks)


def test_the_short_answer_is_what_the_intervals_say() -> None:
    found = photographs.known(*photographs.read())
    stands = {name: found[f"rmtllmf {name} stands to control"] for name in (
        "clean given 1", "ideal given 1", "ideal chosen 1", "ideal chosen 10", "ideal given 10",
        "SR chosen 1", "SR chosen 10", "SR given 1", "SR given 10",
    )}  # fmt: skip
    apart = dict.fromkeys(stands, "not surely apart from")
    ahead = dict.fromkeys(("clean given 1", "ideal chosen 1"), "ahead of")
    behind = dict.fromkeys(("ideal given 1", "ideal chosen 10"), "behind")
    ruined = dict.fromkeys(("SR given 1", "SR given 10"), "far behind")
    assert stands == apart | ahead | behind | ruined
    assert found["rmtllmf SR, independent chosen 1 stands to control"] == "ahead of"
    assert found["rmtllmf clean 10 given stands to chosen"] == "ahead of"  # the choice was the worse one
    assert found["largest lead 10"] == "+4.1 ± 1.2"


def test_the_answer_is_ahead_on_photographs_too() -> None:
    """Of both controls at both memories, as the first page says, too, and of the base."""
    found = photographs.known(*photographs.read())
    for control in photographs.CONTROLS:
        for count in (1, 10):
            assert found[f"coded-tsv-realigned SR chosen {count} stands to {control}"] == "ahead of"
    assert found["coded-tsv SR chosen 0 stands to base"] == "ahead of"
    stands = [found[f"answer {count} stands to noiseless given"] for count in (0, 1, 10)]
    assert stands == ["ahead of", "ahead of", "not surely apart from"]


def test_the_caveat_is_about_the_stronger_control_that_was_chosen_at_an_end() -> None:
    """The page's words about it lie outside of the marks: "too large", "over the stronger control"."""
    found = photographs.known(*photographs.read())
    lowest = r"$\lambda$ (smallest) of the stronger control"
    assert found["controls at an end 1"] == f"learning rate (smallest) of the stronger control, {lowest}"
    assert found["controls at an end 10"] == lowest
    assert "(smallest) of the answer" in found["answers at an end"]
    assert found["control 1 stands to base"] == "not surely apart from"
    conditions, tasks = photographs.read()
    inside = conditions.assign(lr=conditions["lr"].where(conditions["protection"] != "few-shot-specialists", 3e-4))
    other = photographs.known(inside, tasks)
    assert other["controls at an end 1"] == lowest
    assert other["larger rates 1"] == f"the control; the stronger control, λ chosen; {found['larger rates 1'][13:]}"
    assert (found["lr at an end"], other["lr at an end"]) == ("8 of 26", "7 of 26")


def test_leads_are_paired_differences_with_t_intervals() -> None:
    """By hand, from the rows of the seeds."""
    conditions, tasks = photographs.read()
    found = photographs.known(conditions, tasks)

    def of(protection: str, scenario: str, rule: str) -> pd.Series:
        rows = conditions[(conditions["protection"] == protection) & (conditions["scenario"] == scenario)]
        rows = rows[(rows["lam_rule"] == rule) & (rows["per_class"] == 1)]
        return 100 * rows.set_index("seed")["normalized"]

    ours, control = of("rmtllmf", "ideal", "chosen"), of("control", "no link", "given")
    difference = (ours - control).to_numpy()
    assert len(difference) == found["seeds"] >= 3
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    assert found["rmtllmf ideal chosen 1 over control"] == f"{difference.mean():+.1f} ± {half:.1f}".replace("-", "−")
    assert found["rmtllmf ideal chosen 1"].split(" ± ")[0] == f"{ours.mean():.0f}"
    low, high = difference.mean() - half, difference.mean() + half
    words = str(found["rmtllmf ideal chosen 1 stands to control"])
    assert (low > 0) == ("ahead" in words) and (high < 0) == ("behind" in words)


def test_the_summary_is_that_of_the_rows() -> None:
    stored = pd.read_csv(photographs.SUMMARY, keep_default_na=False, na_values=[""])
    expected = leads(photographs.read()[0]).replace("", np.nan)
    stored, expected = (each.sort_values([*CONDITION], ignore_index=True) for each in (stored, expected))
    pd.testing.assert_frame_equal(stored, expected, rtol=1e-3, atol=1e-6, check_dtype=False)


def test_the_tables_are_those_of_the_study_file() -> None:
    made = json.loads(photographs.MADE.read_text(encoding="utf-8"))
    study, users = load_study(photographs.STUDY)
    assert json.loads(json.dumps([asdict(study), asdict(users)])) == [made["study"], made["users"]]
    conditions, tasks = photographs.read()
    data = tasks.drop_duplicates("task").set_index("task")["data"].to_dict()
    assert set(made["suites"]) == {str(seed) for seed in conditions["seed"]}
    for suite in made["suites"].values():
        assert {name: task["data"] for name, task in suite["tasks"].items()} == data
    vectors = [task["tau"] for suite in made["suites"].values() for task in suite["tasks"].values()]
    assert len(set(vectors)) == len(vectors)


def test_every_condition_has_all_seeds_and_one_choice_of_settings() -> None:
    conditions, tasks = photographs.read()
    groups = conditions.groupby([*CONDITION], dropna=False)
    assert set(groups["seed"].nunique()) == {conditions["seed"].nunique()} == {tasks["seed"].nunique()}
    assert not groups["seed"].apply(lambda seeds: seeds.duplicated().any()).any()
    chosen = conditions[conditions["protection"] != "noise-aware"].groupby([*CONDITION], dropna=False)
    assert chosen[["lam", "lr"]].nunique().le(1).all(axis=None)
    study, _ = load_study(photographs.STUDY)
    expected = {link.name for link in study.scenarios}
    assert set(conditions.loc[conditions["protection"] == "rmtllmf", "scenario"]) == expected
    assert conditions[["accuracy", "normalized"]].gt(0).all(axis=None) and conditions["accuracy"].lt(1).all()


def test_a_small_study_is_measured(tmp_path: Path) -> None:
    suite = make_suite()
    links = (CLEAN, Scenario("SR", 0.2, "weight", "half"))
    grid = dict.fromkeys(("unprotected", "rmtllmf"), (0.1, 0.4)) | dict.fromkeys(
        photographs.ANSWERS.values(), (1.0, 1.5)
    )
    protections = ("base", "unprotected", "control", "few-shot-specialists", "rmtllmf")
    study = replace(
        STUDY, scenarios=links, protections=protections, seeds=1, sizes=(3,), per_class=(1,), test_images=None,
        validation_images=None, lam_grid=grid,
    )  # fmt: skip
    conditions, tasks = photographs.measure(study, lambda _: suite, 2, store=Store(tmp_path))
    # base, controls, both lambdas and links, noise-aware, the answer without and with a memory and both lambdas
    assert len(conditions) == 2 * (1 + 2 + 2 * 2 + 2 * 2 + 1 + 2 * 2)
    name, task = next(iter(suite.tasks.items()))
    row = tasks[(tasks["task"] == name) & (tasks["seed"] == 1)].iloc[0]
    assert (row["data"], row["classes"], row["test"], row["tested"]) == (
        task.fingerprint, len(task.class_names), len(task.test), len(task.test),
    )  # fmt: skip
    weights = suite.backbone.weights
    assert row["base"] == accuracy(suite.backbone, weights, task.test, suite.heads[name])
    assert row["fine_tuned"] == accuracy(suite.backbone, weights + suite.taus[name], task.test, suite.heads[name])
    lam = conditions.loc[(conditions["protection"] == "unprotected") & (conditions["lam_rule"] == "chosen"), "lam"].iat[
        0
    ]
    assert row["fused"] == accuracy(suite.backbone, suite.fuse(lam=lam), task.test, suite.heads[name])
    found = photographs.known(conditions, tasks, study)
    assert {f"rmtllmf SR {rule} 1 over control" for rule in ("chosen", "given")} <= set(found)


@pytest.mark.slow
def test_a_row_is_measured_again(real_data: Path, one_thread: None) -> None:
    """The control of seed 0 with one image a class, and the prototypes, on the very images of the table."""
    conditions, tasks = photographs.read()
    study, users = load_study(photographs.STUDY)
    backbone = load_backbone(users.backbone)
    suite = assemble_suite(backbone, parse_tasks(users.tasks, users.source, real_data), {}, users.head)
    data = tasks.drop_duplicates("task").set_index("task")["data"]
    if {name: task.fingerprint for name, task in suite.tasks.items()} != data.to_dict():
        pytest.skip(f"the images in {real_data} are others than those of the table")
    suite = replace(suite, taus=dict.fromkeys(suite.tasks, backbone.weights - backbone.weights))
    rows = conditions[(conditions["seed"] == 0) & conditions["protection"].isin(["base", "control"])]
    for row in rows[rows["per_class"] < 2].itertuples():
        recipe = replace(study.realignment, lr=row.lr) if row.per_class else None
        everyone = (tuple(suite.tasks),)
        unit = Unit(None, row.protection, 0, row.per_class, everyone, (0.0,), recipe, None, "test", study.test_images)
        again = run_unit(Bench(suite), unit)
        assert (again["correct"] / again["images"]).mean() == pytest.approx(row.accuracy, abs=0.01), row.protection
