"""Figures of the chapter on the system model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from rmtllmf_lib.study.intervals import over_seeds

# one look for each receiver, in every figure of the chapter
RECEIVERS = {
    "weakest-first": style.look("SIC, weakest first", BLUE, "o"),
    "strongest-first": style.look("SIC, strongest first", GREEN, "s"),
    "joint LMMSE": style.look("joint LMMSE", RED, "^"),
}
CANCELLATIONS = {
    "genie": style.look("what was sent (genie)", GREY, "o"),
    "soft": style.look("posterior means", BLUE, "s"),
    "hard": style.look("hard decisions", ORANGE, "^"),
    "linear": style.look("linear estimates", RED, "d"),
}
SYMBOLS = {
    "gaussian": style.look("Gaussian symbols", BLUE, "o", "none"),
    "qam64": style.look("64-QAM symbols", ORANGE, "s", "none"),
}
PAPER_MSE = 0.013


def one_drop(table: pd.DataFrame, farthest_m: float) -> Figure:
    """Places of the users of a drop, and the SNR at which the base station receives them.

    Parameters
    ----------
    table : DataFrame
        user (name), distance_m, azimuth (radians), snr_db, without_fading_db.
    farthest_m : float, m
        Radius of the area in which users are.
    """
    figure = plt.figure(figsize=(7.8, 3.7))
    polar = figure.add_subplot(1, 2, 1, projection="polar")
    polar.plot(0, 0, "^", color="black", markersize=10)
    polar.scatter(table["azimuth"], table["distance_m"], s=170, color=BLUE, zorder=3)
    text: dict[str, Any] = {"color": "white", "ha": "center", "va": "center", "fontsize": 10, "zorder": 4}
    for row in table.itertuples():
        polar.annotate(row.user, (row.azimuth, row.distance_m), **text)
    polar.set(ylim=(0, farthest_m), xticks=[])
    radii = np.linspace(0, farthest_m, 5)[1:]
    polar.set_yticks(radii, [f"{radius:.0f} m" for radius in radii], fontsize=10)
    ax = figure.add_subplot(1, 2, 2)
    rows = table.sort_values("snr_db").reset_index(drop=True)
    ax.hlines(rows.index, rows["without_fading_db"], rows["snr_db"], color=GREY, linewidth=1)
    from_distance = style.look("from distance alone", "white", "o", "none")
    ax.plot(rows["without_fading_db"], rows.index, markeredgecolor=GREY, **from_distance)
    ax.plot(rows["snr_db"], rows.index, "o", color=BLUE, label="with fading")
    ax.set_yticks(rows.index, rows["user"])
    ax.set(xlabel="received SNR per antenna (dB)", ylabel="user, by received power")
    ax.legend(loc="lower right", fontsize=10)
    return figure


def sic_ladder(table: pd.DataFrame) -> Figure:
    """Interference in each step of successive cancellation, and the MSE of the user decoded in it.

    Parameters
    ----------
    table : DataFrame
        step, position, user, state, snr_db, rate and mse, from `tables.ladder`.
    """
    steps = int(table["step"].max())
    figure, (grid, ax) = plt.subplots(1, 2, figsize=(7.8, 0.42 * steps + 0.9), sharey=True, width_ratios=[1.6, 1])
    looks = {"decoded": ("0.93", "0.55", "✓"), "wanted": (BLUE, "white", ""), "interferes": ("#F9D9A8", "black", "")}
    for row in table.itertuples():
        face, colour, mark = looks[row.state]
        grid.add_patch(Rectangle((row.position - 0.46, row.step - 0.42), 0.92, 0.84, facecolor=face, edgecolor="none"))
        text = mark or f"{row.snr_db:.0f}"
        grid.text(row.position, row.step, text, ha="center", va="center", color=colour, fontsize=10)
    grid.set(xlim=(0.4, steps + 0.6), ylim=(steps + 0.6, 0.4), xlabel="user, in the order of decoding", ylabel="step")
    names = table.drop_duplicates("position").sort_values("position")["user"] + 1
    grid.set_xticks(range(1, steps + 1), names)
    grid.set_yticks(range(1, steps + 1))
    grid.set_title("blue: decoded now; orange: still interferes", fontsize=10)
    wanted = table[table["state"] == "wanted"]
    ax.plot(wanted["mse"], wanted["step"], "o", color=BLUE)
    beside: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points", "va": "center", "fontsize": 10}
    for row in wanted.itertuples():
        ax.annotate(f"{row.rate:.1f} nats", (row.mse, row.step), **beside)
    ax.set(xscale="log", xlabel=r"MSE $\mu_q = e^{-R_q}$", xlim=(wanted["mse"].min() / 2, wanted["mse"].max() * 6))
    grid.grid(visible=False)
    return figure


def monte_carlo(table: pd.DataFrame) -> Figure:
    """Measured MSE per position beside Eq. (5), and their ratio; a column of panels for each order.

    Parameters
    ----------
    table : DataFrame
        order, symbols, position, theory, measured, standard_error, from `tables.measured_mse`; bars are two standard
        errors.
    """
    orders = table["order"].unique()
    size = (3.9 * len(orders), 4.8)
    figure, axes = plt.subplots(
        2, len(orders), figsize=size, sharex=True, sharey="row", squeeze=False, height_ratios=[1.5, 1]
    )
    for (top, bottom), order in zip(axes.T, orders, strict=True):
        rows = table[table["order"] == order]
        theory = rows[rows["symbols"] == rows["symbols"].iloc[0]]
        top.plot(theory["position"], theory["theory"], "_", color="black", markersize=22, label="Eq. (5)")
        bottom.axhline(1, color="black", linewidth=1)
        for shift, (symbols, look) in zip((-0.12, 0.12), SYMBOLS.items(), strict=True):
            part = rows[rows["symbols"] == symbols]
            place = part["position"] + shift
            top.plot(place, part["measured"], markersize=5, **look)
            ratio, bar = part["measured"] / part["theory"], 2 * part["standard_error"] / part["theory"]
            bottom.errorbar(place, ratio, bar, capsize=2, markersize=5, **look)
        top.set(yscale="log")
        top.set_title(order.replace("-", " "), fontsize=10)
        bottom.set(xlabel="position in the order of decoding", xticks=theory["position"])
    axes[0][0].set_ylabel("MSE")
    axes[1][0].set_ylabel("measured / Eq. (5)")
    axes[0][0].legend(fontsize=10)
    return figure


def sum_rates(table: pd.DataFrame) -> Axes:
    """Both formulas of the sum rate against the number of users: median and 10–90 % of the drops.

    Parameters
    ----------
    table : DataFrame
        users, right and published (nats), a row for each drop, from `tables.sum_rates`.
    """
    _, ax = plt.subplots(figsize=(6.6, 3.9))
    groups = table.groupby("users")
    users = np.array(sorted(groups.groups))
    low, median, high = (groups[["right", "published"]].quantile(q) for q in (0.1, 0.5, 0.9))
    looks = {
        "right": style.look("log det, Eq. (13)", BLUE, "o"),
        "published": style.look("log of 1 + sum, Eq. (4)", RED, "s"),
    }
    for column, look in looks.items():
        style.with_band(ax, users, low[column], median[column], high[column], **look)
    ax.set(xlabel="number of users Q", ylabel="sum rate (nats per channel use)", xticks=users, ylim=(0, None))
    style.label_lines(ax)
    return ax


def mse_by_rank(table: pd.DataFrame) -> Axes:
    """MSE of the weakest to the strongest user under each receiver: median, quartiles, 10–90 % of the drops.

    Parameters
    ----------
    table : DataFrame
        receiver, rank and mse, a row for each drop and user, from `tables.mse_by_receiver`.
    """
    _, ax = plt.subplots(figsize=(7.4, 4.2))
    for shift, (receiver, look) in zip((-0.22, 0, 0.22), RECEIVERS.items(), strict=True):
        groups = table[table["receiver"] == receiver].groupby("rank")["mse"]
        q10, q25, q50, q75, q90 = (groups.quantile(q) for q in (0.1, 0.25, 0.5, 0.75, 0.9))
        place = q50.index + shift
        ax.vlines(place, q10, q90, color=look["color"], linewidth=1.2)
        ax.vlines(place, q25, q75, color=look["color"], linewidth=4, alpha=0.5)
        ax.plot(place, q50, markersize=5, **look | {"linestyle": "none"})
    ranks = sorted(table["rank"].unique())
    names = [str(rank) for rank in ranks]
    names[0], names[-1] = f"{names[0]}\nweakest", f"{names[-1]}\nstrongest"
    ax.set_xticks(ranks, names)
    ax.set(yscale="log", xlabel="user, by received power", ylabel="MSE")
    ax.legend(fontsize=10)
    return ax


def propagation(table: pd.DataFrame) -> Figure:
    """Loss to imperfect cancellation against the SNR, a panel for each order; means over the drops, 95 % intervals.

    Parameters
    ----------
    table : DataFrame
        order, cancellation, gain_db, seed and excess, from `tables.propagation`.
    """
    orders = table["order"].unique()
    points = over_seeds(table, ["order", "cancellation", "gain_db"], "excess")
    figure, axes = style.panels([order.replace("-", " ") for order in orders], 3.9, 3.6, "MSE / that of Eq. (5)")
    for ax, order in zip(axes, orders, strict=True):
        for cancellation, look in CANCELLATIONS.items():
            curve = points[(points["order"] == order) & (points["cancellation"] == cancellation)]
            if not curve.empty:
                style.with_intervals(ax, curve["gain_db"], curve, **look)
        ax.set(xlabel="SNR relative to the budget (dB)")
    axes[0].legend(fontsize=10, title="subtracted:", title_fontsize=10)
    return figure


def rate_and_distortion(users: pd.DataFrame, rounding: pd.DataFrame) -> Axes:
    """Distortion against rate: the bound, 64-QAM at every user's rate, and rounding with ideal compression.

    Parameters
    ----------
    users : DataFrame
        rate (nats) and qam64 (distortion), from `tables.coded_distortion`.
    rounding : DataFrame
        rate (nats), distortion.
    """
    _, ax = plt.subplots(figsize=(6.8, 4.1))
    rate = np.linspace(0, users["rate"].max(), 200)
    ax.plot(rate, np.exp(-rate), color="black", label=r"bound $D(R) = e^{-R}$, Eq. (5)")
    ax.plot(rounding["rate"], rounding["distortion"], color=GREEN, linestyle="--", label="rounding, then compression")
    ax.plot(users["rate"], users["qam64"], ".", color=ORANGE, markersize=3, label="ideal codes over 64-QAM")
    ax.axhline(1 / 64, color=GREY, linestyle=":", label="1/64, all that 64-QAM can do")
    ax.plot(users["rate"], np.full(len(users), 0.012), "|", color=BLUE, alpha=0.2, transform=ax.get_xaxis_transform())
    ax.set(yscale="log", xlabel=r"rate $R_q$ of Eq. (3) (nats per symbol)", ylabel="distortion D")
    ax.set(xlim=(0, rate[-1]), ylim=(np.exp(-rate[-1]), 1.2))
    ax.legend(fontsize=10)
    return ax


def placements(distances: pd.DataFrame, mses: pd.DataFrame) -> Figure:
    """Distances of the users, and the distribution of a drop's mean MSE, with uniform distance and with uniform area.

    Parameters
    ----------
    distances : DataFrame
        placement, distance_m.
    mses : DataFrame
        placement, mse (mean over the users of a drop).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.8, 3.2))
    for placement, colour in (("distance", BLUE), ("area", PURPLE)):
        metres = distances.loc[distances["placement"] == placement, "distance_m"]
        outline: dict[str, Any] = {"color": colour, "linewidth": 1.8, "label": f"uniform {placement}"}
        left.hist(metres, bins=30, density=True, histtype="step", **outline)
        values = np.sort(mses.loc[mses["placement"] == placement, "mse"])
        right.plot(values, np.arange(1, len(values) + 1) / len(values), color=colour)
    left.set(xlabel="distance (m)", ylabel="density (1/m)")
    left.legend(fontsize=10, loc="upper left")
    right.set(xlabel="mean MSE of a drop", ylabel="share of drops below")
    style.log_ticks(right, [0.003, 0.01, 0.03])
    right.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def path_losses(table: pd.DataFrame, bearable_db: float) -> Axes:
    """Path loss of the models against distance, with the loss that leaves an SNR of 0 dB per antenna.

    Parameters
    ----------
    table : DataFrame
        model, distance_m, loss_db.
    bearable_db : float, dB
    """
    _, ax = plt.subplots(figsize=(7.0, 4.2))
    colours = {"free-space": BLUE, "log-distance": RED, "UMa": GREEN, "UMi": PURPLE}
    for model, curve in table.groupby("model", sort=False):
        name, colour = str(model), colours[str(model).removesuffix("-LoS").removesuffix("-NLoS")]
        look = style.look(name.replace("-", " ", 1), colour, linestyle="--" if name.endswith("-NLoS") else "-")
        ax.plot(curve["distance_m"], curve["loss_db"], **look)
    ax.axhline(bearable_db, color="black", linestyle=":", label="SNR of 0 dB")
    style.log_ticks(ax, [100, 200, 300, 500, 700, 1000])
    ax.set(xlabel="distance (m)", ylabel="path loss (dB)")
    ax.invert_yaxis()
    ax.legend(fontsize=10, ncols=2, loc="lower left")
    return ax


def sensitivity(table: pd.DataFrame) -> Axes:
    """Mean MSE of each setting of the uplink with its 95 % interval over the drops, in both orders.

    Parameters
    ----------
    table : DataFrame
        setting, order, seed and mse, from `tables.budgets`; the first setting is on top.
    """
    points = over_seeds(table, ["setting", "order"], "mse")
    settings = table["setting"].unique()
    _, ax = plt.subplots(figsize=(7.4, 0.31 * len(settings) + 1.2))
    ax.axvline(PAPER_MSE, color="black", linestyle=":", label=f"the paper's {PAPER_MSE}".replace("0.", "."))
    for shift, order in zip((-0.14, 0.14), table["order"].unique(), strict=True):
        rows = points[points["order"] == order].set_index("setting").loc[settings]
        look = RECEIVERS[order] | {"linestyle": "none", "markersize": 5, "capsize": 2}
        style.with_intervals(ax, np.arange(len(settings)) + shift, rows, sideways=True, **look)
    ax.set_yticks(range(len(settings)), settings)
    ax.set(xscale="log", xlabel="mean MSE over users and drops", ylim=(len(settings) - 0.5, -0.5))
    ax.legend(fontsize=10, loc="upper right")
    return ax


def noise_figures(table: pd.DataFrame, orders: Sequence[str]) -> Axes:
    """Mean MSE against the noise figure with its 95 % interval, and the range that rounds to the paper's value.

    Parameters
    ----------
    table : DataFrame
        noise_figure_db, order, seed, mse.
    orders : sequence of str
        The orders of cancellation to show.
    """
    points = over_seeds(table, ["order", "noise_figure_db"], "mse")
    _, ax = plt.subplots(figsize=(6.4, 3.6))
    ax.axhspan(PAPER_MSE - 0.0005, PAPER_MSE + 0.0005, color=GREY, alpha=0.4, lw=0, label="rounds to .013")
    for order in orders:
        rows = points[points["order"] == order].sort_values("noise_figure_db")
        mean, half = rows["mean"], rows["half_width"]
        style.with_band(ax, rows["noise_figure_db"], mean - half, mean, mean + half, alpha=0.25, **RECEIVERS[order])
    ax.set(xlabel="noise figure (dB)", ylabel="mean MSE")
    ax.legend(fontsize=10)
    return ax


def errors_sent(table: pd.DataFrame, limits: tuple[float, float] = (1e-6, 10.0)) -> Figure:
    """Errors of task vectors after transmission, per scheme and user: variance and excess kurtosis.

    Parameters
    ----------
    table : DataFrame
        scheme, variance and predicted (relative to the mean square of what was sent; predicted may be NaN),
        excess_kurtosis (NaN without errors).
    limits : (float, float)
        Variances beyond them are drawn as arrows at the edge.
    """
    schemes = table["scheme"].unique()
    size = (7.8, 0.42 * len(schemes) + 1.3)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=[1.5, 1])
    for place, scheme in enumerate(schemes):
        rows = table[table["scheme"] == scheme]
        heights = place + np.linspace(-0.25, 0.25, len(rows))
        left.plot(rows["predicted"].clip(*limits), heights, "|", color="black", markersize=9, zorder=3)
        variance = rows["variance"].to_numpy()
        for beyond, marker in ((variance > limits[1], ">"), (variance < limits[0], "<")):
            arrow: dict[str, Any] = {"marker": marker, "linestyle": "none", "color": RED, "markersize": 6}
            left.plot(np.clip(variance, *limits)[beyond], heights[beyond], clip_on=False, **arrow)
        inside = (variance >= limits[0]) & (variance <= limits[1])
        left.plot(variance[inside], heights[inside], "o", color=BLUE, markersize=5)
        right.plot(rows["excess_kurtosis"], heights, "o", color=BLUE, markersize=5)
    left.set_yticks(range(len(schemes)), schemes)
    left.set(xscale="log", xlim=limits, ylim=(len(schemes) - 0.5, -0.5), xlabel="error variance / mean square sent")
    right.set(xlabel="excess kurtosis of the errors")
    right.set_xscale("symlog", linthresh=1)
    right.set_xticks([-1, 0, 1, 10, 100, 1e3, 1e4], ["−1", "0", "1", "10", *(f"$10^{n}$" for n in (2, 3, 4))])
    right.axvline(0, color="black", linewidth=1)
    return figure
