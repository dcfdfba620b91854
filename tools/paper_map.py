"""Write the map from the paper to the code, kept in `book/map.csv`, into the docstring of `rmtllmf_lib`.

The table holds what only a person knows: which function and which test belong to an equation, figure or section of the
paper, and where the book treats it. Everything else is read off the sources: numbers and sections from the notebooks,
files and lines from the library and its tests, and the function that draws a figure from the notebook's cell.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "rmtllmf_lib"
TABLE = ROOT / "book" / "map.csv"
START, END = "The map, from the paper to the code", "\n\nNothing is imported here"
DRAWING = re.compile(r"rmtllmf_lib\.chapters\.(?:\w+\.figures|slider)\.\w+")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    section, paper, what : the paper's section, its name of the item (empty where it has none), and what that is
    equation, figure : labels in the book, or empty
    function : name in the library, without the library's own
    test : file::name below `tests/`
    """

    section: str
    paper: str
    what: str
    equation: str
    function: str
    test: str
    figure: str


@dataclass(frozen=True)
class Place:
    """Where an equation or figure of the book stands: its number, as 1.3 in a chapter, the document, the heading above.

    A drawn figure has the functions that draw it and its title, the start of its caption.
    """

    number: str
    document: str
    heading: str
    drawn_by: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Code:
    """Where a function, class or test is defined."""

    path: Path
    line: int
    name: str


def rows() -> list[Row]:
    """Return the table, in the order of the paper."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [Row(**fields) for fields in csv.DictReader(file)]


# --- the code ---------------------------------------------------------------------------------------------------------


@cache
def definitions(path: Path) -> dict[str, int]:
    """Return the functions, classes and methods of a file with their lines; methods as `Class.method`."""
    found: dict[str, int] = {}

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[prefix + node.name] = node.lineno
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def _gone(asked: str, name: str, folder: Path) -> LookupError:
    """Return the error for a name of the table that is not where the table says."""
    others = [str(path.relative_to(ROOT)) for path in sorted(folder.rglob("*.py")) if name in definitions(path)]
    where = f"it is defined in {', '.join(others)}" if others else f"no file of {folder.name}/ defines {name}"
    return LookupError(f"{asked} does not exist: {where}; correct it in {TABLE.relative_to(ROOT)}")


def _code(asked: str, path: Path, name: str, folder: Path) -> Code:
    if not path.is_file() or name not in definitions(path):
        raise _gone(asked, name, folder)
    return Code(path, definitions(path)[name], name)


def find_function(function: str) -> Code:
    """Return where the library defines `package.module.name`; LookupError if it does not."""
    parts = function.split(".")
    for split in range(len(parts) - 1, 0, -1):
        path = LIBRARY.joinpath(*parts[:split]).with_suffix(".py")
        if path.is_file():
            return _code(function, path, ".".join(parts[split:]), LIBRARY)
    raise _gone(function, parts[-1], LIBRARY)


def find_test(test: str) -> Code:
    """Return where `folder/test_file.py::test_name` is defined; LookupError if it is not."""
    file, _, name = test.partition("::")
    return _code(test, ROOT / "tests" / file, name, ROOT / "tests")


@cache
def rules() -> dict[str, str]:
    """Return the library's function that judges each claim, by the claim's label; for a `partial`, its function."""
    found = {}
    for path in sorted((LIBRARY / "chapters" / "verdicts").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        made = re.findall(r'^@measures\("(.+)"\)\ndef (\w+)', source, flags=re.MULTILINE)
        made += re.findall(r'^measures\("(.+)"\)\(partial\((\w+)', source, flags=re.MULTILINE)
        found |= {label: f"chapters.verdicts.{path.stem}.{name}" for label, name in made}
    return found


# --- the book ---------------------------------------------------------------------------------------------------------


def documents() -> list[str]:
    """Return the book's documents in the order of its contents, without suffix."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [contents["root"], *(each["file"] for part in contents["parts"] for each in part["chapters"])]


def chapters() -> dict[str, int]:
    """Return the number of each document in the numbered parts of the book."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    numbered = [each["file"] for part in contents["parts"] if part.get("numbered") for each in part["chapters"]]
    return {document: place for place, document in enumerate(numbered, start=1)}


def _cells(document: str) -> list[dict[str, object]]:
    """Return the cells of a document; a page in Markdown is one cell."""
    path = ROOT / f"{document}.ipynb"
    if path.is_file():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [{**cell, "source": "".join(cell["source"])} for cell in cells]
    text = (ROOT / f"{document}.md").read_text(encoding="utf-8")
    return [{"cell_type": "markdown", "metadata": {}, "source": text}]


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _drawing_functions(source: str, imported: dict[str, str]) -> tuple[str, ...]:
    """Return the drawing functions of the library that a cell calls as statements of their own."""
    statements = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    called = (_dotted(value.func).partition(".") for value in statements if isinstance(value, ast.Call))
    names = {imported.get(first, "") + dot + rest for first, dot, rest in called}
    return tuple(sorted(name.removeprefix("rmtllmf_lib.") for name in names if DRAWING.fullmatch(name)))


def _title(caption: str) -> str:
    """Return the start of a caption, up to a full stop, colon or semicolon, without references; formulas as text."""
    plain = re.sub(r"[$\\{}]", "", re.sub(r" ?\{\w+\}`[^`]*`", "", caption))
    return re.split(r"(?<=.{8})(?<!Eq)[.:;](?:\s|$)", plain)[0]


def _labels(document: str) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield label, heading, drawing functions and title of the numbered equations and figures, in their order."""
    heading = ""
    imported: dict[str, str] = {}
    for cell in _cells(document):
        source, metadata = str(cell["source"]), cell["metadata"]
        if cell["cell_type"] == "markdown":
            for match in re.finditer(
                r"^#+ (.*)|^\$\$ \((eq-[\w-]+)\)|^:name: (fig-[\w-]+)", source, flags=re.MULTILINE
            ):
                heading = match[1] or heading
                if label := match[2] or match[3]:
                    yield label, heading, (), ""
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        figure = metadata.get("mystnb", {}).get("figure") if isinstance(metadata, dict) else None
        if figure:
            yield figure["name"], heading, _drawing_functions(source, imported), _title(figure["caption"])


@cache
def places() -> dict[str, Place]:
    """Return the numbered equations and figures of the book by label; both are numbered within each chapter."""
    found: dict[str, Place] = {}
    count: Counter[tuple[str, int | None]] = Counter()
    for document in documents():
        chapter = chapters().get(document)
        for label, heading, *drawn in _labels(document):
            kind = label.partition("-")[0], chapter
            count[kind] += 1
            number = ".".join(str(part) for part in (chapter, count[kind]) if part is not None)
            found[label] = Place(number, document, heading, *drawn)
    return found


def place_of(row: Row) -> Place | None:
    """Return where the book treats the item: at the equation, else at the figure."""
    label = row.equation or row.figure
    if label and label not in places():
        raise LookupError(f"{label}: no document of the book has this label; correct it in {TABLE.name}")
    return places().get(label)


# --- the docstring ----------------------------------------------------------------------------------------------------


def _entry(row: Row) -> str:
    place, numbers = place_of(row), []
    if row.equation:
        numbers.append(f"({places()[row.equation].number})")
    if row.figure:
        numbers.append(f"Fig. {places()[row.figure].number}")
    where = f'\n    {place.document}, "{place.heading}": {", ".join(numbers)}' if place else ""
    title = f"{row.paper or 'not in the paper'}, {row.what}"
    return f"{title}\n    {row.function}\n    tests/{row.test}{where}"


def text() -> str:
    """Return the map as plain text."""
    blocks, section = [], ""
    for row in rows():
        if row.section != section:
            section = row.section
            blocks.append(f"Section {section}\n{'-' * len(f'Section {section}')}")
        blocks.append(_entry(row))
    introduction = (
        f"{START}: an item of the paper, the function, its test, and where the book treats it, with\n"
        "the book's own numbers."
    )
    return "\n\n".join([introduction, *blocks])


def with_map(source: str) -> str:
    """Return the source of `rmtllmf_lib/__init__.py` with the map of today."""
    before, _, rest = source.partition(START)
    return f"{before}{text()}{rest[rest.index(END) :]}"


def main() -> int:
    """Write the docstring."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    path = LIBRARY / "__init__.py"
    path.write_text(with_map(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
