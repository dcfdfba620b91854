import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from rmtllmf_lib.chapters import style


@pytest.fixture
def panel():
    style.use_style()
    figure, ax = plt.subplots(figsize=(6, 3))
    yield ax
    plt.close(figure)


def names(ax):
    """Text, height of its place in the panel, and extent in pixels, from below."""
    ax.figure.draw_without_rendering()
    found = [(text.get_text(), text.xyann[1], Text.get_window_extent(text)) for text in ax.texts]
    return sorted(found, key=lambda each: each[1])


def test_names_that_would_cover_one_another_are_moved_apart_in_the_order_of_the_ends(panel):
    for order in (3, 1, 0, 2):
        panel.plot([0, 1], [0, 0.001 * order], label=f"line {order}")
    assert style.label_lines(panel) == ([], [])
    found = names(panel)
    assert [text for text, *_ in found] == ["line 0", "line 1", "line 2", "line 3"]
    for (_, _, below), (_, _, above) in zip(found, found[1:], strict=False):
        assert below.y1 <= above.y0 + 1


def test_a_name_with_room_stands_at_the_height_of_its_end(panel):
    panel.set_ylim(0, 10)
    panel.errorbar([2, 0, 1], [3, 9, 9], yerr=0.1, label="with bars, not sorted")
    panel.plot([0, 1, 2], [0, 0, np.nan], label="without its last point")
    panel.axhline(8, label="horizontal")
    style.label_lines(panel)
    heights = {text: height for text, height, _ in names(panel)}
    assert heights == pytest.approx({"with bars, not sorted": 0.3, "without its last point": 0, "horizontal": 0.8})
    assert all(extent.x0 > panel.get_window_extent().x1 for *_, extent in names(panel))


def test_names_lie_within_the_figure(panel):
    panel.plot([0, 1], [0, 1], label="a name of some length that needs room")
    style.label_lines(panel)
    ((_, _, extent),) = names(panel)
    assert extent.x1 <= panel.figure.bbox.x1


def test_what_has_no_right_end_is_left_to_a_legend(panel):
    panel.plot([0, 1], [0, 1], label="line")
    panel.plot([0, 1], [0, 1], "o", label="points")
    panel.axvline(0.5, label="vertical")
    panel.fill_between([0, 1], 0, 1, label="band")
    panel.plot([], [], label="nothing")
    assert style.label_lines(panel)[1] == ["points", "vertical", "band", "nothing"]
    assert [text for text, *_ in names(panel)] == ["line"]


def test_an_empty_panel_stays_empty(panel):
    assert style.label_lines(panel) == ([], [])
