"""The figures of the verdicts: how many there are of each kind, and the answer in one picture for the first page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rmtllmf_lib.chapters.style import BLUE, GREEN, GREY, ORANGE, RED
from rmtllmf_lib.chapters.verdicts.claims import VERDICTS
from rmtllmf_lib.errors import InputError

COLOURS = dict(zip(VERDICTS, (GREEN, ORANGE, RED, GREY), strict=True))


def tally(counted: pd.DataFrame) -> Axes:
    """Draw how many claims of each section have each verdict, as bars with their numbers.

    Parameters
    ----------
    counted : DataFrame
        From `claims.counts`.
    """
    sections, total = counted.drop(index="all"), counted.loc["all"]
    _, ax = plt.subplots(figsize=(7, 0.42 * len(sections) + 0.9))
    end = np.zeros(len(sections))
    for verdict, colour in COLOURS.items():
        number = sections[verdict].to_numpy()
        bars = ax.barh(sections.index, number, left=end, color=colour, edgecolor="white")
        ax.bar_label(bars, [f"{each}" if each else "" for each in number], label_type="center", fontsize=10)
        end = end + number
    names = [f"{verdict} {total[verdict]}" for verdict in VERDICTS]
    for place, name, colour in zip((0, 0.18, 0.5, 0.76), names, COLOURS.values(), strict=True):
        ax.text(place, 1.03, "■", transform=ax.transAxes, color=colour, fontsize=12)
        ax.text(place + 0.03, 1.03, name, transform=ax.transAxes, fontsize=10)
    ax.invert_yaxis()
    ax.set(xlabel="claims", ylabel="section of the paper")
    ax.grid(visible=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


# --- the first page ---------------------------------------------------------------------------------------------------

LEFT, RIGHT, WIDTH = 142, 484, 500  # px, of 0 and of 100 %, and of the picture
ROW = 40  # px
LINKS = {"ideal": "no jammer", "SU": "jammer on one: SU", "SR": "jammer on all: SR"}
PANELS = {"Users share half of their errors": False, "Users' errors are independent": True}  # whether independent


def answer(known: Mapping[str, str | float]) -> str:
    """Return the answer of the book in one picture, as SVG with a white ground; whole percents, as they are recorded.

    Parameters
    ----------
    known : mapping of name to recorded number
        Of the chapter on fusion, from `recorded.numbers`.

    Raises
    ------
    InputError
        for a number that is not recorded.
    """
    clean, control = _interval(known, "R-MTLLMF, ideal.clean"), _interval(known, "R-MTLLMF, ideal.control")
    coded = _interval(known, "Physical layer.kept.SR")
    zero_shot = _interval(known, "zero_shot")
    parts, y = [], 100
    first = y + ROW
    bottom = y + 2 * (30 + 3 * ROW)
    lines = [
        ("base alone", zero_shot, "2 4", 1.5, "#666"),
        ("all tasks fused, no noise", clean, "6 4", 1.5, "#222"),
        ("same training, nothing received", control, "none", 2.5, "#222"),
        ("this book, under SR: less sent, coded", coded, "9 3 2 3", 2.5, GREEN),
    ]
    # From the right: a line begins below the names of those to its right, and runs through none.
    for place, (label, (mean, _), dash, width, colour) in enumerate(sorted(lines, key=lambda line: -line[1][0])):
        top = 16 + 18 * place
        x = _x(mean)
        parts.append(
            f'<path d="M{x} {top + 6}V{bottom}" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dash}"/>'
        )
        parts.append(_text(x + 4, top, f"{label}: {mean:.0f}", "end", f'style="fill:{colour}"'))
    for title, own in PANELS.items():
        parts.append(_text(LEFT, y, title, "start", 'font-weight="bold"'))
        for link, name in LINKS.items():
            y += ROW
            parts.append(f'<path d="M{LEFT} {y}H{RIGHT}" stroke="#ccc"/>')
            parts.append(_text(LEFT - 6, y + 4, name, "end"))
            for claim, method, colour in (("Unprotected", "no protection", RED), ("R-MTLLMF", "R-MTLLMF", BLUE)):
                parts += _point(y, _interval(known, _name(claim, link, own=own)), colour, method, named=y == first)
        y += 30
    axis = [f'<path d="M{LEFT} {bottom}H{RIGHT}" stroke="#222"/>']
    axis += [_text(_x(tick), bottom + 16, f"{tick}", "middle") for tick in range(0, 101, 20)]
    axis.append(_text((LEFT + RIGHT) / 2, bottom + 34, "normalised accuracy, %", "middle"))
    font = 'font-family="Arial, Liberation Sans, DejaVu Sans, sans-serif" font-size="14" fill="#222"'
    size = f'viewBox="0 0 {WIDTH} {bottom + 42}"'
    body = "\n".join([f'<rect width="{WIDTH}" height="{bottom + 42}" fill="#fff"/>', *axis, *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>\n{body}\n</svg>\n'


def _name(claim: str, link: str, *, own: bool) -> str:
    """Return the name of the recorded number of a claim on a link; `own` for independent errors."""
    if link == "ideal":
        return f"{claim}, ideal.{'own.ideal' if own else 'found'}"
    return f"{claim}, attacked.{'own.' if own else ''}{link}"


def _interval(known: Mapping[str, str | float], name: str) -> tuple[float, float]:
    """Return mean and half width of a recorded number, "53 ± 2" or 53.0."""
    if (found := re.fullmatch(r"(-?[\d.]+)(?: ± (\d+))?", str(known.get(name, "")))) is None:
        raise InputError(f"{name!r} is recorded as {known.get(name)!r}: expected a number such as '53 ± 2'")
    return float(found[1]), float(found[2] or 0)


def _x(percent: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * percent / 100, 1)


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    halo = 'stroke="#fff" stroke-width="4" paint-order="stroke"'  # legible on the lines behind it
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {halo} {more}>{escape(text)}</text>'


def _point(y: float, found: tuple[float, float], colour: str, method: str, *, named: bool) -> list[str]:
    """Return an interval, its middle, and its number above; with the name of the method where it stands first."""
    mean, half = found
    shape = f'<circle cx="{_x(mean)}" cy="{y}" r="6"/>'
    if method == "R-MTLLMF":
        shape = f'<rect x="{_x(mean) - 5.5:g}" y="{y - 5.5}" width="11" height="11"/>'
    label = f"{method}: {mean:.0f}" if named else f"{mean:.0f}"
    line = f'<path d="M{_x(mean - half)} {y}H{_x(mean + half)}" stroke="{colour}" stroke-width="3"/>'
    beside = (_x(mean) + 8, "end") if named and method != "R-MTLLMF" else (_x(mean), "middle")
    return [f'<g fill="{colour}">{line}{shape}</g>', _text(beside[0], y - 11, label, beside[1])]
