"""The book's stored results, and the script that writes them."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from places import ROOT
from rmtllmf_lib.chapters.results import stored_results
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import NO_LINK
from rmtllmf_lib.study.suites import CHOSEN, CONDITION, GIVEN, leads
from workflow import low_rank_and_rounds as rounds
from workflow import other_answers, payloads, the_answer, users_lost
from workflow import when_the_link_helps as script
from workflow.when_the_link_helps import Cell

RESULTS = ROOT / "book" / "results"


def test_every_table_says_what_made_it() -> None:
    for path in RESULTS.glob("*.json"):
        made = json.loads(path.read_text())
        command = made["command"].split()
        file = f"{command[2].replace('.', '/')}.py" if command[1] == "-m" else command[1]
        assert command[0] == "python" and (ROOT / file).is_file()
        assert {"rmtllmf", "torch"} <= made["versions"].keys()
    tables = {re.sub(r"(_suites|_tasks)?\.csv$", "", path.name) for path in RESULTS.glob("*.csv")}
    assert tables == {path.stem for path in RESULTS.glob("*.json")} != set()


def test_the_stored_conditions_are_those_of_the_script() -> None:
    made = json.loads((RESULTS / "when_the_link_helps.json").read_text())
    cells = script.CELLS[: len(made["cells"])]
    assert cells
    rows = pd.read_csv(RESULTS / "when_the_link_helps.csv")
    stored = {tuple(key) for key in rows[["difficulty", "n_tasks", "per_class"]].drop_duplicates().to_numpy()}
    assert stored == {(cell.difficulty, cell.n_tasks, cell.per_class) for cell in cells}
    for cell, record in zip(cells, made["cells"], strict=True):
        again = json.loads(json.dumps({**asdict(cell), "studies": [asdict(study) for study in script.studies(cell)]}))
        assert again == record


def test_the_stored_rounds_and_adapters_are_those_of_the_script() -> None:
    made = json.loads((RESULTS / "low_rank_and_rounds.json").read_text())["settings"]
    suites = made.pop("suites")
    assert made == json.loads(json.dumps(rounds.settings_of_study()))
    rows = pd.read_csv(RESULTS / "low_rank_and_rounds_suites.csv")
    means = pd.read_csv(RESULTS / "low_rank_and_rounds.csv")
    assert sorted(rows["seed"].unique()) == [*range(suites)] and set(means["n"]) == {suites}
    assert not rows.duplicated([*rounds.KEYS, "seed"]).any()
    merged = {(method, merger) for method in (rounds.FULL, *rounds.ADAPTERS)
              for merger in (rounds.SPECIALISTS, *rounds.LAMBDAS)}  # fmt: skip
    one_shot, averaged = means[means["method"] != "FedAvg"], means[means["method"] == "FedAvg"]
    assert {*zip(one_shot["method"], one_shot["merger"], strict=True)} == merged and len(one_shot) == len(merged)
    wanted = {(link, number) for link in ("clean", "SR") for number in range(1, rounds.ROUNDS + 1)}
    assert {*zip(averaged["link"], averaged["round"], strict=True)} == wanted and len(averaged) == len(wanted)
    again = over_seeds(rows, rounds.KEYS)
    assert (again["mean"] - means["mean"]).abs().max() < 1e-5
    assert one_shot[one_shot["merger"] == rounds.SPECIALISTS].query("method == 'full'")["mean"].tolist() == [1]


def test_suites_of_adapters_and_rounds_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choices of suite 0 are read from its rows; tables of other settings are refused, and nothing is lost."""
    out, asked = tmp_path / "out.csv", []
    monkeypatch.setattr(rounds, "bench_of", lambda seed: seed)
    monkeypatch.setattr(rounds, "chosen_rate", lambda _bench, lora: 0.01 * (1 + lora.rank + len(lora.matrices)))
    monkeypatch.setattr(rounds, "vectors", lambda _bench, seed, _rates: seed)
    lams = {(method, merger): 0.25 for method in (rounds.FULL, *rounds.ADAPTERS) for merger in rounds.LAMBDAS}
    monkeypatch.setattr(rounds, "chosen_lambdas", lambda _bench, _trained: lams)

    def merged(bench: int, _trained: object, chosen: rounds.Chosen) -> list[dict[str, Any]]:
        asked.append((bench, chosen))
        about = {"numbers": 8, "link": "clean", "round": 1, "uses": 4, "accuracy": 0.5, "normalized": 0.5 + bench / 100}
        own = [{**about, "method": name, "merger": rounds.SPECIALISTS, "lr": chosen.rates.get(name)}
               for name in (rounds.FULL, *rounds.ADAPTERS)]  # fmt: skip
        return own + [{**about, "method": name, "merger": merger, "lam": lam, "lr": chosen.rates.get(name)}
                      for (name, merger), lam in chosen.lams.items()]  # fmt: skip

    monkeypatch.setattr(rounds, "merged_rows", merged)
    monkeypatch.setattr(rounds, "averaging_rows", lambda _bench, _seed: [])

    def run(suites: int, *more: str) -> list[int]:
        asked.clear()
        rounds.main(["--suites", str(suites), "--out", str(out), *more])
        return [bench for bench, _ in asked]

    assert run(2) == [0, 1]
    chosen = asked[0][1]
    assert run(4) == [2, 3] and asked[0][1] == asked[1][1] == chosen
    assert sorted(pd.read_csv(tmp_path / "out_suites.csv")["seed"].unique()) == [0, 1, 2, 3] and run(4) == []
    monkeypatch.setattr(rounds, "ROUNDS", 3)
    with pytest.raises(InputError, match="is of other settings or versions.*--anew"):
        run(5)
    assert run(1, "--anew") == [0]


def test_settings_are_chosen_on_validation_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate with the best specialists, beyond the grid where that is at its end; no test image is looked at."""
    asked: list[float] = []

    def scores(_bench: object, models: dict[str, float], split: str = "test") -> pd.Series:
        assert split == "validation" and {*models} == {*rounds.CHOSEN_ON}
        return pd.Series({name: -abs(math.log(lr / 0.07)) for name, lr in models.items()})

    def adapted(_bench: object, _method: str, _name: str, _seed: int, lr: float) -> float:
        asked.append(lr)
        return lr

    monkeypatch.setattr(rounds, "scores", scores)
    monkeypatch.setattr(rounds, "adapted", adapted)
    bench = SimpleNamespace(suite=SimpleNamespace(backbone=SimpleNamespace(weights=0.0)))
    assert {name: rounds.chosen_rate(bench, lora) for name, lora in rounds.ADAPTERS.items()} == dict.fromkeys(
        rounds.ADAPTERS, 0.08
    )
    assert {*asked} == {0.01, 0.02, 0.04, 0.08, 0.16}


def test_the_studies_of_lost_users_are_those_of_the_script(tmp_path: Path) -> None:
    made = json.loads((RESULTS / "users_lost.json").read_text())
    assert made["studies"] == json.loads(json.dumps([asdict(study) for study in users_lost.STUDIES]))
    rows = pd.read_csv(RESULTS / "users_lost.csv")
    assert rows["seed"].nunique() == users_lost.SUITES
    users_lost.write(rows, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == (RESULTS / "users_lost.csv").read_text()
    assert json.loads((tmp_path / "again.json").read_text())["studies"] == made["studies"]


def test_studies_treat_every_method_alike() -> None:
    assert len(set(script.CELLS)) == len(script.CELLS)
    for cell in script.CELLS:
        studies = list(script.studies(cell))
        for study in studies:
            for name in ("seeds", "per_class", "sizes", "test_images", "validation_images", "lr_grid", "realignment"):
                assert getattr(study, name) == getattr(studies[0], name)
            assert study.seeds == 1 and study.per_class == (cell.per_class,) and study.sizes == (cell.n_tasks,)
            receives = [protection_named(name).receives for name in study.protections]
            assert all(receives) == any(receives) == bool(study.scenarios)
            assert {link.scale for link in study.scenarios} <= {"weight"}
            for link in study.scenarios:
                assert link.mse == 0 or link.correlation == ("independent" if "independent" in link.name else "half")
        assert {name for study in studies for name in study.protections} == {
            "control", "rmtllmf", "few-shot-specialists", "noise-aware"
        }  # fmt: skip


def test_what_is_written_is_the_summary_of_the_rows(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        [
            (difficulty, 8, 1, "SR" if name == "rmtllmf" else "no link", "", name, "given", seed, 0.1, 1e-3, 0.5, value)
            for difficulty, shift in (("easy", 0.0), ("hard", 0.2))
            for place, name in enumerate(("rmtllmf", "control", "few-shot-specialists"))
            for seed, value in enumerate((0.9 - shift - 0.1 * place, 0.8 - shift - 0.05 * place))
        ],
        columns=["difficulty", "n_tasks", "per_class", "scenario", "correlation", "protection", "lam_rule", "seed",
                 "lam", "lr", "accuracy", "normalized"],
    )  # fmt: skip
    cells = script.CELLS[:1]
    script.write(rows, tmp_path / "new" / "out.csv", cells)
    stored = pd.read_csv(tmp_path / "new" / "out.csv")
    ours = stored[stored["protection"] == "rmtllmf"].set_index("difficulty")
    for difficulty in ("easy", "hard"):
        expected = leads(rows[rows["difficulty"] == difficulty]).query("protection == 'rmtllmf'").iloc[0]
        for column in ("mean", "control_mean", "control_lead", "control_half_width", "few-shot-specialists_lead"):
            assert abs(ours.loc[difficulty, column] - expected[column]) < 1e-5
    again = pd.read_csv(tmp_path / "new" / "out_suites.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(again, rows)
    assert len(json.loads((tmp_path / "new" / "out.json").read_text())["cells"]) == 1


def rows_of(cell: Cell, suites: int = 2, workers: int = 1) -> pd.DataFrame:
    """What `run_cell` returns, with accuracies that tell conditions and suites apart; nothing is computed."""

    def conditions() -> Iterator[tuple[str, str, str, str]]:
        for study in script.studies(cell):
            for name in study.protections:
                rule = CHOSEN if name in study.lam_grid else GIVEN
                for link in study.scenarios:
                    rules = {rule, GIVEN} if protection_named(name).receives else {rule}
                    yield from ((link.name, link.correlation, name, each) for each in sorted(rules))
                if not study.scenarios:
                    yield NO_LINK, "", name, rule

    rows = [
        (cell.difficulty, cell.n_tasks, cell.per_class, *condition, seed, 0.1, 1e-3, 0.5,
         0.3 + len("".join(condition)) / 100 + 0.05 * seed * (condition[2] == "rmtllmf"))
        for condition in conditions()
        for seed in range(suites)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["difficulty", *CONDITION, "seed", "lam", "lr", "accuracy", "normalized"])


def test_what_cells_share_is_in_the_tables_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells of SU compare with the controls and the link without noise of cells before them."""
    monkeypatch.setattr(script, "run_cell", rows_of)
    monkeypatch.setattr("sys.argv", ["when_the_link_helps.py", "--suites", "2", "--out", str(tmp_path / "out.csv")])
    script.main()
    summary, rows = (pd.read_csv(tmp_path / name, keep_default_na=False) for name in ("out.csv", "out_suites.csv"))
    assert not summary.duplicated(["difficulty", *CONDITION]).any()
    assert not rows.duplicated(["difficulty", *CONDITION, "seed"]).any()
    wanted = pd.concat([rows_of(cell) for cell in script.CELLS]).set_index(["difficulty", *CONDITION, "seed"])
    assert set(wanted.index) == set(rows.set_index(wanted.index.names).index)  # nothing else is dropped
    su = summary[(summary["scenario"] == "SU") & (summary["protection"] == "rmtllmf")]
    assert set(su["per_class"]) == {1, 10} and set(su["n"]) == {2}
    alone = script.summarised(rows_of(script.CELLS[-1])).query("scenario == 'SU' and protection == 'rmtllmf'")
    for column in ("control_lead", "control_half_width", "few-shot-specialists_lead"):
        again = su[su["per_class"] == script.CELLS[-1].per_class].set_index("lam_rule")[column].astype(float)
        assert (again - alone.set_index("lam_rule")[column]).abs().max() < 1e-5
    made = json.loads((tmp_path / "out.json").read_text())
    assert len(made["cells"]) == len(script.CELLS)


def test_a_table_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one run has written the next one takes: it computes the cells that are left, and writes the same table."""
    out, whole, asked = tmp_path / "out.csv", script.CELLS, []

    def counted(cell: Cell, suites: int = 2, workers: int = 1) -> pd.DataFrame:
        asked.append(cell)
        return rows_of(cell, suites, workers)

    def run(cells: tuple[Cell, ...], path: Path = out, *more: str) -> list[Cell]:
        asked.clear()
        monkeypatch.setattr(script, "CELLS", cells)
        monkeypatch.setattr("sys.argv", ["when_the_link_helps.py", "--suites", "2", "--out", str(path), *more])
        script.main()
        return [*asked]

    monkeypatch.setattr(script, "run_cell", counted)
    assert run(whole[:2]) == [*whole[:2]]
    assert run(whole) == [*whole[2:]]
    assert run(whole, tmp_path / "anew.csv") == [*whole]
    for name in ("{}.csv", "{}_suites.csv"):
        assert (tmp_path / name.format("out")).read_text() == (tmp_path / name.format("anew")).read_text()
    assert run(whole) == []
    before = out.read_text()
    with pytest.raises(InputError, match="is of other settings, .*--anew to replace it"):
        run(whole, out, "--suites", "3")
    with pytest.raises(InputError, match="is of other settings"):
        run(whole[1:])  # begins with another cell
    assert out.read_text() == before
    assert run(whole[1:], out, "--anew") == [*whole[1:]]


def test_cells_of_the_answer_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, record, asked = tmp_path / "out.csv", tmp_path / "out.json", []

    def computed(cell: the_answer.Cell, _suites: int, _workers: int) -> pd.DataFrame:
        asked.append(cell)
        rows = answer_rows((cell.per_class,))
        return rows.assign(difficulty=cell.difficulty, n_tasks=cell.n_tasks)

    def run(cells: int, *more: str) -> int:
        asked.clear()
        the_answer.main(["--suites", "2", "--out", str(out), "--cells", str(cells), *more])
        return len(asked)

    monkeypatch.setattr(the_answer, "run_cell", computed)
    monkeypatch.setattr(the_answer, "CELLS", tuple(the_answer.Cell("calibrated", 8, count) for count in (1, 0)))
    assert run(1) == 1 and run(2) == 1
    suites, one = stored_results("out_suites", tmp_path), len(answer_rows((1,)))
    assert len(suites) == len(answer_rows()) and not suites.duplicated().any()
    assert run(1) == run(2) == 0 and len(stored_results("out_suites", tmp_path)) == len(suites)
    # killed between the tables and their record: what the record does not know of is computed again
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "cells": content["cells"][:1], "rows": {"out_suites.csv": one}}))
    assert run(2) == 1
    pd.testing.assert_frame_equal(stored_results("out_suites", tmp_path), suites)
    for change in ({"versions": {}}, {"base": "another"}):
        record.write_text(json.dumps(content | change))
        with pytest.raises(InputError, match="is of other settings"):
            run(2)
    record.write_text(json.dumps(content))
    suites[:3].to_csv(tmp_path / "out_suites.csv", index=False)
    with pytest.raises(InputError, match=f"has 3 rows: expected {len(suites)}"):
        run(2)
    assert run(2, "--anew") == 2


def answer_rows(memories: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    """Rows as the workflow makes them, of two suites."""
    rows = []
    for count in memories:
        values = (
            {"coded-tsv-realigned": (0.9, 0.91), "rmtllmf": (0.85, 0.87), "few-shot-specialists": (0.75, 0.77),
             "control": (0.7, 0.74)}
            if count
            else {"coded-tsv": (0.88, 0.86), "unprotected": (0.8, 0.79), "base": (0.6, 0.62)}
        )  # fmt: skip
        for name, pair in values.items():
            rules = ["given"] if name in ("base", "control") else ["chosen"]
            rules += ["given"] if name in ("rmtllmf", "unprotected") else []
            for rule in rules:
                for seed, value in enumerate(pair):
                    lower = 0.02 if (name, rule) in (("rmtllmf", "given"), ("unprotected", "given")) else 0.0
                    rows.append(("calibrated", 8, count, "SR", "", name, rule, seed, 1.0, 1e-3, 0.5, value - lower, 8))
    columns = ["difficulty", "n_tasks", "per_class", "scenario", "correlation", "protection", "lam_rule", "seed",
               "lam", "lr", "accuracy", "normalized", "uses"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def test_the_answer_leads_over_every_reference_paired_by_suite() -> None:
    found = the_answer.summarised(answer_rows()).set_index(["per_class", "protection", "lam_rule"])
    ours = found.loc[1, "coded-tsv-realigned", "chosen"]
    assert ours[["control_lead", "stronger_lead"]].tolist() == pytest.approx([0.185, 0.145])
    assert ours[["noiseless_lead", "noiseless_given_lead"]].tolist() == pytest.approx([0.045, 0.065])
    # t quantile with one degree of freedom, times the standard error of 0.05 and 0.04
    assert ours["noiseless_half_width"] == pytest.approx(12.706 * 0.005, rel=1e-3)
    none = found.loc[0, "coded-tsv", "chosen"]
    assert none[["control_lead", "noiseless_lead"]].tolist() == pytest.approx([0.26, 0.075])
    assert pd.isna(none["stronger_lead"])
    assert found.loc[0, "base", "given"]["control_mean"] == pytest.approx(0.61)
    only = the_answer.summarised(answer_rows((1,)))
    assert set(only["per_class"]) == {1} and not only["control_lead"].isna().all()


def test_other_answers_lead_over_the_same_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA vectors under the protection of a reference are not taken for it, and only their rows come out."""
    compared = answer_rows()
    monkeypatch.setattr(other_answers, "stored_results", lambda _name: compared)
    basis = compared[compared["protection"] == "control"].assign(protection="few-shot-basis", normalized=[0.8, 0.9])
    lora = compared[(compared["protection"] == "rmtllmf") & (compared["per_class"] == 1)]
    lora = lora.assign(normalized=lora["normalized"] - 0.1)
    rows = pd.concat([basis.assign(sent=other_answers.BASIS), lora.assign(sent=other_answers.LORA)])
    found = other_answers.with_leads(rows).set_index(["sent", "lam_rule"])
    assert len(found) == 3 and set(found["per_class"]) == {1}
    assert set(found["protection"]) == {"few-shot-basis", "rmtllmf"}
    assert found.loc[(other_answers.BASIS, "given"), "stronger_lead"] == pytest.approx(0.09)
    assert found.loc[(other_answers.LORA, "chosen"), "noiseless_lead"] == pytest.approx(-0.1)
    assert found.loc[(other_answers.LORA, "chosen"), "noiseless_given_lead"] == pytest.approx(-0.08)


def test_the_stored_answer_is_that_of_the_script() -> None:
    made = json.loads((RESULTS / "the_answer.json").read_text())
    cells = [the_answer.Cell(cell["difficulty"], cell["n_tasks"], cell["per_class"]) for cell in made["cells"]]
    assert tuple(cells) == the_answer.CELLS[: len(cells)]
    suites = pd.read_csv(RESULTS / "the_answer_suites.csv", keep_default_na=False, na_values=[""])
    suites = suites.fillna({"correlation": ""})
    stored = {tuple(key) for key in suites[["difficulty", "n_tasks", "per_class"]].drop_duplicates().to_numpy()}
    assert stored == {(cell.difficulty, cell.n_tasks, cell.per_class) for cell in cells}
    for cell, record in zip(cells, made["cells"], strict=True):
        assert record["studies"] == json.loads(json.dumps([asdict(study) for study in the_answer.studies(cell)]))
    again, table = the_answer.summarised(suites), pd.read_csv(RESULTS / "the_answer.csv")
    for column in ("mean", "half_width", "control_lead", "stronger_lead", "noiseless_lead", "noiseless_given_lead"):
        np.testing.assert_allclose(table[column], again[column], rtol=1e-4, atol=2e-6)


def test_the_answers_studies_treat_every_method_alike() -> None:
    for cell in the_answer.CELLS:
        studies = list(the_answer.studies(cell))
        for study in studies:
            for name in ("seeds", "per_class", "sizes", "test_images", "validation_images", "lr_grid", "realignment"):
                assert getattr(study, name) == getattr(studies[0], name)
        names = {name for study in studies for name in study.protections}
        stronger = {"few-shot-specialists"} if (cell.difficulty, cell.n_tasks) == ("calibrated", 8) else set()
        with_memory = {"control", "rmtllmf", "coded-tsv-realigned"} | stronger
        assert names == (with_memory if cell.per_class else {"unprotected", "coded-tsv", "base"})


def test_stored_payloads_are_the_summary_of_their_suites_and_of_the_script() -> None:
    made = json.loads((RESULTS / "payloads.json").read_text())
    wanted = [condition.labels() for condition in payloads.conditions()]
    assert made["conditions"] == json.loads(json.dumps(wanted))
    suites = stored_results("payloads_suites")
    assert len(suites) == made["settings"]["suites"] * (len(wanted) + 3 * len(payloads.LOST) * len(payloads.STARTS))
    again, table = payloads.summarised(suites), stored_results("payloads")
    for column in ("mean", "half_width", "lam", "bits_a_user", "uses"):
        np.testing.assert_allclose(table[column], again[column].astype(float), rtol=1e-4, atol=2e-6)
    # in suite 0 the lambda was chosen; the same one holds in all
    assert suites.groupby(payloads.NAMES, dropna=False)["lam"].nunique().max() == 1


@pytest.mark.slow
def test_a_row_of_the_payloads_computed_again() -> None:
    wanted = payloads.Condition("rank 1", payloads.Way(payloads.LowRank(1), 2), "tsv")
    rows = stored_results("payloads_suites").query(
        "payload == 'rank 1' and bits == 2 and merger == 'tsv' and seed == 0"
    )
    bench = payloads.Bench(payloads.drawn_suite("calibrated", 0))
    counts = payloads.specialists(bench, payloads.TEST_IMAGES).set_index("task")
    lam = float(rows["lam"].iloc[0])
    model = bench.suite.backbone.weights + lam * payloads.merged(bench, wanted, 0, "test")
    found = payloads.task_accuracies(bench, model, "test", payloads.TEST_IMAGES)
    assert (found / (counts["correct"] / counts["images"])).mean() == pytest.approx(
        rows["normalized"].iloc[0], abs=2e-3
    )
