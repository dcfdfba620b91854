"""Figures of the chapter on ablations: drawn from small tables, with labels and the numbers of the table."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.text import Text

from drawn import centres, finished, legend, names, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.ablations import figures as ablations
from rmtllmf_lib.chapters.ablations.figures import LOOKS
from rmtllmf_lib.chapters.results import stored_results
from rmtllmf_lib.protection.resilience import PROTECTIONS


def study(rows: list[tuple], *columns: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))


def test_every_look_is_one_of_its_own() -> None:
    assert set(LOOKS) <= set(PROTECTIONS)
    assert len({(look["color"], look["marker"], look["linestyle"]) for look in LOOKS.values()}) == len(LOOKS)


def readings() -> pd.DataFrame:
    rows = [
        (scale, correlation, link, 10.0**k, protection, 0.1 * k + 0.05 * j, 0.01, 0.5 - 0.1 * (link == "SR"))
        for j, scale in enumerate(("task", "weight"))
        for k, correlation in enumerate(("independent", "half", "common"))
        for link in ("ideal", "SR")
        for protection in ("unprotected", "rmtllmf")
        if (scale, protection) != ("task", "rmtllmf")
    ]
    columns = "scale correlation link noise_to_signal protection mean half_width paper"
    return study(rows, *columns.split())


def test_phase_map_has_a_row_for_every_scale_and_link() -> None:
    figure = finished(ablations.phase_map(readings()))
    plain, protected = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["unprotected", "R-MTLLMF"]
    assert [bool(ax.get_ylabel()) for ax in figure.axes] == [True, False]
    assert [tick.get_text() for tick in plain.get_yticklabels()] == [
        "task, ideal", "task, SR", "weight, ideal", "weight, SR"
    ]  # fmt: skip
    assert [tick.get_text() for tick in plain.get_xticklabels()] == ["independent", "half", "common", "paper"]
    assert [text.get_text() for text in plain.texts[:8]] == ["0", "10", "20", "50", "0", "10", "20", "40"]
    values = np.ma.filled(protected.collections[0].get_array(), np.nan).reshape(4, 4)
    np.testing.assert_allclose(values[2:], [[5, 15, 25, 50], [5, 15, 25, 40]])
    assert np.isnan(values[:2]).all()


def test_phase_curves() -> None:
    rows = readings()
    ax = ablations.phase_curves(rows[rows["protection"] == "unprotected"], {"ideal": 0.4})
    finished(ax)
    assert legend(ax) == [
        "reported by the paper", "independent across users", "half across users", "common across users",
        "scale “task”", "scale “weight”",
    ]  # fmt: skip
    assert "dB" in ax.get_xlabel()
    places = {round(float(x)) for line in ax.get_lines() for x in np.atleast_1d(line.get_xdata())}
    assert {0, 10, 20} <= places
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), 40)


def memory_table() -> pd.DataFrame:
    rows = [
        (scenario, "rmtllmf", k, seed, 0.1 * i + 0.02 * seed + shift)
        for scenario, shift in (("ideal", 0.5), ("SR", 0.1))
        for i, k in enumerate((1, 10))
        for seed in (0, 1)
    ]
    rows += [("no link", "control", k, seed, 0.7) for k in (1, 10) for seed in (0, 1)]
    rows += [("ideal", "freeze", 0, seed, 0.3 + 0.2 * seed) for seed in (0, 1)]
    return study(rows, "scenario", "protection", "per_class", "seed", "normalized")


def test_against_memory() -> None:
    figure = finished(ablations.against_memory(memory_table(), {"ideal": "Ideal", "SR": "Attacked"}))
    left, right = figure.axes
    np.testing.assert_allclose(centres(left, "R-MTLLMF")[1], [51, 61])
    np.testing.assert_allclose(centres(right, "R-MTLLMF")[1], [11, 21])
    for ax in (left, right):  # what receives nothing is the same in every panel
        np.testing.assert_allclose(centres(ax, "base, realigned")[1], 70)
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "10"]
    (line,) = [line for line in left.get_lines() if line.get_label() == "embeddings reloaded"]
    np.testing.assert_allclose(line.get_ydata(), 40)
    assert [ax.get_title() for ax in (left, right)] == ["Ideal", "Attacked"]
    assert names(right) == ["R-MTLLMF", "base, realigned"]
    assert legend(figure.legends[0]) == ["embeddings reloaded"]  # which the last panel lacks


def test_which_embeddings() -> None:
    names = ["unprotected", "freeze-patch", "freeze", "realign", "rmtllmf-patch", "rmtllmf"]
    rows = [(name, seed, 0.1 * (place + 1)) for place, name in enumerate(names) for seed in (0, 1)]
    panels = {"reloaded": names[:3], "realigned": names[3:]}
    figure = finished(ablations.which_embeddings(study(rows, "protection", "seed", "normalized"), panels))
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["none", "patch", "all three"]
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], [10, 20, 30])
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], [40, 50, 60])
    assert left.get_ylim()[0] > left.get_ylim()[1]  # none on top


def test_against_setting() -> None:
    rows = [
        (count, lr, name, seed, lr * 100 + 0.1 * count + (name == "control") / 10)
        for count in (1, 2)
        for lr in (1e-3, 1e-4)
        for name in ("rmtllmf", "control")
        for seed in (0, 1)
    ]
    table = study(rows, "per_class", "lr", "protection", "seed", "normalized")
    figure = finished(ablations.against_setting(table, "lr", "learning rate", {"1": "one", "2": "two"}, "per_class"))
    one, two = figure.axes
    np.testing.assert_allclose(centres(one, "R-MTLLMF")[1], [11, 20])
    np.testing.assert_allclose(centres(two, "base, realigned")[1], [31, 40])
    assert one.get_xscale() == "log" and one.get_xlabel() == "learning rate"
    assert [tick.get_text() for tick in one.get_xticklabels()] == ["0.0001", "0.001"]


def test_lambda_under_noise() -> None:
    rows = [
        (name, lam, seed, lam + shift)
        for name, shift in (("a", 0.1), ("b", 0.2))
        for lam in (0.0, 0.3)
        for seed in (0, 1)
    ]
    curves = study(rows, "scenario", "lam", "seed", "normalized")
    chosen = study(
        [("a", 0.1, 0, 0.2), ("a", 0.2, 1, 0.25), ("b", 0.3, 0, 0.5)], "scenario", "lam", "seed", "normalized"
    )
    ax = ablations.lambda_under_noise(curves, chosen, 0.25)
    finished(ax)
    by_label = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_allclose(by_label["a"].get_data(), [[0, 0.3], [10, 40]])
    np.testing.assert_allclose(by_label["b"].get_data(), [[0, 0.3], [20, 50]])
    np.testing.assert_allclose(by_label[r"$\lambda_N$ without noise"].get_xdata(), 0.25)
    diamonds = [line.get_data() for line in ax.get_lines() if line.get_marker() == "D" and len(line.get_xdata())]
    np.testing.assert_allclose(diamonds[0], [[0.1, 0.2], [20, 25]])


def helped(cells: Sequence[tuple[str, int, int]], links: Mapping[str, float]) -> pd.DataFrame:
    """Rows of difficulty, memory and what the control has, in per cent; the lead falls with it and differs by link."""
    return study(
        [
            ("rmtllmf", scenario, difficulty, k, 0.01 * x, 0.02 - shift - 0.001 * x, 0.01)
            for scenario, shift in links.items()
            for difficulty, k, x in cells
        ]
        + [("noise-aware", "SR", "calibrated", 1, 0.5, 0.9, 0.9)],
        "protection", "scenario", "difficulty", "per_class", "control_mean", "control_lead", "control_half_width",
    ).assign(mean=0.9, half_width=0.9)  # fmt: skip


def test_where_the_link_helps_has_a_panel_for_each_memory() -> None:
    cells = [("easy", 1, 90), ("hard", 1, 70), ("calibrated", 1, 80), ("hard", 10, 85), ("calibrated", 10, 95)]
    figure = finished(ablations.where_the_link_helps(helped(cells, {"clean": 0.0, "SR": 0.08})))
    left, right = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["1 image per class", "10 images per class"]
    for label, shift in (("no noise", 0), ("SR, errors half common", -8)):
        x, y = centres(left, label)
        np.testing.assert_allclose(x, [70, 80, 90], atol=0.3)  # in the order of the control's accuracy
        np.testing.assert_allclose(y, [2 + shift - 7, 2 + shift - 8, 2 + shift - 9])
        np.testing.assert_allclose(centres(right, label)[1], [2 + shift - 8.5, 2 + shift - 9.5])
    assert sorted(names(right)) == ["SR, errors half common", "no noise"]
    assert [text.get_text() for text in left.texts] == ["hard", "calibrated", "easy"]
    assert PROTECTIONS["control"].title in left.get_xlabel() and "points" in left.get_ylabel()


def test_memories_of_calibrated_tasks_have_a_panel_where_there_are_several_more() -> None:
    cells = [("easy", 1, 90), *(("calibrated", k, 70 + k) for k in (1, 2, 5))]
    figure = finished(ablations.where_the_link_helps(helped(cells, {"clean": 0.0})))
    assert [ax.get_title() for ax in figure.axes] == ["1 image per class", "calibrated, images per class"]
    notes = [text.get_text() for text in figure.axes[1].texts]
    assert notes[:3] == ["1", "2", "5"]


def test_labels_of_curves_that_meet_are_apart() -> None:
    links = dict.fromkeys(("clean", "ideal", "SR, independent", "SR"), 0.0)
    figure = finished(ablations.where_the_link_helps(helped([("calibrated", 1, 80)], links)))
    (ax,) = figure.axes
    assert len(names(ax)) == 4
    boxes = [Text.get_window_extent(text) for text in ax.texts if text.get_text() in names(ax)]
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    assert "1" in [text.get_text() for text in ax.texts]


def test_the_figure_of_the_stored_table() -> None:
    rows = stored_results("when_the_link_helps").query("protection == 'rmtllmf' and lam_rule == 'chosen'")
    rows = rows[rows["n_tasks"] == 8]
    figure = finished(ablations.where_the_link_helps(rows))
    for ax, k in zip(figure.axes, (1, 10), strict=False):
        for scenario, label in (("clean", "no noise"), ("SR", "SR, errors half common")):
            wanted = rows[(rows["scenario"] == scenario) & (rows["per_class"] == k)].sort_values("control_mean")
            x, y = centres(ax, label)
            np.testing.assert_allclose(x, 100 * wanted["control_mean"], atol=0.3)
            np.testing.assert_allclose(y, 100 * wanted["control_lead"])
