"""Means and their intervals as text, in the formats of the chapters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd


def percent(mean: float, half_width: float) -> str:
    """Return a mean in [0, 1] with the half width of its interval, in %: "65 ± 3"; without ± where it is NaN."""
    text = f"{round(100 * mean)}"  # an integer: there is no -0
    return text if np.isnan(half_width) else f"{text} ± {100 * half_width:.0f}"


def in_points(gaps: pd.DataFrame) -> str:
    """Return the rows of a table of `gap` in percentage points, "ideal 25 ± 6, SU 42 ± 3"; names from `scenario`."""
    names = gaps["scenario"] if "scenario" in gaps else [""] * len(gaps)
    texts = map(percent, gaps["mean"], gaps["half_width"])
    return ", ".join(f"{name} {text}".strip() for name, text in zip(names, texts, strict=True))


def as_fractions(rows: pd.DataFrame) -> str:
    """Return the rows of a table of `gap` or `over_seeds` as fractions, "0.31 ± 0.02, 0.40 ± 0.05"."""
    return ", ".join(f"{row.mean:.2f} ± {row.half_width:.2f}" for row in rows.itertuples())


def standing(gaps: pd.DataFrame, far: float = 0.2) -> str:
    """Return where the first condition of a table of `gap` stands, as its intervals tell: "far ahead of" the second.

    All rows must agree, or else the words are "not surely apart from"; `far` is in the unit of the table.
    """
    low, high = gaps["mean"] - gaps["half_width"], gaps["mean"] + gaps["half_width"]
    for words, all_so in (
        ("far ahead of", low > far), ("far behind", high < -far), ("ahead of", low > 0), ("behind", high < 0)
    ):  # fmt: skip
        if all_so.all():
            return words
    return "not surely apart from"


def at_ends(choices: pd.DataFrame, names: Mapping[str, str]) -> str:
    """Return the choices of a table of `suites.grid_ends` at an end of their grid, of protections that have a name.

    "learning rate (largest) of the control", for example, one after the other; "none" where all lie inside.
    """
    settings = {"lr": "learning rate", "lam": r"$\lambda$"}
    kept = choices[choices["protection"].isin([*names]) & choices["end"].ne("")]
    texts = [f"{settings[row.setting]} ({row.end}) of {names[row.protection]}" for row in kept.itertuples()]
    return ", ".join(dict.fromkeys(texts)) or "none"


def ends_counted(choices: pd.DataFrame) -> dict[str, str]:
    """Return how many choices of a table of `suites.grid_ends` lie at an end, by setting: {"lr": "7 of 20", …}."""
    return {
        setting: f"{choices.loc[choices['setting'] == setting, 'end'].ne('').sum()} of "
        f"{choices['setting'].eq(setting).sum()}"
        for setting in ("lr", "lam")
    }


def beyond_rounding(off: float, rounding: float) -> str:
    """Return by how much two things differ, as a share: "by rounding alone" below `rounding`, or "by 3.20 %"."""
    return "by rounding alone" if off < rounding else f"by {100 * off:.2f} %"


def where_sure(sure: Mapping[str, object]) -> str:
    """Return on which links something is sure: "on no link", "on all links", "only without a jammer", …

    Parameters
    ----------
    sure : mapping of link to anything true or false
    """
    links = [name for name, each in sure.items() if each]
    if len(links) in (0, len(sure)):
        return "on all links" if links else "on no link"
    return "only " + " and ".join("without a jammer" if name == "ideal" else f"under {name}" for name in links)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown. Bars inside formulas become a command, so that no text can end its cell."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\vert ").replace("\n", " ").strip()
