"""Tables of the chapter on mergers: what each does, the stored results, and what follows from them.

The results, `stored_results("mergers_under_noise")`, were computed by the script of that name in `workflow`.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rmtllmf_lib.arrays import known_names, whole_number
from rmtllmf_lib.chapters.results import made
from rmtllmf_lib.chapters.words import percent
from rmtllmf_lib.fusion.mergers import NEEDS, merge, merger_named, merger_table
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.study.compare import gap
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import Choice, Condition
from rmtllmf_lib.transport.scenario import CLEAN, Scenario

FINE_TUNED = 92.3  # mean accuracy (%) of the fine-tuned ViT-B/16 of the checkpoints that `shared` values are for

LONG = 5.0  # seconds of a processor, beside which what disturbs a measurement is small
_NEEDED = dict(zip(NEEDS, ("random numbers", "the task of each image", *["images"] * 3), strict=True))


# --- what each does ---------------------------------------------------------------------------------------------------


@cache
def described() -> dict[str, dict[str, Any]]:
    """Every merger in one line and one formula, with its source and published values; see `described.toml`."""
    return tomllib.loads(Path(__file__).with_name("described.toml").read_text(encoding="utf-8"))


def all_mergers() -> str:
    """Return a table of MyST Markdown with one row for each merger of the library."""
    texts = described()
    lines = ["| merger | ViT-B/16 | what it makes | needs |", "| --- | --- | --- | --- |"]
    for row in merger_table().itertuples():
        text = texts[row.merger]
        cited = f" {{cite}}`{text['cite']}`" if text["cite"] else ""
        needs = ", ".join(dict.fromkeys(_NEEDED[need] for need in row.needs.split(", ") if need in _NEEDED))
        values = [f"{text[key]:.1f}{mark}" for key, mark in (("shared", ""), ("authors", "*")) if key in text]
        formula = text["formula"].replace(r"\|", r"\Vert ").replace("|", r"\vert ")  # a bar would end the cell
        makes = f"{text['line']}<br>${formula}$"
        cells = (f"`{row.merger}`{cited}", ", ".join(values) or "–", makes, needs or "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def published() -> pd.Series:
    """Published mean accuracies of eight merged tasks over that with fine-tuning, ViT-B/16, by merger.

    Those on the checkpoints of FusionBench alone: those of other checkpoints are on another scale.
    """
    found = {name: text["shared"] / FINE_TUNED for name, text in described().items() if "shared" in text}
    return pd.Series(found, name="published")


# --- the stored results -----------------------------------------------------------------------------------------------


def images_behind() -> int:
    """Test images of each task behind the stored results."""
    return int(made("mergers_under_noise")["test_images"])


def noisy(rows: pd.DataFrame, correlation: str) -> pd.DataFrame:
    """Return the rows with all eight tasks, no faulty user, and errors of one correlation, those without noise first.

    Parameters
    ----------
    rows : DataFrame
        From `stored`.
    """
    plain = rows[(rows["n_tasks"] == rows["n_tasks"].max()) & (rows["faulty"] == "none")]
    errors = plain[(plain["mse"] > 0) & (plain["correlation"] == correlation)]
    clean = plain[(plain["mse"] == 0) & plain["merger"].isin(errors["merger"])]
    return pd.concat([clean, errors], ignore_index=True)


def conditions(rows: pd.DataFrame) -> tuple[tuple[Scenario, ...], dict[Condition, Choice]]:
    """The scenarios of some rows, and the lambdas that they were made with, as `run_study` takes them.

    Parameters
    ----------
    rows : DataFrame
        From `stored`, one for each scenario and merger.
    """
    scenarios: dict[str, Scenario] = {}
    chosen: dict[Condition, Choice] = {}
    for row in rows.itertuples():
        link = CLEAN if row.mse == 0 else Scenario(row.scenario, row.mse, row.scale, row.correlation)
        scenarios[link.name] = link
        chosen[link, f"merge-{row.merger}", 0] = Choice({int(row.n_tasks): float(row.lam)})
    return tuple(scenarios.values()), chosen


def same_as_stored(found: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Scores of a study beside those of the stored rows of one suite.

    Parameters
    ----------
    found : DataFrame
        From `run_study`.
    rows : DataFrame
        From `stored_results("mergers_under_noise_suites")`, of one suite and one correlation.

    Returns
    -------
    DataFrame with columns scenario, merger, here, stored
    """
    means = found.groupby(["scenario", "protection"], sort=False)["normalized"].mean().rename("here").reset_index()
    means.insert(1, "merger", means.pop("protection").str.removeprefix("merge-"))
    return means.merge(rows.rename(columns={"normalized": "stored"})[["scenario", "merger", "stored"]])


# --- what follows from them -------------------------------------------------------------------------------------------


def leads(rows: pd.DataFrame, other: str = "arithmetic", by: Sequence[str] = ("ratio",)) -> pd.DataFrame:
    """Lead of every merger over another one, paired by suite, with its interval over the suites.

    Parameters
    ----------
    rows : DataFrame
        From `stored_results("mergers_under_noise_suites")`.
    by : sequence of str
        Columns that tell conditions apart.

    Returns
    -------
    DataFrame with columns merger, `by`, mean, half_width, n; a merger is compared where both were measured.
    """
    names = [name for name in rows["merger"].unique() if name != other]
    parts = [gap(rows, {"merger": name}, {"merger": other}, by).assign(merger=name) for name in names]
    return pd.concat(parts, ignore_index=True)[["merger", *by, "mean", "half_width", "n"]]


def crossing(rows: pd.DataFrame, one: str, other: str = "arithmetic") -> pd.DataFrame:
    """The noise at which a merger falls behind another one, suite by suite.

    Parameters
    ----------
    rows : DataFrame
        From `stored_results("mergers_under_noise_suites")`, of one correlation.

    Returns
    -------
    DataFrame with columns seed and log_ratio: the natural logarithm of noise over signal where the difference of the
    two, linear in it between the measured levels, first is 0. NaN where it does not change its sign; noise of power 0
    is left out.
    """
    wide = rows[rows["mse"] > 0].pivot(index=["seed", "ratio"], columns="merger", values="normalized")
    found = []
    for seed, curve in (wide[one] - wide[other]).groupby("seed"):
        x, y = np.log(curve.index.get_level_values("ratio").to_numpy(float)), curve.to_numpy(float)
        order = np.argsort(x)
        x, y = x[order], y[order]
        falls = np.flatnonzero((y[:-1] > 0) & (y[1:] <= 0))
        place = int(falls[0]) if len(falls) else None
        at = np.nan if place is None else x[place] + (x[place + 1] - x[place]) * y[place] / (y[place] - y[place + 1])
        found.append((seed, float(at)))
    return pd.DataFrame(found, columns=["seed", "log_ratio"])


def best_at(rows: pd.DataFrame, correlations: Sequence[str]) -> pd.DataFrame:
    """Which mergers to choose, for each correlation and level of the noise, as text.

    Parameters
    ----------
    rows : DataFrame
        From `stored`.
    correlations : sequence of str

    Returns
    -------
    DataFrame of str with columns errors, noise/signal, best (the merger with the highest mean), accuracy (its, in %),
    not surely worse (those whose difference to it has an interval that reaches 0), and sum behind by (in points)
    """
    found = []
    for correlation in correlations:
        here = noisy(rows, correlation)
        for ratio, group in (here if correlation == correlations[0] else here[here["mse"] > 0]).groupby("ratio"):
            top = group.loc[group["mean"].idxmax()]
            level = group[(group["merger"] != top["merger"]) & (group["behind"] <= group["behind_width"])]
            plain = group.set_index("merger").loc["arithmetic"]
            found.append({
                "errors": correlation if float(str(ratio)) else "none",
                "noise/signal": f"{ratio:.2g}" if float(str(ratio)) < 100 else f"{ratio:.0f}",
                "best": short_title(top["merger"]),
                "accuracy": percent(top["mean"], top["half_width"]),
                "not surely worse": ", ".join(map(short_title, level.sort_values("behind")["merger"])) or "none",
                "sum behind by": percent(plain["behind"], plain["behind_width"]),
            })  # fmt: skip
    return pd.DataFrame(found)


_SHORT = {"arithmetic": "sum", "wudi": "WUDI", "multi-krum": "Multi-Krum", "median": "median"}


def short_title(name: str) -> str:
    """The title of a merger for labels in figures; what is done to the plain sum goes by its own name."""
    if name.startswith("arithmetic+"):
        return {"lines": "LiNeS", "svc": "SVC"}[name.removeprefix("arithmetic+")]
    return _SHORT.get(name, merger_named(name).title)


def under_faults(rows: pd.DataFrame, faults: Sequence[str]) -> pd.DataFrame:
    """Accuracy of the honest users' tasks with one faulty user, as text, for each merger and fault.

    Parameters
    ----------
    rows : DataFrame
        From `stored_results("mergers_under_noise_suites")`.
    faults : sequence of str
        Values of the column `faulty`, in the order of the columns.

    Returns
    -------
    DataFrame of str, one row per merger, "65 ± 3" in %; the mergers that lose the least come first.
    """
    known_names(faults, rows["faulty"].unique(), "fault")
    points = over_seeds(rows[rows["faulty"].isin(faults)], ["merger", "faulty"])
    points["text"] = [percent(row.mean, row.half_width) for row in points.itertuples()]
    least = points.groupby("merger")["mean"].min().sort_values(ascending=False)
    wide = points.pivot(index="merger", columns="faulty", values="text")
    return wide.loc[least.index, [*faults]].rename(index=short_title)


def fault_losses(rows: pd.DataFrame) -> pd.DataFrame:
    """What a faulty user takes from the tasks of the others: mean loss over the suites, in points.

    Parameters
    ----------
    rows : DataFrame
        From `stored_results("mergers_under_noise_suites")`.

    Returns
    -------
    DataFrame with one row per merger, and a column for each fault
    """
    means = over_seeds(rows[rows["faulty"] != "none"], ["merger", "faulty"])
    wide = 100 * means.pivot(index="merger", columns="faulty", values="mean")
    return wide.rsub(wide["nothing"], axis=0).drop(columns="nothing")


def costs(taus: Sequence[TaskVector], names: Sequence[str], repeats: int = 3) -> pd.DataFrame:
    """Processor time that merging these vectors takes, the least of some repetitions, and its ratio to the first.

    Parameters
    ----------
    names : sequence of str
        Mergers that need nothing beyond the vectors and random numbers.
    repeats : int
        Repetitions; a merger that takes longer than `LONG` has no more of them.

    Returns
    -------
    DataFrame with columns merger, milliseconds, ratio
    """
    whole_number(repeats, "repeats")
    times: dict[str, float] = {}
    for name in names:
        taken = []
        for _ in range(repeats):
            start = time.process_time()
            merge(name, taus, generator=torch.Generator().manual_seed(0))
            taken.append(time.process_time() - start)
            if taken[-1] > LONG:
                break
        times[name] = 1000 * min(taken)
    first = next(iter(times.values()))
    return pd.DataFrame([(name, ms, ms / first) for name, ms in times.items()],
                        columns=["merger", "milliseconds", "ratio"])  # fmt: skip


def apart(one: TaskVector, other: TaskVector) -> Mapping[str, float]:
    """How different two merged vectors are: the share of their entries that differ, and their cosine."""
    a, b = one.values, other.values
    size = one.norm * other.norm
    return {
        "entries": float(((a - b).abs() > 1e-6 * float(a.abs().max())).float().mean()),
        "cosine": float(a.double() @ b.double()) / size if size else 1.0,
    }
