"""The map from the paper to the code: complete, true, and written into the library's docstring.

A name that moved is corrected in `book/map.csv`; then `python tools/paper_map.py` writes the docstring anew.
"""

import re
from collections.abc import Callable

import pytest

import rmtllmf_lib
from tools import paper_map

ROWS = paper_map.rows()
PLACES = paper_map.places()
FIELDS = "equation, function and test: a row for each in book/map.csv"

EQUATIONS = {f"Eq. ({number})" for number in range(1, 16)}
PROBLEMS = {"(P1)", "(P2)"}
FIGURES = {f"Figure {number}" for number in range(1, 6)}
SECTIONS = {"II-A", "II-B", "II-C", "III", "IV", "IV-1", "IV-2", "IV-3", "V"}


def test_the_paper_is_there_in_its_order() -> None:
    assert EQUATIONS | PROBLEMS | FIGURES <= {row.paper for row in ROWS}
    assert {row.section for row in ROWS} >= SECTIONS
    sections = [row.section for row in ROWS]
    assert sections == sorted(sections, key=sections.index), "rows of a section of the paper belong together"


def test_every_numbered_equation_has_a_function_and_a_test() -> None:
    numbered = {label for label in PLACES if label.startswith("eq-")}
    assert numbered - {row.equation for row in ROWS if row.function and row.test} == set(), FIELDS


def test_what_the_map_names_exists() -> None:
    missing = []
    for row in ROWS:
        if not row.what:
            missing.append(f"{row.paper} {row.equation}: say what it is")
        for label in filter(None, (row.equation, row.figure)):
            if label not in PLACES:
                missing.append(f"{label}: no document of the book has this label")
        for find, name in ((paper_map.find_function, row.function), (paper_map.find_test, row.test)):
            try:
                find(name)
            except LookupError as error:
                missing.append(str(error))
    assert not missing, "\n".join(missing)


def test_every_figure_of_the_notebooks_is_drawn_by_one_function_of_the_library() -> None:
    notebooks = {label: place for label, place in PLACES.items() if place.document.startswith("notebooks/")}
    figures = {label: place.drawn_by for label, place in notebooks.items() if label.startswith("fig-")}
    assert {label: names for label, names in figures.items() if len(names) != 1} == {}
    for (name,) in figures.values():
        paper_map.find_function(name)


def test_the_docstring_is_the_map() -> None:
    source = (paper_map.LIBRARY / "__init__.py").read_text(encoding="utf-8")
    assert source == paper_map.with_map(source), "run: python tools/paper_map.py"
    assert paper_map.text() in (rmtllmf_lib.__doc__ or "")


def test_the_page_has_every_section() -> None:
    page = (paper_map.ROOT / "book" / "map.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\{paper-map\} (\S+)", page)) == {row.section for row in ROWS}


@pytest.mark.parametrize(
    "find, name",
    [
        (paper_map.find_function, "wireless.receiver.no_such_function"),
        (paper_map.find_function, "no_such_module.sic_mse"),
        (paper_map.find_test, "wireless/test_receiver.py::test_no_such_test"),
        (paper_map.find_test, "wireless/test_no_such_file.py::test_order_and_its_ties"),
    ],
)
def test_a_name_that_is_gone_is_reported(find: Callable[[str], paper_map.Code], name: str) -> None:
    with pytest.raises(LookupError, match=name):
        find(name)
