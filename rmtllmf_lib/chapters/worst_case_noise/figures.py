"""Figures of the chapter on worst-case noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from rmtllmf_lib.wireless.receiver import error_correlations

# one look for each attack, in every figure of the chapter
LOOKS = {
    "none": style.look("no jammer", "black", ".", ":"),
    "white": style.look("white", GREY, "x", "--"),
    "sum-rate": style.look("sum rate (P1)", BLUE, "o"),
    "sum-rate-published": style.look("Eq. (14) as printed", ORANGE, "<", "-."),
    "strongest-user": style.look("strongest user, Eq. (15)", RED, "s"),
    "minimax": style.look("minimax, silent users", GREEN, "^"),
    "minimax-sic": style.look("minimax, full power", PURPLE, "v"),
    "rank-one": style.look("rank one", "black", "D", "--"),
    "sum-aligned": style.look("sum-aligned", ORANGE, "P", "--"),
}
NAMES: Mapping[str, str] = {kind: look["label"] for kind, look in LOOKS.items()}  # in figures and tables


def allocation(table: pd.DataFrame) -> Figure:
    """Signal, noise floor and jammer in each direction of the received signal, in dB over the white jammer's level.

    Parameters
    ----------
    table : DataFrame
        panel, direction (1 is the strongest), signal_db, level_db (noise with the jammer), floor_db (-inf without).
    """
    names = table["panel"].unique()
    figure, axes = style.panels(names, 3.7, 3.6, "power (dB, white jammer = 0)")
    bottom = min(table["level_db"].min(), table["signal_db"].min()) - 5
    for ax, panel in zip(axes, names, strict=True):
        rows = table[table["panel"] == panel].sort_values("direction")
        place, floor = rows["direction"], np.maximum(rows["floor_db"], bottom)
        ax.bar(place, floor - bottom, 0.8, bottom=bottom, color="0.8", label="thermal noise")
        ax.bar(place, rows["level_db"] - floor, 0.8, bottom=floor, color=RED, alpha=0.55, label="with the jammer")
        ax.plot(place, rows["signal_db"], "o", color=BLUE, label=r"signal $\upsilon_i$")
        ax.axhline(0, color="black", linestyle="--", linewidth=1, label="white jammer")
        ax.set(xlabel="direction, strongest first", xticks=place, ylim=(bottom, None))
        ax.grid(visible=False, axis="x")
    axes[-1].legend(fontsize=10, loc="upper right")
    return figure


def unit_of_power(table: pd.DataFrame, right: float, white: float) -> Axes:
    """Sum rate under Eq. (14) as printed against the unit in which powers are written.

    Parameters
    ----------
    table : DataFrame
        unit_w (W), sum_rate (nats).
    right, white : float, nats
        Sum rate under the right allocation and under white noise, which do not depend on the unit.
    """
    _, ax = plt.subplots(figsize=(6.6, 3.6))
    ax.axhline(white, color=GREY, linestyle="--", label="white jammer")
    ax.plot(table["unit_w"], table["sum_rate"], "o-", color=ORANGE, label="Eq. (14) as printed")
    ax.axhline(right, color=BLUE, label="power counted once")
    ax.set(xscale="log", xlabel="unit in which all powers are written (W)", ylabel="sum rate (nats)")
    style.label_lines(ax)
    return ax


def against_power(table: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """Means over the drops against the jammer's power, one panel for each of three columns.

    Parameters
    ----------
    table : DataFrame
        jnr_db, kind and the columns shown.
    panels : column -> label of its axis; that of "mse" is logarithmic
    """
    figure, axes = plt.subplots(2, 2, figsize=(7.4, 6.0), sharex=True)
    means = table.groupby(["kind", "jnr_db"], sort=False)[list(panels)].mean().reset_index()
    *shown, corner = axes.flat
    for ax, (column, label) in zip(shown, panels.items(), strict=True):
        for kind, rows in means.groupby("kind", sort=False):
            ax.plot(rows["jnr_db"], rows[column], **LOOKS[str(kind)])
        ax.set(ylabel=label, yscale="log" if column == "mse" else "linear")
    for ax in (shown[1], shown[2]):
        ax.set_xlabel("jammer over noise, per antenna (dB)")
        ax.tick_params(labelbottom=True)
    corner.set_axis_off()
    corner.legend(*shown[0].get_legend_handles_labels(), loc="center", frameon=False)
    return figure


def user_rates(table: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """Rate of every user under each attack, one drop, one panel for each of two ways of transmitting.

    Parameters
    ----------
    table : DataFrame
        kind, rank (1 is the weakest user) and the columns of `panels`, nats.
    panels : column -> title
    """
    figure, axes = style.panels(panels.values(), 3.7, 3.8, "rate (nats)")
    for ax, column in zip(axes, panels, strict=True):
        for kind, rows in table.sort_values("rank").groupby("kind", sort=False):
            ax.plot(rows["rank"], rows[column], markersize=6, **LOOKS[str(kind)])
        ax.set(xlabel="user, weakest first", xticks=sorted(table["rank"].unique()))
    style.label_last(figure, axes)
    return figure


def bounds(table: pd.DataFrame) -> Axes:
    """Relative distance of upper and lower bound against the solver's steps (kind, steps, gap)."""
    _, ax = plt.subplots(figsize=(6.2, 3.4))
    for (kind, rows), marker in zip(table.groupby("kind", sort=False), "os^v", strict=False):
        ax.plot(rows["steps"], rows["gap"], **LOOKS[str(kind)] | {"marker": marker})
    scale = "log" if (table["gap"] > 0).any() else "linear"
    ax.set(
        yscale=scale, xlabel="steps of the solver", ylabel="relative gap of the bounds", xticks=table["steps"].unique()
    )
    style.label_lines(ax)
    return ax


def error_covariances(covs: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Absolute correlation of every two users' errors, with the mean MSE below each panel.

    Parameters
    ----------
    covs : receiver -> attack -> (user, user) complex
        Error covariances; shown are `|E_qr| / sqrt(E_qq E_rr)` off the diagonal.
    """
    columns = list(next(iter(covs.values())))
    size = (1.75 * len(columns) + 0.8, 1.95 * len(covs) + 0.3)
    figure, axes = plt.subplots(len(covs), len(columns), figsize=size, squeeze=False)
    for row, (receiver, attacks) in zip(axes, covs.items(), strict=True):
        for ax, kind in zip(row, columns, strict=True):
            shown = error_correlations(attacks[kind])
            np.fill_diagonal(shown, np.nan)
            image = ax.imshow(shown, vmin=0, vmax=1, cmap="viridis")
            ax.set(xticks=[], yticks=[])
            ax.set_xlabel(f"mean MSE {np.diagonal(attacks[kind]).real.mean():.2f}", fontsize=10)
            ax.grid(visible=False)
        row[0].set_ylabel(receiver, fontsize=10)
    for ax, kind in zip(axes[0], columns, strict=True):
        ax.set_title(NAMES[kind].replace(", ", ",\n"), fontsize=10)
    figure.colorbar(image, ax=axes, label="correlation of two users' errors", shrink=0.7)
    return figure


def paper_plane(curves: pd.DataFrame, paper: tuple[float, float], reachable: float, near: Sequence[str] = ()) -> Axes:
    """Mean MSE under the two attacks of the paper, along the jammer's power, for every setting.

    Parameters
    ----------
    curves : DataFrame
        setting, knowledge, "strongest-user", "sum-rate", a row for each power.
    paper : (float, float)
        The paper's point, strongest user and sum rate.
    reachable : float
        The most that the attack on the strongest user can do to a matched receiver.
    near : sequence of str
        Settings, four at most, that have colours and names; all others are grey.
    """
    _, ax = plt.subplots(figsize=(7.0, 4.6))
    colours = dict(zip(near, (BLUE, ORANGE, GREEN, PURPLE), strict=False))
    lines = dict(zip(curves["knowledge"].unique(), ("-", "--"), strict=False))
    for (setting, knowledge), rows in curves.groupby(["setting", "knowledge"], sort=False):
        shown = setting in colours
        line = {"color": colours.get(str(setting), GREY), "linestyle": lines[knowledge], "zorder": 2.5 if shown else 2}
        ax.plot(rows["strongest-user"], rows["sum-rate"], **line, linewidth=2 if shown else 0.8)
    ax.plot(*paper, "*", markersize=16, color=RED)
    ax.axvline(reachable, color=GREY, linestyle=":", linewidth=1.5)
    ax.set(xscale="log", yscale="log", xlim=(0.01, 1), ylim=(0.01, 1.5))
    ax.set(xlabel="mean MSE, strongest user jammed", ylabel="mean MSE, sum rate jammed")
    known = curves.drop_duplicates("setting").set_index("setting")["knowledge"]
    handles = [
        Line2D([], [], color=colour, linestyle=lines[known[name]], label=name) for name, colour in colours.items()
    ]
    handles += [Line2D([], [], color=GREY, linestyle=line, label=f"others, {name}") for name, line in lines.items()]
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="most for a matched receiver"))
    handles.append(Line2D([], [], color=RED, marker="*", linestyle="none", markersize=12, label="the paper"))
    ax.legend(handles=handles, fontsize=10, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


def csi_loss(table: pd.DataFrame) -> Axes:
    """Share of the gain over white noise that an attack keeps, against the error in its channel knowledge.

    Parameters
    ----------
    table : DataFrame
        kind, estimate, quality, drop, objective, best, white. Shares are ratios of means over the drops. Perfect
        quality, where the share is 1, has no place on the logarithmic axis. With one antenna there is no gain, and
        nothing is drawn.
    """
    _, ax = plt.subplots(figsize=(6.8, 4.2))
    looks = {"noisy": ("o", "-", "estimate taken for the truth"), "posterior": ("s", "--", "hedged")}
    drawn = False
    for (kind, estimate), rows in table[table["quality"] < 1].groupby(["kind", "estimate"], sort=False):
        means = rows.groupby("quality")[["objective", "best", "white"]].mean()
        share = (means["white"] - means["objective"]) / (means["white"] - means["best"])
        marker, line, assumed = looks.get(str(estimate), ("^", ":", str(estimate)))
        look = style.look(f"{NAMES[str(kind)]}: {assumed}", LOOKS[str(kind)]["color"], marker, line)
        ax.plot(1 - share.index, share, **look)
        drawn |= bool(share.notna().any())
    ax.axhline(0, color="black", linestyle=":", label="white noise")
    ax.set(
        xscale="log" if drawn else "linear",
        xlabel=r"share of error in the estimate's power, $1-\rho$",
        ylim=(None, 1.05),
    )
    ax.set_ylabel("share kept of the\ngain over white noise")
    style.label_lines(ax)
    return ax


def names(kinds: Iterable[str]) -> list[str]:
    """Return the names of these attacks in the chapter's figures and tables."""
    return [NAMES[kind] for kind in kinds]
