"""Means and intervals as text."""

import numpy as np
import pandas as pd
import pytest

from rmtllmf_lib.chapters.words import as_fractions, in_points, percent

ROWS = pd.DataFrame({"mean": [0.514, -0.2], "half_width": [0.016, np.nan]})


@pytest.mark.parametrize(
    ("mean", "half", "expected"), [(0.654, 0.031, "65 ± 3"), (0.654, np.nan, "65"), (-0.021, 0.004, "-2 ± 0")]
)
def test_percent(mean: float, half: float, expected: str) -> None:
    assert percent(mean, half) == expected


def test_rows_in_points_and_as_fractions() -> None:
    assert in_points(ROWS) == "51 ± 2, -20"
    assert in_points(ROWS.assign(scenario=["ideal", "SU"])) == "ideal 51 ± 2, SU -20"
    assert as_fractions(ROWS.fillna(0.1)) == "0.51 ± 0.02, -0.20 ± 0.10"
