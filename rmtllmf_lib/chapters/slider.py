"""An interactive figure that needs no kernel and no network: bars that follow a slider, as inline SVG.

All positions are computed beforehand and are part of the page. Horizontal lengths are in per cent, and text keeps its
size and takes the page's colour, so the figure fits a phone and a dark page. The markup has no identifiers: a page can
hold any number of figures, even equal ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Real, real_array, real_number, whole_number
from rmtllmf_lib.chapters.style import BLUE, GREEN, ORANGE, PURPLE, RED
from rmtllmf_lib.errors import InputError

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)
HEIGHT = 240  # px, of the axes
# The colours of the page where it defines them: on a dark page the book's theme shows outputs on a light card.
_STYLE = (
    "max-width:42rem;margin:auto;padding:0.4rem;text-align:left;"
    "color:var(--pst-color-text-base,inherit);background:var(--pst-color-background,transparent)"
)
_ROUNDING = 1e-3  # a value this little beyond a tick does not move the axis: outputs stay comparable

# Runs in the input element; writes what `_description` and `_bar` write for the position shown first.
_ON_INPUT = (
    "const box=this.closest('.slider-figure'),data=box.dataset,[position,bars]=JSON.parse(data.frames)[this.value];"
    "const told=[...box.querySelectorAll('.bar')].map((bar,i)=>{const[height,text]=bars[i],top=100-height+'%',"
    "title=bar.querySelector('title'),line=title.dataset.of+': '+text;title.textContent=line;"
    "bar.querySelectorAll('rect').forEach(e=>{e.setAttribute('height',height+'%');e.setAttribute('y',top)});"
    "bar.querySelectorAll('circle').forEach(e=>e.setAttribute('cy',top));"
    "bar.querySelectorAll('text').forEach(e=>{e.setAttribute('y',top);e.textContent=text});return line});"
    "const all=`${data.position}: ${position}. ${data.value}: ${told.join(', ')}`;"
    "box.querySelector('.position').textContent=position;"
    "box.querySelector('svg').setAttribute('aria-label',all);this.setAttribute('aria-valuetext',position)"
)


@dataclass(frozen=True, repr=False)
class InteractiveFigure:
    """A piece of HTML that a notebook shows as the last value of a cell.

    Attributes
    ----------
    markup : str
        HTML, complete in itself.
    """

    markup: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return "<InteractiveFigure>"


def slider(
    values: ArrayLike,
    *,
    position_label: str,
    position_values: Sequence[str | float],
    bar_labels: Sequence[str | float],
    value_label: str,
    series_labels: Sequence[str] = (),
    log: bool = False,
    least: float = 0.0,
    start: int = 0,
) -> InteractiveFigure:
    """Bars over a fixed axis, redrawn as the reader moves a slider.

    Parameters
    ----------
    values : (position, bar) or (position, series, bar) float
        Numbers of at least 0, with `log` above 0; the axis covers all positions.
        They are shown with two significant digits.
    position_label, value_label : str
        Quantity set by the slider and quantity shown by the bars, with units; plain text.
    position_values : (position,) str or float
        Reading of the slider at each position.
    bar_labels : (bar,) str or float
        Below the axis; short, or they meet on a narrow screen.
    series_labels : (series,) str
        Names of up to five groups of bars, distinguished by colour and order. With a single series values stand above
        the bars; pointing at a bar shows its value in any case.
    log : bool
        A logarithmic axis, with dots on stems instead of bars, whose length would have no meaning.
    least : float
        Values below it are shown as "< least".
    start : int
        Index of the position shown first, and in print.

    Returns
    -------
    InteractiveFigure

    Raises
    ------
    InputError
        for a wrong shape, a value outside the axis, a negative `least`, or a start that is not a position.
    """
    numbers = real_array(values, "values", positive=log, minimum=None if log else 0)
    if numbers.ndim == 2:
        numbers = numbers[:, None, :]
    names = [str(name) for name in series_labels]
    expected = (len(position_values), max(len(names), 1), len(bar_labels))
    if numbers.shape != expected or 0 in expected:
        raise InputError(
            f"values has shape {np.shape(values)}: expected (position, bar) or (position, series, bar) = {expected}, "
            "at least one of each, as position_values, series_labels and bar_labels have them"
        )
    if len(names) > len(COLOURS):
        raise InputError(f"series_labels has {len(names)} names: expected at most {len(COLOURS)}")
    real_number(least, "least", minimum=0)
    whole_number(start, "start", 0, expected[0] - 1)
    heights, ticks = _axis(numbers, log)
    bars = [str(label) for label in bar_labels]
    positions = [value if isinstance(value, str) else f"{value:g}" for value in position_values]
    owners = [f"{name}, {bar}" if name else bar for name in names or [""] for bar in bars]
    every = [_bars(*pair, least) for pair in zip(numbers, heights, strict=True)]
    frames = escape(json.dumps([*zip(positions, every, strict=True)], ensure_ascii=False, separators=(",", ":")))
    position, shown = positions[start], every[start]
    description = _description(f"{position_label}: {position}. {value_label}: ", owners, shown)
    drawn = "".join(
        _bar(owner, i, expected[1:], *frame, log=log)
        for i, (owner, frame) in enumerate(zip(owners, shown, strict=True))
    )
    return InteractiveFigure(
        f'<div class="slider-figure" style="{_STYLE}" data-position="{escape(position_label)}" '
        f'data-value="{escape(value_label)}" data-frames="{frames}">'
        f'<label style="display:block">{escape(position_label)}: <span class="position">{escape(position)}</span>'
        f'<input type="range" min="0" max="{expected[0] - 1}" step="1" value="{start}" autocomplete="off" '
        f'aria-valuetext="{escape(position)}" style="display:block;width:100%;accent-color:{BLUE}" '
        f'oninput="{escape(_ON_INPUT)}" /></label>{_legend(names)}'
        f'<div style="padding:1.9rem 0.3rem 2rem 3.2rem">'
        f'<svg role="img" aria-label="{escape(description)}" width="100%" height="{HEIGHT}" fill="currentColor" '
        f'font-size="12" style="overflow:visible;display:block">{_frame_of_axes(ticks, value_label, bars)}{drawn}</svg>'
        f"</div></div>"
    )


def _axis(numbers: Real, log: bool) -> tuple[Real, list[tuple[float, str]]]:
    """Return heights in per cent of the axis, and its ticks (height, text)."""
    if log:
        numbers = np.log10(numbers)
        low, high = np.floor(numbers.min() + _ROUNDING), np.ceil(numbers.max() - _ROUNDING)
        high = max(high, low + 1)
        marks = np.arange(low, high + 1, np.ceil((high - low) / 6))
        texts = [f"{10.0**mark:g}" if -4 < mark < 5 else f"10{f'{mark:.0f}'.translate(_RAISED)}" for mark in marks]
    else:
        top = float(numbers.max()) * (1 - _ROUNDING) or 1.0
        marks = np.asarray(MaxNLocator(5).tick_values(0, top))
        texts = [f"{mark:g}" for mark in marks]
        low, high = 0.0, marks[-1]
    heights, places = ((values - low) / (high - low) for values in (numbers, marks))
    return 100 * heights.clip(0, 1), list(zip((100 * places).tolist(), texts, strict=True))


def _bars(numbers: Real, heights: Real, least: float) -> list[tuple[float, str]]:
    texts = [f"< {least:g}" if x < least else _short(x) for x in numbers.ravel()]
    return [(round(float(h), 1), text) for text, h in zip(texts, heights.ravel(), strict=True)]


def _description(heading: str, owners: Sequence[str], bars: list[tuple[float, str]]) -> str:
    """Return the figure in words, for screen readers."""
    return heading + ", ".join(f"{owner}: {text}" for owner, (_, text) in zip(owners, bars, strict=True))


def _short(number: float) -> str:
    """Return a number with two significant digits and one decimal at least, without an exponent from .001 to 1000."""
    if number == 0 or number >= 1000 or number < 0.001:
        return f"{number:.1e}" if number else "0"
    return f"{number:.{max(1, 1 - int(np.floor(np.log10(number))))}f}"


def _bar(owner: str, index: int, shape: tuple[int, int], height: float, text: str, *, log: bool) -> str:
    """Return one bar; the series stand side by side above a bar's label."""
    series, bar = divmod(index, shape[1])
    room, width = 100 / shape[1], 72 / shape[1] / shape[0]
    centre = room * (bar + 0.5) + width * (series - (shape[0] - 1) / 2)
    colour, top = COLOURS[series], 100 - height
    thick = width / 5 if log else 0.9 * width
    dot = f'<circle cx="{centre:.2f}%" cy="{top:.1f}%" r="5" fill="{colour}" />' if log else ""
    label = f'<text x="{centre:.2f}%" y="{top:.1f}%" dy="-9" text-anchor="middle">{escape(text)}</text>'
    return (
        f'<g class="bar"><title data-of="{escape(owner)}">{escape(owner)}: {escape(text)}</title>'
        f'<rect x="{centre - thick / 2:.2f}%" width="{thick:.2f}%" y="{top:.1f}%" height="{height:.1f}%" '
        f'fill="{colour}" opacity="{0.45 if log else 1}" />{dot}{label if shape[0] == 1 else ""}</g>'
    )


def _frame_of_axes(ticks: list[tuple[float, str]], value_label: str, bars: Sequence[str]) -> str:
    lines = "".join(
        f'<line x1="0" x2="100%" y1="{100 - place:.1f}%" y2="{100 - place:.1f}%" stroke="currentColor" '
        f'stroke-opacity="{0.2 if place else 0.7}" /><text x="-6" y="{100 - place:.1f}%" dy="4" '
        f'text-anchor="end">{text}</text>'
        for place, text in ticks
    )
    labels = "".join(
        f'<text x="{100 * (i + 0.5) / len(bars):.2f}%" y="100%" dy="20" text-anchor="middle">{escape(label)}</text>'
        for i, label in enumerate(bars)
    )
    return f'<text x="-44" y="0" dy="-16" font-size="13">{escape(value_label)}</text>{lines}{labels}'


def _legend(names: Sequence[str]) -> str:
    squares = (
        '<span style="margin-right:1.2rem;white-space:nowrap">'
        f'<span aria-hidden="true" style="color:{colour}">■</span> {escape(name)}</span>'
        for name, colour in zip(names, COLOURS, strict=False)
    )
    return f"<div>{' '.join(squares)}</div>" if names else ""
