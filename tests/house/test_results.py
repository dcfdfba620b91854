"""The book's stored results, and the script that writes them."""

import importlib.util
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from places import ROOT
from rmtllmf_lib.chapters.send_less.tables import stored
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.study.suites import leads
from workflow import payloads, the_answer

RESULTS = ROOT / "book" / "results"


def script(name: str) -> Any:
    """A script of the workflow as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "workflow" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up annotations
    spec.loader.exec_module(module)
    return module


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
    module = script("when_the_link_helps")
    cells = [
        module.Cell(cell["difficulty"], cell["n_tasks"], cell["per_class"], tuple(cell["links"]))
        for cell in made["cells"]
    ]
    rows = pd.read_csv(RESULTS / "when_the_link_helps.csv")
    stored = {tuple(key) for key in rows[["difficulty", "n_tasks", "per_class"]].drop_duplicates().to_numpy()}
    assert stored == {(cell.difficulty, cell.n_tasks, cell.per_class) for cell in cells}
    for cell, record in zip(cells, made["cells"], strict=True):
        again = json.loads(json.dumps([asdict(study) for study in module.studies(cell)]))
        assert again == record["studies"]


def test_studies_treat_every_method_alike() -> None:
    module = script("when_the_link_helps")
    assert len(set(module.CELLS)) == len(module.CELLS)
    for cell in module.CELLS:
        studies = list(module.studies(cell))
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
    module = script("when_the_link_helps")
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
    cells = module.CELLS[:1]
    module.write(rows, tmp_path / "new" / "out.csv", cells)
    stored = pd.read_csv(tmp_path / "new" / "out.csv")
    ours = stored[stored["protection"] == "rmtllmf"].set_index("difficulty")
    for difficulty in ("easy", "hard"):
        expected = leads(rows[rows["difficulty"] == difficulty]).query("protection == 'rmtllmf'").iloc[0]
        for column in ("mean", "control_mean", "control_lead", "control_half_width", "few-shot-specialists_lead"):
            assert abs(ours.loc[difficulty, column] - expected[column]) < 1e-5
    again = pd.read_csv(tmp_path / "new" / "out_suites.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(again, rows)
    assert len(json.loads((tmp_path / "new" / "out.json").read_text())["cells"]) == 1


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
        wanted = (
            {"control", "rmtllmf", "coded-tsv-realigned"} if cell.per_class else {"unprotected", "coded-tsv", "base"}
        )
        if cell.per_class and (cell.difficulty, cell.n_tasks) == ("calibrated", 8):
            wanted.add("few-shot-specialists")
        assert names == wanted


def test_stored_payloads_are_the_summary_of_their_suites_and_of_the_script() -> None:
    made = json.loads((RESULTS / "payloads.json").read_text())
    wanted = [condition.labels() for condition in payloads.conditions()]
    assert made["conditions"] == json.loads(json.dumps(wanted))
    suites = stored("payloads_suites")
    assert len(suites) == made["settings"]["suites"] * (len(wanted) + 3 * len(payloads.LOST) * len(payloads.STARTS))
    again, table = payloads.summarised(suites), stored("payloads")
    for column in ("mean", "half_width", "lam", "bits_a_user", "uses"):
        np.testing.assert_allclose(table[column], again[column].astype(float), rtol=1e-4, atol=2e-6)
    # in suite 0 the lambda was chosen; the same one holds in all
    assert suites.groupby(payloads.NAMES, dropna=False)["lam"].nunique().max() == 1


@pytest.mark.slow
def test_a_row_of_the_payloads_computed_again() -> None:
    wanted = payloads.Condition("rank 1", payloads.Way(payloads.LowRank(1), 2), "tsv")
    rows = stored("payloads_suites").query("payload == 'rank 1' and bits == 2 and merger == 'tsv' and seed == 0")
    bench = payloads.Bench(payloads.drawn_suite("calibrated", 0))
    counts = payloads.specialists(bench, payloads.TEST_IMAGES).set_index("task")
    lam = float(rows["lam"].iloc[0])
    model = bench.suite.backbone.weights + lam * payloads.merged(bench, wanted, 0, "test")
    found = payloads.task_accuracies(bench, model, "test", payloads.TEST_IMAGES)
    assert (found / (counts["correct"] / counts["images"])).mean() == pytest.approx(
        rows["normalized"].iloc[0], abs=2e-3
    )
