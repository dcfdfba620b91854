"""The answer against the paper and both controls, over memories, numbers of tasks, difficulties and suites.

    python -m workflow.the_answer --workers 2

writes three files to `book/results`: `the_answer.csv`, one row per condition, with leads over what it is compared with
and their intervals; `the_answer_suites.csv`, the values of every suite; and `the_answer.json`, studies and versions.
Everything that it computes is stored in parts: stopped, it goes on where it was. Chapter 9 shows the tables.

The files are written anew after each of the `CELLS`, and those of the book may have the first of them only: `cells` of
the JSON file says which. A later run takes these from the files, and refuses those of other settings or
versions; with `--anew` it begins again, as after a change of the code.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.study.study import Study
from rmtllmf_lib.study.suites import GIVEN, by_suite, leads, link_benefit
from rmtllmf_lib.transport.scenario import CLEAN, inject_mse
from workflow.results import continued, write_results
from workflow.when_the_link_helps import LAMBDAS, SUITES, drawn_suite

OUT = Path(__file__).parents[1] / "book" / "results" / "the_answer.csv"
OF_TSV = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)  # wide enough that no choice lies at an end
GRIDS = {
    "rmtllmf": LAMBDAS["rmtllmf"],
    "unprotected": LAMBDAS["rmtllmf"],
    **dict.fromkeys(("few-shot-specialists", "coded-tsv", "coded-tsv-realigned"), OF_TSV),
}

# What the others are compared with, as one column each: with a memory, and without.
REFERENCES = {
    "control": ("control", "base"),
    "stronger": ("few-shot-specialists",),
    "noiseless": ("rmtllmf", "unprotected"),
    "noiseless_given": ("rmtllmf, given", "unprotected, given"),
}


@dataclass(frozen=True)
class Cell:
    """Conditions that are compared with one another: tasks of one difficulty, so many of them fused, one memory."""

    difficulty: str
    n_tasks: int
    per_class: int


CELLS = (
    *(Cell("calibrated", 8, count) for count in (1, 10, 0, 2, 5)),
    *(Cell("calibrated", size, count) for size in (4, 2) for count in (0, 1, 10)),
    *(Cell(difficulty, 8, count) for difficulty in ("hard", "easy") for count in (0, 1, 10)),
)


def settings(n_tasks: int, per_class: int) -> Study:
    """What all studies have in common that fuse so many tasks with one memory, whatever they protect by."""
    return Study(
        (), ("control",), seeds=1, per_class=(max(per_class, 1),), sizes=(n_tasks,), per_size=1,
        test_images=250, validation_images=100, realignment=replace(REALIGNMENT, lr=3e-4),
        lr_grid=(3e-5, 1e-4, 3e-4, 1e-3, 3e-3), lam_grid=GRIDS,
    )  # fmt: skip


def studies(cell: Cell) -> Iterator[Study]:
    """The studies of a cell: the answer under SR, full vectors without noise, and what needs no link."""
    attacked = next(link for link in inject_mse("half") if link.name == "SR")
    whole = settings(cell.n_tasks, cell.per_class)
    if not cell.per_class:
        yield replace(whole, scenarios=(CLEAN,), protections=("unprotected",))
        yield replace(whole, scenarios=(attacked,), protections=("coded-tsv",))
        yield replace(whole, protections=("base",))
        return
    yield replace(whole, protections=("control",))
    yield replace(whole, scenarios=(CLEAN,), protections=("rmtllmf",))
    if (cell.difficulty, cell.n_tasks) == ("calibrated", 8):  # it costs as much as all others together
        yield replace(whole, protections=("few-shot-specialists",))
    yield replace(whole, scenarios=(attacked,), protections=("coded-tsv-realigned",))


def run_cell(cell: Cell, suites: int = SUITES, workers: int = 1) -> pd.DataFrame:
    """The rows of `by_suite` for a cell, after its difficulty, with the channel uses of all users."""
    suite_of = partial(drawn_suite, cell.difficulty)
    parts = [link_benefit(study, suite_of, suites, workers=workers) for study in studies(cell)]
    table = pd.concat(parts, ignore_index=True)
    rows = by_suite(table)
    rows.insert(0, "difficulty", cell.difficulty)
    sent = table.groupby(["protection", "lam_rule", "seed"])["uses"].mean().rename("uses")
    return rows.join(sent, on=["protection", "lam_rule", "seed"])


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `leads` over `REFERENCES`, difficulty by difficulty."""
    # Full vectors without noise are a reference twice, with each rule for lambda.
    twice = rows["protection"].isin([*REFERENCES["noiseless"]]) & (rows["lam_rule"] == GIVEN)
    named = rows.assign(protection=rows["protection"] + twice.map({True: f", {GIVEN}", False: ""}))
    parts = {name: _over_references(part) for name, part in named.groupby("difficulty", sort=False)}
    table = pd.concat(parts, names=["difficulty"]).reset_index("difficulty").reset_index(drop=True)
    return table.assign(protection=table["protection"].str.removesuffix(f", {GIVEN}"))


def _over_references(rows: pd.DataFrame) -> pd.DataFrame:
    every = [name for names in REFERENCES.values() for name in names if name in set(rows["protection"])]
    table = leads(rows, every)
    for reference, names in REFERENCES.items():
        for column in ("mean", "lead", "half_width"):
            columns = [f"{name}_{column}" for name in names if name in every]
            found = table[columns].bfill(axis=1).iloc[:, 0] if columns else float("nan")
            table = table.drop(columns=columns).assign(**{f"{reference}_{column}": found})
    return table


def described(cell: Cell) -> dict[str, Any]:
    """All settings of a cell."""
    return {**asdict(cell), "studies": [asdict(study) for study in studies(cell)]}


def write(rows: pd.DataFrame, path: Path, cells: Iterable[Cell]) -> None:
    """Write both tables, and what made them."""
    tables = {path: summarised(rows), path.with_name(f"{path.stem}_suites.csv"): rows}
    origin = {"base": load_backbone("tiny").weights.hash, "cells": [described(cell) for cell in cells]}
    write_results(tables, path.with_suffix(".json"), "python -m workflow.the_answer", origin)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the cells, and write the tables after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--suites", type=int, default=SUITES)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cells", type=int, default=len(CELLS), help="how many of them, from the first")
    parser.add_argument("--anew", action="store_true", help="replace what is in the files")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cells, base = CELLS[: options.cells], load_backbone("tiny").weights.hash
    known = [described(cell) for cell in cells]
    begun, rows = (0, pd.DataFrame()) if options.anew else continued(options.out, known, options.suites, base)
    for place, cell in enumerate(cells[begun:], begun + 1):
        rows = pd.concat([rows, run_cell(cell, options.suites, options.workers)], ignore_index=True)
        write(rows, options.out, cells[:place])


if __name__ == "__main__":
    main()
