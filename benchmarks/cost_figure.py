"""Figures of computing time: attacks against antennas and users, mergers against vectors and width."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.mergers.figures import LOOKS as MERGERS
from rmtllmf_lib.chapters.worst_case_noise.figures import LOOKS

SOLVER = ", cvxpy"  # behind the name of an attack: the same problem, given to a general convex solver
RATES = style.look("SIC rates, given noise", "black")
OUT = Path(__file__).resolve().parents[1] / "_build" / "benchmarks"
_FIXED = {"antennas": "users", "users": "antennas"}
_SYMBOL = {"antennas": "$N_R$", "users": "$Q$"}


def cost(table: pd.DataFrame) -> Figure:
    """Time for one drop against the number of antennas and of users.

    Parameters
    ----------
    table : DataFrame
        sweep ("antennas" or "users": what varies), antennas, users, method ("rates", the name of an attack, or this
        with `SOLVER` behind it), seconds.
    """
    sweeps = table["sweep"].unique()
    figure, axes = style.panels([""] * len(sweeps), 4.1, 4.4, "time for one drop (s)")
    for ax, sweep in zip(axes, sweeps, strict=True):
        rows = table[table["sweep"] == sweep]
        for method, curve in rows.groupby("method", sort=False):
            attack, solved = str(method).removesuffix(SOLVER), str(method).endswith(SOLVER)
            look = LOOKS.get(attack, RATES) | {"marker": "o", "linestyle": "-"}
            if solved:
                look |= {"label": f"{look['label']}, convex solver", "marker": "s", "linestyle": ":"}
            ax.plot(curve[sweep], curve["seconds"], markersize=5, **look)
        fixed = _FIXED[sweep]
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(set(rows[sweep])), [str(size) for size in sorted(set(rows[sweep]))])
        ax.set(yscale="log", xlabel=f"{sweep} {_SYMBOL[sweep]}, with {_SYMBOL[fixed]} = {rows[fixed].iloc[0]}")
    style.legend_above(figure, axes[0], ncols=2)
    return figure


def merging(table: pd.DataFrame) -> Figure:
    """Time to merge one transformer block against the number of vectors N and the width of the block.

    Parameters
    ----------
    table : DataFrame
        sweep ("vectors" or "width": what varies), vectors, width, merger, seconds.
    """
    sweeps = {"vectors": "task vectors $N$, width", "width": "width of the block, $N$ ="}
    figure, axes = style.panels([""] * len(sweeps), 4.1, 4.4, "time to merge a block (s)")
    for ax, (sweep, label) in zip(axes, sweeps.items(), strict=True):
        rows = table[table["sweep"] == sweep]
        for name, curve in rows.groupby("merger", sort=False):
            ax.plot(curve[sweep], curve["seconds"], **MERGERS[str(name)] | {"marker": "o", "markersize": 5})
        other = "width" if sweep == "vectors" else "vectors"
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(set(rows[sweep])), [str(size) for size in sorted(set(rows[sweep]))])
        ax.set(yscale="log", xlabel=f"{label} {rows[other].iloc[0]}")
    style.legend_above(figure, axes[0], ncols=2)
    return figure


def save(table: pd.DataFrame, draw: Callable[[pd.DataFrame], Figure], name: str, folder: Path = OUT) -> None:
    """Write a table and its figure as `name`.csv and `name`.png, and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    style.use_style()
    figure = draw(table)
    figure.savefig(folder / f"{name}.png")
    plt.close(figure)
    print(f"a figure, and its numbers as {name}.csv: {folder / name}.png", file=sys.stderr)
