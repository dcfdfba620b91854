"""The book's stored results, and the script that writes them."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from places import ROOT
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.study.study import NO_LINK
from rmtllmf_lib.study.suites import CHOSEN, CONDITION, GIVEN, leads
from workflow import users_lost
from workflow import when_the_link_helps as script
from workflow.when_the_link_helps import Cell

RESULTS = ROOT / "book" / "results"


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
    cells = script.CELLS[: len(made["cells"])]
    assert cells
    rows = pd.read_csv(RESULTS / "when_the_link_helps.csv")
    stored = {tuple(key) for key in rows[["difficulty", "n_tasks", "per_class"]].drop_duplicates().to_numpy()}
    assert stored == {(cell.difficulty, cell.n_tasks, cell.per_class) for cell in cells}
    for cell, record in zip(cells, made["cells"], strict=True):
        again = json.loads(json.dumps({**asdict(cell), "studies": [asdict(study) for study in script.studies(cell)]}))
        assert again == record


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
