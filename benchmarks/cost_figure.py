"""Figure of what the wireless half costs; `make benchmark` draws it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rmtllmf_lib.chapters.worst_case_noise.figures import LOOKS

SOLVER = ", cvxpy"  # behind the name of an attack: the same problem, given to a general convex solver
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
    sweeps = list(dict.fromkeys(table["sweep"]))
    figure, axes = plt.subplots(1, len(sweeps), figsize=(4.1 * len(sweeps), 4.4), sharey=True, squeeze=False)
    for ax, sweep in zip(axes[0], sweeps, strict=True):
        rows = table[table["sweep"] == sweep]
        for method, curve in rows.groupby("method", sort=False):
            label, colour, _ = LOOKS.get(str(method).removesuffix(SOLVER), ("SIC rates, given noise", "black", ""))
            solver = str(method).endswith(SOLVER)
            ax.plot(
                curve[sweep],
                curve["seconds"],
                color=colour,
                marker="s" if solver else "o",
                markersize=5,
                linestyle=":" if solver else "-",
                label=label + (", convex solver" if solver else ""),
            )
        fixed = _FIXED[sweep]
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(set(rows[sweep])), [str(size) for size in sorted(set(rows[sweep]))])
        ax.set(yscale="log", xlabel=f"{sweep} {_SYMBOL[sweep]}, with {_SYMBOL[fixed]} = {rows[fixed].iloc[0]}")
    axes[0][0].set_ylabel("time for one drop (s)")
    labels = dict(zip(*reversed(axes[0][0].get_legend_handles_labels()), strict=True))
    figure.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    return figure
