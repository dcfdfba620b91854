"""How hard the drawn tasks are, beside what is published for CLIP, and the difficulty that comes closest.

`DIFFICULTIES["calibrated"]` is what `closest` finds in `calibration.csv`, rounded to a tenth;
`tools/calibrate.py` makes that table for the shipped base, from validation images alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import lambda_n
from rmtllmf_lib.published import CLIP_RESULTS
from rmtllmf_lib.training.combinations import evaluate_combinations
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.validated import validated_call

LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6)
MEASURES = ("zero_shot", "fine_tuned", "zero_shot_normalized", "fused_normalized")


@validated_call
def per_task(suite: Suite, *, split: str = "validation", limit: int | None = None) -> pd.DataFrame:
    """The measures of difficulty for each task of a suite.

    Returns
    -------
    DataFrame indexed by task: zero_shot and fine_tuned (accuracies), zero_shot_normalized (their ratio), and
    fused_normalized, of all task vectors added up with the best of `LAMBDAS` on the validation images.
    """
    options: dict[str, Any] = {"sizes": (len(suite.taus),), "limit": limit, "progress": False}

    def fused(lam: float, split: str) -> pd.DataFrame:
        rule = partial(lambda_n, rule="constant", value=lam)
        return evaluate_combinations(suite, rule, split=split, **options).set_index("task")

    best = max(LAMBDAS, key=lambda lam: fused(lam, "validation")["normalized"].mean())
    found = fused(best, split)
    nothing = evaluate_combinations(suite, lambda _: 0.0, split=split, **options).set_index("task")
    return pd.DataFrame(
        {
            "zero_shot": nothing["accuracy"],
            "fine_tuned": found["reference"],
            "zero_shot_normalized": nothing["normalized"],
            "fused_normalized": found["normalized"],
        }
    )


@validated_call
def distance(measures: Mapping[str, float] | pd.Series) -> float:
    """Root mean square difference of the measures from the mean of those published for the two CLIP models.

    Raises
    ------
    InputError
        for a measure that is missing or not a number from 0 to 2.
    """
    if missing := [name for name in MEASURES if name not in measures]:
        raise InputError(f"measures lack {', '.join(missing)}: expected {', '.join(MEASURES)}")
    for name in MEASURES:
        real_number(measures[name], name, minimum=0, maximum=2)
    target = pd.DataFrame(CLIP_RESULTS).mean(axis=1)
    return float(np.sqrt(np.mean([(measures[name] - target[name]) ** 2 for name in MEASURES])))


def shipped_table() -> pd.DataFrame:
    """The table of `calibrate` for the base that ships with the library."""
    with (files("rmtllmf_lib.training") / "calibration.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


@validated_call
def closest(table: pd.DataFrame) -> float:
    """The severity of least mean distance: the minimum of a parabola through the three best of the grid, or its end.

    Parameters
    ----------
    table : DataFrame
        Columns severity and distance, one row for each suite.

    Raises
    ------
    InputError
        for a missing column, or no rows.
    """
    if missing := [name for name in ("severity", "distance") if name not in table]:
        raise InputError(f"the table has no column {', '.join(missing)}: expected severity and distance")
    if not len(table):
        raise InputError("the table has no rows: expected one for each suite")
    means = table.groupby("severity")["distance"].apply(lambda each: float(np.sqrt(np.mean(each**2))))
    place = int(np.argmin(means))
    if place in (0, len(means) - 1):
        return float(means.index[place])
    near = means.iloc[place - 1 : place + 2]
    square, slope, _ = np.polyfit(near.index, near**2, 2)
    return float(-slope / (2 * square))
