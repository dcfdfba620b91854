"""What a figure shows can be had as numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from drawn import style_of_the_book  # noqa: F401
from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.figure_data import figure_data


@pytest.fixture
def ax() -> Axes:
    _, found = plt.subplots()
    found.set_title("panel")
    return found


def rows(ax: Axes, *columns: str) -> list[tuple]:
    return [*figure_data(ax.figure)[[*columns]].itertuples(index=False, name=None)]


def test_lines_have_their_points_and_names(ax: Axes) -> None:
    ax.plot([1, 2], [3, 4], label="ours")
    ax.axhline(7)  # no data: it marks a value
    assert rows(ax, "panel", "series", "x", "y") == [("panel", "ours", 1.0, 3.0), ("panel", "ours", 2.0, 4.0)]


@pytest.mark.parametrize("marker", ["o", "none"])
def test_intervals_have_ends(ax: Axes, marker: str) -> None:
    points = pd.DataFrame({"mean": [0.5, 0.7], "half_width": [0.1, 0.2]})
    style.with_intervals(ax, [1, 2], points, factor=100, **style.look("ours", "black", marker))
    assert rows(ax, "series", "x", "y", "y_low", "y_high") == [("ours", 1, 50, 40, 60), ("ours", 2, 70, 50, 90)]


def test_sideways_intervals_have_theirs_along_x(ax: Axes) -> None:
    style.with_intervals(ax, [1], pd.DataFrame({"mean": [0.5], "half_width": [0.1]}), sideways=True, label="ours")
    assert rows(ax, "x", "x_low", "x_high", "y") == [(0.5, 0.4, 0.6, 1.0)]


def test_bands_have_their_edges(ax: Axes) -> None:
    style.with_band(ax, [1, 2], [0, 1], [2, 3], [4, 5], color="black", label="ours")
    found = figure_data(ax.figure)
    band = found[found["y_low"].notna()]
    assert band[["x", "y_low", "y_high"]].to_numpy().tolist() == [[1, 0, 4], [2, 1, 5]]


def test_bars_have_heights_and_the_names_below_them(ax: Axes) -> None:
    ax.bar(["with", "without"], [3, 5], label="bars")
    assert rows(ax, "series", "x", "y") == [("bars", "with", 3), ("bars", "without", 5)]


def test_lying_bars_have_lengths(ax: Axes) -> None:
    ax.barh(["with", "without"], [3, 5])
    assert rows(ax, "x", "y") == [(3, "with"), (5, "without")]


def test_matrices_have_cells_with_names(ax: Axes) -> None:
    style.heatmap(ax, np.array([[1.0, np.nan], [3.0, 4.0]]), ["a", "b"], ["c", "d"])
    found = figure_data(ax.figure).dropna()
    assert set(found[["x", "y", "value"]].itertuples(index=False, name=None)) == {
        ("c", "a", 1.0), ("c", "b", 3.0), ("d", "b", 4.0)
    }  # fmt: skip


def test_clouds_are_thinned_evenly(ax: Axes) -> None:
    ax.scatter(np.arange(10_000.0), np.zeros(10_000))
    x = figure_data(ax.figure)["x"]
    assert len(x) == 2000 and (x.iloc[0], x.iloc[-1]) == (0, 9999) and np.diff(x).max() <= 6


def test_ticks_that_format_numbers_are_no_names(ax: Axes) -> None:
    ax.plot([0.01, 100.0], [1, 2])
    style.log_ticks(ax, [0.01, 100.0])
    assert rows(ax, "x") == [(0.01,), (100.0,)]


def test_an_empty_figure_has_no_rows() -> None:
    assert figure_data(plt.figure()).empty


def test_a_shared_axis_without_labels_has_numbers() -> None:
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    for each in (left, right):
        each.barh([0, 1], [3, 5])
    left.set_yticks([0, 1], ["with", "without"])
    assert {*figure_data(figure)["y"]} <= {"with", "without", 0.0, 1.0}


def test_ranges_have_their_ends(ax: Axes) -> None:
    ax.vlines([1, 2], [0, 1], [5, 6], label="range")
    ax.hlines([3], [0], [9])
    found = figure_data(ax.figure)
    assert found[["x", "y_low", "y_high"]].dropna().to_numpy().tolist() == [[1, 0, 5], [2, 1, 6]]
    assert found[["y", "x_low", "x_high"]].dropna().to_numpy().tolist() == [[3, 0, 9]]


def test_a_panel_is_named_by_its_title_wherever_that_stands() -> None:
    _, ax = plt.subplots()
    ax.set_ylabel("y")
    ax.plot([1], [2])
    assert figure_data(ax.figure)["panel"].tolist() == ["y"]
    ax.set_title("errors", loc="left")
    assert figure_data(ax.figure)["panel"].tolist() == ["errors"]
