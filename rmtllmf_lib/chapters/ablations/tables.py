"""Tables of the chapter on ablations, Section IV-3: readings of the paper's noise, and the costs of protections.

The studies themselves are run by `study.run_study`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pandas as pd

from rmtllmf_lib.chapters.results import made, stored_results
from rmtllmf_lib.chapters.words import standing
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.published import PAPER_LINKS, PAPER_SAMPLES
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import Choice, Condition
from rmtllmf_lib.study.suites import grid_ends
from rmtllmf_lib.transport.scenario import Scenario, inject_mse, inject_snr, noise_to_signal
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES


def require_memories(per_class: Sequence[int], per_class_attacked: Sequence[int]) -> None:
    """Refuse sizes of the memory that leave out what the chapter's claims and prose are about: one and ten a class.

    Raises
    ------
    InputError
        if 1 or 10 is missing in one of them, or the first does not rise.
    """
    for name, counts in (("per_class", per_class), ("per_class_attacked", per_class_attacked)):
        if not {1, PAPER_SAMPLES} <= {*counts}:
            raise InputError(
                f"{name} is {[*counts]}: expected 1 and {PAPER_SAMPLES} among its sizes, which this chapter compares"
            )
    if [*per_class] != sorted({*per_class}):
        raise InputError(f"per_class is {[*per_class]}: expected sizes each larger than the one before")


def noise_readings(scales: Sequence[str] = SCALES, correlations: Sequence[str] = CORRELATIONS) -> tuple[Scenario, ...]:
    """Return the paper's three links under every reading of its noise: scale × correlation × MSE.

    With the scale "snr" the paper's SNR takes the place of its MSE, see `scenario.inject_snr`.

    Returns
    -------
    tuple of Scenario, named "scale, correlation, link"
    """
    found = []
    for scale, correlation in product(scales, correlations):
        links = inject_snr(correlation) if scale == "snr" else inject_mse(correlation, scale)
        found += [replace(link, name=f"{scale}, {correlation}, {link.name}") for link in links]
    return tuple(found)


def reading_table(
    table: pd.DataFrame, scenarios: Sequence[Scenario], taus: Sequence[TaskVector], base: Weights
) -> pd.DataFrame:  # fmt: skip
    """Results of a study under each reading of the noise, beside the paper's for the same link.

    Parameters
    ----------
    table : DataFrame
        From `run_study`, with the `scenarios` of `noise_readings` and the protections "unprotected" or "rmtllmf".

    Returns
    -------
    DataFrame with columns scale, correlation, link, noise_to_signal, protection, mean, half_width, n, paper
        `paper` is the middle of the values that the paper gives.
    """
    columns = ["scenario", "scale", "correlation", "link", "noise_to_signal"]
    known = [
        (each.name, each.scale, each.correlation, each.name.split(", ")[-1], noise_to_signal(each, taus, base))
        for each in scenarios
    ]
    points = over_seeds(table, ["scenario", "protection"])
    rows = pd.DataFrame(known, columns=columns).merge(points, on="scenario").drop(columns="scenario")
    reported = {("unprotected", name): sum(link.unprotected) / 2 for name, link in PAPER_LINKS.items()}
    reported |= {("rmtllmf", name): link.rmtllmf for name, link in PAPER_LINKS.items()}
    return rows.assign(paper=[reported[pair] for pair in zip(rows["protection"], rows["link"], strict=True)])


def distance_to_paper(rows: pd.DataFrame) -> pd.DataFrame:
    """Distance of each reading of the noise from the paper's accuracies.

    Parameters
    ----------
    rows : DataFrame
        From `reading_table`.

    Returns
    -------
    DataFrame with columns scale, correlation, distance
        Root mean square of the differences in normalised accuracy, over links and protections; nearest first.
    """
    squares = rows.assign(distance=(rows["mean"] - rows["paper"]) ** 2)
    means = squares.groupby(["scale", "correlation"], sort=False)["distance"].mean()
    return (means**0.5).sort_values().reset_index()


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Images, steps, memory and time that each protection needs, mean over seeds and scenarios.

    Returns
    -------
    DataFrame with columns protection, per_class, samples, steps, bytes, seconds
        One row for each protection and memory size; `seconds` is the shortest wall time, the least disturbed one.
    """
    once = table.drop_duplicates(["scenario", "protection", "per_class", "seed", "combination", "lr", "steps"])
    groups = once.groupby(["protection", "per_class"], sort=False)
    means = groups[["samples", "steps", "bytes"]].mean()
    return means.assign(seconds=groups["seconds"].min()).reset_index()


def link_choices() -> pd.DataFrame:
    """Return `suites.grid_ends` of the table "when_the_link_helps", with the grids that its studies share."""
    study = made("when_the_link_helps")["cells"][0]["studies"][0]
    return grid_ends(stored_results("when_the_link_helps"), study["lr_grid"], study["lam_grid"])


def chosen_before(rows: pd.DataFrame, scenarios: Sequence[Scenario]) -> dict[Condition, Choice]:
    """Return the settings that a table of `by_suite` or `leads` was made with, as `run_study` takes them.

    Parameters
    ----------
    rows : DataFrame
        Of one difficulty; one row for each condition and number of tasks, or more rows with the same settings.
    scenarios : sequence of Scenario
        Those to look up by name, for protections that use the link.
    """
    found: dict[Condition, Choice] = {}
    links = {link.name: link for link in scenarios}
    for (name, scenario, count), group in rows.groupby(["protection", "scenario", "per_class"], sort=False):
        if scenario in links or not protection_named(str(name)).receives:
            lams = {int(size): float(lam) for size, lam in zip(group["n_tasks"], group["lam"], strict=True)}
            rate = float(group["lr"].iloc[0])
            found[links.get(str(scenario)), str(name), int(count)] = Choice(lams, rate)
    return found


def over_control(rows: pd.DataFrame, control: str) -> pd.DataFrame:
    """Return rows of `suites.leads` as a table of `gap`: mean and half_width are those of the lead over a control."""
    return rows.assign(mean=rows[f"{control}_lead"], half_width=rows[f"{control}_half_width"])


def who_is_ahead(leads: pd.DataFrame) -> dict[str, str]:
    """Return the links of a table of `gap` whose lead is surely positive ("ahead"), surely negative, or neither."""
    stands = [standing(leads.iloc[[place]], far=math.inf) for place in range(len(leads))]
    names = leads["scenario"].replace({"clean": "no noise"}).str.replace(r", (\w+)", r" (\1 errors)", regex=True)
    groups = {"ahead": "ahead of", "behind": "behind", "neither": "not surely apart from"}
    return {
        group: ", ".join(name for name, words in zip(names, stands, strict=True) if words == wanted) or "none"
        for group, wanted in groups.items()
    }
