"""Figures of the chapter on ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from rmtllmf_lib.protection.resilience import PROTECTIONS
from rmtllmf_lib.study.intervals import over_seeds

# one look for each protection, in every figure of the chapter: colour, marker, line
LOOKS: Mapping[str, tuple[str, str, str]] = {
    "unprotected": (GREY, "x", ":"),
    "freeze": (ORANGE, "v", ":"),
    "realign": (RED, "^", "-"),
    "reload-train-all": (PURPLE, "s", "-"),
    "rmtllmf": (BLUE, "o", "-"),
    "noise-aware": (GREEN, "D", "-"),
    "control": ("black", "P", "--"),
    "base": ("black", "", "-."),
}

_CORRELATIONS = {"independent": (BLUE, "o"), "half": (ORANGE, "s"), "common": (RED, "^")}
_SCALES = {"task": "full", "weight": "left", "unit": "top", "snr": "none"}


def phase_map(rows: pd.DataFrame) -> Figure:
    """Normalised accuracy in every cell scale × correlation × link, beside what the paper reports.

    Parameters
    ----------
    rows : DataFrame
        scale, correlation, link, protection, mean, paper; a panel for each protection.
    """
    panels = list(dict.fromkeys(rows["protection"]))
    figure, axes = plt.subplots(1, len(panels), figsize=(3.9 * len(panels), 5.6), sharey=True, squeeze=False)
    columns = [*dict.fromkeys(rows["correlation"]), "paper"]
    lines = list(dict.fromkeys(zip(rows["scale"], rows["link"], strict=True)))
    for ax, protection in zip(axes[0], panels, strict=True):
        chosen = rows[rows["protection"] == protection]
        wide = chosen.pivot(index=["scale", "link"], columns="correlation", values="mean").reindex(lines)
        wide["paper"] = chosen.groupby(["scale", "link"])["paper"].first()
        sns.heatmap(
            100 * wide[columns].to_numpy(), ax=ax, annot=True, fmt=".0f", cmap="cividis", vmin=0, vmax=100, cbar=False,
            xticklabels=columns, yticklabels=[f"{scale}, {link}" for scale, link in lines], annot_kws={"fontsize": 9},
        )  # fmt: skip
        ax.axvline(len(columns) - 1, color="white", linewidth=5)
        for place in range(1, len(lines)):
            if lines[place][0] != lines[place - 1][0]:
                ax.axhline(place, color="white", linewidth=3)
        ax.set_title(PROTECTIONS[protection].title, fontsize=10)
        ax.grid(visible=False)
        ax.set_xlabel("error across users")
        ax.tick_params(axis="x", rotation=25)
        ax.tick_params(axis="y", rotation=0)
    axes[0][0].set_ylabel("what the error is in proportion to, link")
    return figure


def phase_curves(rows: pd.DataFrame, paper: Mapping[str, float]) -> Axes:
    """Normalised accuracy against the noise-to-signal ratio of the task vectors, one curve per correlation.

    Parameters
    ----------
    rows : DataFrame
        scale, correlation, noise_to_signal, mean, half_width.
    paper : dict of link to the accuracy that the paper reports
    """
    _, ax = plt.subplots(figsize=(7.0, 4.2))
    for place, (link, value) in enumerate(paper.items()):
        label = "reported by the paper" if place == 0 else None
        ax.axhline(100 * value, color="black", linestyle=":", linewidth=1, label=label)
        ax.text(0.47, 100 * value + 1, link, transform=ax.get_yaxis_transform(), ha="right", fontsize=8)
    for correlation, group in rows.groupby("correlation", sort=False):
        colour, marker = _CORRELATIONS[str(correlation)]
        curve = group.sort_values("noise_to_signal")
        decibel = 10 * np.log10(curve["noise_to_signal"])
        ax.plot(decibel, 100 * curve["mean"], color=colour, linewidth=1)
        for scale, points in curve.groupby("scale"):
            ax.errorbar(
                10 * np.log10(points["noise_to_signal"]), 100 * points["mean"], 100 * points["half_width"].fillna(0.0),
                fmt=marker, color=colour, fillstyle=_SCALES[str(scale)], capsize=3, markersize=7,
            )  # fmt: skip
        ax.plot([], [], marker=marker, color=colour, label=f"{correlation} across users")
    for scale in dict.fromkeys(rows["scale"]):
        ax.plot([], [], "o", color="black", fillstyle=_SCALES[scale], label=f"scale “{scale}”")
    ax.set(xlabel="noise over task vector, power (dB)", ylabel="normalised accuracy (%)", ylim=(0, 100))
    ax.legend(fontsize=8, loc="lower left")
    return ax


def against_memory(table: pd.DataFrame, scenarios: Mapping[str, str]) -> Figure:
    """Normalised accuracy against the images per class of the memory, one panel per scenario (the paper's Figure 5).

    Parameters
    ----------
    table : DataFrame
        Of `run_study`. Protections without a memory are drawn as lines; controls that receive nothing in every panel.
    scenarios : dict of name to title
    """
    figure, axes = plt.subplots(1, len(scenarios), figsize=(4.0 * len(scenarios), 4.8), squeeze=False)
    points = over_seeds(table, ["scenario", "protection", "per_class"])
    counts = sorted(set(points["per_class"]) - {0})
    for ax, (scenario, title) in zip(axes[0], scenarios.items(), strict=True):
        here = (points["scenario"] == scenario) | ~points["protection"].map(lambda name: PROTECTIONS[name].receives)
        for place, (name, (colour, marker, line)) in enumerate(LOOKS.items()):
            curve = points[here & (points["protection"] == name)].sort_values("per_class")
            if curve.empty:
                continue
            label = PROTECTIONS[name].title
            if curve["per_class"].iloc[0] == 0:
                ax.axhline(100 * curve["mean"].iloc[0], color=colour, linestyle=line, label=label)
                continue
            ax.errorbar(
                [counts.index(count) + 0.05 * (place - 4) for count in curve["per_class"]], 100 * curve["mean"],
                100 * curve["half_width"].fillna(0.0), color=colour, marker=marker, linestyle=line, capsize=3,
                markersize=5, label=label,
            )  # fmt: skip
        ax.set_xticks(range(len(counts)), [f"{count}" for count in counts])
        ax.set(xlabel="memory, images per class")
        ax.set_title(title, fontsize=10)
    axes[0][0].set_ylabel("normalised accuracy,\nall tasks fused (%)")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9, frameon=False
    )
    return figure


def which_embeddings(table: pd.DataFrame, panels: Mapping[str, Sequence[str]]) -> Figure:
    """Normalised accuracy with each kind of embedding clean, one by one, points with intervals over seeds.

    Parameters
    ----------
    table : DataFrame
        Of `run_study`.
    panels : dict of title to names of protections, in one order
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.9 * len(panels), 2.9), sharey=True, squeeze=False)
    points = over_seeds(table, ["protection"]).set_index("protection")
    for ax, (title, names) in zip(axes[0], panels.items(), strict=True):
        chosen = points.loc[list(names)]
        place = np.arange(len(names))
        colours = [LOOKS[name][0] if name in LOOKS else ORANGE for name in names]
        ax.barh(place, 100 * chosen["mean"], xerr=100 * chosen["half_width"].fillna(0.0), color=colours, capsize=3)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="normalised accuracy (%)", xlim=(0, 100))
    labels = [name.split("-")[-1] if "-" in name else "all three" for name in next(iter(panels.values()))]
    labels[0] = "none"
    axes[0][0].set_yticks(range(len(labels)), labels)
    axes[0][0].invert_yaxis()
    axes[0][0].set_ylabel("embeddings that are reloaded")
    return figure


def against_setting(table: pd.DataFrame, column: str, label: str, panels: Mapping[str, str], by: str) -> Figure:
    """Normalised accuracy against a setting of the realignment, on a logarithmic axis, one panel per value of `by`.

    Parameters
    ----------
    table : DataFrame
        Of `run_study`: `by`, `column`, protection, seed, normalized.
    column, label : what varies ("steps", "lr"), and the label of its axis
    panels : dict of value of `by`, as text, to title
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.9 * len(panels), 3.7), sharey=True, squeeze=False)
    points = over_seeds(table, [by, column, "protection"])
    for ax, (value, title) in zip(axes[0], panels.items(), strict=True):
        for name, curve in points[points[by].astype(str) == value].groupby("protection", sort=False):
            colour, marker, line = LOOKS[str(name)]
            curve = curve.sort_values(column)
            ax.errorbar(
                curve[column], 100 * curve["mean"], 100 * curve["half_width"].fillna(0.0), color=colour, marker=marker,
                linestyle=line, capsize=3, markersize=5, label=PROTECTIONS[str(name)].title,
            )  # fmt: skip
        ticks = sorted(set(points[column]))
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel(label)
        ax.margins(x=0.12)
        ax.set_title(title, fontsize=10)
    axes[0][0].set_ylabel("normalised accuracy,\nall tasks fused (%)")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9, frameon=False
    )
    return figure


def lambda_under_noise(curves: pd.DataFrame, chosen: pd.DataFrame, lam: float) -> Axes:
    """Normalised accuracy of the reloaded model against lambda, one curve per scenario, with the choices made.

    Parameters
    ----------
    curves : DataFrame
        Of `run_study`, at several lambdas: scenario, lam, seed, normalized.
    chosen : DataFrame
        Of `run_study` with the protection "noise-aware-lambda"; one point per seed.
    lam : float
        lambda_N as chosen without noise.
    """
    _, ax = plt.subplots(figsize=(6.6, 4.0))
    ax.axvline(lam, color=GREY, linestyle="--", linewidth=1, label=r"$\lambda_N$ without noise")
    points = over_seeds(curves, ["scenario", "lam"])
    colours = (GREEN, BLUE, ORANGE, RED, PURPLE)
    for (scenario, curve), colour in zip(points.groupby("scenario", sort=False), colours, strict=False):
        curve = curve.sort_values("lam")
        low, high = (100 * (curve["mean"] + sign * curve["half_width"].fillna(0.0)) for sign in (-1, 1))
        ax.fill_between(curve["lam"], low, high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(curve["lam"], 100 * curve["mean"], color=colour, marker=".", label=scenario)
        found = chosen[chosen["scenario"] == scenario].groupby("seed")[["lam", "normalized"]].mean()
        ax.plot(
            found["lam"],
            100 * found["normalized"],
            "D",
            color=colour,
            markersize=8,
            fillstyle="none",
            markeredgewidth=2,
        )
    ax.plot([], [], "D", color="black", fillstyle="none", markeredgewidth=2, label="chosen on the memory")
    ax.set(xlabel=r"$\lambda$", ylabel="normalised accuracy (%)", ylim=(0, 100))
    ax.legend(fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.36))
    return ax
