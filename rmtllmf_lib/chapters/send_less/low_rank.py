"""Figures and tables of what users train in place of whole weights, and of federated averaging in rounds.

They show the book's stored results `low_rank_and_rounds`, and one user trained again.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, RED
from rmtllmf_lib.payload.lora import ATTENTION, Lora
from rmtllmf_lib.training.finetune import recipe_for
from rmtllmf_lib.training.lora import finetune_lora
from rmtllmf_lib.training.suite import Suite

_MERGED = {"specialists": ("own specialists", GREY, "P"), "arithmetic": ("plain sum", BLUE, "o"),
           "tsv": ("TSV-Merge", ORANGE, "s")}  # fmt: skip
_UPLOADS = {"clean": ("FedAvg, exact uploads", GREEN, "o", "-"), "SR": ("FedAvg, errors of SR", RED, "^", "--")}


def low_rank(rows: pd.DataFrame) -> Axes:
    """Normalised accuracy of what is trained, a row for each, alone and merged.

    Parameters
    ----------
    rows : DataFrame
        Of the book's results "low_rank_and_rounds": method, numbers, merger, mean, half_width.
    """
    here = rows[rows["method"] != "FedAvg"]
    names = list(dict.fromkeys(here["method"]))
    sizes = here.groupby("method")["numbers"].first()
    _, ax = plt.subplots(figsize=(7.4, 3.6))
    for shift, (merger, (label, colour, marker)) in zip((-0.2, 0.0, 0.2), _MERGED.items(), strict=True):
        points = here[here["merger"] == merger].set_index("method").loc[names]
        place = np.arange(len(names)) + shift
        look = style.look(label, colour, marker, "none")
        style.with_intervals(ax, place, points, factor=100, sideways=True, **look)
    ax.set_yticks(range(len(names)), [f"{name}\n{sizes[name]:,} numbers" for name in names], fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="normalised accuracy, against specialists of whole weights (%)")
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, 1.16), ncols=3, frameon=False)
    return ax


def rounds(rows: pd.DataFrame) -> Axes:
    """Normalised accuracy of federated averaging against channel uses, with one upload of each kind beside it.

    Parameters
    ----------
    rows : DataFrame
        Of the book's results "low_rank_and_rounds": method, merger, link, round, uses, mean, half_width.
    """
    _, ax = plt.subplots(figsize=(7.2, 4.2))
    for link, (label, colour, marker, line) in _UPLOADS.items():
        points = rows[(rows["method"] == "FedAvg") & (rows["link"] == link)].sort_values("round")
        style.with_intervals(ax, points["uses"], points, factor=100, **style.look(label, colour, marker, line))
    for merger, (method, label, colour, marker) in {
        "arithmetic": ("full", "whole vectors, plain sum", BLUE, "D"),
        "tsv": ("full", "whole vectors, TSV-Merge", ORANGE, "s"),
    }.items():
        point = rows[(rows["method"] == method) & (rows["merger"] == merger)]
        style.with_intervals(ax, point["uses"], point, factor=100, **style.look(label, colour, marker, "none"))
    best = rows[rows["method"].str.contains("LoRA") & (rows["merger"] == "arithmetic")]
    style.with_intervals(ax, best["uses"], best, factor=100, **style.look("LoRA, L-LoRA, plain sum", GREY, "P", "none"))
    ax.set(xscale="log", xlabel="channel uses of a user, two numbers in each", ylabel="normalised accuracy (%)")
    ax.legend(fontsize=8, loc="upper left")
    return ax


def first_round_above(rows: pd.DataFrame, level: float, link: str = "clean") -> int:
    """Return the first round of federated averaging whose mean is above a level, 0 if none is."""
    points = rows[(rows["method"] == "FedAvg") & (rows["link"] == link) & (rows["mean"] > level)]
    return int(points["round"].min()) if len(points) else 0


def linear_users(suite: Suite, names: tuple[str, str], steps: int, lr: float) -> dict[str, float]:
    """Train two users by L-LoRA and by LoRA, and compare the decoded sum of their factors with the sum of the vectors.

    Parameters
    ----------
    names : two tasks
    steps, lr
        Of the training of each.

    Returns
    -------
    dict with "L-LoRA" and "LoRA": norm of the difference over that of the sum of the vectors.
    """
    found, layout = {}, suite.backbone.weights.layout
    for label, lora in {"L-LoRA": Lora(4, 4.0, ATTENTION, frozen=True), "LoRA": Lora(4, 4.0, ATTENTION)}.items():
        users = [
            finetune_lora(
                suite.backbone, suite.tasks[name], suite.heads[name], lora,
                recipe_for(suite.backbone, steps=steps, lr=lr), generator=torch.Generator().manual_seed(place),
            )
            for place, name in enumerate(names)
        ]  # fmt: skip
        apart = users[0].tau + users[1].tau
        numbers = users[0].encoded.numbers + users[1].encoded.numbers
        found[label] = (lora.decode(lora.encoded(numbers), layout) - apart).norm / apart.norm
    return found
