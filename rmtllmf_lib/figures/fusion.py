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

from rmtllmf_lib.figures import BLUE, GREEN, GREY, ORANGE, RED
from rmtllmf_lib.intervals import over_seeds
from rmtllmf_lib.tasks.base import Task


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


def noise_and_reload(table: pd.DataFrame, clean: float) -> Figure:
    """Normalised accuracy of the fused model at each MSE, unprotected and with the embeddings reloaded.

    Parameters
    ----------
    table : DataFrame
        correlation, mse, seed, protection, normalized; one panel per correlation. Points are means over tasks and
        seeds, bars 95 % intervals (Student) over seeds.
    clean : float
        Normalised accuracy without noise.
    """
    panels = list(dict.fromkeys(table["correlation"]))
    figure, axes = plt.subplots(1, len(panels), figsize=(3.9 * len(panels), 3.6), sharey=True, squeeze=False)
    looks = {"unprotected": (RED, "o"), "embeddings reloaded": (GREEN, "s")}
    mses = sorted(table["mse"].unique())
    points = over_seeds(table, ["correlation", "mse", "protection"])
    for ax, correlation in zip(axes[0], panels, strict=True):
        ax.axhline(100 * clean, color=GREY, linestyle="--", label="no noise")
        for shift, (protection, (colour, marker)) in zip((-0.08, 0.08), looks.items(), strict=True):
            chosen = (points["correlation"] == correlation) & (points["protection"] == protection)
            curve = points[chosen].sort_values("mse")
            style: dict[str, Any] = {"fmt": marker, "color": colour, "capsize": 4, "label": protection}
            place = np.arange(len(curve)) + shift
            ax.errorbar(place, 100 * curve["mean"], 100 * curve["half_width"].fillna(0.0), **style)
        ax.set_xticks(range(len(mses)), [f"{mse:g}" for mse in mses])
        ax.set(xlabel="MSE of every user's link", ylim=(0, 100), xlim=(-0.5, len(mses) - 0.5))
        ax.set_title(f"noise {correlation} across users", fontsize=10)
    axes[0][0].set_ylabel("normalised accuracy,\nall tasks fused (%)")
    axes[0][-1].legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.0, 0.85))
    return figure
