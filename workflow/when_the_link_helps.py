"""What the link is worth: R-MTLLMF against two controls without a link, over difficulties, memories and suites.

    python -m workflow.when_the_link_helps --workers 2

writes three files to `book/results`: `when_the_link_helps.csv`, one row per condition, with leads over the controls and
their intervals; `…_suites.csv`, the values of every suite that it is made of; and `….json`, the studies and versions.
Everything that it computes is stored in parts: stopped, it goes on where it was. Chapter 6 shows the table.

The files are written anew after each of the `CELLS`, and those of the book may have the first of them only: `cells` of
the JSON file says which. A later run takes these from the files, and refuses those of other settings or
versions; with `--anew` it begins again, as after a change of the code.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.study.study import Study
from rmtllmf_lib.study.suites import CONDITION, by_suite, leads, link_benefit
from rmtllmf_lib.training.suite import Suite, load_suite
from rmtllmf_lib.transport.scenario import CLEAN, Scenario, inject_mse
from workflow.results import continued, write_results

OUT = Path(__file__).parents[1] / "book" / "results" / "when_the_link_helps.csv"
SUITES = 5
LAMBDAS = {
    "rmtllmf": (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0),
    "few-shot-specialists": (0.75, 1.0, 1.25),
}


@dataclass(frozen=True)
class Cell:
    """Conditions that are compared with one another: tasks of one difficulty, so many of them fused, one memory."""

    difficulty: str
    n_tasks: int
    per_class: int
    links: tuple[str, ...] = ("ideal", "SR")


CELLS = (
    *(Cell("calibrated", 8, count) for count in (10, 1)),
    *(Cell(difficulty, 8, count) for count in (10, 1) for difficulty in ("hard", "easy")),
    *(Cell("calibrated", 8, count) for count in (5, 2, 20)),
    *(Cell("calibrated", size, count) for size in (2, 4) for count in (10, 1)),
    *(Cell("calibrated", 8, count, ("SU",)) for count in (10, 1)),
)


def studies(cell: Cell) -> Iterator[Study]:
    """The studies of a cell: every link for R-MTLLMF, noise-aware where errors are half common, and the controls."""
    half = inject_mse("half")
    links = [link for link in half if link.name in cell.links]
    independent = [link for link in inject_mse("independent") if link.name in cell.links]
    whole = Study(
        (), ("control", "few-shot-specialists"), seeds=1, per_class=(cell.per_class,), sizes=(cell.n_tasks,),
        per_size=1, test_images=250, validation_images=100, realignment=replace(REALIGNMENT, lr=3e-4),
        lr_grid=(1e-4, 3e-4, 1e-3), lam_grid=LAMBDAS,
    )  # fmt: skip
    every: list[Scenario] = [CLEAN, *links, *(replace(link, name=f"{link.name}, independent") for link in independent)]
    yield replace(whole, protections=("control",))
    yield replace(whole, scenarios=tuple(every), protections=("rmtllmf",))
    yield replace(whole, protections=("few-shot-specialists",))
    yield replace(whole, scenarios=tuple(links), protections=("noise-aware",))


@lru_cache(maxsize=SUITES)
def drawn_suite(difficulty: str, seed: int) -> Suite:
    """The eight drawn tasks of one seed."""
    return load_suite(load_backbone("tiny"), difficulty=difficulty, seed=seed)


def run_cell(cell: Cell, suites: int = SUITES, workers: int = 1) -> pd.DataFrame:
    """The rows of `by_suite` for a cell, after its difficulty."""
    suite_of = partial(drawn_suite, cell.difficulty)
    parts = [link_benefit(study, suite_of, suites, workers=workers) for study in studies(cell)]
    table = by_suite(pd.concat(parts, ignore_index=True))
    table.insert(0, "difficulty", cell.difficulty)
    return table


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `leads`, difficulty by difficulty."""
    parts = {name: leads(part) for name, part in rows.groupby("difficulty", sort=False)}
    return pd.concat(parts, names=["difficulty"]).reset_index("difficulty").reset_index(drop=True)


def joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table of several cells; what two of them share, the controls and the link without noise, it has once."""
    rows = pd.concat(tables, ignore_index=True)
    return rows.drop_duplicates(["difficulty", *CONDITION, "seed"], ignore_index=True)


def described(cell: Cell) -> dict[str, Any]:
    """All settings of a cell."""
    return {**asdict(cell), "studies": [asdict(study) for study in studies(cell)]}


def write(rows: pd.DataFrame, path: Path, cells: Iterable[Cell]) -> None:
    """Write both tables, and what made them."""
    tables = {path: summarised(rows), path.with_name(f"{path.stem}_suites.csv"): rows}
    origin = {"base": load_backbone("tiny").weights.hash, "cells": [described(cell) for cell in cells]}
    write_results(tables, path.with_suffix(".json"), "python -m workflow.when_the_link_helps", origin)


def main() -> None:
    """Compute all cells, and write the table after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--suites", type=int, default=SUITES)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--anew", action="store_true", help="replace what is in the files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known, base = [described(cell) for cell in CELLS], load_backbone("tiny").weights.hash
    begun, rows = (0, pd.DataFrame()) if options.anew else continued(options.out, known, options.suites, base)
    for place, cell in enumerate(CELLS[begun:], begun + 1):
        rows = joined([rows, run_cell(cell, options.suites, options.workers)])
        write(rows, options.out, CELLS[:place])


if __name__ == "__main__":
    main()
