"""Sphinx extension: the bar over folded code says what it makes: a figure, a verdict, a table, lines, or names."""

import ast
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

MOST = 3  # names in a bar


def what_is_hidden(source: str, kinds: set[str]) -> str:
    """Return what stands in the bar after "Show" and "Hide".

    Parameters
    ----------
    source : str
        The code.
    kinds : set of str
        Kinds of its output: "figure", "table", "lines".
    """
    statements = ast.parse(source).body
    if any(_called(statement) == "record" for statement in statements):
        return "the code of this verdict"
    for kind, words in (("figure", "this figure"), ("table", "this table"), ("lines", "these lines")):
        if kind in kinds:
            return f"the code of {words}"
    if all(isinstance(statement, (ast.Import, ast.ImportFrom)) for statement in statements):
        return "the imports"
    names = list(dict.fromkeys(name for statement in statements for name in _defined(statement)))
    if not names:
        return "the code"
    return f"the code of {', '.join(names[-MOST:])}"


def _called(statement: ast.stmt) -> str:
    call = getattr(statement, "value", None)
    return call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _kinds(cell: nodes.Element) -> set[str]:
    found = set()
    outputs = [node for node in cell.findall(nodes.container) if node.get("nb_element") == "cell_code_output"]
    for output in outputs:
        for node in output.findall(nodes.Element):
            if isinstance(node, (nodes.figure, nodes.image)):
                found.add("figure")
            elif isinstance(node, nodes.table) or node.get("mime_type") == "text/html":
                found.add("table")
            elif "stream" in node.get("classes", ()):
                found.add("lines")
    return found


def name_bars(app: Sphinx, doctree: nodes.document) -> None:
    """Say in each bar over a cell's folded code what it hides."""
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") != "cell_code" or cell.get("hide_mode") != "input":
            continue
        hidden = what_is_hidden(cell.children[0].astext(), _kinds(cell))
        cell["prompt_show"], cell["prompt_hide"] = f"Show {hidden}", f"Hide {hidden}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handler."""
    app.connect("doctree-read", name_bars)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
