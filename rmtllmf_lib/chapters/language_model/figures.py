"""Figures of the chapter on a language model."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.send_less import figures as send_less
from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY

_OF_BASE = {"zero_shot": ("zero-shot, by class names", GREY, "o"), "prototype": ("base with prototypes", ORANGE, "s"),
            "fine_tuned": ("fine-tuned", BLUE, "D")}  # fmt: skip

# Without a memory: protection and rule for lambda to label, colour and marker.
_WITHOUT = {
    ("unprotected", "given"): ("plain sum, published $\\lambda$", RED, "x"),
    ("freeze", "given"): ("embeddings reloaded, published $\\lambda$", ORANGE, "v"),
    ("unprotected", "chosen"): ("plain sum, $\\lambda$ chosen", PURPLE, "^"),
    ("freeze", "chosen"): ("embeddings reloaded, $\\lambda$ chosen", BLUE, "D"),
    ("merge-tsv", "chosen"): ("TSV-Merge", SKY, "o"),
    ("coded-tsv", "chosen"): ("the answer", GREEN, "*"),
    ("base", "given"): ("base, zero-shot", GREY, "P"),
}


def tasks(rows: pd.DataFrame) -> Axes:
    """Accuracy of base and specialist on each task, means over seeds.

    Parameters
    ----------
    rows : DataFrame
        task, classes, zero_shot, prototype, fine_tuned.
    """
    means = rows.groupby("task", sort=False)[["classes", *_OF_BASE]].mean()
    _, ax = plt.subplots(figsize=(7.0, 0.42 * len(means) + 1.2))
    place = np.arange(len(means))
    for column, (label, colour, marker) in _OF_BASE.items():
        ax.plot(100 * means[column], place, **style.look(label, colour, marker, "none"))
    ax.set_yticks(place, [f"{name} ({row.classes:.0f})" for name, row in means.iterrows()])
    ax.invert_yaxis()
    ax.margins(y=0.1)
    ax.set(xlabel="accuracy on test sentences (%)")
    ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.45, 1.16), ncols=3, frameon=False)
    return ax


def links(rows: pd.DataFrame, names: Mapping[str, str]) -> Axes:
    """Normalised accuracy without a memory, link by link.

    Parameters
    ----------
    rows : DataFrame
        scenario, protection, lam_rule, mean, half_width; of the book's results "language_model".
    names : mapping of scenario to its tick, in order
    """
    _, ax = plt.subplots(figsize=(7.2, 4.0))
    places = {scenario: place for place, scenario in enumerate(names)}
    for shift, ((protection, rule), (label, colour, marker)) in enumerate(_WITHOUT.items()):
        here = rows[(rows["protection"] == protection) & (rows["lam_rule"] == rule) & rows["scenario"].isin([*names])]
        if here.empty:
            continue
        x = here["scenario"].map(places).astype(float) + 0.1 * (shift - 3)
        look = style.look(label, colour, marker, "none")
        style.with_intervals(ax, x, here, factor=100, markersize=8, **look)
    ax.set_xticks(range(len(names)), list(names.values()))
    ax.set(ylabel="normalised accuracy (%)", xlim=(-0.5, len(names) - 0.5))
    ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 1.32), ncols=2, frameon=False)
    return ax


def drawn(table: pd.DataFrame, labels: Mapping[str, str]) -> Axes:
    """Accuracy of several models on the drawn tasks.

    Parameters
    ----------
    table : DataFrame
        task, classes, and a column for each model, accuracies as floats.
    labels : mapping of column to its name in the legend
    """
    _, ax = plt.subplots(figsize=(7.0, 0.42 * len(table) + 1.2))
    place = np.arange(len(table))
    looks = zip(labels.items(), ((GREY, "o"), (BLUE, "D"), (GREEN, "*"), (ORANGE, "v")), strict=False)
    for (column, label), (colour, marker) in looks:
        ax.plot(100 * table[column], place, **style.look(label, colour, marker, "none"))
    ax.plot(100 / table["classes"], place, "|", color="black", markersize=10, label="guessing")
    ax.set_yticks(place, [f"{row.task} ({row.classes})" for row in table.itertuples()])
    ax.invert_yaxis()
    ax.margins(y=0.1)
    ax.set(xlabel="accuracy on drawn sentences (%)")
    ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.45, 1.2), ncols=3, frameon=False)
    return ax


def answer(rows: pd.DataFrame, attacked: pd.DataFrame) -> Figure:
    """Normalised accuracy against the memory, as `send_less.figures.answer` has it for images.

    Parameters
    ----------
    rows, attacked : DataFrame
        Of the book's results "language_model"; the second of R-MTLLMF under attack alone.
    """
    figure = send_less.answer(rows, attacked)
    figure.axes[0].set_xlabel("memory, examples a class")
    return figure
