"""The calibrated difficulty is the one of the grid that its rule finds, and is as hard as the table says."""

from __future__ import annotations

import pandas as pd
import pytest

from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.published import CLIP_RESULTS
from rmtllmf_lib.tasks.embedded.difficulty import DIFFICULTIES
from rmtllmf_lib.training.calibration import MEASURES, closest, distance, per_task, shipped_table
from rmtllmf_lib.training.suite import load_suite


def test_the_calibrated_difficulty_comes_closest() -> None:
    table = shipped_table()
    assert len(table.groupby(["severity", "seed"])) == len(table) == 10 and set(table["seed"]) == {0, 1}
    assert round(closest(table), 1) == DIFFICULTIES["calibrated"]
    for row in table.to_dict("records"):
        assert distance(row) == pytest.approx(row["distance"], abs=1e-4)


def test_the_distance_is_from_the_middle_of_what_is_published() -> None:
    middle = {name: (CLIP_RESULTS["ViT-B/16"][name] + CLIP_RESULTS["ViT-B/32"][name]) / 2 for name in MEASURES}
    assert distance(middle) == pytest.approx(0, abs=1e-12)
    assert distance({name: value + 0.1 for name, value in middle.items()}) == pytest.approx(0.1)
    assert distance({**middle, "zero_shot": middle["zero_shot"] + 0.2}) == pytest.approx(0.1)


def test_the_minimum_lies_between_the_points_of_a_grid() -> None:
    table = pd.DataFrame({"severity": [0.0, 0.2, 0.4, 0.6] * 2, "seed": [0] * 4 + [1] * 4})
    table["distance"] = ((table["severity"] - 0.33) ** 2 + 0.01) ** 0.5
    assert closest(table) == pytest.approx(0.33)
    assert closest(table[table["severity"] > 0.3]) == 0.4  # the end of the grid


@pytest.mark.slow
def test_the_tasks_are_as_hard_as_the_table_says() -> None:
    """All eight tasks are trained once more; fewer images are looked at, so bounds are three standard errors."""
    suite = load_suite(load_backbone("tiny"), seed=0)
    measures = per_task(suite, limit=200)[list(MEASURES)].mean()
    row = shipped_table().query("severity == 0.6 and seed == 0").iloc[0]
    for name in MEASURES:
        assert measures[name] == pytest.approx(row[name], abs=0.04), name
    assert distance(measures) < 0.06
