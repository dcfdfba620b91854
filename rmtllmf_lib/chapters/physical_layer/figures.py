"""Figures of the chapter on the physical layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.physical_layer.tables import GAIN, MATCHED, UNAWARE
from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from rmtllmf_lib.study.intervals import over_seeds

ATTACKS = {"strongest-user": "SU", "sum-rate": "SR"}  # as in the paper
SENSED = (ORANGE, PURPLE, GREEN, BLUE)


def _title(kind: str, order: str) -> str:
    return f"{ATTACKS.get(kind, kind)}, {order.replace('-', ' ')}"


def _looks(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """One look for each receiver, those that have sensed the noise in the order of the table."""
    fixed = {
        UNAWARE: style.look(UNAWARE, RED, "s", ":"),
        GAIN: style.look(GAIN, GREY, "x", "--"),
        MATCHED: style.look(MATCHED, "black", ".", "-"),
    }
    sensed = [name for name in table["knowledge"].unique() if name not in fixed]
    return fixed | {name: style.look(name, colour, "o") for name, colour in zip(sensed, SENSED, strict=False)}


def snapshots(table: pd.DataFrame) -> Figure:
    """Mean MSE against the number of silent snapshots, a panel for each attack and order; from `tables.sense`."""
    cells = list(table.groupby(["kind", "order"], sort=False))
    titles = [_title(str(kind), str(order)) for (kind, order), _ in cells]
    figure, grid = plt.subplots(2, -(-len(cells) // 2), figsize=(7.6, 6.2), sharex=True, squeeze=False)
    for ax, title, (_, rows) in zip(grid.flat, titles, cells, strict=False):
        means = rows.groupby(["knowledge", "snapshots"])[["mse", "scaled"]].mean()
        sensed = means.loc["sensed"]
        ax.axhline(means.loc[(UNAWARE, 0), "mse"], color=RED, linestyle=":", label="unaware")
        ax.axhline(means.loc[(UNAWARE, 0), "scaled"], color=GREY, linestyle="--", label="unaware, gain measured")
        ax.axhline(means.loc[(MATCHED, 0), "mse"], color="black", label="matched")
        ax.plot(sensed.index, sensed["mse"], **style.look("sensed", BLUE, "o"))
        ax.plot(sensed.index, sensed["scaled"], **style.look("sensed, gain measured", ORANGE, "s", "--"))
        style.log_ticks(ax, [1, 4, 16, 64, 256])
        ax.set_title(title, fontsize=10)
        ax.set_ylim(0, 1.06 * ax.dataLim.y1)
    for ax in grid[-1]:
        ax.set_xlabel("silent snapshots, $K$")
    for ax in grid[:, 0]:
        ax.set_ylabel("mean MSE")
    style.legend_above(figure, grid.flat[0], ncols=3)
    return figure


def pilots(table: pd.DataFrame) -> Figure:
    """Mean MSE and users lost against the length of the pilots, a colour for each noise; from `tables.pilots`."""
    figure, axes = style.panels(("mean MSE", "users lost"), 3.7, 3.6, sharey=False)
    colours = dict(zip(table["noise"].unique(), (GREEN, BLUE, RED), strict=False))
    means = table.groupby(["noise", "cancelled", "length"], sort=False)[["mse", "lost"]].mean().reset_index()
    for ax, column in zip(axes, ("mse", "lost"), strict=True):
        for (noise, way), rows in means[means["length"] > 0].groupby(["noise", "cancelled"], sort=False):
            line, marker = ("-", "o") if way == "estimated" else ("--", "")
            label = f"{noise}" if way == "estimated" else f"{noise}, cancelled exactly"
            ax.plot(rows["length"], rows[column], **style.look(label, colours[noise], marker, line))
        for noise, value in means[means["length"] == 0].groupby("noise")[column].first().items():
            ax.axhline(value, color=colours[noise], linestyle=":", linewidth=1)
        style.log_ticks(ax, [8, 32, 128, 512])
        ax.set_xlabel("pilot symbols, $L$")
    axes[0].set_yscale("log")
    style.legend_above(figure, axes[0], ncols=3, fontsize=8)
    return figure


def directions(table: pd.DataFrame) -> Figure:
    """Mean MSE against the error of the sensed directions, a panel for each spread; from `tables.directions`."""
    spreads = table["jammer_spread"].unique()
    titles = [f"jammers spread over {spread:g}°" for spread in spreads]
    figure, axes = style.panels(titles, 2.7, 3.6, "mean MSE")
    for ax, spread in zip(axes, spreads, strict=True):
        rows = table[table["jammer_spread"] == spread]
        means = rows.groupby(["protection", "setting"])["mse"].mean()
        sensed = means["directions"]
        ax.plot(sensed.index, sensed, **style.look("directions sensed", BLUE, "o"))
        for (count, value), colour in zip(means["snapshots"].items(), (ORANGE, PURPLE), strict=False):
            ax.axhline(value, color=colour, linestyle="-.", label=f"{count:g} snapshots")
        lines = {
            "none": ("no protection", RED, ":"),
            "matched": ("matched", "black", "-"),
            "no jammer": ("no jammer", GREEN, "--"),
        }
        for name, (label, colour, line) in lines.items():
            ax.axhline(means[name, 0.0], color=colour, linestyle=line, label=label)
        ax.set(yscale="log", xlabel="error of directions (°)")
        ax.set_yticks([0.01, 0.03, 0.1, 0.3], ["0.01", "0.03", "0.1", "0.3"])
        ax.minorticks_off()
    style.legend_above(figure, axes[0], ncols=4, fontsize=8)
    return figure


def outage(table: pd.DataFrame, users: int) -> Figure:
    """Users lost against the jammer's power, a panel for each attack and order; from `tables.users_lost`."""
    cells = list(table.groupby(["kind", "order"], sort=False))
    looks = _looks(table)
    figure, grid = plt.subplots(2, -(-len(cells) // 2), figsize=(7.6, 6.2), sharex=True, sharey=True, squeeze=False)
    for ax, ((kind, order), rows) in zip(grid.flat, cells, strict=False):
        means = rows.groupby(["knowledge", "jnr_db"])["lost"].mean()
        for name, look in looks.items():
            ax.plot(means[name].index, means[name], markersize=5, **look)
        ax.set_title(_title(str(kind), str(order)), fontsize=10)
        ax.set_ylim(-0.2, users + 0.2)
    for ax in grid[-1]:
        ax.set_xlabel("jammer over noise, per antenna (dB)")
    for ax in grid[:, 0]:
        ax.set_ylabel(f"users lost, of {users}")
    style.legend_above(figure, grid.flat[0], ncols=5)
    return figure


def users_lost(table: pd.DataFrame) -> Axes:
    """Normalised accuracy against the number of users lost, with intervals over suites; from `stored_results`."""
    _, ax = plt.subplots(figsize=(6.2, 3.6))
    points = over_seeds(table[table["sent"] == "coded"], ["lost"]).sort_values("lost")
    base = over_seeds(table[table["sent"] == "base"], ["sent"])
    style.with_intervals(ax, points["lost"], points, factor=100, **style.look("coded, those who are heard", BLUE, "o"))
    ax.axhline(100 * float(base["mean"].iloc[0]), color=GREY, linestyle="--", label="base alone")
    ax.set(xlabel="users lost, of eight", ylabel="normalised accuracy (%)", ylim=(0, 100))
    style.label_lines(ax)
    return ax


def accuracy(table: pd.DataFrame, order: str, names: Mapping[str, str], base: float | None = None) -> Figure:
    """Normalised accuracy against the jammer's power, with intervals over suites; from `tables.accuracies`.

    Parameters
    ----------
    table : DataFrame
    order : str
        Of decoding.
    names : mapping of `sent` to its name
        With a code every receiver has a line, without one the matched receiver alone.
    base : float, optional
        Normalised accuracy of the base alone, a level line.
    """
    looks = _looks(table)
    kinds = table["kind"].unique()
    figure, axes = style.panels([_title(str(kind), order) for kind in kinds], 3.8, 4.0, "normalised accuracy (%)")
    points = over_seeds(table[table["order"] == order], ["kind", "sent", "knowledge", "jnr_db"])
    plain = {sent: (marker, colour) for sent, marker, colour in zip(names, "^v", (GREEN, BLUE), strict=False)}
    for ax, kind in zip(axes, kinds, strict=True):
        if base is not None:
            ax.axhline(100 * base, color=GREY, linestyle="--", linewidth=1, label="base alone")
        here = points[points["kind"] == kind]
        for name, look in looks.items():
            rows = here[(here["knowledge"] == name) & (here["sent"] == "coded")]
            options = look | {"label": f"coded, {name}", "markersize": 5, "capsize": 2}
            style.with_intervals(ax, rows["jnr_db"], rows, factor=100, **options)
        for sent, (marker, colour) in plain.items():
            rows = here[(here["knowledge"] == MATCHED) & (here["sent"] == sent)]
            look = style.look(names[sent], colour, marker, "-.")
            style.with_intervals(ax, rows["jnr_db"], rows, factor=100, **look | {"capsize": 2})
        ax.set(xlabel="jammer over noise (dB)", ylim=(0, 100))
    style.label_last(figure, axes)
    return figure


def bars(
    lost: pd.DataFrame, accurate: pd.DataFrame, kind: str, order: str, users: int
) -> tuple[np.ndarray, list[float], list[str]]:
    """What the slider shows: users in outage and normalised accuracy with a code, both in per cent.

    Returns
    -------
    values : (power, 2, receiver) float
    powers : list of float, dB
    receivers : list of str
    """
    here = {"kind": kind, "order": order}
    chosen = [table.loc[(table[list(here)] == pd.Series(here)).all(axis=1)] for table in (lost, accurate)]
    outages = chosen[0].groupby(["jnr_db", "knowledge"], sort=False)["lost"].mean().unstack() / users
    coded = chosen[1][chosen[1]["sent"] == "coded"]
    normalized = coded.groupby(["jnr_db", "knowledge"], sort=False)["normalized"].mean().unstack()
    names = [str(name) for name in lost["knowledge"].unique()]
    values = 100 * np.stack([outages[names].to_numpy(), normalized[names].to_numpy()], axis=1)
    return values, outages.index.tolist(), names
