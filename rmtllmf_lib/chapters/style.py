"""The look of the book's figures, and the pieces that several of them share.

A figure is one function of a chapter's `figures` module: tidy tables in, matplotlib axes or figure out. This module
imports neither torch nor any other part of the library.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike
from sklearn.isotonic import isotonic_regression

from rmtllmf_lib.chapters.figure_data import figure_data

# Okabe and Ito's palette: distinguishable for colour-blind readers and in greyscale.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#7F7F7F"

SKY = "#56B4E9"

# One look for each thing in every figure of the book. Colour and marker of correlations and links:
CORRELATIONS = {"independent": (BLUE, "o"), "half": (ORANGE, "s"), "common": (RED, "^")}
LINKS = {
    "clean": (GREY, "o"),
    "ideal": (BLUE, "s"),
    "SU": (ORANGE, "v"),
    "SR": (RED, "^"),
    "SR, independent": (PURPLE, "D"),
}

# Colour, marker and line of protections and controls:
METHODS = {
    "unprotected": (RED, "x", ":"),
    "freeze": (ORANGE, "v", ":"),
    "realign": (PURPLE, "^", "-"),
    "reload-train-all": (PURPLE, "s", "--"),
    "rmtllmf": (BLUE, "o", "-"),
    "noise-aware": (SKY, "D", "-"),
    "control": ("black", "P", "--"),
    "few-shot-specialists": ("black", "X", ":"),
    "base": (GREY, "", "-."),
    "coded-tsv": (GREEN, "h", ":"),
    "coded-tsv-realigned": (GREEN, "*", "-"),
}


_CLOUD = 1000  # points of which a vector graphic becomes large and slow


def use_style() -> None:
    """Set the book's style; call once at the top of a chapter."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.95)
    plt.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "figure.constrained_layout.use": True})
    plt.rcParams.update({"svg.hashsalt": "rmtllmf", "svg.fonttype": "path"})  # the same bytes from the same data


def show() -> None:
    """Show the open figures; the last line of a cell with a figure.

    A notebook gets vector graphics, with the numbers in them as "text/csv".
    """
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        plt.show()
        return
    for number in plt.get_fignums():
        figure = plt.figure(number)
        for ax in figure.axes:
            for drawn in (*ax.collections, *ax.lines):
                drawn.set_rasterized(_size(drawn) > _CLOUD)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None})
        csv = figure_data(figure).to_csv(index=False, lineterminator="\n")
        data = {"image/svg+xml": drawing.getvalue(), "text/csv": csv, "text/plain": repr(figure)}
        display(data, raw=True)
        plt.close(figure)


def _size(drawn: Any) -> int:
    return len(drawn.get_offsets()) if hasattr(drawn, "get_offsets") else len(drawn.get_xdata())


def look(label: str, color: str, marker: str = "", linestyle: str = "-") -> dict[str, Any]:
    """Return keyword arguments of `Axes.plot` and `Axes.errorbar`; the line style "none" leaves points alone."""
    return {"label": label, "color": color, "marker": marker, "linestyle": linestyle}


def panels(
    titles: Iterable[object], width: float, height: float, ylabel: str = "", *, sharey: bool = True
) -> tuple[Figure, list[Any]]:
    """Return a figure with one titled panel beside the other, each `width` × `height` inches."""
    names = [str(title) for title in titles]
    figure, grid = plt.subplots(1, len(names), figsize=(width * len(names), height), sharey=sharey, squeeze=False)
    for ax, name in zip(grid[0], names, strict=True):
        ax.set_title(name, fontsize=10)
    grid[0][0].set_ylabel(ylabel)
    return figure, list(grid[0])


def with_intervals(
    ax: Axes, x: ArrayLike, points: pd.DataFrame, *, factor: float = 1.0, sideways: bool = False, **options: Any
) -> None:
    """Draw the means of a table of `over_seeds` with their intervals, without bars where they are not known.

    Parameters
    ----------
    x : (n,) float
        Place of each point; its height where the figure lies `sideways`.
    points : DataFrame
        mean, half_width; n rows.
    factor : float
        100 for values in per cent.
    options
        Keyword arguments of `Axes.errorbar`, such as those of `look`.
    """
    mean, half_width = factor * points["mean"], factor * points["half_width"].fillna(0.0)
    place = {"x": mean, "y": x, "xerr": half_width} if sideways else {"x": x, "y": mean, "yerr": half_width}
    ax.errorbar(**place, **({"capsize": 3} | options))


def with_band(
    ax: Axes, x: ArrayLike, low: ArrayLike, middle: ArrayLike, high: ArrayLike, alpha: float = 0.2, **options: Any
) -> None:
    """Draw a line with `options` of `Axes.plot` over a band of its colour from `low` to `high`."""
    ax.fill_between(x, low, high, color=options["color"], alpha=alpha, linewidth=0)
    ax.plot(x, middle, **options)


def heatmap(
    ax: Axes, values: ArrayLike, rows: Iterable[str], columns: Iterable[str], rotation: float = 45, **options: Any
) -> Any:
    """Draw a matrix (row, column) with a number in every cell, and return what a colour bar needs."""
    labels = {"xlabel": ax.get_xlabel(), "ylabel": ax.get_ylabel()}  # which seaborn takes away
    defaults = {"annot": True, "cbar": False, "annot_kws": {"fontsize": 9}}
    sns.heatmap(np.asarray(values), ax=ax, xticklabels=[*columns], yticklabels=[*rows], **(defaults | options))
    plt.setp(ax.get_xticklabels(), rotation=rotation, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="y", rotation=0)
    ax.grid(visible=False)
    ax.set(**labels)
    return ax.collections[0]


def log_ticks(ax: Axes, ticks: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic with these ticks alone."""
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def legend_above(figure: Figure, ax: Axes, ncols: int, fontsize: float = 9, loc: Any = "outside upper center") -> None:
    """Give a figure one legend, that of `ax`, above its panels."""
    figure.legend(*ax.get_legend_handles_labels(), loc=loc, ncols=ncols, fontsize=fontsize, frameon=False)


def label_lines(ax: Axes, fontsize: float = 9) -> tuple[list[Any], list[str]]:
    """Name every labelled line of a panel at its right end, instead of in a legend: call it after all else is drawn.

    Names that would cover one another are moved apart, as little as possible in the sense of least squares, and a thin
    line leads from the curve to its name. A horizontal line ends at the right border.

    Returns
    -------
    handles, labels
        What has no right end and is left to a legend: bands, points alone, vertical lines.
    """
    figure = ax.figure
    assert isinstance(figure, Figure), "panels of subfigures are not supported"
    figure.draw_without_rendering()  # limits and the height of the panel are known from here on
    apart = 1.25 * fontsize / (72 * ax.get_window_extent().height / figure.dpi)
    ends: list[tuple[float, float, str, Any]] = []
    others: list[tuple[Any, str]] = []
    for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
        line: Any = handle[0] if isinstance(handle, ErrorbarContainer) else handle
        end = _right_end(ax, line) if isinstance(line, Line2D) else None
        if end is None:
            others.append((handle, name))
        else:
            colour: Any = to_rgb(line.get_color())
            ends.append((end[1], end[0], name, np.array(colour)))
    ends.sort(key=lambda end: end[0])
    steps = apart * np.arange(len(ends))
    heights = isotonic_regression(np.array([end[0] for end in ends]) - steps) + steps if ends else []
    for (height, across, name, colour), place in zip(ends, heights, strict=True):
        dark = 0.75 * colour  # yellow and orange are hard to read as letters
        lead = {"arrowstyle": "-", "color": dark, "linewidth": 0.6, "alpha": 0.7, "shrinkA": 0, "shrinkB": 3}
        ax.annotate(
            name, (across, height), (1.03, place), "axes fraction", "axes fraction", va="center", fontsize=fontsize,
            color=dark, arrowprops=lead, annotation_clip=False,
        )  # fmt: skip
    return [handle for handle, _ in others], [name for _, name in others]


def label_last(figure: Figure, axes: Sequence[Axes], fontsize: float = 9) -> None:
    """Name the lines of panels side by side at the right of the last; a legend above has what it lacks."""
    rest, names = label_lines(axes[-1], fontsize)
    shown = set(axes[-1].get_legend_handles_labels()[1]) - set(names)
    others = dict(zip(names, rest, strict=True))
    for ax in axes[:-1]:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            others.setdefault(name, handle)
    left = {name: handle for name, handle in others.items() if name not in shown}
    if left:
        figure.legend(left.values(), left.keys(), loc="outside upper center", ncols=3, fontsize=fontsize, frameon=False)


def _right_end(ax: Axes, line: Line2D) -> tuple[float, float] | None:
    """The last point of a line in coordinates of the panel, or None where it has none: points alone, or vertical."""
    x, y = (np.asarray(values, float) for values in line.get_data())
    known = np.isfinite(x) & np.isfinite(y)
    if line.get_linestyle() == "None" or not known.any() or (known.sum() > 1 and np.ptp(x[known]) == 0):
        return None
    last = np.flatnonzero(known)[np.argmax(x[known])]
    across, height = (line.get_transform() + ax.transAxes.inverted()).transform((x[last], y[last]))
    return float(across), float(height)
