"""The stored results of the language model: those of the script, leads paired by seed, and no method treated apart."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from places import ROOT
from rmtllmf_lib.chapters.results import made, stored_results
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.protection.resilience import protection_named
from workflow import language_model as script

RESULTS = ROOT / "book" / "results"
PARTS = pytest.mark.parametrize("part", script.PARTS, ids=str)


def stored(name: str) -> pd.DataFrame:
    table = pd.read_csv(RESULTS / f"{name}.csv", keep_default_na=False, na_values=[""])
    return table.fillna({"correlation": ""}) if "correlation" in table else table


def test_the_stored_studies_are_those_of_the_script() -> None:
    made = json.loads((RESULTS / "language_model.json").read_text())
    users = len(made["settings"]["tasks"])
    parts = [(part["per_class"], part["kind"]) for part in made["settings"]["parts"]]
    assert tuple(parts) == script.PARTS[: len(parts)] and parts
    assert made["settings"] == json.loads(json.dumps(script.settings(parts, users)))
    assert {path.split("/")[0] for path in made["data"]} == {*script.TASKS[:users]}
    assert all(len(digest) == 64 for digest in made["data"].values())


def test_the_stored_table_is_the_summary_of_its_seeds() -> None:
    rows, table = stored("language_model_suites"), stored("language_model")
    again = script.summarised(rows)
    assert list(again) == list(table)
    for column in ("mean", "half_width", "control_lead", "stronger_lead", "noiseless_lead", "control_half_width"):
        np.testing.assert_allclose(table[column].astype(float), again[column].astype(float), rtol=1e-4, atol=2e-6)
    tasks = stored("language_model_tasks")
    assert set(tasks["seed"]) == set(rows["seed"]) and not tasks.duplicated(["seed", "task"]).any()
    assert set(rows["n_tasks"]) == {tasks["task"].nunique()}
    assert tasks[["zero_shot", "prototype", "fine_tuned"]].stack().between(0, 1).all()


@PARTS
def test_no_method_is_treated_apart(part: tuple[int, str]) -> None:
    first, *others = script.studies(*part)
    for study in (first, *others):
        same = ("seeds", "per_class", "sizes", "test_images", "validation_images", "realignment", "lr_grid", "sends")
        for name in same:
            assert getattr(study, name) == getattr(first, name)
        assert study.seeds == 1 and study.lam_grid in (script.LAMBDAS, {})
        receives = [protection_named(name).receives for name in study.protections]
        assert all(receives) == any(receives) == bool(study.scenarios)
        assert all(link.mse == 0 or link.correlation == "half" for link in study.scenarios)


def test_the_main_parts_have_both_controls_beside_the_answer() -> None:
    for count in (1, 2, 10):
        kinds = (script.MAIN, script.STRONGER)
        names = {name for kind in kinds for study in script.studies(count, kind) for name in study.protections}
        assert names == {"control", "rmtllmf", "coded-tsv-realigned", "few-shot-specialists"}


def made_up() -> pd.DataFrame:
    values = {
        (0, "no link", "base"): (0.7, 0.72), (0, "clean", "unprotected"): (0.9, 0.93),
        (0, "SR", "unprotected"): (0.3, 0.35), (0, "SR", "coded-tsv"): (0.96, 0.95),
        (1, "no link", "control"): (0.75, 0.77), (1, "clean", "rmtllmf"): (0.92, 0.93),
        (1, "SR", "rmtllmf"): (0.8, 0.79), (1, "SR", "coded-tsv-realigned"): (0.95, 0.96),
    }  # fmt: skip
    rows = [
        (8, count, link, "", name, "chosen", seed, 0.3, 1e-4, 0.5, value, 8)
        for (count, link, name), pair in values.items()
        for seed, value in enumerate(pair)
    ]
    columns = ["n_tasks", "per_class", "scenario", "correlation", "protection", "lam_rule", "seed", "lam", "lr",
               "accuracy", "normalized", "uses"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def test_leads_are_over_the_right_references_paired_by_seed() -> None:
    found = script.summarised(made_up()).set_index(["per_class", "scenario", "protection"])
    ours = found.loc[1, "SR", "coded-tsv-realigned"]
    assert ours[["mean", "control_lead", "noiseless_lead"]].tolist() == pytest.approx([0.955, 0.195, 0.03])
    # both differences are 0.2 and 0.19: t quantile with one degree of freedom, times their standard error
    assert ours["control_half_width"] == pytest.approx(12.706 * 0.005, rel=1e-3)
    assert pd.isna(ours["stronger_lead"])
    theirs = found.loc[1, "SR", "rmtllmf"]
    assert theirs[["control_lead", "noiseless_lead"]].tolist() == pytest.approx([0.035, -0.13])
    none = found.loc[0, "SR", "coded-tsv"]
    assert none[["control_lead", "noiseless_lead"]].tolist() == pytest.approx([0.245, 0.04])
    assert found.loc[0, "SR", "unprotected"]["noiseless_lead"] == pytest.approx(-0.59)


def test_what_is_written_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later run computes the parts that are missing, with what seed 0 has chosen, and writes the same tables."""
    asked: list[tuple[int, script.Part]] = []

    def rows(_data: Path, _users: int, part: script.Part, seed: int, before: pd.DataFrame, _: int) -> pd.DataFrame:
        asked.append((seed, part))
        if seed:  # what seed 0 has chosen is among the rows before
            assert 0 in set(before["seed"]) and seed not in set(before.query("per_class == @part[0]")["seed"])
        found = made_up().query("per_class == @part[0] and seed == @seed")
        return found if part[1] == script.MAIN else found[:0]

    def tasks(_data: Path, _users: int, seed: int) -> pd.DataFrame:
        return pd.DataFrame({"seed": [seed], "task": ["trec"], "fine_tuned": [0.9]})

    def run(seeds: int, parts: int, out: str = "x", *more: str) -> list[tuple[int, script.Part]]:
        asked.clear()
        script.main(["--data", str(tmp_path / "data"), "--users", "1", "--seeds", str(seeds), "--parts", str(parts),
                     "--out", str(tmp_path / f"{out}.csv"), *more])  # fmt: skip
        return [*asked]

    (tmp_path / "data" / "trec").mkdir(parents=True)
    (tmp_path / "data" / "trec" / "train.tsv").write_text("a\tb\n")
    monkeypatch.setattr(script, "run_part", rows)
    monkeypatch.setattr(script, "tasks_table", tasks)
    monkeypatch.setattr(script, "train_users", lambda *_: None)
    one, two = script.PARTS[:2]
    assert run(1, 1) == [(0, one)]
    assert run(2, 2) == [(0, two), (1, one), (1, two)]
    assert run(2, 2) == []
    assert run(2, 2, "anew") == [(0, one), (0, two), (1, one), (1, two)]
    for name in ("{}.csv", "{}_suites.csv", "{}_tasks.csv"):
        assert (tmp_path / name.format("x")).read_text() == (tmp_path / name.format("anew")).read_text()
    again = stored_results("x_suites", tmp_path)
    wanted = made_up().sort_values(["seed", "per_class"], kind="stable")["normalized"]
    assert again["normalized"].tolist() == wanted.tolist()
    record = made("x", tmp_path)
    assert list(record["data"]) == ["trec/train.tsv"] and record["settings"]["tasks"] == ["trec"]
    (first, *_) = script.studies(0, script.MAIN, 1)
    assert record["settings"]["parts"][0]["studies"][0] == json.loads(json.dumps(asdict(first)))
    longer = pd.concat([again, again[:1]])
    longer.to_csv(tmp_path / "x_suites.csv", index=False, float_format="%.6g")  # killed before its record
    assert run(3, 2) == [(2, one), (2, two)]
    assert len(stored_results("x_suites", tmp_path)) == len(again)  # of seed 2 there are none here
    for name, text in (("train.tsv", "b\ta\n"), ("test.tsv", "")):
        (tmp_path / "data" / "trec" / name).write_text(text)
        with pytest.raises(InputError, match="is of other settings, data or versions.*--anew"):
            run(2, 2)
    assert len(run(2, 2, "x", "--anew")) == 4
    with pytest.raises(InputError, match="gone has no folder trec"):
        script.main(["--data", str(tmp_path / "gone"), "--users", "1"])
    with pytest.raises(InputError, match="workers"):
        run(2, 2, "x", "--workers", "0")
