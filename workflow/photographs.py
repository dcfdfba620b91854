"""Measure what holds on photographs, keep the numbers beside the page *On photographs*, and fill them in.

    python workflow/photographs.py --root data
    python workflow/photographs.py

The first runs the study of `workflow/photographs.json` on the data sets in the folder `data` and writes the tables; the
second fills the page anew from the tables alone, in seconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rmtllmf_lib.chapters.words import at_ends, ends_counted, markdown, percent, standing
from rmtllmf_lib.protection.resilience import PROTECTIONS, protection_named
from rmtllmf_lib.recorded import fill_page, typeset
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.compare import gap
from rmtllmf_lib.study.file import SuiteSpec, load_study
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import NO_LINK, Study, provenance
from rmtllmf_lib.study.suites import CHOSEN, CONTROLS, GIVEN, by_suite, grid_ends, leads, link_benefit
from rmtllmf_lib.training.suite import Suite

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "workflow" / "photographs.json"
PAGE = ROOT / "book" / "photographs.md"
RESULTS = ROOT / "book" / "results"
SUMMARY = RESULTS / "photographs.csv"  # a row for each condition, with intervals over the seeds
SUITES = RESULTS / "photographs_suites.csv"  # a row for each condition and seed, means over the tasks
TASKS = RESULTS / "photographs_tasks.csv"  # a row for each task and seed
MADE = RESULTS / "photographs.json"  # what made them: study, versions, hashes of data, heads and vectors by seed
SEEDS = 5

AWARE = "noise-aware"
ANSWERS = {0: "coded-tsv", 1: "coded-tsv-realigned"}  # without a memory, and with one
# Under SR only: the first searches lambda anew for each noise, and what is coded arrives exactly over any of the links.
ATTACKED = (AWARE, *ANSWERS.values())
NOISELESS = {0: "unprotected", 1: "rmtllmf"}  # full vectors without noise, likewise

CONTROL_NAMES = dict(zip(CONTROLS, ("the control", "the stronger control"), strict=True))
LINKS = {NO_LINK: "none", "clean": "no noise", "ideal": "ideal", "SR": "SR"}
ERRORS = {"half": "half common", "independent": "independent"}
RULES = {CHOSEN: "chosen", GIVEN: "published", AWARE: "from the memory"}
TITLES = {
    "mnist": "MNIST", "gtsrb": "GTSRB", "eurosat": "EuroSAT", "dtd10": "DTD, ten classes", "ucmerced": "UC Merced",
    "scene15": "15-Scene", "chars74k_digits": "Chars74K digits",
}  # fmt: skip
MODELS = ["base", "fine_tuned", "fused"]


def measure(
    study: Study, suite_of: Callable[[int], Suite], seeds: int = SEEDS, *, store: Store | None = None, workers: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the two tables of the study: by condition and seed, and by task and seed."""
    links = tuple(link for link in study.scenarios if link.name == "SR")
    grids = {name: grid for name, grid in study.lam_grid.items() if name in ATTACKED}
    under_attack = replace(study, protections=ATTACKED, scenarios=links, lam_grid=grids)
    options = {"store": store, "workers": workers}
    table = pd.concat([link_benefit(each, suite_of, seeds, **options) for each in (study, under_attack)])
    return by_suite(table), by_task(table, suite_of(0))


def by_task(table: pd.DataFrame, suite: Suite) -> pd.DataFrame:
    """Return a row for each task and seed: its data, and the accuracies without protection and without noise."""
    index = ["task", "seed"]
    without = table[(table["protection"] == "base") | (table["scenario"] == "clean") & (table["lam_rule"] == CHOSEN)]
    wide = without.pivot_table(index=index, columns="protection", values="accuracy", sort=False)
    found = table.groupby(index, sort=False)[["images", "reference"]].first().join(wide[["base", "unprotected"]])
    found = found.rename(columns={"images": "tested", "reference": "fine_tuned", "unprotected": "fused"}).reset_index()
    about = pd.DataFrame(
        {
            "task": task.name,
            "classes": len(task.class_names),
            "train": len(task.train),
            "validation": len(task.validation),
            "test": len(task.test),
            "data": task.fingerprint,
        }
        for task in suite.tasks.values()
    )
    return about.merge(found, on="task")


def suites(users: SuiteSpec, *, store: Store | None = None) -> Callable[[int], Suite]:
    """Return the function that gives the suite of a seed; the images are read once."""
    first = cache(lambda: users.load(store=store))
    return cache(lambda seed: first() if seed == users.seed else users.again(first(), seed, store=store))


def write(
    rows: pd.DataFrame, tasks: pd.DataFrame, study: Study, users: SuiteSpec, suite_of: Callable[[int], Suite]
) -> None:
    """Write the tables, and what made them."""
    for path, table in {SUMMARY: leads(rows), SUITES: rows, TASKS: tasks}.items():
        with atomic_write(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    made_by = {str(seed): provenance(suite_of(seed)) for seed in sorted(set(rows["seed"]))}
    made = {
        "command": "python workflow/photographs.py --root data",
        "versions": next(iter(made_by.values()))["versions"],
        "study": asdict(study),
        "users": asdict(users),
        "suites": made_by,
    }
    with atomic_write(MADE) as temporary:
        temporary.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


# --- the page ---------------------------------------------------------------------------------------------------------


def read() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the committed tables by condition and seed, and by task and seed."""
    rows = pd.read_csv(SUITES, keep_default_na=False, na_values={"lr": [""]})
    return rows, pd.read_csv(TASKS)


def known(rows: pd.DataFrame, tasks: pd.DataFrame, study: Study | None = None) -> dict[str, str | float]:
    """Return what the page's marks may name: its tables, and each number of its sentences.

    Of a condition, named as in "rmtllmf SR chosen 10", there are its accuracy, its lead over each control, and where it
    stands as the interval of that lead tells: "ahead of", "behind" or "not surely apart from"; and likewise of the
    published lambda over the chosen one, "rmtllmf SR 10 given over chosen", and of the control over the base.
    "lr at an end" and the like tell what was chosen at an end of its grid.
    """
    summary = leads(rows)
    found: dict[str, str | float] = {"tasks": _tasks_table(tasks), "seeds": float(rows["seed"].nunique())}
    for count, part in summary.groupby("per_class"):
        found[f"table {count}"] = _table(part, CONTROLS if count else ())
    for row in summary.to_dict("records"):
        name = " ".join(str(row[label]) for label in ("protection", "scenario", "lam_rule", "per_class"))
        found[name] = percent(row["mean"], row["half_width"])
        for control in CONTROLS if row["per_class"] else ():
            if row["protection"] != control:
                lead, half = row[f"{control}_lead"], row[f"{control}_half_width"]
                found[f"{name} over {control}"] = points(lead, half)
                found[f"{name} stands to {control}"] = standing(pd.DataFrame({"mean": [lead], "half_width": [half]}))
    for (protection, scenario, count), part in rows.groupby(["protection", "scenario", "per_class"]):
        if set(part["lam_rule"]) == {GIVEN, CHOSEN}:
            rule = gap(part, {"lam_rule": GIVEN}, {"lam_rule": CHOSEN})
            found[f"{protection} {scenario} {count} given over chosen"] = points(*rule.loc[0, ["mean", "half_width"]])
            found[f"{protection} {scenario} {count} given stands to chosen"] = standing(rule)
    found |= _ends(summary, study or load_study(STUDY)[0]) | _answers(rows)
    for count in summary.loc[summary["protection"] == "control", "per_class"]:
        without, control = {"protection": "base"}, {"protection": "control", "per_class": count}
        found[f"control {count} stands to base"] = standing(gap(rows, control, without))
        ours = summary[(summary["protection"] == "rmtllmf") & (summary["per_class"] == count)]
        best = ours.loc[ours["control_lead"].idxmax()]
        found[f"largest lead {count}"] = points(best["control_lead"], best["control_half_width"])
        found[f"largest lead {count} on"] = _label(best)
    means = over_seeds(tasks.melt(["task", "seed"], MODELS, "model"), ["model"], "value")
    found |= {f"{row.model} accuracy": percent(row.mean, row.half_width) for row in means.itertuples()}
    return found


def points(mean: float, half_width: float) -> str:
    """Return a difference of shares with its half width, in points: "+2.0 ± 0.5"."""
    return f"{typeset(f'{100 * mean:+.1f}')} ± {100 * half_width:.1f}"


def _answers(rows: pd.DataFrame) -> dict[str, str]:
    """Return the leads of the answer over full vectors without noise, "answer 1 over noiseless given", and the base."""
    found = {}
    for count in sorted(set(rows["per_class"])):
        ours = {"protection": ANSWERS[min(count, 1)], "lam_rule": CHOSEN, "per_class": count}
        for rule in (CHOSEN, GIVEN):
            whole = {"protection": NOISELESS[min(count, 1)], "scenario": "clean", "lam_rule": rule, "per_class": count}
            lead = gap(rows, ours, whole)
            found[f"answer {count} over noiseless {rule}"] = points(*lead.loc[0, ["mean", "half_width"]])
            found[f"answer {count} stands to noiseless {rule}"] = standing(lead)
    lead = gap(rows, {"protection": ANSWERS[0], "lam_rule": CHOSEN}, {"protection": "base"})
    found["answer 0 over base"] = points(*lead.loc[0, ["mean", "half_width"]])
    return found | {f"{ANSWERS[0]} SR {CHOSEN} 0 stands to base": standing(lead)}


def _ends(summary: pd.DataFrame, study: Study) -> dict[str, str]:
    """Return what was chosen at an end of its grid, and for which conditions the rate is not the smallest."""
    choices = grid_ends(summary, study.lr_grid, study.lam_grid)
    found = {f"{setting} at an end": text for setting, text in ends_counted(choices).items()}
    names = {ANSWERS[0]: "the answer", ANSWERS[1]: "the answer, realigned"}
    found["answers at an end"] = at_ends(choices, names)
    for count, part in choices[choices["per_class"] > 0].groupby("per_class"):
        larger = part[(part["setting"] == "lr") & (part["end"] != "smallest")]
        found[f"controls at an end {count}"] = at_ends(part, CONTROL_NAMES)
        found[f"larger rates {count}"] = "; ".join(map(_label, larger.to_dict("records"))) or "none"
    return found


def _label(row: Mapping[Any, Any] | pd.Series) -> str:
    """Return the words for a condition: "R-MTLLMF, SR, half common, λ published"."""
    name, link = row["protection"], row["scenario"].partition(",")[0]
    words = [CONTROL_NAMES.get(name, PROTECTIONS[name].title)]
    if protection_named(name).receives:
        words += [LINKS[link], *([ERRORS[row["correlation"]]] if link in ("ideal", "SR") else [])]
    if protection_named(name).scales:
        words.append(f"λ {RULES[name if name in RULES else row['lam_rule']]}")
    return ", ".join(words)


def _table(rows: pd.DataFrame, over: Sequence[str]) -> str:
    head = ["model", "link", "errors", "λ", "normalised (%)", *(f"over {CONTROL_NAMES[control]}" for control in over)]
    lines = []
    for row in rows.to_dict("records"):
        link = row["scenario"].partition(",")[0]
        rule = row["protection"] if row["protection"] in RULES else row["lam_rule"]
        lines.append(
            [
                PROTECTIONS[row["protection"]].title,
                LINKS[link],
                ERRORS[row["correlation"]] if link in ("ideal", "SR") else "",
                f"{row['lam']:.2f} {RULES[rule]}" if protection_named(row["protection"]).scales else "",
                percent(row["mean"], row["half_width"]),
                *(
                    "" if row["protection"] == control else points(row[f"{control}_lead"], row[f"{control}_half_width"])
                    for control in over
                ),
            ]
        )
    return f"\n{markdown(head, lines)}\n"


def _tasks_table(tasks: pd.DataFrame) -> str:
    head = ["data set", "classes", "training images", "tested", "prototype (%)", "fine-tuned (%)", "fused (%)"]
    lines = []
    for name, rows in tasks.groupby("task", sort=False):
        first = rows.iloc[0]
        scores = [
            percent(*over_seeds(rows, ["task"], column).loc[0, ["mean", "half_width"]])
            for column in ("fine_tuned", "fused")
        ]
        sizes = [f"{first[column]:,}" for column in ("classes", "train", "tested")]
        lines.append([TITLES.get(str(name), str(name)), *sizes, f"{100 * first['base']:.0f}", *scores])
    return f"\n{markdown(head, lines)}\n"


def filled(text: str, rows: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """Return the page with its tables and numbers brought up to date; InputError for a mark that names no number."""
    return fill_page(text, known(rows, tasks))


def main() -> None:
    """Measure, if there are data, and fill in the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, help="folder of the data sets; without it nothing is measured")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    if given.root is not None:
        torch.set_num_threads(1)  # the last bits of a training depend on their number
        study, users = load_study(STUDY)
        suite_of = suites(replace(users, root=str(given.root)))
        write(*measure(study, suite_of, given.seeds, workers=given.workers), study, users, suite_of)
    page = filled(PAGE.read_text(encoding="utf-8"), *read())
    with atomic_write(PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
