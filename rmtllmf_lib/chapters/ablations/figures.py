"""Figures of the chapter on ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.ablations.tables import over_control
from rmtllmf_lib.chapters.style import GREEN, GREY, ORANGE
from rmtllmf_lib.protection.resilience import PROTECTIONS
from rmtllmf_lib.study.intervals import over_seeds

LOOKS = {name: style.look(PROTECTIONS[name].title, *look) for name, look in style.METHODS.items()}

_FUSED = "normalised accuracy,\nall tasks fused (%)"
_SCALES = {"task": "full", "weight": "left", "unit": "top", "snr": "none"}


def phase_map(rows: pd.DataFrame) -> Figure:
    """Normalised accuracy for every scale, correlation and link, beside what the paper reports.

    Parameters
    ----------
    rows : DataFrame
        scale, correlation, link, protection, mean, paper; a panel for each protection.
    """
    protections = rows["protection"].unique()
    titles = [PROTECTIONS[name].title for name in protections]
    figure, axes = style.panels(titles, 3.9, 5.6, "what the error is in proportion to, link")
    columns = [*dict.fromkeys(rows["correlation"]), "paper"]
    lines = list(dict.fromkeys(zip(rows["scale"], rows["link"], strict=True)))
    for ax, protection in zip(axes, protections, strict=True):
        chosen = rows[rows["protection"] == protection]
        wide = chosen.pivot(index=["scale", "link"], columns="correlation", values="mean").reindex(lines)
        wide["paper"] = chosen.groupby(["scale", "link"])["paper"].first()
        labels, colours = [f"{scale}, {link}" for scale, link in lines], {"cmap": "cividis", "vmin": 0, "vmax": 100}
        style.heatmap(ax, 100 * wide[columns], labels, columns, rotation=25, fmt=".0f", **colours)
        ax.axvline(len(columns) - 1, color="white", linewidth=5)
        for place in range(1, len(lines)):
            if lines[place][0] != lines[place - 1][0]:
                ax.axhline(place, color="white", linewidth=3)
        ax.set_xlabel("error across users")
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
        colour, marker = style.CORRELATIONS[str(correlation)]
        curve = group.sort_values("noise_to_signal")
        ax.plot(10 * np.log10(curve["noise_to_signal"]), 100 * curve["mean"], color=colour, linewidth=1)
        for scale, points in curve.groupby("scale"):
            look: dict[str, Any] = {"fmt": marker, "color": colour, "fillstyle": _SCALES[str(scale)], "markersize": 7}
            style.with_intervals(ax, 10 * np.log10(points["noise_to_signal"]), points, factor=100, **look)
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
        From `run_study`. Protections without a memory are drawn as lines; controls that receive nothing in every panel.
    scenarios : dict of name to title
    """
    figure, axes = style.panels(scenarios.values(), 4.0, 4.8, _FUSED)
    points = over_seeds(table, ["scenario", "protection", "per_class"])
    counts = sorted(set(points["per_class"]) - {0})
    for ax, scenario in zip(axes, scenarios, strict=True):
        here = (points["scenario"] == scenario) | ~points["protection"].map(lambda name: PROTECTIONS[name].receives)
        for place, (name, look) in enumerate(LOOKS.items()):
            curve = points[here & (points["protection"] == name)].sort_values("per_class")
            if curve.empty:
                continue
            if curve["per_class"].iloc[0] == 0:
                ax.axhline(100 * curve["mean"].iloc[0], **look | {"marker": ""})
                continue
            x = [counts.index(count) + 0.05 * (place - 4) for count in curve["per_class"]]
            style.with_intervals(ax, x, curve, factor=100, markersize=5, **look)
        ax.set_xticks(range(len(counts)), [f"{count}" for count in counts])
        ax.set(xlabel="memory, images per class")
    style.label_last(figure, axes)
    return figure


def which_embeddings(table: pd.DataFrame, panels: Mapping[str, Sequence[str]]) -> Figure:
    """Normalised accuracy with each kind of embedding clean, one by one, points with intervals over seeds.

    Parameters
    ----------
    table : DataFrame
        From `run_study`.
    panels : dict of title to names of protections, in one order
    """
    figure, axes = style.panels(panels, 3.9, 2.9, "embeddings that are reloaded")
    points = over_seeds(table, ["protection"]).set_index("protection")
    for ax, names in zip(axes, panels.values(), strict=True):
        chosen = points.loc[list(names)]
        place = np.arange(len(names))
        colours = [LOOKS[name]["color"] if name in LOOKS else ORANGE for name in names]
        ax.barh(place, 100 * chosen["mean"], xerr=100 * chosen["half_width"].fillna(0.0), color=colours, capsize=3)
        ax.set(xlabel="normalised accuracy (%)", xlim=(0, 100))
    labels = [name.split("-")[-1] if "-" in name else "all three" for name in next(iter(panels.values()))]
    labels[0] = "none"
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].invert_yaxis()
    return figure


def against_setting(table: pd.DataFrame, column: str, label: str, panels: Mapping[str, str], by: str) -> Figure:
    """Normalised accuracy against a setting of the realignment, on a logarithmic axis, one panel per value of `by`.

    Parameters
    ----------
    table : DataFrame
        From `run_study`: `by`, `column`, protection, seed, normalized.
    column, label : what varies ("steps", "lr"), and the label of its axis
    panels : dict of value of `by`, as text, to title
    """
    figure, axes = style.panels(panels.values(), 3.9, 3.7, _FUSED)
    points = over_seeds(table, [by, column, "protection"])
    for ax, value in zip(axes, panels, strict=True):
        for name, curve in points[points[by].astype(str) == value].groupby("protection", sort=False):
            curve = curve.sort_values(column)
            style.with_intervals(ax, curve[column], curve, factor=100, markersize=5, **LOOKS[str(name)])
        style.log_ticks(ax, sorted(set(points[column])))
        ax.set_xlabel(label)
        ax.margins(x=0.12)
    style.label_last(figure, axes)
    return figure


def lambda_under_noise(curves: pd.DataFrame, chosen: pd.DataFrame, lam: float) -> Axes:
    """Normalised accuracy of the reloaded model against lambda, one curve per scenario, with the choices made.

    Parameters
    ----------
    curves : DataFrame
        From `run_study`, at several lambdas: scenario, lam, seed, normalized.
    chosen : DataFrame
        From `run_study` with the protection "noise-aware-lambda"; one point per seed.
    lam : float
        lambda_N as chosen without noise.
    """
    _, ax = plt.subplots(figsize=(6.6, 4.0))
    ax.axvline(lam, color=GREY, linestyle="--", linewidth=1, label=r"$\lambda_N$ without noise")
    points = over_seeds(curves, ["scenario", "lam"])
    diamond: dict[str, Any] = {"marker": "D", "linestyle": "none", "fillstyle": "none", "markeredgewidth": 2}
    for scenario, curve in points.groupby("scenario", sort=False):
        colour, curve = style.LINKS.get(str(scenario), (GREEN, ""))[0], curve.sort_values("lam")
        low, middle, high = (100 * (curve["mean"] + sign * curve["half_width"].fillna(0.0)) for sign in (-1, 0, 1))
        style.with_band(ax, curve["lam"], low, middle, high, **style.look(str(scenario), colour, "."))
        found = chosen[chosen["scenario"] == scenario].groupby("seed")[["lam", "normalized"]].mean()
        ax.plot(found["lam"], 100 * found["normalized"], color=colour, markersize=8, **diamond)
    ax.plot([], [], color="black", label="chosen on the memory", **diamond)
    ax.set(xlabel=r"$\lambda$", ylabel="normalised accuracy (%)", ylim=(0, 100))
    ax.legend(*style.label_lines(ax), fontsize=8, loc="lower left")
    return ax


# curves of `where_the_link_helps`
_TITLES = {
    "clean": "no noise",
    "ideal": "ideal link",
    "SR, independent": "SR, independent errors",
    "SR": "SR, errors half common",
}


def where_the_link_helps(rows: pd.DataFrame, control: str = "control") -> Figure:
    """Lead of R-MTLLMF over a control without a link, against what the control reaches: a curve for each link.

    Parameters
    ----------
    rows : DataFrame
        From `suites.leads`, of one number of tasks and one rule for lambda, with the difficulty: a panel for each
        memory that several difficulties have, and one for the calibrated tasks where they have several more.
    control : str
        Name of the control, as in the columns of `rows`.
    """
    ours = rows[rows["protection"] == "rmtllmf"].sort_values(f"{control}_mean")
    panels = {
        f"{k} image{'s' * (k != 1)} per class": part.assign(note=part["difficulty"])
        for k, part in ours.groupby("per_class") if part["difficulty"].nunique() > 1
    }  # fmt: skip
    same = ours[ours["difficulty"] == "calibrated"]
    if not panels or same["per_class"].nunique() > len(panels):
        panels["calibrated, images per class"] = same.assign(note=same["per_class"].astype(str))
    width = {1: 6.0, 2: 4.1}.get(len(panels), 3.6)
    figure, axes = style.panels(panels, width, 4.4, "lead of R-MTLLMF over it (points)")
    for ax, part in zip(axes, panels.values(), strict=True):
        ax.axhline(0, color="black", linewidth=1)
        for order, (scenario, label) in enumerate(_TITLES.items()):
            colour, marker = style.LINKS[scenario]
            curve = part[part["scenario"] == scenario]
            if curve.empty:
                continue
            x = 100 * curve[f"{control}_mean"] + 0.15 * (order - 1.5)  # side by side, so that no bar hides another
            points = over_control(curve, control)
            style.with_intervals(ax, x, points, factor=100, markersize=6, **style.look(label, colour, marker))
        for cell in part.drop_duplicates(f"{control}_mean").itertuples():
            where, how = (100 * getattr(cell, f"{control}_mean"), 0.0), {"ha": "center", "fontsize": 8, "color": GREY}
            ax.annotate(cell.note, where, (0, 6), ("data", "axes fraction"), "offset points", **how)
        ax.set_xlabel(f"{PROTECTIONS[control].title}: accuracy (%)", fontsize=10)
        ax.margins(x=0.15)
    style.label_last(figure, axes)
    return figure
