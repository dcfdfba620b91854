"""Helpers of the tests of figures: the book's style for one test, its one figure, and what is drawn in it."""

from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Annotation

from rmtllmf_lib.chapters import style

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def style_of_the_book() -> Iterator[None]:
    """The style is set for one test; every figure is closed after it."""
    assert plt.get_fignums() == []
    with matplotlib.rc_context():
        style.use_style()
        yield
    plt.close("all")


def finished(result: Axes | Figure) -> Figure:
    """The one figure that was opened, laid out and drawn."""
    figure = result if isinstance(result, Figure) else result.figure
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == [figure.number]  # type: ignore[attr-defined]  # pyplot's own, not in the stubs
    figure.canvas.draw()
    return figure


def legend(owner: Axes | Legend | None) -> list[str]:
    """Texts of a legend, or of that of some axes."""
    found = owner.get_legend() if isinstance(owner, Axes) else owner
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def names(ax: Axes) -> list[str]:
    """Names at the ends of lines, from below."""
    found = [text for text in ax.texts if isinstance(text, Annotation) and text.arrow_patch is not None]
    return [text.get_text() for text in sorted(found, key=lambda text: float(text.xyann[1]))]


def line(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Points of the one line with this label."""
    (found,) = [each for each in ax.get_lines() if each.get_label() == label]
    x, y = found.get_data()
    return np.asarray(x, float), np.asarray(y, float)


def centres(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Points of the error bars with this label."""
    (found,) = [each for each in ax.containers if each.get_label() == label]
    x, y = found.lines[0].get_data()  # type: ignore[attr-defined]
    return np.asarray(x, float), np.asarray(y, float)
