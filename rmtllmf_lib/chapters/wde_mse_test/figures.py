"""Figures of the chapter on weight disentanglement error and the hypothesis test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

SETTINGS = {
    ("task", "independent"): (BLUE, "o"),
    ("task", "common"): (GREEN, "s"),
    ("weight", "independent"): (ORANGE, "D"),
    ("weight", "common"): (RED, "^"),
}  # colour and marker of a (scale, correlation); others are grey
COUNTED = style.look("counted", "black", "o", "none") | {"markersize": 4}


def wde_map(grid: pd.DataFrame, titles: Sequence[str], lam: float) -> Axes:
    """WDE over the two coefficients, with the coefficient of the fusion marked.

    Parameters
    ----------
    grid : DataFrame
        lam_1, lam_2, wde, from `disentanglement.wde.wde_grid`.
    titles : two names of tasks
    lam : float
        lambda_N, of both tasks.
    """
    _, ax = plt.subplots(figsize=(5.8, 4.8))
    table = grid.pivot(index="lam_2", columns="lam_1", values="wde")
    image = ax.pcolormesh(table.columns, table.index, table, cmap="viridis", shading="nearest", vmin=0)
    ax.plot(lam, lam, marker="*", markersize=15, color="white", markeredgecolor="black", linestyle="none")
    ax.set(xlabel=rf"$\lambda_1$ ({titles[0]})", ylabel=rf"$\lambda_2$ ({titles[1]})", aspect="equal")
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, label=r"WDE $\xi(\lambda_1, \lambda_2)$")
    return ax


def linearisation(errors: pd.DataFrame, valid: float, limit: float, marks: pd.DataFrame) -> Figure:
    """Relative linearisation error against the noise, one line for each task, and where MSEs of a link lie.

    Parameters
    ----------
    errors : DataFrame
        task, std, seed, error, from `noisy_logits.linearisation_error`.
    valid : float
        Noise level at which the error reaches `limit`.
    marks : DataFrame
        scale, correlation, mse, std, from `tables.noise_levels`.
    """
    figure, ax = _over_strip(5.4, errors["std"], marks, valid)
    for number, (task, rows) in enumerate(errors.groupby("task", sort=False)):
        mean = rows.groupby("std")["error"].mean()
        label = "one task each" if number == 0 else None
        ax.plot(mean.index, mean, color=GREY, linewidth=1, alpha=0.8, label=label, gid=str(task))
    ax.axhline(limit, color="black", linestyle="--", linewidth=1, label=f"{limit:.0%}")
    ax.axvspan(errors["std"].min() / 2, valid, color=BLUE, alpha=0.1, label="first order called valid")
    ax.set(yscale="log", ylabel="relative linearisation\nerror")
    ax.legend(fontsize=8, loc="upper left")
    return figure


def slope(table: pd.DataFrame, limits: Sequence[float]) -> Figure:
    """R − 1 against its first-order prediction, one panel for each noise level.

    Parameters
    ----------
    table : DataFrame
        std, first_order, measured, from `ratio_tables.ratio_against_first_order`.
    limits : float for each noise level
        Half the width of its panel.
    """
    levels = sorted(table["std"].unique())
    titles = [f"s = {_power(std)}" for std in levels]
    figure, axes = style.panels(titles, 3.7, 3.7, "$R_k - 1$", sharey=False)
    for ax, std, limit in zip(axes, levels, limits, strict=True):
        rows = table[(table["std"] == std) & (table["first_order"].abs() <= limit) & (table["measured"] <= 3 * limit)]
        ax.plot(rows["first_order"], rows["measured"], ".", color=BLUE, markersize=2, alpha=0.4, label="logits")
        x = np.linspace(-limit, limit, 101)
        ax.plot(x, x, color="black", linestyle="--", linewidth=1, label="slope 1")
        with np.errstate(divide="ignore"):
            law = np.where(x < 1, x / (1 - x), np.nan)
        ax.plot(x, law, color=ORANGE, linewidth=1.2, label="ratio of Gaussian logits")
        ax.set(xlim=(-limit, limit), ylim=(-1.2 * limit, 2 * limit), xlabel=r"$-J_k\,\Delta\theta\,/\,z_{u,k}$")
    legend = axes[0].legend(fontsize=8, loc="upper left")
    legend.legend_handles[0].set(markersize=6, alpha=1)
    return figure


def variance(table: pd.DataFrame, theory: float) -> Axes:
    """Variances of R − 1 and |R − 1| over σ² against the MSE, with intervals.

    Parameters
    ----------
    table : DataFrame
        statistic, mse, mean, half_width.
    theory : float
        The share for |R − 1|.
    """
    _, ax = plt.subplots(figsize=(6.6, 3.6))
    looks = zip((BLUE, ORANGE), "os", strict=True)
    for (statistic, rows), (colour, marker) in zip(table.groupby("statistic", sort=False), looks, strict=False):
        style.with_intervals(ax, rows["mse"], rows, **style.look(str(statistic), colour, marker, "none"))
    ax.axhline(1, color="black", linestyle="--", linewidth=1, label=r"$\sigma_k^2$")
    ax.axhline(theory, color="black", linestyle=":", linewidth=1.3, label=r"$(1-2/\pi)\,\sigma_k^2$")
    ax.set(xscale="log", ylim=(0, 1.25), xlabel="MSE of every user", ylabel=r"variance over $\sigma_k^2$")
    ax.legend(fontsize=8, loc="center right")
    return ax


def acceptance(table: pd.DataFrame, curve: pd.DataFrame, reference_mse: float) -> Axes:
    """Pr(|R − 1| ≤ T) against the MSE for both readings of T, theory and noisy models.

    Parameters
    ----------
    table : DataFrame
        reading ("moving" or "fixed"), mse, mean, half_width.
    curve : DataFrame
        mse, moving, fixed: the theory.
    reference_mse : float
        Where the second reading fixes T.
    """
    _, ax = plt.subplots(figsize=(6.8, 3.8))
    looks = {"moving": ("T follows the MSE", RED, "s"), "fixed": ("T fixed at a reference MSE", BLUE, "o")}
    for reading, (name, colour, marker) in looks.items():
        rows = table[table["reading"] == reading]
        ax.plot(curve["mse"], curve[reading], color=colour, label=f"{name}, theory")
        style.with_intervals(ax, rows["mse"], rows, **style.look("noisy models", colour, marker, "none"))
    ax.axvline(reference_mse, color=GREY, linestyle=":", label="the reference")
    ax.set(xscale="log", ylim=(0, 1.05), xlabel="MSE of every user", ylabel=r"$\Pr(|R-1|\leq T)$")
    ax.legend(fontsize=8, loc="lower left")
    return ax


def failures(noise: pd.DataFrame, shifted: pd.DataFrame) -> Figure:
    """Alarms of the ratio test next to changed predictions: against the MSE, and against a shift of all logits.

    Parameters
    ----------
    noise : DataFrame
        mse, some_ratio, own_ratio, flipped, from `ratio_tables.alarms_against_noise`.
    shifted : DataFrame
        shift, some_ratio, chi_square, flipped, from `ratio_tables.alarms`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.9), sharey=True)
    looks = {
        "some_ratio": style.look("some class's ratio is off", RED, "s"),
        "own_ratio": style.look("predicted class's ratio is off", ORANGE, "D", "-."),
        "chi_square": style.look("chi-square test rejects", GREEN, "^", "--"),
        "flipped": style.look("prediction has changed", BLUE, "o"),
    }
    for ax, table, x in ((left, noise.drop(columns="chi_square", errors="ignore"), "mse"), (right, shifted, "shift")):
        for column in table.columns.intersection(list(looks)):
            ax.plot(table[x], table[column].where(table[column] > 0), markersize=4, **looks[column])
    left.set(xscale="log", yscale="log", xlabel="MSE of every user", ylabel="share of images and draws")
    right.set(xlabel="constant added to all logits")
    left.set_ylim(1e-4, 1.5)
    style.legend_above(figure, right, ncols=2, fontsize=8)
    return figure


def flips(images: pd.DataFrame, levels: pd.DataFrame, valid: float) -> Figure:
    """Flips predicted and counted: image by image at one noise level, and on average at several.

    Parameters
    ----------
    images : DataFrame
        predicted, counted, draws, from `tables.flips`.
    levels : DataFrame
        std, mean, half_width (counted), lower, predicted, upper.
    valid : float
        Noise level up to which the first order is called valid.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.8))
    draws = int(images["draws"].iloc[0])
    smallest = 0.5 / draws
    x = np.geomspace(smallest, 1, 200)
    spread = 3 * np.sqrt(x * (1 - x) / draws)
    low = np.maximum(x - spread, smallest / 2)
    left.fill_between(x, low, x + spread, color=GREY, alpha=0.25, label="3 std. errors")
    left.plot(x, x, color="black", linewidth=1)
    shown = images[images["predicted"] > smallest]
    one_image = style.look("one image each", BLUE, "o", "none")
    left.plot(shown["predicted"], shown["counted"].clip(lower=smallest), markersize=4, alpha=0.7, **one_image)
    left.set(xscale="log", yscale="log", xlabel="predicted flip probability")
    left.set_ylabel("share of noisy models\nthat flip it")
    left.legend(fontsize=8, loc="upper left")
    right.axvspan(levels["std"].min() / 2, valid, color=BLUE, alpha=0.1)
    right.plot(levels["std"], levels["upper"], color=RED, linestyle="--", label="union bound")
    right.plot(levels["std"], levels["predicted"], color=BLUE, label="orthant probability")
    right.plot(levels["std"], levels["lower"], color=ORANGE, linestyle="-.", label="lower bound")
    style.with_intervals(right, levels["std"], levels, **COUNTED)
    right.set(xscale="log", yscale="log", xlabel="noise in each parameter, $s$", ylabel="mean flip rate")
    right.set_xlim(levels["std"].min() / 1.4, levels["std"].max() * 1.4)
    right.legend(fontsize=8, loc="lower right")
    return figure


def power(table: pd.DataFrame, curve: pd.DataFrame, level: float) -> Axes:
    """Rejections of the chi-square test against the noise, as a multiple of the harmless one.

    Parameters
    ----------
    table : DataFrame
        task, multiple, mean, half_width.
    curve : DataFrame
        task, multiple, power: the theory.
    level : float
        Size of the test.
    """
    _, ax = plt.subplots(figsize=(6.6, 3.8))
    looks = zip((BLUE, ORANGE, GREEN, PURPLE), "osD^", strict=True)
    for (task, rows), (colour, marker) in zip(table.groupby("task", sort=False), looks, strict=False):
        theory = curve[curve["task"] == task]
        ax.plot(theory["multiple"], theory["power"], color=colour)
        style.with_intervals(ax, rows["multiple"], rows, **style.look(str(task), colour, marker, "none"))
    ax.axhline(level, color="black", linestyle="--", linewidth=1, label=f"size {level:g}")
    ax.set(xlabel="noise over the harmless noise, $s/s_0$", ylabel="share rejected", ylim=(0, 1.05))
    ax.legend(fontsize=8, loc="lower right")
    return ax


def wde_against_noise(levels: pd.DataFrame, clean: float, valid: float, marks: pd.DataFrame, unit: float) -> Figure:
    """WDE against the noise, counted and predicted, and where the MSEs of a link lie.

    Parameters
    ----------
    levels : DataFrame
        std, mean, half_width (counted), predicted, bound.
    clean : float
        WDE without noise.
    valid : float
        Noise level up to which the first order is called valid.
    marks : DataFrame
        scale, correlation, mse, std, from `tables.noise_levels`.
    unit : float
        Noise level at an MSE of 1, for the upper axis.
    """
    figure, ax = _over_strip(6.4, levels["std"], marks, valid)
    ax.axvspan(levels["std"].min() / 2, valid, color=BLUE, alpha=0.1, label="first order called valid")
    ax.axhline(clean, color=GREY, linestyle="--", linewidth=1, label="no noise")
    ax.plot(levels["std"], levels["predicted"], color=BLUE, label="predicted, first order")
    ax.plot(levels["std"], levels["bound"], color=BLUE, linestyle=":", label="clean WDE + flip probability")
    style.with_intervals(ax, levels["std"], levels, **COUNTED)
    ax.set(ylabel=r"WDE $\xi$, sum over the tasks", ylim=(0, None))
    above = ax.secondary_xaxis("top", functions=(lambda std: (std / unit) ** 2, lambda mse: unit * mse**0.5))
    above.set_xlabel("MSE of every user")
    ax.legend(fontsize=8, loc="upper left")
    return figure


def _over_strip(height: float, stds: pd.Series, marks: pd.DataFrame, valid: float) -> tuple[Figure, Any]:
    """Return a figure and its upper panel, for what depends on the noise; below it, the MSEs of the link on that axis.

    The lower panel has a row for each scale and correlation of `marks`.
    """
    figure, (upper, ax) = plt.subplots(2, 1, figsize=(7.0, height), sharex=True, height_ratios=(2.4, 1))
    groups = list(marks.groupby(["scale", "correlation"], sort=False))
    for place, ((scale, correlation), rows) in enumerate(groups):
        colour, marker = SETTINGS.get((str(scale), str(correlation)), (GREY, "o"))
        ax.plot(rows["std"], [place] * len(rows), marker=marker, color=colour, linewidth=1)
        for number, (mse, std) in enumerate(zip(rows["mse"], rows["std"], strict=True), 1):
            crowded = number == len(rows) - 1  # the last two of the paper's lie close together
            beside = {"ha": "right", "xytext": (-3, 5)} if crowded else {"xytext": (0, 5)}
            ax.annotate(f"{mse:g}", (std, place), textcoords="offset points", fontsize=8, **beside)
    ax.axvspan(stds.min() / 1e3, valid, color=BLUE, alpha=0.1)
    names = [f"{scale} scale, {correlation}" for (scale, correlation), _ in groups]
    ax.set_yticks(range(len(groups)), names, fontsize=8)
    ax.set(xscale="log", xlabel="standard deviation $s$ of the noise in each parameter", ylim=(len(groups) - 0.5, -0.7))
    ax.set_xlim(stds.min() / 1.3, max(stds.max(), marks["std"].max()) * 1.6)
    ax.set_title("the paper's mean squared errors", fontsize=9, loc="left")
    ax.grid(visible=False, axis="y")
    return figure, upper


def _power(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"${mantissa}\cdot 10^{{{int(exponent)}}}$"
