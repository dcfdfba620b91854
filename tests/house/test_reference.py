"""The reference has every package, and the page of symbols every letter of the chapters' equations."""

import json
import re
import sys
from collections.abc import Iterator

import pytest

from built import PAGES
from places import ROOT
from tools import house

sys.path.insert(0, str(ROOT / "book" / "_ext"))
api = pytest.importorskip("api", reason="needs Sphinx, of the extra book")

SHELL = {"command"}  # `rmtllmf --help` describes it


def test_every_package_has_a_page() -> None:
    packages = {name for row in house.LEVELS for name in row} - SHELL
    listed = (ROOT / "book" / "api" / "index.md").read_text()
    for package in packages:
        page = ROOT / "book" / "api" / f"{package}.md"
        assert f"```{{api}} {package}\n" in page.read_text()
        assert f"book/api/{package}" in PAGES
        assert f"{{doc}}`{package}`" in listed
        assert api.modules_of(package)
    assert {path.stem for path in (ROOT / "book" / "api").glob("*.md")} == packages | {"index"}


def test_a_docstring_keeps_its_bars_and_stars() -> None:
    given = [
        "The ratio |R − 1| of `|x|`, *.ipynb files, *stress* and `run`s [1]_.",
        "",
        "::",
        "",
        "    a | b * c",
        "",
        ".. [1] A reference",
        "   that goes on",
        "End *",
    ]
    assert api.as_restructured_text(given) == [
        r"The ratio \|R − 1\| of `|x|`, \*.ipynb files, *stress* and `run`\ s [1].",
        "",
        "::",
        "",
        "    a | b * c",
        "",
        "- [1] A reference that goes on",
        r"End \*",
    ]


LETTER = re.compile(
    r"\\(?:boldsymbol|mathbf|mathcal|mathrm)\s*\{?\s*(\\?[A-Za-z]+)"
    r"|(\\(?:alpha|beta|gamma|delta|epsilon|theta|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|Phi|Sigma)(?![A-Za-z]))"
)
# Parts of words and operators, which the page writes out.
WORDS = {"H", "T", "d", "u", "j", "CN"}


def letters(formula: str) -> Iterator[str]:
    for bold, plain in LETTER.findall(formula):
        yield (bold or plain).removeprefix("\\")


def test_every_letter_of_a_numbered_equation_is_explained() -> None:
    page = (ROOT / "book" / "symbols.md").read_text(encoding="utf-8")
    known = {letter for formula in re.findall(r"\$([^$]+)\$", page) for letter in letters(formula)}
    labels, missing = set(), {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        for formula, label in re.findall(r"\$\$([^$]*?)\$\$ \((eq-[\w-]+)\)", text):
            labels.add(label)
            if unknown := {letter for letter in letters(formula) if len(letter) < 8} - known - WORDS:
                missing[label] = unknown
    assert missing == {}
    assert set(re.findall(r"\{eq\}`(eq-[\w-]+)`", page)) <= labels
