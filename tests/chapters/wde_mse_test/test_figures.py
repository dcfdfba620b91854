"""Figures of the chapter on WDE: drawn from small tables, with labels and the numbers of the table."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from drawn import centres, finished, legend, line, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.wde_mse_test import figures as drawn

MARKS = pd.DataFrame(
    [
        (scale, correlation, mse, size * how * mse**0.5)
        for scale, size in (("task", 2e-3), ("weight", 8e-2))
        for correlation, how in (("independent", 1), ("common", 2.8))
        for mse in (0.013, 0.16, 0.21)
    ],
    columns=["scale", "correlation", "mse", "std"],
)


def assert_strip(ax: Axes) -> None:
    """The four rows of MSEs, from the top down, each with its values."""
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "task scale, independent", "task scale, common", "weight scale, independent", "weight scale, common",
    ]  # fmt: skip
    for place, (_, rows) in enumerate(MARKS.groupby(["scale", "correlation"], sort=False)):
        x, y = ax.get_lines()[place].get_data()
        np.testing.assert_allclose(x, rows["std"])
        np.testing.assert_allclose(y, place)
    assert [text.get_text() for text in ax.texts] == ["0.013", "0.16", "0.21"] * 4
    low, high = ax.get_xlim()
    assert ((low < MARKS["std"]) & (MARKS["std"] < high)).all()
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert "each parameter" in ax.get_xlabel()


def test_wde_map() -> None:
    grid = pd.DataFrame(
        [(one, two, abs(one - 2 * two)) for one in (-1.0, 0.0, 1.0) for two in (-1.0, 0.0)],
        columns=["lam_1", "lam_2", "wde"],
    )
    ax = drawn.wde_map(grid, ["A", "B"], 0.3)
    finished(ax)
    (mesh,) = [each for each in ax.collections if isinstance(each, QuadMesh)]
    np.testing.assert_allclose(np.asarray(mesh.get_array()), [[1, 2, 3], [1, 0, 1]])
    np.testing.assert_allclose(np.ravel(ax.get_lines()[0].get_data()), [0.3, 0.3])
    assert "(A)" in ax.get_xlabel() and "(B)" in ax.get_ylabel()


def test_linearisation() -> None:
    rows = [
        (task, std, seed, std * k) for k, task in enumerate(("a", "b"), 1) for std in (1e-4, 1e-2) for seed in (0, 1)
    ]
    errors = pd.DataFrame(rows, columns=["task", "std", "seed", "error"])
    figure = finished(drawn.linearisation(errors, 1e-3, 0.1, MARKS))
    ax, strip = figure.axes
    np.testing.assert_allclose(line(ax, "one task each"), [[1e-4, 1e-2], [1e-4, 1e-2]])
    np.testing.assert_allclose(ax.get_lines()[1].get_ydata(), [2e-4, 2e-2])
    np.testing.assert_allclose(line(ax, "10%")[1], 0.1)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert_strip(strip)


def test_linearisation_with_a_single_mse() -> None:
    errors = pd.DataFrame({"task": "a", "std": [1e-4, 1e-2], "seed": 0, "error": [0.01, 1]})
    figure = finished(drawn.linearisation(errors, 1e-3, 0.1, MARKS[MARKS["mse"] == 0.16]))
    assert [text.get_text() for text in figure.axes[1].texts] == ["0.16"] * 4


def test_slope() -> None:
    table = pd.DataFrame(
        {"std": [1e-4] * 3 + [1e-3] * 2, "first_order": [0.1, -0.1, 0.9, 0.5, 0.6], "measured": [0.11, -0.09, 9, 1, 7]}
    )
    figure = finished(drawn.slope(table, (0.2, 1.0)))
    left, right = figure.axes
    np.testing.assert_allclose(line(left, "logits"), [[0.1, -0.1], [0.11, -0.09]])
    np.testing.assert_allclose(line(right, "logits"), [[0.5], [1]])  # what is far off the panel is left out
    x, y = line(left, "slope 1")
    np.testing.assert_allclose(x, y)
    x, y = line(left, "ratio of Gaussian logits")
    np.testing.assert_allclose(y, 1 / (1 - x) - 1)
    assert [ax.get_title() for ax in figure.axes] == [r"s = $1.0\cdot 10^{-4}$", r"s = $1.0\cdot 10^{-3}$"]


def test_variance() -> None:
    table = pd.DataFrame(
        {"statistic": ["R", "R", "|R|", "|R|"], "mse": [0.1, 1] * 2, "mean": [1, 1.1, 0.3, 0.4], "half_width": 0.01}
    )
    ax = drawn.variance(table, 0.36)
    finished(ax)
    np.testing.assert_allclose(centres(ax, "R"), [[0.1, 1], [1, 1.1]])
    np.testing.assert_allclose(centres(ax, "|R|")[1], [0.3, 0.4])
    np.testing.assert_allclose(line(ax, r"$(1-2/\pi)\,\sigma_k^2$")[1], 0.36)
    assert ax.get_xscale() == "log"


def test_acceptance() -> None:
    table = pd.DataFrame(
        {"reading": ["moving", "moving", "fixed", "fixed"], "mse": [0.1, 1] * 2, "mean": [0.7, 0.7, 1, 0.2],
         "half_width": 0.01}
    )  # fmt: skip
    curve = pd.DataFrame({"mse": [0.1, 1.0], "moving": [0.76, 0.76], "fixed": [0.99, 0.3]})
    ax = drawn.acceptance(table, curve, 0.5)
    finished(ax)
    np.testing.assert_allclose(line(ax, "T follows the MSE, theory")[1], 0.76)
    np.testing.assert_allclose(line(ax, "T fixed at a reference MSE, theory"), [[0.1, 1], [0.99, 0.3]])
    np.testing.assert_allclose(line(ax, "the reference")[0], 0.5)
    shown = [np.asarray(each.lines[0].get_ydata(), float) for each in ax.containers]  # type: ignore[attr-defined]
    np.testing.assert_allclose(shown, [[0.7, 0.7], [1, 0.2]])


def test_failures() -> None:
    noise = pd.DataFrame(
        {"mse": [0.1, 1], "some_ratio": [0.2, 0.9], "own_ratio": [0, 0.1], "chi_square": 0.05, "flipped": [0.01, 0.02]}
    )
    shifted = noise.rename(columns={"mse": "shift"})
    figure = finished(drawn.failures(noise, shifted))
    left, right = figure.axes
    np.testing.assert_allclose(line(left, "some class's ratio is off"), [[0.1, 1], [0.2, 0.9]])
    np.testing.assert_allclose(line(left, "predicted class's ratio is off")[1], [np.nan, 0.1])
    assert "chi-square test rejects" not in [each.get_label() for each in left.get_lines()]
    np.testing.assert_allclose(line(right, "chi-square test rejects")[1], 0.05)
    assert len(figure.legends[0].get_texts()) == 4
    assert right.get_xscale() == "linear" and left.get_xscale() == left.get_yscale() == "log"


def test_flips() -> None:
    images = pd.DataFrame({"predicted": [0.3, 0.01, 1e-9], "counted": [0.31, 0.0, 0.0], "draws": 100})
    levels = pd.DataFrame(
        {"std": [1e-4, 1e-2], "mean": [0.01, 0.2], "half_width": 1e-3, "lower": [0.008, 0.1], "predicted": [0.01, 0.15],
         "upper": [0.012, 0.3]}
    )  # fmt: skip
    figure = finished(drawn.flips(images, levels, 1e-3))
    left, right = figure.axes
    np.testing.assert_allclose(line(left, "one image each"), [[0.3, 0.01], [0.31, 0.005]])
    np.testing.assert_allclose(line(right, "orthant probability"), [[1e-4, 1e-2], [0.01, 0.15]])
    np.testing.assert_allclose(line(right, "union bound")[1], [0.012, 0.3])
    np.testing.assert_allclose(line(right, "lower bound")[1], [0.008, 0.1])
    np.testing.assert_allclose(centres(right, "counted")[1], [0.01, 0.2])


def test_power() -> None:
    table = pd.DataFrame(
        {"task": ["A", "A", "B", "B"], "multiple": [1, 2] * 2, "mean": [0.05, 0.9, 0.05, 0.95], "half_width": 0.01}
    )
    curve = table.assign(power=table["mean"] + 0.01)
    ax = drawn.power(table, curve, 0.05)
    finished(ax)
    np.testing.assert_allclose(centres(ax, "A"), [[1, 2], [0.05, 0.9]])
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [0.06, 0.91])
    assert set(legend(ax)) == {"A", "B", "size 0.05"}


def test_wde_against_noise() -> None:
    levels = pd.DataFrame(
        {"std": [1e-4, 1e-2], "mean": [1.0, 2.0], "half_width": 0.1, "predicted": [1.0, 1.5], "bound": [1.1, 2.5]}
    )
    figure = finished(drawn.wde_against_noise(levels, 0.9, 1e-3, MARKS, unit=2e-3))
    ax, strip, *_ = figure.axes
    np.testing.assert_allclose(centres(ax, "counted"), [[1e-4, 1e-2], [1, 2]])
    np.testing.assert_allclose(line(ax, "predicted, first order")[1], [1, 1.5])
    np.testing.assert_allclose(line(ax, "clean WDE + flip probability")[1], [1.1, 2.5])
    np.testing.assert_allclose(line(ax, "no noise")[1], 0.9)
    (above,) = ax.child_axes
    np.testing.assert_allclose(above.get_xlim(), (np.array(ax.get_xlim()) / 2e-3) ** 2)
    assert "MSE" in above.get_xlabel()
    assert_strip(strip)
