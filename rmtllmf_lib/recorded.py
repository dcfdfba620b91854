"""What a chapter records beside its outputs, and the text that is filled in from it.

A finding or a number is recorded once, in the output of the cell that measured it. Prose repeats it between two marks
that no reader sees, HTML comments: `<!--=lost-->36 ± 5<!--/-->` holds the recorded text called "lost", and
`<!--=lost:.0f-->36<!--/-->` the recorded number in this format. `fill` brings the text between the marks up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from itertools import chain
from typing import Any

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.validated import validated_call

FINDING = "application/vnd.rmtllmf.finding+json"
NUMBERS = "application/vnd.rmtllmf.numbers+json"
MARK = re.compile(r"<!--=([^:>]+?)(?::([^>]*?))?-->(.*?)<!--/-->", re.DOTALL)


def _outputs(notebook: Mapping[str, Any], kind: str) -> Iterator[Any]:
    if "cells" not in notebook:
        raise InputError(f"a notebook has {list(notebook) or 'nothing'}: expected cells")
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if kind in output.get("data", {}):
                yield output["data"][kind]


@validated_call
def findings(notebook: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The findings that a notebook's outputs hold, by label; an output holds a list of them.

    Raises
    ------
    InputError
        for a finding that is recorded twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for finding in chain.from_iterable(_outputs(notebook, FINDING)):
        if finding["label"] in found:
            raise InputError(f"{finding['label']!r} is recorded twice in one notebook: expected once")
        found[finding["label"]] = finding
    return found


@validated_call
def numbers(notebook: Mapping[str, Any]) -> dict[str, str | float]:
    """The recorded numbers and texts by name; those of a finding as `label.name`, and its verdict as `label`."""
    found: dict[str, str | float] = {}
    for each in _outputs(notebook, NUMBERS):
        found |= each
    for label, finding in findings(notebook).items():
        found |= {label: finding["verdict"]} | {f"{label}.{name}": value for name, value in finding["numbers"].items()}
    return found


@validated_call
def typeset(number: str) -> str:
    """A formatted number as a reader writes it: a true minus sign, 0.0 for -0.0, and a formula for 4.7e-04."""
    if power := re.fullmatch(r"([+-]?[\d.]+)e([+-]\d+)", number):
        return rf"${power[1]}\cdot10^{{{int(power[2])}}}$"
    if re.fullmatch(r"-0*\.?0*%?", number):
        return number[1:]
    return re.sub(r"^-(?=[\d.])", "−", number)


@validated_call
def shown(value: str | float, form: str = "") -> str:
    """A recorded value in a format; texts are left as they are.

    Raises
    ------
    ValueError
        for a format that does not fit the value.
    """
    text = format(value, form)
    return text if isinstance(value, str) else typeset(text)


@validated_call
def fill(notebook: MutableMapping[str, Any]) -> None:
    """Replace, in place, the text between the marks of all Markdown cells by what the outputs record.

    What is not recorded, or does not fit its format as infinity does, becomes a dash.

    Raises
    ------
    InputError
        after that, for the names that are not recorded, and for formats that do not fit.
    """
    known = numbers(notebook)
    problems: list[str] = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            source = cell["source"]
            filled = _filled(source if isinstance(source, str) else "".join(source), known, problems)
            cell["source"] = filled if isinstance(source, str) else filled.splitlines(keepends=True)
    _refuse(problems, known)


@validated_call
def fill_page(text: str, known: Mapping[str, str | float]) -> str:
    """The text of a page with what stands between its marks replaced by recorded numbers and texts.

    Raises
    ------
    InputError
        for names that are not recorded, and formats that do not fit.
    """
    problems: list[str] = []
    filled = _filled(text, known, problems)
    _refuse(problems, known)
    return filled


def _filled(text: str, known: Mapping[str, str | float], problems: list[str]) -> str:
    """Return a text with its marks filled in, a dash where that fails, and note what failed."""

    def replaced(mark: re.Match[str]) -> str:
        name, form, _ = mark.groups()
        found = "–"
        if name not in known:
            problems.append(f"{name!r} is marked in the prose but not recorded")
        else:
            try:
                found = shown(known[name], form or "")
            except ValueError as error:
                problems.append(f"{mark[0]!r} does not fit the recorded {known[name]!r}: {error}")
        return f"<!--={name}{':' + form if form else ''}-->{found}<!--/-->"

    return MARK.sub(replaced, text)


def _refuse(problems: list[str], known: Mapping[str, str | float]) -> None:
    if problems:
        raise InputError(f"{'; '.join(problems)}: expected one of {', '.join(known)}")
