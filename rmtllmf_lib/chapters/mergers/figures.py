"""Figures of the chapter on mergers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.mergers.directions import survival
from rmtllmf_lib.chapters.mergers.tables import short_title
from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

# one look for each merger that has a colour, in every figure of the chapter; the others are thin and grey
LOOKS = {
    name: style.look(short_title(name), *look)
    for name, look in {
        "arithmetic": ("black", "o", "-"),
        "arithmetic+lines": (BLUE, "s", "-"),
        "trimmed-mean": (GREEN, "v", "-"),
        "tsv": (RED, "^", "--"),
        "iso-c": (ORANGE, "D", "--"),
        "wudi": (PURPLE, "P", "--"),
    }.items()
}

_ACCURACY = "normalised accuracy,\nall tasks fused (%)"
_NO_NOISE = 0.003  # where the axis of noise over signal has 0


def beside_published(points: pd.DataFrame, published: pd.Series, fine_tuned: float) -> Axes:
    """Normalised accuracy of every merger without noise, with intervals, beside published values of ViT-B/16.

    Parameters
    ----------
    points : DataFrame
        merger, mean, half_width.
    published : Series of float by merger
    fine_tuned : float
        Mean accuracy (%) that the published values are divided by.
    """
    rows = points.sort_values("mean").reset_index(drop=True)
    _, ax = plt.subplots(figsize=(7.0, 0.28 * len(rows) + 1.2))
    look = {"fmt": "o", "color": BLUE, "markersize": 6, "label": "here, five suites"}
    style.with_intervals(ax, np.arange(len(rows)), rows, factor=100, sideways=True, **look)
    known = [(place, 100 * published[name]) for place, name in enumerate(rows["merger"]) if name in published]
    ax.plot(*zip(*[(value, place) for place, value in known], strict=True), "D", color=ORANGE, fillstyle="none",
            markersize=7, label=f"published, ViT-B/16, over {fine_tuned:g} %")  # fmt: skip
    ax.set_yticks(range(len(rows)), [short_title(name) for name in rows["merger"]])
    ax.set(xlabel="normalised accuracy, eight tasks fused, no noise (%)", ylim=(-0.7, len(rows) - 0.3))
    ax.legend(fontsize=8, loc="lower right")
    return ax


def against_size(points: pd.DataFrame) -> Axes:
    """Normalised accuracy without noise against the number of tasks fused.

    Parameters
    ----------
    points : DataFrame
        n_tasks, merger, mean, half_width; mergers that were not measured with every number are left out.
    """
    _, ax = plt.subplots(figsize=(6.6, 4.2))
    sizes = sorted(points["n_tasks"].unique())
    points = points[points.groupby("merger")["n_tasks"].transform("nunique") == len(sizes)]
    _curves(ax, points, "n_tasks", {size: float(np.log2(size)) for size in sizes})
    ax.set_xticks(np.log2(sizes), [str(size) for size in sizes])
    ax.set(xlabel="number of tasks fused", ylabel="normalised accuracy (%)")
    ends = points[points["n_tasks"] == max(sizes)].set_index("merger")["mean"]
    _make_room(ax, "left", 0.3)
    _label(ax, float(np.log2(max(sizes))), {name: 100 * ends[name] for name in LOOKS if name in ends}, "left")
    return ax


def against_noise(panels: Mapping[str, pd.DataFrame], marks: Mapping[str, Sequence[float]]) -> Figure:
    """Normalised accuracy against the power of the noise over that of a task vector, one correlation below the other.

    Parameters
    ----------
    panels : dict of title to DataFrame
        ratio, merger, mean, half_width.
    marks : dict of text to numbers
        Ratios to mark by lines, and what they are.
    """
    size = (8.2, 2.7 * len(panels) + 0.7)
    figure, grid = plt.subplots(len(panels), 1, figsize=size, sharex=True, sharey=True, squeeze=False)
    axes = [ax for (ax,) in grid]
    for ax, (title, points) in zip(axes, panels.items(), strict=True):
        ratios = sorted(points["ratio"].unique())
        _curves(ax, points, "ratio", {ratio: float(np.log10(ratio or _NO_NOISE)) for ratio in ratios})
        for value in (value for values in marks.values() for value in values):
            ax.axvline(np.log10(value), color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        ax.set_title(title, fontsize=10, loc="left")
    _make_room(axes[0], "right", 0.16)
    for ax, points in zip(axes, panels.values(), strict=True):
        start = points[points["ratio"] == 0].set_index("merger")["mean"]
        _label(ax, float(np.log10(_NO_NOISE)), {name: 100 * start[name] for name in LOOKS if name in start}, "right")
    for text, values in marks.items():
        middle = float(np.mean(np.log10(values)))
        above: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8, "color": "dimgrey"}
        axes[0].annotate(text, (middle, 1), (0, 4), ("data", "axes fraction"), "offset points", **above)
    ticks = [_NO_NOISE, 0.01, 0.1, 1, 10, 100, 1000]
    axes[-1].set_xticks(np.log10(ticks), ["0", ".01", ".1", "1", "10", "100", "1,000"])
    axes[-1].set_xlabel("noise over task vector, power")
    figure.supylabel(_ACCURACY, fontsize=axes[-1].xaxis.label.get_fontsize(), ha="center", multialignment="center")
    return figure


def directions(rows: Mapping[str, pd.DataFrame], shares: pd.DataFrame) -> Figure:
    """What is left of singular directions against their strength, and of merged vectors against the noise.

    Parameters
    ----------
    rows : dict of label to DataFrame
        From `directions.alignment`, for each level of the noise.
    shares : DataFrame
        ratio, merger, kept.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.2))
    colours = (GREEN, BLUE, ORANGE, RED)
    for (label, points), colour in zip(rows.items(), colours, strict=False):
        thinned = points[:: max(1, len(points) // 700)]
        left.plot(thinned["strength"], thinned["overlap"], ".", color=colour, markersize=3, alpha=0.6, label=label)
    x = np.geomspace(0.03, 30, 200)
    left.plot(x, survival(x), color="black", linewidth=1.5, label="one direction alone, theory")
    left.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
    left.set_xscale("log")
    left.set(xlabel=r"strength $s/(\sigma (mn)^{1/4})$", ylabel="overlap with the direction sent", ylim=(-0.02, 1.02),
             xlim=(x[0], x[-1]))  # fmt: skip
    left.legend(fontsize=8, loc="upper left", markerscale=3)
    for name, curve in shares.groupby("merger", sort=False):
        right.plot(curve["ratio"], curve["kept"], markersize=6, **LOOKS[str(name)])
    right.set_xscale("log")
    right.set(xlabel="noise over task vector, power", ylabel="squared cosine to the result\nwithout noise",
              ylim=(-0.02, 1.02))  # fmt: skip
    right.legend(fontsize=8, loc="upper right")
    return figure


def _curves(ax: Axes, points: pd.DataFrame, column: str, places: Mapping[float, float]) -> None:
    """One curve for each merger, those without a look first, so that they lie below."""
    names = sorted(points["merger"].unique(), key=lambda name: [*LOOKS].index(name) if name in LOOKS else -1)
    for name in names:
        curve = points[points["merger"] == name].sort_values(column)
        x = np.array([places[value] for value in curve[column]])
        if name not in LOOKS:
            ax.plot(x, 100 * curve["mean"], color=GREY, linewidth=0.8, alpha=0.7)
            continue
        shift = 0.005 * np.ptp([*places.values()]) * ([*LOOKS].index(name) - len(LOOKS) / 2)
        style.with_intervals(ax, x + shift, curve, factor=100, markersize=5, **LOOKS[name] | {"capsize": 2})


def _make_room(ax: Axes, side: str, room: float) -> None:
    """Widen a panel by a share of its width for the names of `_label`."""
    left, right = ax.get_xlim()
    ax.set_xlim(left - room * (right - left) * (side == "right"), right + room * (right - left) * (side == "left"))


def _label(ax: Axes, x: float, heights: Mapping[str, float], side: str) -> None:
    """Name curves beside their ends, far enough from one another to be read; `side` is where the text starts."""
    low, high = ax.get_ylim()
    figure = ax.figure
    assert isinstance(figure, Figure), "panels of subfigures are not supported"
    figure.draw_without_rendering()  # the height of the panel is known from here on
    apart, above = 12.5 * (high - low) * figure.dpi / (72 * ax.get_window_extent().height), np.inf
    for name, height in sorted(heights.items(), key=lambda pair: -pair[1]):
        above = min(height, above - apart)
        away = (12, 0) if side == "left" else (-14, 0)
        dark = 0.75 * np.array(to_rgb(LOOKS[name]["color"]))  # orange is hard to read as letters
        ax.annotate(LOOKS[name]["label"], (x, above), away, textcoords="offset points", va="center", ha=side,
                    color=tuple(dark), fontsize=9, annotation_clip=False)  # fmt: skip


def names_of(mergers: Iterable[str]) -> str:
    """Mergers by their short titles, as in "TSV, Iso-C and WUDI"."""
    *others, last = [short_title(name) for name in mergers]
    return f"{', '.join(others)} and {last}" if others else last
