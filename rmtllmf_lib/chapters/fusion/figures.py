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

from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, RED
from rmtllmf_lib.protection.resilience import PROTECTIONS
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import NO_LINK
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.transport.scenario import CLEAN

# protections that train: colour and marker
TRAINED = {"rmtllmf": (BLUE, "o"), "noise-aware": (GREEN, "D"), "control": (ORANGE, "s")}


def gallery(tasks: Mapping[str, Task], per_task: int = 10) -> Figure:
    """A row of test images per task, one per class as far as they go, with the class names below them."""
    figure, axes = plt.subplots(len(tasks), per_task, figsize=(0.92 * per_task, 1.24 * len(tasks)), squeeze=False)
    for row, task in zip(axes, tasks.values(), strict=True):
        labels = np.asarray(task.test.labels)
        for column, ax in enumerate(row):
            ax.set_axis_off()
            places = np.flatnonzero(labels == column)
            if not len(places):  # no such class, or no test image of it
                continue
            image = task.test.images[int(places[0])]
            ax.imshow(image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image, interpolation="nearest")
            ax.set_title(task.class_names[column].replace(" sign", ""), fontsize=8, pad=2)
        row[0].text(
            -0.12, 0.5, task.title, transform=row[0].transAxes, rotation=90, va="center", ha="right", fontsize=7
        )
    return figure


def single_tasks(table: pd.DataFrame, titles: Mapping[str, str]) -> Axes:
    """Zero-shot against fine-tuned accuracy per task, with chance (table of `Suite.single_task_table`)."""
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
    """Cosine similarity of every pair of task vectors, (n, n), the diagonal left out of the colours."""
    _, ax = plt.subplots(figsize=(5.6, 4.6))
    shown = np.where(np.eye(len(cosines), dtype=bool), np.nan, np.round(cosines, 2) + 0.0)  # + 0.0: no "-0.00"
    limits = {"vmin": min(0.0, float(np.nanmin(shown))), "vmax": max(0.3, float(np.nanmax(shown)))}
    sns.heatmap(
        shown, annot=True, fmt=".2f", cmap="viridis", ax=ax, square=True, annot_kws={"fontsize": 8}, **limits,
        xticklabels=list(names), yticklabels=list(names), cbar_kws={"label": "cosine similarity"},
    )  # fmt: skip
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="y", rotation=0)
    ax.grid(False)
    return ax


def lambda_sweep(table: pd.DataFrame, chosen: Mapping[int, float]) -> Axes:
    """Normalised validation accuracy against lambda, one curve per N (columns lam, score, n_tasks), choices marked."""
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
    ax.fill_between(n, low, high, color=BLUE, alpha=0.18, lw=0, label="10–90 % of the combinations")
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
        Of `run_study`: "unprotected" and "base", and the scenario "clean". Lines are means over combinations, tasks and
        seeds; bands, without one for "base", reach from the lowest to the highest combination.
    few : DataFrame
        Of `run_study`, protections that train. Points are means, bars 95 % intervals over seeds, dots combinations.
    scenarios : names in both tables and in `PAPER_LINKS`, whose figures for eight tasks are stars at the right
    """
    figure, axes = plt.subplots(1, len(scenarios), figsize=(3.2 * len(scenarios), 4.6), sharey=True, squeeze=False)
    sizes = sorted(table["n_tasks"].unique())
    for ax, scenario in zip(axes[0], scenarios, strict=True):
        for name, own, label, colour, line in (
            ("unprotected", CLEAN.name, "no noise", GREY, "--"),
            ("unprotected", scenario, "unprotected", RED, "-"),
            ("base", NO_LINK, "base, zero-shot", GREY, ":"),
        ):
            rows = table[(table["protection"] == name) & (table["scenario"] == own)]
            _mean_and_range(ax, rows, {"color": colour, "linestyle": line, "label": label}, shaded=name != "base")
        for shift, (name, (colour, marker)) in zip((-0.22, 0.0, 0.22), TRAINED.items(), strict=True):
            own = scenario if PROTECTIONS[name].receives else NO_LINK
            rows = few[(few["protection"] == name) & (few["scenario"] == own)]
            points = over_seeds(rows, ["n_tasks"]).sort_values("n_tasks")
            single = rows.groupby(["n_tasks", "combination"], as_index=False)["normalized"].mean()
            style: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 3, "markersize": 6, "linewidth": 1}
            half = 100 * points["half_width"].fillna(0.0)
            ax.errorbar(points["n_tasks"] + shift, 100 * points["mean"], half, label=PROTECTIONS[name].title, **style)
            ax.plot(single["n_tasks"] + shift, 100 * single["normalized"], ".", color=colour, alpha=0.5, markersize=4)
        paper = PAPER_LINKS[scenario]
        stars = [(sum(paper.unprotected) / 2, RED), (paper.rmtllmf, BLUE)]
        for value, colour in stars:
            ax.plot(8.5, 100 * value, "*", color=colour, markersize=13, markeredgecolor="black", zorder=5)
        ax.plot([], [], "*", color="white", markersize=12, markeredgecolor="black", label="the paper, N = 8")
        ax.set(xlabel="number of fused tasks N", xticks=sizes, xlim=(sizes[0] - 0.5, 9), ylim=(0, 108))
        ax.set_title(f"{scenario}, MSE {paper.mse:g}", fontsize=10)
    axes[0][0].set_ylabel("normalised accuracy (%)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8.5, frameon=False)
    return figure


def _mean_and_range(ax: Axes, rows: pd.DataFrame, style: Mapping[str, Any], shaded: bool) -> None:
    """A line through the means and a band over all combinations, each averaged over tasks and seeds."""
    single = rows.groupby(["n_tasks", "combination"])["normalized"].mean().groupby("n_tasks")
    n = np.array(sorted(single.groups))
    if shaded:
        ax.fill_between(n, 100 * single.min(), 100 * single.max(), color=style["color"], alpha=0.2, lw=0)
    ax.plot(n, 100 * single.mean(), **style)


def accuracy_per_task(table: pd.DataFrame, titles: Mapping[str, str]) -> Axes:
    """Accuracy of each task in each condition, in %.

    Parameters
    ----------
    table : DataFrame
        One row per condition, one column per task, in [0, 1].
    titles : mapping of task to title
    """
    _, ax = plt.subplots(figsize=(7.6, 0.42 * len(table) + 1.6))
    sns.heatmap(
        100 * table, ax=ax, annot=True, fmt=".0f", cmap="cividis", vmin=0, vmax=100, cbar=False,
        xticklabels=[titles[name] for name in table.columns], annot_kws={"fontsize": 9}, linewidths=0.5,
    )  # fmt: skip
    plt.setp(ax.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="", ylabel="")
    return ax


def link_to_fusion(scenarios: Mapping[str, Sequence[float]], points: pd.DataFrame) -> Figure:
    """Users' MSEs of link scenarios, and the accuracy of all tasks fused under them.

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
        height = rows["label"].map(place) - shift
        half = 100 * rows["half_width"].fillna(0.0)
        right.errorbar(100 * rows["mean"], height, xerr=half, fmt=marker, color=colour, capsize=3, label=name)
    right.set(xlabel="normalised accuracy, all tasks fused (%)", xlim=(0, 100))
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8.5, frameon=False)
    return figure
