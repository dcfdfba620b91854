"""What the tests of figures share: the book's style for one test, and the one figure that it drew."""

from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
