"""Prose is filled in from what the outputs record, and from nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.recorded import FINDING, NUMBERS, fill, fill_page, findings, numbers, shown


def notebook(prose: str | list[str], *outputs: dict[str, Any]) -> dict[str, Any]:
    shown = [{"output_type": "display_data", "data": data, "metadata": {}} for data in outputs]
    return {
        "cells": [
            {"cell_type": "markdown", "source": prose},
            {"cell_type": "code", "source": "x = 1  # <!--=lost-->9<!--/-->", "outputs": shown},
        ]
    }


LOST = {NUMBERS: {"lost": "36 ± 5", "share": 0.1234, "SU.lost": 36.0}}
RATE: dict[str, Any] = {FINDING: [{"label": "Eq. (4)", "verdict": "does not hold", "numbers": {"printed": 8.03}}]}


def filled(prose: str, *outputs: dict[str, Any]) -> str:
    book = notebook(prose, *outputs)
    fill(book)
    return str(book["cells"][0]["source"])


def test_texts_numbers_and_verdicts_are_filled_in() -> None:
    prose = "Lost: <!--=lost-->0<!--/--> of <!--=SU.lost:.0f-->1<!--/-->.\nEq. (4) <!--=Eq. (4)-->x<!--/-->, "
    prose += "<!--=Eq. (4).printed:.1f-->?<!--/--> and <!--=share:.0%--><!--/-->."
    expected = "Lost: <!--=lost-->36 ± 5<!--/--> of <!--=SU.lost:.0f-->36<!--/-->.\n"
    expected += "Eq. (4) <!--=Eq. (4)-->does not hold<!--/-->, <!--=Eq. (4).printed:.1f-->8.0<!--/--> and "
    expected += "<!--=share:.0%-->12%<!--/-->."
    assert filled(prose, LOST, RATE) == expected
    assert filled(expected, LOST, RATE) == expected  # and again, nothing changes


def test_code_and_other_comments_stay() -> None:
    book = notebook(["a <!-- note -->\n", "<!--=lost-->\nold\n<!--/--> b\n"], LOST)
    fill(book)
    assert book["cells"][0]["source"] == ["a <!-- note -->\n", "<!--=lost-->36 ± 5<!--/--> b\n"]
    assert book["cells"][1]["source"].endswith("9<!--/-->")


@pytest.mark.parametrize(
    ("prose", "message"),
    [
        ("<!--=won-->1<!--/-->", "'won' is marked in the prose but not recorded: expected one of lost, share"),
        ("<!--=won-->1<!--/--> <!--=gone-->1<!--/-->", "'won' is .* 'gone' is marked"),
        ("<!--=lost:.1f-->1<!--/-->", "does not fit the recorded '36 ± 5'"),
    ],
)
def test_names_and_formats_that_do_not_fit(prose: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        filled(prose, LOST)


def test_what_is_missing_becomes_a_dash_and_the_rest_is_filled_in() -> None:
    book = notebook("<!--=won-->1<!--/-->, <!--=lost-->9<!--/-->, <!--=gone:.0f-->1<!--/-->", LOST)
    with pytest.raises(InputError):
        fill(book)
    assert book["cells"][0]["source"] == "<!--=won-->–<!--/-->, <!--=lost-->36 ± 5<!--/-->, <!--=gone:.0f-->–<!--/-->"


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(-0.3, ".0f", "0"), (-0.0012, ".2f", "0.00"), (-0.6, ".0f", "−1"), (-33.3, ".1f", "−33.3"), (0.4, "+.0f", "+0"),
     (2.5, "", "2.5"), ("-x", "", "-x"), (-0.04, ".1f", "0.0")],
)  # fmt: skip
def test_signs(value: float | str, form: str, text: str) -> None:
    assert shown(value, form) == text


def test_a_page_is_filled_in_from_what_it_is_given() -> None:
    page = "Lost: <!--=04/lost-->0<!--/--> %, <!--=04/rate:.1f-->0<!--/-->."
    known = {"04/lost": "36 ± 5", "04/rate": 2.25}
    assert fill_page(page, known) == "Lost: <!--=04/lost-->36 ± 5<!--/--> %, <!--=04/rate:.1f-->2.2<!--/-->."
    with pytest.raises(InputError, match="'04/rate' is marked in the prose but not recorded: expected one of 04/lost"):
        fill_page(page, {"04/lost": 1.0})


def test_an_output_holds_findings() -> None:
    one, other = (dict(RATE[FINDING][0], label=label) for label in "ab")
    assert list(findings(notebook("", {FINDING: [one, other]}))) == ["a", "b"]
    assert list(findings(notebook("", {FINDING: [one]}, {FINDING: [other]}))) == ["a", "b"]
    with pytest.raises(InputError, match="'a' is recorded twice"):
        findings(notebook("", {FINDING: [one, one]}))


def test_a_finding_is_recorded_once() -> None:
    assert list(findings(notebook("", RATE))) == ["Eq. (4)"]
    assert numbers(notebook("", LOST, RATE))["Eq. (4).printed"] == 8.03
    with pytest.raises(InputError, match=r"'Eq. \(4\)' is recorded twice"):
        findings(notebook("", RATE, RATE))


def test_a_page_has_tables_between_marks() -> None:
    page = "# Lost\n\n<!--=table-->\n|old|\n<!--/-->\n<!--=share:.1f-->0<!--/-->\n"
    filled = fill_page(page, {"table": "\n| a |\n|---|\n", "share": -2.0})
    assert filled == "# Lost\n\n<!--=table-->\n| a |\n|---|\n<!--/-->\n<!--=share:.1f-->−2.0<!--/-->\n"
    with pytest.raises(InputError, match="'table' is marked in the prose but not recorded"):
        fill_page(page, {"share": -2.0})
