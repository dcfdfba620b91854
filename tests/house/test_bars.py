"""The bars over folded code say what the code makes."""

import json
import sys

import pytest

from places import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
bars = pytest.importorskip("bars", reason="needs Sphinx, of the extra book")

IMPORTS = "import numpy as np\nfrom dataclasses import replace"


@pytest.mark.parametrize(
    ("source", "kinds", "hidden"),
    [
        ("figures.answer(rows)\nstyle.show()", {"figure"}, "the code of this figure"),
        ("print(rows)", {"lines"}, "the code of these lines"),
        ("rows.round(1)", {"table"}, "the code of this table"),
        ("seen = evidence(rows)\nrecord(seen, ['Eq. (1)'])", {"table"}, "the code of this verdict"),
        (IMPORTS, set(), "the imports"),
        (f"{IMPORTS}\nx = 1", set(), "the code of x"),
        ("a, b = 1, 2\nc = a\ndef d(): ...", set(), "the code of b, c, d"),
        ("style.use_style()", set(), "the code"),
    ],
)
def test_what_is_hidden(source: str, kinds: set[str], hidden: str) -> None:
    assert bars.what_is_hidden(source, kinds) == hidden


def test_every_folded_cell_can_be_read() -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if "hide-input" in cell["metadata"].get("tags", ()):
                assert bars.what_is_hidden("".join(cell["source"]), set())
