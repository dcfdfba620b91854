"""Figures of the chapter on interference: drawn from small tables, with labels and the numbers of the table."""

import numpy as np
import pandas as pd

from drawn import finished, legend, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.interference import figures as interference
from rmtllmf_lib.chapters.style import CORRELATIONS, GREY


def test_matrices_are_in_hundredths_without_the_diagonal() -> None:
    first = np.array([[1.0, -0.004, 0.5], [-0.004, 1.0, 0.126], [0.5, 0.126, 1.0]])
    figure = finished(interference.matrices({"one": first, "two": first / 2, "three": first}, ["a", "b", "c"]))
    one, two, three, empty = figure.axes[:4]
    assert [ax.get_title() for ax in (one, two, three)] == ["one", "two", "three"]
    assert not empty.axison
    assert [text.get_text() for text in one.texts if text.get_text()] == ["0", "50", "0", "13", "50", "13"]
    values = np.ma.filled(two.collections[0].get_array(), np.nan).reshape(3, 3)
    np.testing.assert_allclose(values[0, 1:], [-0.2, 25])
    assert np.isnan(np.diagonal(values)).all()
    assert figure.axes[-1].get_ylabel() == "cosine similarity × 100"


def test_against_noise() -> None:
    bands = pd.DataFrame(
        [
            ("p", how, k, 0.1 * j, 0.1 * j + 0.05)
            for j, how in enumerate(("independent", "common"))
            for k in (1.0, 100.0)
        ],
        columns=["panel", "correlation", "noise_to_signal", "low", "high"],
    )
    points = pd.DataFrame(
        [("p", "common", 10.0, 0.1, 0.2, 0.4)],
        columns=["panel", "correlation", "noise_to_signal", "low", "mean", "high"],
    )
    figure = finished(interference.against_noise(bands, points, ["p", "q"], (0.48, 0.52)))
    left, right = figure.axes
    assert [left.get_title(), right.get_title()] == ["p", "q"]
    assert "dB" in left.get_xlabel()
    (dots,) = [line for line in left.get_lines() if line.get_marker() == "^" and len(line.get_xdata())]
    np.testing.assert_allclose(np.asarray(dots.get_data(), float), [[10], [0.2]])
    (bar,) = [bars for bars in left.containers if len(bars.lines[0].get_xdata())]
    np.testing.assert_allclose(np.asarray(bar.lines[2][0].get_segments()[0], float), [[10, 0.1], [10, 0.4]])
    assert legend(figure.legends[0]) == ["the paper's Figure 4", "independent", "half", "common"]


def test_by_definition() -> None:
    rows = [
        (scenario, definition, value + shift)
        for scenario, shift in (("ideal", 0.0), ("SR", 0.1))
        for definition, values in (("own", (0.1, 0.3)), ("share", (0.2, 0.2)))
        for value in values
    ]
    table = pd.DataFrame(rows, columns=["scenario", "definition", "cosine"])
    ax = interference.by_definition(table, ["share", "own"], 0.24, (0.48, 0.52))
    finished(ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["share", "own"]
    ideal, sr = ax.containers
    assert [ideal.get_label(), sr.get_label()] == ["ideal", "SR"]
    (x, y), (more, others) = (np.asarray(bars.lines[0].get_data(), float) for bars in (ideal, sr))
    np.testing.assert_allclose([x, more], [[0.2, 0.2], [0.3, 0.3]])
    np.testing.assert_allclose(y + others, [0, 2], atol=1e-12)
    spans = np.asarray(ideal.lines[2][0].get_segments(), float)[:, :, 0]
    np.testing.assert_allclose(spans, [[0.2, 0.2], [0.1, 0.3]], atol=1e-12)


def test_cosine_and_wde() -> None:
    cosines = pd.DataFrame({"scenario": ["clean", "clean", "half", "left out"], "cosine": [0.0, 0.2, 0.5, 1.0]})
    rows = [
        (scenario, protection, seed, value + 0.1 * seed)
        for scenario, value in (("clean", 0.1), ("half", 0.6), ("no link", 0.3))
        for protection in ("unprotected", "rmtllmf")
        for seed in (0, 1)
    ]
    errors = pd.DataFrame(rows, columns=["scenario", "protection", "seed", "wde"])
    ax = interference.cosine_and_wde(cosines, errors, "clean")
    finished(ax)
    points = [np.ravel(np.asarray(bars.lines[0].get_data(), float)) for bars in ax.containers]
    np.testing.assert_allclose(points, [[0.1, 0.15], [0.1, 0.15], [0.5, 0.65], [0.5, 0.65]])
    assert legend(ax) == ["unprotected", "R-MTLLMF"]
    places = {text.get_text(): text.xy for text in ax.texts}  # type: ignore[attr-defined]  # of an annotation
    assert {name: np.round(place, 9).tolist() for name, place in places.items()} == {
        "clean": [0.1, 0.15], "half": [0.5, 0.65]
    }  # fmt: skip
    assert {text.get_text(): text.get_ha() for text in ax.texts} == {"clean": "left", "half": "right"}  # inwards
    colours = [bars.lines[0].get_color() for bars in ax.containers]
    assert colours == [GREY, GREY, CORRELATIONS["half"][0], CORRELATIONS["half"][0]]
    (level,) = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
    np.testing.assert_allclose(level.get_ydata(), 0.15)
