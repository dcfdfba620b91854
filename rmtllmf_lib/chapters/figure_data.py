"""The numbers that a figure shows, read back from what was drawn, to be had as comma-separated values beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

COLUMNS = ["panel", "series", "x", "y", "x_low", "x_high", "y_low", "y_high", "value"]

_MOST = 2000  # points of a cloud; of a larger one, evenly spaced points in the order of drawing


def figure_data(figure: Figure) -> pd.DataFrame:
    """Return a row for each point, bar, end of a band or cell of a matrix that a figure shows.

    Returns
    -------
    DataFrame with
        panel
            The title of its axes, else the label of their vertical one, else their place in the figure, from 1.
        series
            As in the legend; empty where the figure names it in another way.
        x, y
            Numbers, or the text of the tick where an axis has names.
        x_low, x_high, y_low, y_high
            Ends of an interval or band.
        value
            Of a cell of a matrix.

        to five significant digits.
    Columns without any value are left out. Photographs and lines without data, such as grids, have no rows.
    """
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    rows = []
    for place, ax in enumerate(axes, 1):
        panel = " ".join((ax.get_title() or ax.get_title(loc="left") or ax.get_ylabel()).split()) or str(place)
        rows += [{"panel": panel, **row} for row in _rows_of(ax)]
    return pd.DataFrame(rows, columns=COLUMNS).dropna(axis="columns", how="all")


def _rows_of(ax: Axes) -> Iterator[dict[str, Any]]:
    x_names, y_names = _names(ax.xaxis), _names(ax.yaxis)
    for row in _drawn(ax):
        for key, value in row.items():
            if isinstance(value, (float, np.floating)):
                names = x_names if key.startswith("x") else y_names if key.startswith("y") else {}
                row[key] = names.get(round(float(value), 6), float(f"{value:.5g}"))
        yield row


def _drawn(ax: Axes) -> Iterator[dict[str, Any]]:
    inside: set[Any] = set()
    for container in ax.containers:
        series = _plain(container.get_label())
        if isinstance(container, ErrorbarContainer):
            inside.update([container[0], *container[1], *container[2]])
            yield from _with_bars(container, series)
        elif isinstance(container, BarContainer):
            for bar in container:
                middle = bar.get_x() + bar.get_width() / 2, bar.get_y() + bar.get_height() / 2
                upright = container.orientation == "vertical"
                place = {"x": middle[0], "y": bar.get_height()} if upright else {"x": bar.get_width(), "y": middle[1]}
                yield {"series": series, **place}
    for line in ax.lines:
        if line not in inside and line.get_transform() == ax.transData:
            yield from _points(
                line.get_label(), np.column_stack([line.get_xdata(orig=False), line.get_ydata(orig=False)])
            )
    for collection in ax.collections:
        label = collection.get_label()
        if isinstance(collection, QuadMesh):
            matrix: Any = np.ma.filled(np.ma.asarray(collection.get_array(), dtype=float), np.nan)
            corners: Any = collection.get_coordinates()
            centres = (corners[:-1, :-1] + corners[1:, 1:]) / 2
            for (x, y), value in zip(centres.reshape(-1, 2), matrix.ravel(), strict=True):
                yield {"series": "", "x": x, "y": y, "value": value}
        elif isinstance(collection, PathCollection):
            yield from _points(label, np.ma.filled(np.ma.asarray(collection.get_offsets(), dtype=float), np.nan))
        elif isinstance(collection, LineCollection) and collection not in inside:
            for (x, y), (other_x, other_y) in (segment[[0, -1]].tolist() for segment in collection.get_segments()):
                if x == other_x:
                    yield {"series": _plain(label), "x": x, "y_low": min(y, other_y), "y_high": max(y, other_y)}
                elif y == other_y:
                    yield {"series": _plain(label), "y": y, "x_low": min(x, other_x), "x_high": max(x, other_x)}
        elif isinstance(collection, PolyCollection):
            for path in collection.get_paths():
                band = pd.DataFrame(path.vertices, columns=["x", "y"]).groupby("x")["y"].agg(["min", "max"])
                for x, (low, high) in zip(band.index, band.to_numpy(), strict=True):
                    yield {"series": _plain(label), "x": float(x), "y_low": low, "y_high": high}


def _points(label: object, points: Iterable[Any]) -> Iterator[dict[str, Any]]:
    every = [(float(x), float(y)) for x, y in points]
    for place in np.unique(np.linspace(0, len(every) - 1, min(len(every), _MOST)).round().astype(int)):
        x, y = every[place]
        if np.isfinite([x, y]).any():
            yield {"series": _plain(label), "x": x, "y": y}


def _with_bars(container: ErrorbarContainer, series: str) -> Iterator[dict[str, Any]]:
    """The points of `Axes.errorbar`, with the ends of their bars."""
    line, _, bars = container
    directions = [name for name, has in (("x", container.has_xerr), ("y", container.has_yerr)) if has]
    ends = dict(zip(directions, (bar.get_segments() for bar in bars), strict=False))
    if line is None:  # drawn without markers or line: the bars' middles
        middles = [segment.mean(axis=0) for segment in next(iter(ends.values()), [])]
        places = np.reshape(middles, (-1, 2))
    else:
        places = np.column_stack([line.get_xdata(orig=False), line.get_ydata(orig=False)])
    for number, (x, y) in enumerate(places):
        row: dict[str, Any] = {"series": series, "x": float(x), "y": float(y)}
        for direction, segments in ends.items():
            if number < len(segments) and len(segments[number]):
                along = segments[number][:, "xy".index(direction)]
                row |= {f"{direction}_low": float(along.min()), f"{direction}_high": float(along.max())}
        if np.isfinite([x, y]).any():
            yield row


def _plain(label: object) -> str:
    """A label of the legend; matplotlib's own, which start with an underscore, are none."""
    text = str(label)
    return "" if text.startswith("_") or text == "None" else text


def _names(axis: Axis) -> dict[float, str]:
    """The text of each tick of an axis that has names in place of numbers."""
    ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)  # labels may be fewer
    texts = {round(float(place), 6): tick.get_text().replace("\n", " ") for place, tick in ticks if tick.get_text()}
    return texts if any(not _number(text) for text in texts.values()) and not _formatted(axis) else {}


def _number(text: str) -> bool:
    try:
        float(text.replace("\N{MINUS SIGN}", "-").replace("$", ""))
    except ValueError:
        return False
    return True


def _formatted(axis: Axis) -> bool:
    """Whether the ticks' texts are made of their numbers, as powers of ten are."""
    return type(axis.get_major_formatter()).__name__ not in ("FixedFormatter", "StrCategoryFormatter", "FuncFormatter")
