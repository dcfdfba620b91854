"""Figures of the chapter on mergers: drawn from small tables, with labels and the numbers of the table."""

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from drawn import centres, finished, legend, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.mergers import figures as draw
from rmtllmf_lib.chapters.mergers.directions import survival
from rmtllmf_lib.chapters.mergers.figures import LOOKS
from rmtllmf_lib.protection.resilience import VECTORS_ALONE


def curves(column: str, values: list[float], names: list[str]) -> pd.DataFrame:
    rows = [
        (value, name, 0.9 - 0.05 * place - 0.01 * n, 0.01)
        for n, name in enumerate(names)
        for place, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=[column, "merger", "mean", "half_width"])


def test_every_look_is_one_of_its_own_and_of_a_merger() -> None:
    assert set(LOOKS) <= {*VECTORS_ALONE}
    assert len({(look["color"], look["marker"], look["linestyle"]) for look in LOOKS.values()}) == len(LOOKS)
    assert draw.names_of(["tsv"]) == "TSV"
    assert draw.names_of(["tsv", "iso-c", "arithmetic+lines"]) == "TSV, Iso-C and LiNeS"


def test_beside_published() -> None:
    points = curves("n_tasks", [8], ["tsv", "arithmetic", "median"])
    ax = draw.beside_published(points, pd.Series({"tsv": 0.95, "arithmetic": 0.8}), 92.3)
    finished(ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["median", "sum", "TSV"]
    x, y = centres(ax, "here, five suites")
    assert_allclose(x, [88, 89, 90])
    assert_allclose(y, [0, 1, 2])
    (diamonds,) = [line for line in ax.get_lines() if "published" in str(line.get_label())]
    assert sorted(np.asarray(diamonds.get_xydata()).tolist()) == [[80, 1], [95, 2]]
    assert len(legend(ax)) == 2


def test_against_size() -> None:
    ax = draw.against_size(curves("n_tasks", [2, 4, 8], ["tsv", "arithmetic", "ties"]))
    finished(ax)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2", "4", "8"]
    assert {text.get_text() for text in ax.texts} == {"TSV", "sum"}
    _, y = centres(ax, "TSV")
    assert_allclose(y, [90, 85, 80])


def test_against_noise_has_zero_at_the_left() -> None:
    points = curves("ratio", [0.0, 0.2, 20.0], ["tsv", "arithmetic", "ties"])
    figure = finished(draw.against_noise({"one": points, "other": points}, {"marked": [1.0, 10.0]}))
    first, second = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["one", "other"]
    x, _ = centres(first, "sum")
    assert x[0] < -2 and abs(x[1] - np.log10(0.2)) < 0.2 and abs(x[2] - np.log10(20)) < 0.2
    assert {text.get_text() for text in first.texts} == {"marked", "TSV", "sum"}
    assert {text.get_text() for text in second.texts} == {"TSV", "sum"}
    assert first.get_xlim() == second.get_xlim()
    assert second.get_xticklabels()[0].get_text() == "0"
    assert first.get_position().y0 > second.get_position().y1  # one below the other: columns were too narrow to read


def test_names_of_the_noisy_curves_are_inside_their_panel() -> None:
    points = curves("ratio", [0.0, 0.2, 2000.0], [*LOOKS])
    figure = finished(draw.against_noise({"one": points, "other": points}, {}))
    for ax in figure.axes:
        place = ax.get_window_extent()
        for text in ax.texts:
            assert place.x0 <= text.get_window_extent().x0, text


def test_labels_keep_apart() -> None:
    points = curves("ratio", [0.0, 1.0], [*LOOKS]).assign(mean=0.8)
    figure = finished(draw.against_noise({"one": points}, {}))
    heights = sorted(text.xy[1] for text in figure.axes[0].texts)  # type: ignore[attr-defined]  # of an annotation
    low, high = figure.axes[0].get_ylim()
    assert np.diff(heights).min() > 0.03 * (high - low) * 0.9


def test_directions() -> None:
    strength = np.geomspace(0.1, 10, 50)
    rows = pd.DataFrame({"strength": strength, "overlap": 0.9 * survival(strength)})
    shares = pd.DataFrame(
        {"ratio": [0.2, 2.0] * 2, "merger": ["arithmetic"] * 2 + ["tsv"] * 2, "kept": [0.9, 0.5, 0.7, 0.1]}
    )
    figure = finished(draw.directions({"weak": rows, "strong": rows}, shares))
    left, right = figure.axes
    assert legend(left) == ["weak", "strong", "one direction alone, theory"]
    assert legend(right) == ["sum", "TSV"]
    (theory,) = [line for line in left.get_lines() if "theory" in str(line.get_label())]
    x, y = (np.asarray(each, float) for each in theory.get_data())
    assert_allclose(y, survival(x))
