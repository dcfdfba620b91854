"""Numbers as the chapters write them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def percent(mean: float, half_width: float) -> str:
    """A mean in [0, 1] with the half width of its interval, in %: "65 ± 3"; without ± where it is not known."""
    told = f"{round(100 * mean)}"  # an integer: there is no -0
    return told if np.isnan(half_width) else f"{told} ± {100 * half_width:.0f}"


def in_words(gaps: pd.DataFrame) -> str:
    """Differences of `ablation.gap`, in points of a hundred: "ideal 25 ± 6, SU 42 ± 3"; names from `scenario`."""
    names = gaps["scenario"] if "scenario" in gaps else [""] * len(gaps)
    told = [
        f"{name} {percent(row.mean, row.half_width)}".strip()
        for name, row in zip(names, gaps[["mean", "half_width"]].itertuples(index=False), strict=True)
    ]
    return ", ".join(told)
