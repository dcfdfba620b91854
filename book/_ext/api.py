"""Sphinx extension: the reference of a package, from the docstrings of its modules.

`{api} wireless` is a section for each module of the package, with everything public that is defined in it and a link to
the module's source; `{api} ground` has the modules that lie directly in `rmtllmf_lib`. A module without public names
has no section.
"""

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from paper_map import page_of, paper_map
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tools import house


def public_names(path: Path) -> list[str]:
    """Return the public functions and classes that a file defines."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    defined = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in body if isinstance(node, defined) and not node.name.startswith("_")]


def modules_of(package: str) -> dict[str, Path]:
    """Return the modules of a package that define something public."""
    of_library = {name: path for name, path in house.modules().items() if house.package_of(name) == package}
    return {name: path for name, path in sorted(of_library.items()) if public_names(path)}


class Api(SphinxDirective):
    """The modules of one package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a section for each module."""
        found: list[nodes.Node] = []
        for module, path in modules_of(self.arguments[0]).items():
            self.env.note_dependency(str(path))
            short = module.removeprefix("rmtllmf_lib.")
            section = nodes.section("", nodes.title("", "", nodes.literal("", short)), ids=[nodes.make_id(short)])
            source = path.relative_to(paper_map.ROOT).as_posix()
            up = "../" * self.env.docname.count("/")
            link = nodes.reference("", "source", refuri=f"{up}{page_of(path)}.html", internal=True, reftitle=source)
            section += nodes.paragraph("", "", link, classes=["source-link"])
            automodule = [f".. automodule:: {module}", "   :members:", "   :member-order: bysource"]
            lines = ["```{eval-rst}", *automodule, "```"]  # docstrings are in reStructuredText, pages in Markdown
            self.state.nested_parse(StringList(lines, source=str(path)), 0, section)
            found.append(section)
        return found


FOOTNOTE = re.compile(r"^\.\. \[(\d+)\] ")
CODE = re.compile(r"(``.+?``|`[^`]+`)")
EMPHASIS = re.compile(r"(\*\*[^*\s](?:[^*]*[^*\s])?\*\*|\*[^*\s](?:[^*]*[^*\s])?\*)")


def as_restructured_text(lines: Sequence[str]) -> list[str]:
    """Return a docstring in which only what is meant as markup is markup.

    Our docstrings are read in editors first. Bars of absolute values and stars of file patterns stay as they are, and
    references are a list: footnotes of all modules on one page would have the same numbers.
    """
    found: list[str] = []
    block = -1  # indentation of the line that opened a literal block
    footnote = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent <= block:
            block = -1
        if FOOTNOTE.match(line):
            found.append(FOOTNOTE.sub(r"- [\1] ", escaped(line)))
            footnote = True
            continue
        if footnote and line.strip() and indent:
            found[-1] += f" {escaped(line.strip())}"
            continue
        footnote = False
        found.append(line if block >= 0 else escaped(line))
        if line.rstrip().endswith("::"):
            block = indent
    return found


def escaped(line: str) -> str:
    """Return a line in which bars, single stars and footnote marks are text."""
    parts = CODE.split(line)  # every second one is code
    for place, part in enumerate(parts):
        if place % 2:
            after = parts[place + 1]
            parts[place] = part + "\\ " * after[:1].isalnum()
        else:
            texts = EMPHASIS.split(re.sub(r"(\[\d+\])_", r"\1", part))
            texts[::2] = [text.replace("|", r"\|").replace("*", r"\*") for text in texts[::2]]
            parts[place] = "".join(texts)
    return "".join(parts)


def prepare(app: Sphinx, what: str, name: str, item: object, options: dict[str, Any], lines: list[str]) -> None:
    """Prepare a docstring; one that a dataclass got of itself repeats its signature, and is left out."""
    generated = what == "class" and lines and lines[0].startswith(f"{name.rpartition('.')[2]}(")
    lines[:] = [] if generated else as_restructured_text(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", prepare, priority=100)  # before napoleon
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
