"""Figures of the chapter on sending less."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, LINKS, METHODS, ORANGE, PURPLE, RED

_NORMALISED = "normalised accuracy (%)"

# Curves of `answer`: protection to title, colour, marker and line style.
CURVES = {
    "coded-tsv-realigned": ("the answer, under attack", *METHODS["coded-tsv-realigned"]),
    "rmtllmf": ("R-MTLLMF, full vectors, no noise", *METHODS["rmtllmf"]),
    "few-shot-specialists": ("own specialists, no link", *METHODS["few-shot-specialists"]),
    "control": ("base realigned, no link", *METHODS["control"]),
}
# The same methods without a memory.
WITHOUT = {"coded-tsv": "coded-tsv-realigned", "unprotected": "rmtllmf", "base": "control"}

DIFFICULTIES = ("easy", "calibrated", "hard")  # in the order of the axis

_MERGED = {
    "specialists": ("own specialists", GREY, "P"),
    "arithmetic": ("plain sum", BLUE, "o"),
    "tsv": ("TSV-Merge", ORANGE, "s"),
}
_UPLOADS = {"clean": ("FedAvg, exact uploads", GREEN, "o", "-"), "SR": ("FedAvg, errors of SR", RED, "^", "--")}


def rates(table: pd.DataFrame) -> Axes:
    """Squared error against channel uses for each link: with ideal codes, and with repetition.

    Parameters
    ----------
    table : DataFrame
        From `tables.rates`.
    """
    _, ax = plt.subplots(figsize=(6.8, 4.2))
    for link, rows in table.groupby("link", sort=False):
        colour, marker = LINKS[str(link)]
        mse = rows["mse"].iloc[0]
        ax.plot(rows["uses"], rows["coded"], color=colour, label=f"{link}, MSE {mse:g}")
        ax.plot(rows["uses"], rows["repeated"], color=colour, linestyle="--")
        ax.plot(rows["uses"], rows["feedback"], marker, color=colour, fillstyle="full")
        ax.plot(rows["uses"], rows["averaged"], marker, color=colour, fillstyle="none")
    ax.plot([], [], color="black", label="ideal codes")
    ax.plot([], [], color="black", linestyle="--", label="the symbol repeated")
    ax.plot([], [], "o", color="black", label="sampled, with feedback")
    ax.plot([], [], "o", color="black", fillstyle="none", label="sampled, repeated")
    ax.set(yscale="log", xlabel="channel uses for two numbers", ylabel="squared error over variance", ylim=(1e-8, 1))
    ax.set_xticks(sorted(set(table["uses"])))
    ax.legend(fontsize=8, loc="lower left", ncols=2)
    return ax


def payloads(rows: pd.DataFrame, whole: Mapping[str, float], budget: float) -> Figure:
    """Normalised accuracy against the bits of a user, one panel for each merger.

    Parameters
    ----------
    rows : DataFrame
        Coded payloads of the book's results "payloads": payload, bits, bits_a_user, merger, mean, half_width.
    whole : dict of merger to the accuracy of whole vectors as floats, without noise
    budget : float
        Bits that QPSK 1/2 carries in the channel uses of one whole vector.
    """
    titles = {"arithmetic": "plain sum", "tsv": "TSV-Merge"}
    figure, axes = style.panels(titles.values(), 4.1, 4.6, _NORMALISED)
    kinds = {"rank": ("low rank", BLUE, "o"), "largest": ("largest entries", ORANGE, "s"),
             "signs": ("signs", PURPLE, "D"), "full": ("all numbers", GREY, "P")}  # fmt: skip
    for ax, merger in zip(axes, titles, strict=True):
        ax.axhline(100 * whole[merger], color="black", linewidth=1, linestyle="--", label="whole vectors, no noise")
        ax.axvline(budget, color=RED, linewidth=1, linestyle=":", label="fits at MSE 0.40")
        for kind, (label, colour, marker) in kinds.items():
            here = rows[(rows["merger"] == merger) & rows["payload"].str.startswith(kind)]
            look = {**style.look(label, colour, marker, "none"), "markersize": 5}
            style.with_intervals(ax, here["bits_a_user"], here, factor=100, **look)
        ranked = rows[(rows["merger"] == merger) & rows["payload"].str.startswith("rank") & (rows["bits"] == 2)]
        for row in ranked.itertuples():
            text, lowest = str(row.payload).removeprefix("rank "), 100 * (row.mean - row.half_width)
            ax.annotate(text, (row.bits_a_user, lowest), (0, -11), textcoords="offset points", ha="center", fontsize=8)
        ax.set(xscale="log", xlabel="bits of a user")
    style.legend_above(figure, axes[0], ncols=3)
    return figure


def thresholds(table: pd.DataFrame, points: pd.DataFrame, mses: Mapping[str, float]) -> Axes:
    """The MSEs at which each code decodes, and the paper's three.

    Parameters
    ----------
    table : DataFrame
        From `tables.threshold_table`.
    points : DataFrame
        From `tables.word_error_points`.
    mses : dict of link to its mean MSE
    """
    _, ax = plt.subplots(figsize=(7.0, 3.4))
    names = list(table["mcs"])
    ax.barh(range(len(names)), table["mse"], color=BLUE, alpha=0.35, height=0.6, label="decodes")
    for wrong, label, fill in ((False, "no word wrong", "full"), (True, "some words wrong", "none")):
        rows = points[(points["errors"] > 0) == wrong]
        ax.plot(rows["mse"], [names.index(name) for name in rows["mcs"]], "o", color="black", fillstyle=fill,
                markersize=5, label=label)  # fmt: skip
    for link, mse in mses.items():
        colour, _ = LINKS[link]
        ax.axvline(mse, color=colour, linestyle="--", linewidth=1.5)
        ax.annotate(link, (mse, len(names) - 0.45), ha="center", fontsize=9, color=colour, annotation_clip=False)
    ax.set(xscale="log", xlabel="MSE of a user's symbols", xlim=(0.01, 1), ylim=(-0.6, len(names) - 0.5))
    ax.set_yticks(range(len(names)), names)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False)
    return ax


def answer(rows: pd.DataFrame, attacked: pd.DataFrame, per_class: int = 1) -> Figure:
    """Normalised accuracy against the memory and, where there are several, against the number of tasks.

    Parameters
    ----------
    rows : DataFrame
        Of the book's results "the_answer", one difficulty; of the rule "chosen" where lambda is.
    attacked : DataFrame
        R-MTLLMF under SR, with lambda chosen for that noise: n_tasks, per_class, mean, half_width.
    per_class : int
        Of the memory at the right.
    """
    known = rows.assign(curve=rows["protection"].replace(WITHOUT))
    most, sizes = known["n_tasks"].max(), known["n_tasks"].nunique()
    titles = [f"{most} tasks", f"{per_class} image per class" if per_class == 1 else f"{per_class} images per class"]
    figure, axes = style.panels(titles[: min(sizes, 2)], 4.1 if sizes > 1 else 6.0, 4.6, _NORMALISED)
    panels = (("per_class", known["n_tasks"] == most), ("n_tasks", known["per_class"] == per_class))
    under = attacked[attacked["n_tasks"] == most], attacked[attacked["per_class"] == per_class]
    for ax, (column, here), noisy in zip(axes, panels, under, strict=False):
        places = sorted(set(known.loc[here, column]))
        for name, (label, *look) in CURVES.items():
            curve = known[here & (known["curve"] == name)].sort_values(column)
            if curve.empty:
                continue
            x = [places.index(each) for each in curve[column]]
            style.with_intervals(ax, x, curve, factor=100, markersize=6, **style.look(label, *look))
        shown = noisy[noisy[column].isin(places)].sort_values(column)
        if not shown.empty:
            x = [places.index(each) for each in shown[column]]
            crosses = style.look("R-MTLLMF, under attack", RED, "x", "none")
            style.with_intervals(ax, x, shown, factor=100, markersize=7, **crosses)
        ax.set_xticks(range(len(places)), [f"{each}" for each in places])
        ax.margins(x=0.1)
    for ax, label in zip(axes, ("memory, images per class", "tasks that are fused"), strict=False):
        ax.set_xlabel(label)
    style.label_last(figure, axes)
    return figure


def difficulties(rows: pd.DataFrame) -> Figure:
    """Normalised accuracy at each difficulty, with a panel for each memory.

    Parameters
    ----------
    rows : DataFrame
        Of the book's results "the_answer", one number of tasks, of several difficulties; of the rule "chosen" where
        lambda is.
    """
    known = rows.assign(curve=rows["protection"].replace(WITHOUT))
    places = [name for name in DIFFICULTIES if name in set(known["difficulty"])]
    memories = [k for k, part in known.groupby("per_class") if part["difficulty"].nunique() == len(places)]
    titles = [f"{k or 'no'} image{'s' * (k != 1)} per class" for k in memories]
    figure, axes = style.panels(titles, 3.1, 4.2, _NORMALISED)
    for ax, k in zip(axes, memories, strict=True):
        for name, (label, *look) in CURVES.items():
            curve = known[(known["per_class"] == k) & (known["curve"] == name)]
            if curve["difficulty"].nunique() < len(places):
                continue
            points = curve.set_index("difficulty").loc[places]
            style.with_intervals(ax, range(len(places)), points, factor=100, markersize=6, **style.look(label, *look))
        ax.set_xticks(range(len(places)), places)
        ax.margins(x=0.15)
    axes[len(axes) // 2].set_xlabel("difficulty of the tasks")
    style.legend_above(figure, axes[0], ncols=3)
    return figure


def steps(rows: pd.DataFrame) -> Axes:
    """Normalised accuracy after each step from the paper's method to the answer, points with intervals over suites.

    Parameters
    ----------
    rows : DataFrame
        step, mean, half_width, in order.
    """
    _, ax = plt.subplots(figsize=(7.4, 0.55 * len(rows) + 1.2))
    place = np.arange(len(rows))
    style.with_intervals(ax, place, rows, factor=100, sideways=True, fmt="o", color=BLUE, markersize=7)
    for height, row in zip(place, rows.itertuples(), strict=True):
        text = f"{100 * row.mean:.1f}"
        ax.annotate(text, (100 * row.mean, height), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    ax.set_yticks(place, rows["step"])
    ax.invert_yaxis()
    ax.margins(y=0.15)
    ax.set_xlabel(_NORMALISED)
    return ax


def outage(rows: pd.DataFrame) -> Axes:
    """Normalised accuracy against the number of users from whom nothing arrived.

    Parameters
    ----------
    rows : DataFrame
        lost, tasks ("all", "heard" or "lost"), mean, half_width.
    """
    _, ax = plt.subplots(figsize=(6.4, 4.0))
    looks = {"heard": ("tasks that were heard", GREEN, "s", "-"), "all": ("all tasks", BLUE, "o", "-"),
             "lost": ("tasks that were lost", RED, "^", "-")}  # fmt: skip
    for tasks, (label, *look) in looks.items():
        curve = rows[rows["tasks"] == tasks].sort_values("lost")
        style.with_intervals(ax, curve["lost"], curve, factor=100, markersize=6, **style.look(label, *look))
    ax.set(xlabel="users in outage, of eight", ylabel=_NORMALISED)
    style.label_lines(ax)
    return ax


def signs(rows: pd.DataFrame) -> Figure:
    """Normalised accuracy of whole vectors sent analog, with plain and with balanced signs.

    Parameters
    ----------
    rows : DataFrame
        link, correlation, signs, mean, half_width.
    """
    figure, axes = style.panels([f"errors {each}" for each in ("half common", "common")], 3.8, 3.4, _NORMALISED)
    links = list(dict.fromkeys(rows["link"]))
    for ax, correlation in zip(axes, ("half", "common"), strict=True):
        for shift, (kind, colour) in enumerate((("plain", GREY), ("balanced", BLUE))):
            here = rows[(rows["correlation"] == correlation) & (rows["signs"] == kind)].set_index("link").loc[links]
            x = np.arange(len(links)) + 0.36 * shift - 0.18
            ax.bar(x, 100 * here["mean"], 0.34, yerr=100 * here["half_width"], color=colour, capsize=3, label=kind)
        ax.set_xticks(range(len(links)), links)
        ax.set_ylim(0, 100)
    style.legend_above(figure, axes[0], ncols=2)
    return figure


def low_rank(rows: pd.DataFrame) -> Axes:
    """Normalised accuracy of what is trained, a row for each, alone and merged.

    Parameters
    ----------
    rows : DataFrame
        Of the book's results "low_rank_and_rounds": method, numbers, merger, mean, half_width.
    """
    here = rows[rows["method"] != "FedAvg"]
    names = list(dict.fromkeys(here["method"]))
    sizes = here.groupby("method")["numbers"].first()
    _, ax = plt.subplots(figsize=(7.4, 3.6))
    for shift, (merger, (label, colour, marker)) in zip((-0.2, 0.0, 0.2), _MERGED.items(), strict=True):
        points = here[here["merger"] == merger].set_index("method").loc[names]
        place = np.arange(len(names)) + shift
        look = style.look(label, colour, marker, "none")
        style.with_intervals(ax, place, points, factor=100, sideways=True, **look)
    ax.set_yticks(range(len(names)), [f"{name}\n{sizes[name]:,} numbers" for name in names], fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="normalised accuracy, against specialists of whole weights (%)")
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, 1.16), ncols=3, frameon=False)
    return ax


def rounds(rows: pd.DataFrame) -> Axes:
    """Normalised accuracy of federated averaging against channel uses, with one upload of each kind beside it.

    Parameters
    ----------
    rows : DataFrame
        Of the book's results "low_rank_and_rounds": method, merger, link, round, uses, mean, half_width.
    """
    _, ax = plt.subplots(figsize=(7.2, 4.2))
    for link, (label, colour, marker, line) in _UPLOADS.items():
        points = rows[(rows["method"] == "FedAvg") & (rows["link"] == link)].sort_values("round")
        style.with_intervals(ax, points["uses"], points, factor=100, **style.look(label, colour, marker, line))
    for merger, (method, label, colour, marker) in {
        "arithmetic": ("full", "whole vectors, plain sum", BLUE, "D"),
        "tsv": ("full", "whole vectors, TSV-Merge", ORANGE, "s"),
    }.items():
        point = rows[(rows["method"] == method) & (rows["merger"] == merger)]
        style.with_intervals(ax, point["uses"], point, factor=100, **style.look(label, colour, marker, "none"))
    best = rows[rows["method"].str.contains("LoRA") & (rows["merger"] == "arithmetic")]
    style.with_intervals(ax, best["uses"], best, factor=100, **style.look("LoRA, L-LoRA, plain sum", GREY, "P", "none"))
    ax.set(xscale="log", xlabel="channel uses of a user, two numbers in each", ylabel="normalised accuracy (%)")
    ax.legend(fontsize=8, loc="upper left")
    return ax
