"""Figures of the chapter on sending less: drawn from small tables, with labels and the numbers of the table."""

import numpy as np
import pandas as pd

from drawn import centres, finished, legend, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.send_less import figures, tables


def test_rates() -> None:
    table = tables.rates([1, 2, 3], 500, rng=np.random.default_rng(0))
    ax = figures.rates(table)
    finished(ax)
    assert ax.get_yscale() == "log" and len(legend(ax)) == 7
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), table["coded"][:3])
    np.testing.assert_allclose(ax.get_lines()[1].get_ydata(), table["repeated"][:3])


def payload_rows() -> pd.DataFrame:
    rows = [
        (name, bits, size * bits, merger, 0.5 + 0.1 * place, 0.02)
        for merger in ("arithmetic", "tsv")
        for place, (name, bits, size) in enumerate(
            (("rank 4", 2, 100), ("rank 8", 2, 200), ("largest 5%", 3, 400), ("signs", 1, 900), ("full", 3, 900))
        )
    ]
    return pd.DataFrame(rows, columns=["payload", "bits", "bits_a_user", "merger", "mean", "half_width"])


def test_payloads() -> None:
    figure = finished(figures.payloads(payload_rows(), {"arithmetic": 0.8, "tsv": 0.9}, 300))
    left, right = figure.axes
    np.testing.assert_allclose(centres(left, "low rank"), [[200, 400], [50, 60]])
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), 90)
    assert [text.get_text() for text in left.texts] == ["4", "8"]
    assert [ax.get_title() for ax in figure.axes] == ["plain sum", "TSV-Merge"]


def test_thresholds() -> None:
    table = tables.threshold_table()
    ax = figures.thresholds(table, tables.word_error_points(), {"ideal": 0.013, "SR": 0.21})
    finished(ax)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], table["mse"])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(table["mcs"])
    assert {text.get_text() for text in ax.texts} == {"ideal", "SR"}


def answer_rows() -> pd.DataFrame:
    rows = [
        (size, count, name, 0.1 * place + 0.01 * count + 0.02 * size, 0.01)
        for size in (2, 8)
        for count in (0, 1)
        for place, name in enumerate(
            ("coded-tsv-realigned", "rmtllmf", "few-shot-specialists", "control") if count
            else ("coded-tsv", "unprotected", "base")
        )
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["n_tasks", "per_class", "protection", "mean", "half_width"])


def test_answer() -> None:
    attacked = pd.DataFrame([(8, 1, 0.7, 0.01)], columns=["n_tasks", "per_class", "mean", "half_width"])
    figure = finished(figures.answer(answer_rows(), attacked))
    left, right = figure.axes
    np.testing.assert_allclose(centres(left, "the answer, under attack"), [[0, 1], [16, 17]])
    np.testing.assert_allclose(centres(left, "own specialists, no link"), [[1], [37]])
    np.testing.assert_allclose(centres(right, "the answer, under attack"), [[0, 1], [5, 17]])
    np.testing.assert_allclose(centres(right, "R-MTLLMF, under attack"), [[1], [70]])
    assert right.get_title() == "1 image per class"


def test_answer_names_only_what_it_draws() -> None:
    attacked = pd.DataFrame([(8, 1, 0.7, 0.01)], columns=["n_tasks", "per_class", "mean", "half_width"])
    rows = answer_rows()
    figure = finished(figures.answer(rows[rows["protection"] != "few-shot-specialists"], attacked[:0]))
    named = {label for ax in figure.axes for label in ax.get_legend_handles_labels()[1]}
    assert named == {"the answer, under attack", "R-MTLLMF, full vectors, no noise", "base realigned, no link"}
    assert not figure.legends


def test_difficulties() -> None:
    rows = pd.concat(
        [
            answer_rows().query("n_tasks == n_tasks.max()").assign(difficulty=name)
            for name in ("hard", "easy", "calibrated")
        ]
    )
    lone = rows[(rows["difficulty"] == "calibrated") | (rows["protection"] != "few-shot-specialists")]
    lone.loc[lone["difficulty"] == "hard", "mean"] /= 2
    figure = finished(figures.difficulties(lone))
    assert [ax.get_title() for ax in figure.axes] == ["no images per class", "1 image per class"]
    for ax, column in zip(figure.axes, (0, 1), strict=True):
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["easy", "calibrated", "hard"]
        x, y = centres(ax, "the answer, under attack")
        np.testing.assert_allclose(x, [0, 1, 2])
        np.testing.assert_allclose(y, np.array([1, 1, 0.5]) * (16 + column))
    named = {label for ax in figure.axes for label in ax.get_legend_handles_labels()[1]}
    assert "own specialists, no link" not in named  # known at one difficulty


def test_steps() -> None:
    rows = pd.DataFrame({"step": ["a", "b"], "mean": [0.5, 0.7], "half_width": [0.01, 0.02]})
    ax = figures.steps(rows)
    finished(ax)
    assert [text.get_text() for text in ax.texts] == ["50.0", "70.0"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]


def test_outage() -> None:
    rows = pd.DataFrame(
        [(0, "all", 0.9, 0.01), (2, "all", 0.8, 0.01), (2, "heard", 0.92, 0.01), (2, "lost", 0.6, 0.01)],
        columns=["lost", "tasks", "mean", "half_width"],
    )
    ax = figures.outage(rows)
    finished(ax)
    np.testing.assert_allclose(centres(ax, "all tasks"), [[0, 2], [90, 80]])


def test_signs() -> None:
    rows = pd.DataFrame(
        [(link, correlation, kind, 0.1 * place, 0.01) for correlation in ("half", "common")
         for link in ("ideal", "SR") for place, kind in enumerate(("plain", "balanced"))],
        columns=["link", "correlation", "signs", "mean", "half_width"],
    )  # fmt: skip
    figure = finished(figures.signs(rows))
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0, 0, 10, 10]
    assert [ax.get_title() for ax in figure.axes] == ["errors half common", "errors common"]
