"""Figures of the verdicts: the numbers of the table and of the records, each where it belongs."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from drawn import finished, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.verdicts.claims import VERDICTS, counts
from rmtllmf_lib.chapters.verdicts.figures import LEFT, RIGHT, answer, tally
from rmtllmf_lib.errors import InputError


def test_a_bar_for_each_section_and_a_number_in_each_part() -> None:
    table = pd.DataFrame({"section": ["I"] * 3 + ["II"], "verdict": [VERDICTS[0], VERDICTS[0], *VERDICTS[2:]]})
    ax = tally(counts(table))
    finished(ax.figure)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["I", "II"]
    texts = [text.get_text() for text in ax.texts if text.get_text() not in ("", "■")]
    assert texts == ["2", "1", "1", "holds 2", "holds with caveat 0", "does not hold 1", "not testable here 1"]
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches if bar.get_width()] == [(0, 2), (2, 1), (0, 1)]


KNOWN: dict[str, str | float] = {
    "R-MTLLMF, ideal.clean": 80.0, "R-MTLLMF, ideal.control": "85 ± 2", "R-MTLLMF, ideal.found": "84 ± 4",
    "R-MTLLMF, ideal.own.ideal": "88 ± 2", "Unprotected, ideal.found": "59 ± 4", "Unprotected, ideal.own.ideal": "77",
    "R-MTLLMF, attacked.SU": "44 ± 2", "R-MTLLMF, attacked.SR": "35 ± 7", "R-MTLLMF, attacked.own.SU": "81 ± 4",
    "R-MTLLMF, attacked.own.SR": "78 ± 5", "Unprotected, attacked.SU": "13 ± 2", "Unprotected, attacked.SR": "12 ± 1",
    "Unprotected, attacked.own.SU": "39 ± 7", "Unprotected, attacked.own.SR": "31 ± 6",
    "Physical layer.kept.SR": "91 ± 1", "zero_shot": 61.9,
}  # fmt: skip


def test_the_answer_has_each_number_at_its_place() -> None:
    drawn = ElementTree.fromstring(answer(KNOWN))
    texts = [text.text for text in drawn.findall(".//{*}text")]
    for words in (
        "same training, nothing received: 85",
        "this book, under SR: less sent, coded: 91",
        "base alone: 62",
        "no protection: 59",
        "R-MTLLMF: 84",
    ):
        assert words in texts
    plain = [text for text in texts if text and re.fullmatch(r"\d\d", text) and int(text) % 20]
    assert plain == ["13", "44", "12", "35", "77", "88", "39", "81", "31", "78"]
    circles = [float(circle.attrib["cx"]) for circle in drawn.findall(".//{*}circle")]
    means = [100 * (x - LEFT) / (RIGHT - LEFT) for x in circles]
    assert means == pytest.approx([59, 13, 12, 77, 39, 31], abs=0.1)
    start, end = (round(LEFT + (RIGHT - LEFT) * percent / 100, 1) for percent in (28, 42))  # 35 ± 7
    lines = [path.attrib["d"] for path in drawn.findall(".//{*}path")]
    assert [line.endswith(f"H{end}") for line in lines if line.startswith(f"M{start} ")] == [True]


@pytest.mark.parametrize("bad", [None, "–", "far better"])
def test_a_number_that_is_missing_is_named(bad: str | None) -> None:
    known = {name: value for name, value in KNOWN.items() if name != "Unprotected, attacked.SR"}
    with pytest.raises(InputError, match=r"'Unprotected, attacked.SR' is recorded as"):
        answer(known | ({"Unprotected, attacked.SR": bad} if bad else {}))
