"""Figures of the chapter on interference between task vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from rmtllmf_lib.protection.resilience import PROTECTIONS
from rmtllmf_lib.study.intervals import over_seeds

_COLOURS = (GREEN, BLUE, ORANGE, RED, PURPLE, GREY)


def matrices(found: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Cosine matrices side by side, two in a row, in hundredths, the diagonal left out; one colour scale.

    Parameters
    ----------
    found : dict of title to (n, n) array
    names : n labels
    """
    rows = -(-len(found) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(8.2, 3.5 * rows + 0.7), sharex=True, sharey=True, squeeze=False)
    for ax, (title, cosines) in zip(axes.flat, found.items(), strict=False):
        shown = np.where(np.eye(len(names), dtype=bool), np.nan, 100 * cosines)
        options: dict[str, Any] = {"square": True, "cmap": "viridis", "vmin": 0, "vmax": 60}
        image = style.heatmap(ax, shown, names, names, annot=np.rint(shown) + 0.0, fmt=".0f", **options)  # no "-0"
        ax.set_title(title, fontsize=10)
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    figure.colorbar(image, ax=axes, label="cosine similarity × 100", shrink=0.6)
    return figure


def against_noise(
    bands: pd.DataFrame, points: pd.DataFrame, panels: Sequence[str], target: tuple[float, float]
) -> Figure:
    """Cosines against the noise-to-signal ratio: formula as bands, measurements as points, the paper's band in grey.

    Parameters
    ----------
    bands : DataFrame
        panel, correlation, noise_to_signal, low, high.
    points : DataFrame
        panel, correlation, noise_to_signal, low, mean, high.
    panels : titles, from left to right
    target : lowest and highest cosine of the paper's Figure 4
    """
    figure, axes = style.panels(panels, 4.0, 4.3, "cosine between task vectors")
    for ax, panel in zip(axes, panels, strict=True):
        ax.axhspan(*target, color=GREY, alpha=0.35, label="the paper's Figure 4", linewidth=0)
        for correlation, (colour, marker) in style.CORRELATIONS.items():
            band = bands[(bands["panel"] == panel) & (bands["correlation"] == correlation)]
            x = 10 * np.log10(band["noise_to_signal"])
            ax.fill_between(x, band["low"], band["high"], color=colour, alpha=0.4, linewidth=1, label=correlation)
            dots = points[(points["panel"] == panel) & (points["correlation"] == correlation)]
            reach = [dots["mean"] - dots["low"], dots["high"] - dots["mean"]]
            look: dict[str, Any] = {"fmt": marker, "color": colour, "markersize": 4, "capsize": 2, "linewidth": 1}
            ax.errorbar(10 * np.log10(dots["noise_to_signal"]), dots["mean"], reach, **look)
        ax.set(xlabel="noise over task vector, power (dB)", ylim=(-0.05, 1.02))
    style.legend_above(figure, axes[0], ncols=4)
    return figure


def by_definition(table: pd.DataFrame, definitions: Sequence[str], limit: float, target: tuple[float, float]) -> Axes:
    """Range and mean of the cosines of all pairs, for each definition of the task vectors and each scenario.

    Parameters
    ----------
    table : DataFrame
        scenario, definition, cosine.
    definitions : names, from top to bottom
    limit : largest cosine in the paper's Figure 3
    target : range of the paper's Figure 4
    """
    _, ax = plt.subplots(figsize=(7.2, 0.5 * len(definitions) + 1.4))
    ax.axvline(limit, color="black", linestyle=":", label="Figure 3: at most")
    ax.axvspan(*target, color=GREY, alpha=0.35, linewidth=0, label="Figure 4")
    scenarios = table["scenario"].unique()
    for shift, (scenario, colour) in enumerate(zip(scenarios, _COLOURS, strict=False)):
        rows = table[table["scenario"] == scenario].groupby("definition")["cosine"].agg(["min", "mean", "max"])
        rows = rows.reindex(definitions).dropna()
        places = [definitions.index(name) + 0.22 * (shift - (len(scenarios) - 1) / 2) for name in rows.index]
        reach = [rows["mean"] - rows["min"], rows["max"] - rows["mean"]]
        ax.errorbar(rows["mean"], places, xerr=reach, fmt="o", color=colour, capsize=4, label=scenario)
    ax.set_yticks(range(len(definitions)), definitions)
    ax.invert_yaxis()
    ax.set(xlabel="cosine between task vectors, smallest to largest pair", xlim=(min(0.0, ax.get_xlim()[0]), None))
    ax.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return ax


def cosine_and_wde(cosines: pd.DataFrame, errors: pd.DataFrame, clean: str) -> Axes:
    """WDE against the mean cosine, a point for each scenario and protection, in the colour of the errors' correlation.

    If cosines measured the WDE, the points would lie on a rising curve.

    Parameters
    ----------
    cosines : DataFrame
        scenario, cosine: of the vectors that arrive.
    errors : DataFrame
        scenario, protection, seed, wde; scenarios that the other table does not have are left out.
    clean : name of the scenario without noise, whose point has a line through it
    """
    _, ax = plt.subplots(figsize=(7.2, 4.6))
    mean = cosines.groupby("scenario")["cosine"].mean()
    points = over_seeds(errors[errors["scenario"].isin(mean.index)], ["scenario", "protection"], "wde")
    markers = dict(zip(points["protection"].unique(), "osDP^v", strict=False))
    fills = {name: "full" if name == "unprotected" else "none" for name in markers}
    for (scenario, protection), row in points.groupby(["scenario", "protection"], sort=False):
        look = {"fmt": markers[protection], "color": _colour(scenario), "fillstyle": fills[protection]}
        style.with_intervals(ax, [mean[scenario]], row, markersize=7, **look)
    level = points[(points["scenario"] == clean) & (points["protection"] == "unprotected")]["mean"]
    ax.axhline(float(level.iloc[0]), color="black", linestyle=":", linewidth=1)
    shown = mean[points["scenario"].unique()]
    middle = (shown.min() + shown.max()) / 2
    for scenario, group in points.groupby("scenario", sort=False):
        left = mean[scenario] <= middle  # names point inwards; letters are darker than the points, to be read in yellow
        ax.annotate(str(scenario), (mean[scenario], group["mean"].max()), (9 if left else -9, 5), xycoords="data",
                    textcoords="offset points", ha="left" if left else "right", va="bottom", fontsize=9,
                    color=0.75 * np.array(to_rgb(_colour(scenario))))  # fmt: skip
    for name, marker in markers.items():
        ax.plot([], [], marker, color="black", fillstyle=fills[name], label=PROTECTIONS[name].title)
    ax.set(xlabel="mean cosine between received task vectors", ylabel="WDE, mean over the tasks", ylim=(0, 1))
    ax.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(markers), frameon=False)
    return ax


def _colour(scenario: object) -> str:
    """Colour of the correlation that a scenario has in its name; grey without noise."""
    colours = [look[0] for name, look in style.CORRELATIONS.items() if name in str(scenario)]
    return colours[0] if colours else GREY
