"""Figures of the chapter on fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.style import BLUE, GREY, ORANGE, RED
from rmtllmf_lib.protection.resilience import PROTECTIONS
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import NO_LINK
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.transport.scenario import CLEAN

TRAINED = ("rmtllmf", "noise-aware", "control")


def gallery(tasks: Mapping[str, Task], per_task: int = 10) -> Figure:
    """A row of test images per task, one of each class until the row is full, below the names of the classes.

    Parameters
    ----------
    tasks : mapping of name to Task
    per_task : int
        Images in a row.
    """
    figure, axes = plt.subplots(len(tasks), per_task, figsize=(0.92 * per_task, 1.24 * len(tasks)), squeeze=False)
    for row, task in zip(axes, tasks.values(), strict=True):
        labels = np.asarray(task.test.labels)
        for column, ax in enumerate(row):
            ax.set_axis_off()
            places = np.flatnonzero(labels == column)
            if not len(places):  # no such class, or no test image of it
                continue
            image = task.test.inputs[int(places[0])]
            ax.imshow(image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image, interpolation="nearest")
            ax.set_title(task.class_names[column].replace(" sign", ""), fontsize=8, pad=2)
        beside = {"transform": row[0].transAxes, "rotation": 90, "va": "center", "ha": "right", "fontsize": 8}
        row[0].text(-0.12, 0.5, task.title, **beside)
    return figure


def single_tasks(table: pd.DataFrame, titles: Mapping[str, str]) -> Axes:
    """Zero-shot and fine-tuned accuracy of each task, with chance.

    Parameters
    ----------
    table : DataFrame
        task, classes, zero_shot, fine_tuned, from `Suite.score`.
    titles : mapping of task to title
    """
    _, ax = plt.subplots(figsize=(7.4, 3.4))
    place = np.arange(len(table))
    ax.bar(place - 0.2, 100 * table["zero_shot"], 0.38, color=ORANGE, label="zero-shot")
    ax.bar(place + 0.2, 100 * table["fine_tuned"], 0.38, color=BLUE, label="fine-tuned on this task")
    ax.hlines(100 / table["classes"], place - 0.42, place + 0.42, color="black", linestyle=":", label="chance")
    ax.set_xticks(place, [titles[name] for name in table["task"]], rotation=25, ha="right")
    ax.set(ylabel="test accuracy (%)", ylim=(0, 100))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.17), ncols=3, frameon=False)
    return ax


def cosine_heatmap(cosines: np.ndarray, names: Sequence[str]) -> Axes:
    """Cosine similarity of every pair of task vectors, without the diagonal.

    Parameters
    ----------
    cosines : (n, n) float
    names : n labels
    """
    _, ax = plt.subplots(figsize=(5.6, 4.6))
    shown = np.where(np.eye(len(cosines), dtype=bool), np.nan, np.round(cosines, 2) + 0.0)  # + 0.0: no "-0.00"
    limits = {"vmin": min(0.0, float(np.nanmin(shown))), "vmax": max(0.3, float(np.nanmax(shown)))}
    bar: dict[str, Any] = {"cbar": True, "cbar_kws": {"label": "cosine similarity"}, "annot_kws": {"fontsize": 8}}
    style.heatmap(ax, shown, names, names, fmt=".2f", cmap="viridis", square=True, **limits, **bar)
    return ax


def lambda_sweep(table: pd.DataFrame, chosen: Mapping[int, float]) -> Axes:
    """Normalised accuracy on validation images against lambda, a curve for each N, with the choices circled.

    Parameters
    ----------
    table : DataFrame
        lam, score, n_tasks.
    chosen : mapping of N to lambda_N
    """
    _, ax = plt.subplots(figsize=(6.4, 3.8))
    colours = sns.color_palette("viridis", len(chosen))
    for colour, (n, lam) in zip(colours, sorted(chosen.items()), strict=True):
        curve = table[table["n_tasks"] == n]
        ax.plot(curve["lam"], 100 * curve["score"], color=colour, marker=".", label=f"N = {n}")
        best = curve[np.isclose(curve["lam"], lam)]
        ax.plot(best["lam"], 100 * best["score"], "o", markersize=9, markerfacecolor="none", markeredgecolor=colour)
    ax.set(xlabel=r"$\lambda_N$", ylabel="normalised accuracy,\nvalidation images (%)")
    ax.legend(ncols=2, fontsize=8)
    return ax


def accuracy_against_n(table: pd.DataFrame, published: pd.DataFrame) -> Axes:
    """Normalised accuracy over all combinations of N tasks: mean, 10–90 % band, every combination, published curve.

    Parameters
    ----------
    table : DataFrame
        A row per combination: n_tasks, normalized.
    published : DataFrame
        n_tasks, normalized of another model.
    """
    _, ax = plt.subplots(figsize=(6.6, 4.0))
    groups = table.groupby("n_tasks")["normalized"]
    n = np.array(sorted(groups.groups))
    low, high = (100 * groups.quantile(q).to_numpy() for q in (0.1, 0.9))
    ax.fill_between(n, low, high, color=BLUE, alpha=0.18, linewidth=0, label="10–90 % of the combinations")
    jitter = np.random.default_rng(0).uniform(-0.12, 0.12, len(table))
    ax.plot(table["n_tasks"] + jitter, 100 * table["normalized"], ".", color=BLUE, alpha=0.3, markersize=4)
    ax.plot(n, 100 * groups.mean().to_numpy(), "o-", color=BLUE, label="embedded CLIP, mean")
    ax.plot(published["n_tasks"], 100 * published["normalized"], "s--", color=ORANGE, label="ViT-B/16, published")
    ax.set(xlabel="number of fused tasks N", ylabel="normalised accuracy (%)", xticks=n)
    ax.legend(loc="lower left", fontsize=8)
    return ax


def accuracy_under_noise(table: pd.DataFrame, few: pd.DataFrame, scenarios: Sequence[str]) -> Figure:
    """Normalised accuracy against the number of fused tasks, one panel per scenario (the paper's Figure 2).

    Parameters
    ----------
    table : DataFrame
        From `run_study`: "unprotected" and "base", and the scenario "clean". Lines are means over combinations, tasks
        and seeds; bands, without one for "base", reach from the lowest to the highest combination.
    few : DataFrame
        From `run_study`, protections that train. Points are means, bars 95 % intervals over seeds, dots combinations.
    scenarios : names in both tables and in `PAPER_LINKS`, whose values for eight tasks are stars at the right
    """
    titles = [f"{name}, MSE {PAPER_LINKS[name].mse:g}" for name in scenarios]
    figure, axes = style.panels(titles, 3.2, 4.6, "normalised accuracy (%)")
    sizes = sorted(table["n_tasks"].unique())
    for ax, scenario in zip(axes, scenarios, strict=True):
        for name, link, alpha, look in (
            ("unprotected", CLEAN.name, 0.2, style.look("no noise", GREY, linestyle="--")),
            ("unprotected", scenario, 0.2, style.look("unprotected", RED)),
            ("base", NO_LINK, 0.0, style.look("base, zero-shot", GREY, linestyle=":")),
        ):
            means = 100 * _combinations(table, name, link)
            low, middle, high = (means.groupby("n_tasks").agg(how) for how in ("min", "mean", "max"))
            style.with_band(ax, middle.index, low, middle, high, alpha, **look)
        for shift, name in zip((-0.22, 0.0, 0.22), TRAINED, strict=True):
            colour, marker, _ = style.METHODS[name]
            link = scenario if PROTECTIONS[name].receives else NO_LINK
            rows = few[(few["protection"] == name) & (few["scenario"] == link)]
            points = over_seeds(rows, ["n_tasks"]).sort_values("n_tasks")
            look = style.look(PROTECTIONS[name].title, colour, marker) | {"markersize": 6, "linewidth": 1}
            style.with_intervals(ax, points["n_tasks"] + shift, points, factor=100, **look)
            single = _combinations(few, name, link).reset_index("n_tasks")
            ax.plot(single["n_tasks"] + shift, 100 * single["normalized"], ".", color=colour, alpha=0.5, markersize=4)
        paper = PAPER_LINKS[scenario]
        for value, colour in ((sum(paper.unprotected) / 2, RED), (paper.rmtllmf, BLUE)):
            ax.plot(8.5, 100 * value, "*", color=colour, markersize=13, markeredgecolor="black", zorder=5)
        ax.plot([], [], "*", color="white", markersize=12, markeredgecolor="black", label="the paper, N = 8")
        ax.set(xlabel="number of fused tasks N", xticks=sizes, xlim=(sizes[0] - 0.5, 9), ylim=(0, 108))
    style.legend_above(figure, axes[0], ncols=4, fontsize=8.5)
    return figure


def _combinations(table: pd.DataFrame, protection: str, scenario: str) -> pd.Series:
    """Return the normalised accuracy of each (n_tasks, combination), mean over tasks and seeds."""
    rows = table[(table["protection"] == protection) & (table["scenario"] == scenario)]
    return rows.groupby(["n_tasks", "combination"])["normalized"].mean()


def accuracy_per_task(table: pd.DataFrame, titles: Mapping[str, str]) -> Axes:
    """Accuracy of each task in each condition, in %.

    Parameters
    ----------
    table : DataFrame
        One row per condition, one column per task, in [0, 1].
    titles : mapping of task to title
    """
    _, ax = plt.subplots(figsize=(7.6, 0.42 * len(table) + 1.6))
    columns = [titles[name] for name in table.columns]
    colours = {"cmap": "cividis", "vmin": 0, "vmax": 100, "linewidths": 0.5}
    style.heatmap(ax, 100 * table, table.index, columns, rotation=35, fmt=".0f", **colours)
    ax.set(xlabel="", ylabel="")
    return ax


def link_to_fusion(scenarios: Mapping[str, Sequence[float]], points: pd.DataFrame) -> Figure:
    """MSEs of the users in link scenarios, and the accuracy of all tasks fused under them.

    Parameters
    ----------
    scenarios : mapping of label to the users' MSEs, from the top down
    points : DataFrame
        label, curve, mean, half_width; a colour for each curve.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 0.52 * len(scenarios) + 1.9), sharey=True)
    place = {label: -row for row, label in enumerate(scenarios)}
    for label, mses in scenarios.items():
        left.plot(mses, np.full(len(mses), place[label]), "o", color=BLUE, alpha=0.5, markersize=6)
        left.plot(np.mean(mses), place[label], "|", color="black", markersize=16, markeredgewidth=2)
    left.set(xscale="log", xlabel="MSE of each user (dots), mean (line)")
    left.set_yticks(list(place.values()), list(place))
    looks = zip((RED, GREY, BLUE), ("o", "s", "D"), (-0.15, 0.0, 0.15), strict=True)
    for (name, rows), (colour, marker, shift) in zip(points.groupby("curve", sort=False), looks, strict=False):
        look = style.look(str(name), colour, marker, "none")
        style.with_intervals(right, rows["label"].map(place) - shift, rows, factor=100, sideways=True, **look)
    right.set(xlabel="normalised accuracy, all tasks fused (%)", xlim=(0, 100))
    style.legend_above(figure, right, ncols=3, fontsize=8.5, loc="outside upper right")
    return figure
