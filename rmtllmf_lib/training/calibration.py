"""How hard the drawn tasks are, beside what is published for CLIP, and the difficulty that comes closest.

`DIFFICULTIES["calibrated"]` is what `closest` finds in `calibration.csv`, `calibrate`'s table for the shipped base,
rounded to a tenth. All images are validation images; test images have no say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.fusion import lambda_n
from rmtllmf_lib.published import CLIP_RESULTS
from rmtllmf_lib.training.combinations import evaluate_combinations
from rmtllmf_lib.training.suite import Suite, load_suite

GRID = (0.0, 0.2, 0.4, 0.6, 0.8)  # severities
LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6)
MEASURES = ("zero_shot", "fine_tuned", "zero_shot_normalized", "fused_normalized")


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


def distance(measures: Mapping[str, float]) -> float:
    """Root mean square difference of the measures from the mean of those published for the two CLIP models."""
    target = pd.DataFrame(CLIP_RESULTS).mean(axis=1)
    return float(np.sqrt(np.mean([(measures[name] - target[name]) ** 2 for name in MEASURES])))


def calibrate(
    backbone: Backbone, severities: Sequence[float] = GRID, *, seeds: Sequence[int] = (0, 1), **options: Any
) -> pd.DataFrame:
    """Measure suites of several difficulties on validation images.

    Parameters
    ----------
    severities : sequence of float
        See `difficulty.severity`.
    seeds : sequence of int
        Each draws and trains a suite of its own.
    **options
        As in `load_suite`.

    Returns
    -------
    DataFrame with one row per suite: severity, seed, the means of `MEASURES` over the tasks, and their distance.
    """
    rows = []
    for severity in severities:
        for seed in seeds:
            suite = load_suite(backbone, seed=seed, difficulty=severity, **options)
            measures = per_task(suite)[list(MEASURES)].mean().to_dict()
            rows.append({"severity": severity, "seed": seed, **measures, "distance": distance(measures)})
    return pd.DataFrame(rows)


def shipped_table() -> pd.DataFrame:
    """The table of `calibrate` for the base that ships with the library."""
    with (files("rmtllmf_lib.training") / "calibration.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def closest(table: pd.DataFrame) -> float:
    """The severity of least mean distance: the minimum of a parabola through the three best of the grid, or its end."""
    means = table.groupby("severity")["distance"].apply(lambda each: float(np.sqrt(np.mean(each**2))))
    place = int(np.argmin(means))
    if place in (0, len(means) - 1):
        return float(means.index[place])
    near = means.iloc[place - 1 : place + 2]
    square, slope, _ = np.polyfit(near.index, near**2, 2)
    return float(-slope / (2 * square))
