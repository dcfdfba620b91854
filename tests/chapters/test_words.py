"""Means and intervals as text."""

import numpy as np
import pandas as pd
import pytest

from rmtllmf_lib.chapters.words import (
    as_fractions,
    at_ends,
    beyond_rounding,
    ends_counted,
    in_points,
    markdown,
    percent,
    standing,
    where_sure,
)

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


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ((0.3, 0.4), "far ahead of"), ((0.3, 0.1), "ahead of"), ((0.3, 0.01), "not surely apart from"),
        ((0.3, -0.3), "not surely apart from"), ((-0.1, -0.3), "behind"), ((-0.3, -0.3), "far behind"),
    ],
)  # fmt: skip
def test_standing_follows_the_intervals(means: tuple[float, float], expected: str) -> None:
    rows = pd.DataFrame({"mean": means, "half_width": 0.05})
    assert standing(rows) == expected
    assert standing(rows.assign(half_width=np.nan)) == "not surely apart from"


def test_choices_at_an_end_are_named_and_counted() -> None:
    rows = [
        ("control", "lr", "largest"), ("control", "lr", "largest"), ("control", "lam", "smallest"),
        ("rmtllmf", "lr", "smallest"), ("few", "lr", ""),
    ]  # fmt: skip
    choices = pd.DataFrame(rows, columns=["protection", "setting", "end"])
    names = {"control": "the control", "few": "the other"}
    assert at_ends(choices, names) == r"learning rate (largest) of the control, $\lambda$ (smallest) of the control"
    assert at_ends(choices, {"few": "the other"}) == at_ends(choices[:0], names) == "none"
    assert ends_counted(choices) == {"lr": "3 of 4", "lam": "1 of 1"}


def test_rounding_is_named() -> None:
    assert beyond_rounding(1e-9, 1e-6) == "by rounding alone"
    assert beyond_rounding(0.032, 1e-6) == "by 3.20 %"


@pytest.mark.parametrize(
    ("sure", "expected"),
    [
        ((False, False, False), "on no link"), ((True, True, True), "on all links"),
        ((True, False, False), "only without a jammer"), ((False, True, True), "only under SU and under SR"),
    ],
)  # fmt: skip
def test_links_on_which_something_is_sure(sure: tuple[bool, ...], expected: str) -> None:
    assert where_sure(dict(zip(("ideal", "SU", "SR"), sure, strict=True))) == expected


def test_a_bar_does_not_end_a_cell() -> None:
    assert markdown(["a", "b"], [["$|x|$", "two\nlines "]]).splitlines() == [
        "| a | b |", "| --- | --- |", r"| $\vert x\vert $ | two lines |"
    ]  # fmt: skip
