"""Two other answers with a memory: cores in a few-shot basis, where noise is a power limit, and LoRA vectors.

    python -m workflow.other_answers --workers 2

writes three files to `book/results`: `other_answers.csv`, one row per condition, with leads over what it is compared
with and their intervals; `other_answers_suites.csv`, the values of every suite; and `other_answers.json`, studies and
versions. What they are compared with is in the tables of `workflow.the_answer`, which must be there: suites, memories
and images are the same, so leads are paired by suite. Everything that it computes is stored in parts: stopped, it goes
on where it was. Chapter 9 shows the tables.

The files are written anew after each of the `CELLS`. A later run takes these from the files, and refuses those of other
settings or versions; with `--anew` it begins again, as after a change of the code.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch

from rmtllmf_lib.chapters.results import stored_results
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.payload.lora import Lora
from rmtllmf_lib.study.study import Study
from rmtllmf_lib.study.suites import by_suite, link_benefit
from rmtllmf_lib.study.units import Bench
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN, inject_mse
from workflow.low_rank_and_rounds import adapted, bench_of, chosen_rate
from workflow.results import continued, write_results
from workflow.the_answer import GRIDS, OF_TSV, settings, summarised
from workflow.when_the_link_helps import SUITES, drawn_suite

OUT = Path(__file__).parents[1] / "book" / "results" / "other_answers.csv"
DIFFICULTY, TASKS = "calibrated", 8
BASIS, LORA = "few-shot-basis", "LoRA"

# Reference [13]: rank 16 on queries and values. Its vectors are summed and realigned on ten examples a class.
ADAPTER = Lora(16, 16.0, ("q", "v"))

Cell: TypeAlias = tuple[str, int]  # what is sent, and examples a class in the memory
CELLS: tuple[Cell, ...] = ((BASIS, 1), (BASIS, 10), (LORA, 10), (LORA, 1))


def study_of(cell: Cell) -> Study:
    """The study of a cell: the basis under every noise of the paper, LoRA without noise."""
    kind, per_class = cell
    whole = settings(TASKS, per_class)
    if kind == BASIS:
        grids = {**GRIDS, BASIS: OF_TSV}
        return replace(whole, scenarios=inject_mse("half"), protections=(BASIS,), lam_grid=grids)
    return replace(whole, scenarios=(CLEAN,), protections=("rmtllmf",))


@lru_cache(maxsize=1)
def rate() -> float:
    """The learning rate of the LoRA users, chosen on validation images of suite 0."""
    return chosen_rate(bench_of(0), ADAPTER)


@lru_cache(maxsize=SUITES)
def lora_suite(seed: int) -> Suite:
    """The users of one seed, who trained factors in place of whole weights."""
    bench = Bench(drawn_suite(DIFFICULTY, seed))
    return replace(bench.suite, taus={name: adapted(bench, ADAPTER, name, seed, rate()) for name in bench.suite.tasks})


def run_cell(cell: Cell, suites: int = SUITES, workers: int = 1) -> pd.DataFrame:
    """The rows of `by_suite` for a cell, all normalised by the specialists of whole weights."""
    kind, _ = cell
    whole = partial(drawn_suite, DIFFICULTY)
    table = link_benefit(study_of(cell), lora_suite if kind == LORA else whole, suites, workers=workers)
    if kind == LORA:
        zero_shot = replace(settings(TASKS, 1), protections=("base",))
        labels = ["task", "seed"]
        own = link_benefit(zero_shot, whole, suites, workers=workers).set_index(labels)["reference"]
        table["normalized"] = table["accuracy"] / own.loc[pd.MultiIndex.from_frame(table[labels])].to_numpy()
    rows = by_suite(table)
    rows.insert(0, "difficulty", DIFFICULTY)
    rows.insert(0, "sent", kind)
    return rows


def with_leads(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `the_answer.summarised` for each kind, with leads over what was measured there."""
    compared = stored_results("the_answer_suites")
    compared = compared[(compared["difficulty"] == DIFFICULTY) & (compared["n_tasks"] == TASKS)]
    compared = compared[compared["per_class"].isin(rows["per_class"]) & compared["seed"].isin(rows["seed"])]
    parts = []
    for kind, own in rows.groupby("sent", sort=False):
        # LoRA's rows have the protection of the reference without noise, and so another name while they are compared.
        named = own.assign(protection=f"{kind}: " + own["protection"])
        table = summarised(pd.concat([compared, named.drop(columns="sent")], ignore_index=True))
        table = table[table["protection"].isin(named["protection"])]
        parts.append(table.assign(protection=table["protection"].str.removeprefix(f"{kind}: "), sent=kind))
    return pd.concat(parts, ignore_index=True)


def described(cell: Cell) -> dict[str, Any]:
    """All settings of a cell."""
    kind, per_class = cell
    adapter = {"adapter": asdict(ADAPTER)} if kind == LORA else {}
    return {"sent": kind, "per_class": per_class, **adapter, "study": asdict(study_of(cell))}


def write(rows: pd.DataFrame, path: Path, cells: Sequence[Cell]) -> None:
    """Write both tables, and what made them."""
    tables = {path: with_leads(rows), path.with_name(f"{path.stem}_suites.csv"): rows}
    origin = {"base": load_backbone("tiny").weights.hash, "cells": [described(cell) for cell in cells]}
    write_results(tables, path.with_suffix(".json"), "python -m workflow.other_answers", origin)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the cells, and write the tables after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--suites", type=int, default=SUITES)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--anew", action="store_true", help="replace what is in the files")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known, base = [described(cell) for cell in CELLS], load_backbone("tiny").weights.hash
    begun, rows = (0, pd.DataFrame()) if options.anew else continued(options.out, known, options.suites, base)
    for place, cell in enumerate(CELLS[begun:], begun + 1):
        rows = pd.concat([rows, run_cell(cell, options.suites, options.workers)], ignore_index=True)
        write(rows, options.out, CELLS[:place])


if __name__ == "__main__":
    main()
