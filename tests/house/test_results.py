"""The book's stored results, and the script that writes them."""

import importlib.util
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from places import ROOT
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.study.suites import leads

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
        assert command[0] == "python" and (ROOT / command[1]).is_file()
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
