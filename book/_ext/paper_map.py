"""Sphinx extension: the map from the paper to the code, with pages of the code that its links lead to.

Below every numbered equation stand links to its function and its test, below every figure one to the function that drew
it and one to the numbers that it shows; `{paper-map}` and `{figure-map}` are the tables of the map's own page, and the
role `{rule}` links to the function that judges a claim. The code is shown in pages of the book, so that the links work
in a book opened from a folder.
"""

import html
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import rmtllmf_lib

# The book may be built from a copy beside which there is no library.
sys.path.insert(0, str(Path(rmtllmf_lib.__file__).resolve().parents[1]))

from tools import house, paper_map  # noqa: E402

PAGES = "code"
NUMBERS = "figure_data"  # the folder of comma-separated values behind the figures
VERDICTS = "notebooks/07_verdicts"


class MapTable(nodes.General, nodes.Element):
    """Stands for a table of the map until all documents have been read."""


class RuleLink(nodes.Inline, nodes.TextElement):
    """Stands for a link to the rule of a claim."""


def rule_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Leave a place for a link to the rule of the claim with this label."""
    if text not in paper_map.rules():
        return [], [inliner.reporter.error(f"no rule judges a claim {text!r}", line=lineno)]
    return [RuleLink("", label=text)], []


class PaperMap(SphinxDirective):
    """The items of one section of the paper."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Leave a place for the table."""
        return [MapTable("", section=self.arguments[0])]


class FigureMap(SphinxDirective):
    """The figures of the book."""

    def run(self) -> list[nodes.Node]:
        """Leave a place for the table."""
        return [MapTable("", section=None)]


def page_of(path: Path) -> str:
    """Return the name of the page that shows a file of the library or of the tests."""
    return f"{PAGES}/{path.relative_to(paper_map.ROOT).with_suffix('').as_posix()}"


@cache
def rows_of() -> dict[str, list[paper_map.Row]]:
    """Return the rows of the map by equation."""
    found = defaultdict(list)
    for row in paper_map.rows():
        found[row.equation].append(row)
    return dict(found)


def typeset(text: str) -> str:
    """Return a text with the apostrophes that the book's pages have."""
    return text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")


def anchor_of(place: paper_map.Place) -> str:
    """Return the anchor of the section in which a place is."""
    return nodes.make_id(typeset(place.heading))


# --- links ------------------------------------------------------------------------------------------------------------


class Links:
    """Links from one document to code and to other places of the book."""

    def __init__(self, app: Sphinx, document: str) -> None:
        """Links of `document`."""
        self._uri = lambda target: app.builder.get_relative_uri(document, target)

    def to_code(self, name: str, text: str = "") -> nodes.Node:
        """Link to a function, or to a test where the name has a file in it."""
        code = paper_map.find_test(name) if "::" in name else paper_map.find_function(name)
        uri = f"{self._uri(page_of(code.path))}#{code.name}"
        content = nodes.Text(text) if text else nodes.literal("", name.rpartition("::")[2])
        return nodes.reference("", "", content, refuri=uri, internal=True, reftitle=name)

    def to_place(self, label: str) -> nodes.Node:
        """Link to an equation or figure by its number in the book."""
        place, equation = paper_map.places()[label], label.startswith("eq-")
        uri = f"{self._uri(place.document)}#{'equation-' * equation}{label}"
        text = f"({place.number})" if equation else f"Fig. {place.number}"
        return nodes.reference("", text, refuri=uri, internal=True)

    def to_heading(self, place: paper_map.Place) -> nodes.Node:
        """Link to the section of the book in which a place is."""
        uri = f"{self._uri(place.document)}#{anchor_of(place)}"
        return nodes.reference("", typeset(place.heading), refuri=uri, internal=True)


def formulas(text: str) -> list[nodes.Node]:
    """Return a text as nodes, with what stands between dollars set as formulas."""
    parts = enumerate(typeset(text).split("$"))
    return [nodes.math("", part) if number % 2 else nodes.Text(part) for number, part in parts if part]


def separated(parts: list[nodes.Node], by: str) -> list[nodes.Node]:
    """Put a text between nodes."""
    return [node for part in parts for node in (nodes.Text(by), part)][1:]


def line(*parts: nodes.Node, name: str = "") -> nodes.paragraph:
    """Return a paragraph with the class `name`."""
    return nodes.paragraph("", "", *parts, classes=[name] if name else [])


def below_equation(links: Links, rows: list[paper_map.Row]) -> nodes.paragraph:
    """Return the line of links below an equation."""
    parts = [link for row in rows for link in (links.to_code(row.function), links.to_code(row.test, "test"))]
    return line(*separated(parts, " · "), name="code-links")


def below_figure(links: Links, functions: tuple[str, ...], numbers: str) -> nodes.legend:
    """Return the line with links to the function that drew a figure, and to its numbers, if there are any."""
    drawn = separated([links.to_code(name) for name in functions], ", ")
    data = [nodes.Text(" · "), nodes.reference("", "its numbers (CSV)", refuri=numbers)] if numbers else []
    return nodes.legend("", line(nodes.Text("drawn by "), *drawn, *data, name="code-links"))


# --- tables -----------------------------------------------------------------------------------------------------------


def table(
    header: tuple[str, ...], widths: tuple[int, ...], body: Sequence[tuple[list[nodes.Node], ...]]
) -> nodes.table:
    """Return a table with the given cells."""

    def row(cells: Iterator[list[nodes.Node]]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", *cell) for cell in cells))

    specs = [nodes.colspec(colwidth=width) for width in widths]
    head = nodes.thead("", row([line(nodes.Text(title))] for title in header))
    content = nodes.tbody("", *(row(iter(cells)) for cells in body))
    group = nodes.tgroup("", *specs, head, content, cols=len(widths))
    return nodes.table("", group, classes=["paper-map"])


def paper_table(links: Links, section: str) -> nodes.table:
    """Return the table of a section of the paper."""
    body = []
    for row in paper_map.rows():
        if row.section == section:
            item = [line(nodes.strong("", row.paper))] if row.paper else []
            code = [line(links.to_code(row.function)), line(nodes.Text("test: "), links.to_code(row.test))]
            labels = [links.to_place(label) for label in (row.equation, row.figure) if label]
            place = paper_map.place_of(row)
            where = [line(*separated(labels, ", ")), line(links.to_heading(place))] if place else []
            body.append(([*item, line(nodes.Text(typeset(row.what)))], code, where))
    return table(("paper", "code", "book"), (25, 45, 30), body)


def figure_table(links: Links) -> nodes.table:
    """Return the table of the book's figures with the functions that drew them."""
    figures = [(label, place) for label, place in paper_map.places().items() if place.drawn_by]
    body = [
        (
            [line(links.to_place(label)), line(*formulas(place.title))],
            [line(*separated([links.to_code(name) for name in place.drawn_by], ", "))],
            [line(links.to_heading(place))],
        )
        for label, place in figures
    ]
    return table(("figure", "drawn by", "section"), (45, 30, 25), body)


def add_links(app: Sphinx, doctree: nodes.document, document: str) -> None:
    """Put the links below equations and figures, and the tables in their places."""
    links, places = Links(app, document), paper_map.places()
    shown = app.builder.format == "html"  # other builders have no pages of the code
    for node in [*doctree.findall(MapTable)]:
        content = paper_table(links, node["section"]) if node["section"] else figure_table(links)
        node.replace_self([content] if shown else [])
    for node in [*doctree.findall(RuleLink)]:
        node.replace_self([links.to_code(paper_map.rules()[node["label"]], "rule")] if shown else [])
    if not shown:
        return
    for node in [*doctree.findall(nodes.math_block)]:
        if node.get("label") in rows_of():
            node.parent.insert(node.parent.index(node) + 1, below_equation(links, rows_of()[node["label"]]))
    known, up = numbers_of(str(app.srcdir)), "../" * document.count("/")
    for node in doctree.findall(nodes.figure):
        for label in node["ids"]:
            if label in places and places[label].drawn_by:
                numbers = f"{up}{NUMBERS}/{label}.csv" if label in known else ""
                node.append(below_figure(links, places[label].drawn_by, numbers))


@cache
def numbers_of(folder: str) -> dict[str, str]:
    """Return the comma-separated values in the outputs of the executed notebooks, by the label of their figure."""
    found = {}
    for path in sorted(Path(folder, "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            label = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
            for output in cell.get("outputs", []):
                if label and (text := "".join(output.get("data", {}).get("text/csv", ""))):
                    found[label] = text
    return found


def write_numbers(app: Sphinx, error: Exception | None) -> None:
    """Write the numbers of the figures beside the pages."""
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir, NUMBERS)
        folder.mkdir(exist_ok=True)
        for label, text in numbers_of(str(app.srcdir)).items():
            (folder / f"{label}.csv").write_text(text, encoding="utf-8")


# --- pages of the code ------------------------------------------------------------------------------------------------


def highlighted(app: Sphinx, path: Path) -> str:
    """Return the HTML of a file; a definition's line has its name for an anchor."""
    source = path.read_text(encoding="utf-8")
    highlighter = getattr(app.builder, "highlighter")  # noqa: B009 - builders of HTML alone have one
    body: str = highlighter.highlight_block(source, "python", linenos=False, linespans="L")
    indents = [len(text) - len(text.lstrip()) for text in source.splitlines()]
    for number, indent in enumerate(indents, start=1):  # where a line wraps, it goes on to the right of its start
        body = body.replace(f'id="L-{number}"', f'id="L-{number}" style="--indent: {indent}ch"', 1)
    for name, number in paper_map.definitions(path).items():
        body = body.replace(f'id="L-{number}"', f'id="{name}"', 1)
    return body


def items_at(path: Path) -> list[tuple[str, str]]:
    """Return name and HTML of the items of the map that lead to a file, each with a link back to the book."""
    up = "../" * page_of(path).count("/")
    found: dict[str, list[str]] = defaultdict(list)
    for row in paper_map.rows():
        place = paper_map.place_of(row)
        function, test = paper_map.find_function(row.function), paper_map.find_test(row.test)
        for code in (function, test):
            if code.path == path:
                text = html.escape(", ".join(filter(None, (row.paper, row.what))))
                target = f"{place.document}.html#{anchor_of(place)}" if place else "book/map.html"
                tested = f' (<a href="{up}{page_of(test.path)}.html#{test.name}">tested by</a>)'
                found[code.name].append(f'<a href="{up}{target}">{text}</a>{tested * (code is function)}')
    for label, place in paper_map.places().items():
        for name in place.drawn_by:
            code = paper_map.find_function(name)
            if code.path == path:
                found[code.name].append(f'<a href="{up}{place.document}.html#{label}">Fig. {place.number}</a>')
    for label, name in paper_map.rules().items():
        code = paper_map.find_function(name)
        if code.path == path:
            found[code.name].append(f'<a href="{up}{VERDICTS}.html">{html.escape(label)}</a>')
    return [(name, "; ".join(items)) for name, items in sorted(found.items(), key=lambda item: item[0])]


def code_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for every file of the library, and for the tests that the map leads to."""
    paths = {path for path in house.modules().values() if path.name != "__init__.py"}
    paths |= {paper_map.find_test(row.test).path for row in paper_map.rows()}
    for path in sorted(paths):
        title = path.relative_to(paper_map.ROOT).as_posix()
        items = "".join(
            f'<li><a href="#{name}"><code>{name}</code></a>: {links}</li>' for name, links in items_at(path)
        )
        code = f'<div class="code-page">{highlighted(app, path)}</div>'
        body = f'<h1 class="code-title">{title}</h1>{f"<ul>{items}</ul>" if items else ""}{code}'
        yield page_of(path), {"title": title, "body": body}, "page.html"


def note_table(app: Sphinx, doctree: nodes.document) -> None:
    """Build a document anew when the table has changed."""
    app.env.note_dependency(str(paper_map.TABLE))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register directives and handlers."""
    app.add_node(MapTable)
    app.add_node(RuleLink)
    app.add_role("rule", rule_role)
    app.add_directive("paper-map", PaperMap)
    app.add_directive("figure-map", FigureMap)
    app.connect("doctree-read", note_table)
    app.connect("doctree-resolved", add_links)
    app.connect("html-collect-pages", code_pages)
    app.connect("build-finished", write_numbers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
