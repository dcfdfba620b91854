"""Print the size and the import levels of the library, package by package.

Code lines are lines that hold a token other than a comment or a docstring. A package's level is one more than the
highest level that it imports, imports inside functions and those for type checkers counted.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "rmtllmf_lib"
METHOD = ("wireless", "model", "fusion", "payload", "transport", "protection", "disentanglement")

# From the top: a package imports packages of lower rows only. Within a row the arrows follow the way the data goes.
LEVELS = (
    ("chapters", "command"),
    ("study",),
    ("protection", "disentanglement"),
    ("training", "transport"),
    ("payload",),
    ("fusion",),
    ("model", "wireless"),
    ("tasks", "storage"),
    ("ground",),
)
SIDEWAYS = {("disentanglement", "protection")}


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the library's modules: full name to file."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((root / LIBRARY).rglob("*.py"))
    }


def package_of(module: str) -> str:
    """Return the room of a module: the first folder below the library, or "ground" for what lies flat in it."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / LIBRARY / parts[1]).is_dir() else "ground"


def code_lines(path: Path) -> int:
    """Return the number of lines with code: no blanks, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            found.update(range(token.start[0], token.end[0] + 1))
    return len(found - docstrings)


def imports(module: str, known: dict[str, Path]) -> set[str]:
    """Return the full names that a module imports anywhere in it; modules of the library to the last part."""
    found: set[str] = set()
    package = module.split(".") if known[module].name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(known[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {name if (name := f"{base}.{alias.name}") in known else base for alias in node.names}
    return found


def graph(known: dict[str, Path]) -> dict[str, set[str]]:
    """Return the library's imports of itself, module by module."""
    return {module: imports(module, known) & known.keys() - {module} for module in known}


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Return the imports that go up, or sideways other than along the data's way, each as "module -> module"."""
    level = {package: row for row, packages in enumerate(LEVELS) for package in packages}
    wrong = []
    for module, others in edges.items():
        for other in others:
            ours, theirs = package_of(module), package_of(other)
            down = level[theirs] > level[ours] or ours == theirs or (ours, theirs) in SIDEWAYS
            if not down and module != LIBRARY:
                wrong.append(f"{module} -> {other}")
    return sorted(wrong)


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Return one circle of imports, or nothing."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def main() -> int:
    """Print the table; exit status 1 for an import upwards or a circle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="a line for each file, too")
    arguments = parser.parse_args()
    known = modules()
    edges = graph(known)
    sizes = {module: code_lines(path) for module, path in known.items()}
    packages: dict[str, Counter[str]] = defaultdict(Counter)
    for module, size in sizes.items():
        packages[package_of(module)][module] = size
    print(f"{'package':<18}{'files':>6}{'code lines':>12}   imports")
    for package in (name for row in LEVELS for name in row):
        used = {package_of(other) for module in packages[package] for other in edges[module]} - {package}
        ordered = [name for row in LEVELS for name in row if name in used]
        print(f"{package:<18}{len(packages[package]):>6}{packages[package].total():>12}   {' '.join(ordered)}")
        if arguments.files:
            for module, size in packages[package].most_common():
                print(f"    {module.removeprefix(LIBRARY + '.'):<44}{size:>6}")
    method = sum(packages[name].total() for name in METHOD)
    print(f"{'all':<18}{len(known):>6}{sum(sizes.values()):>12}   {method} of them in {', '.join(METHOD)}")
    wrong, round_trip = upward(edges), circle(edges)
    for line in wrong:
        print(f"goes up: {line}")
    if round_trip:
        print(f"circle: {' -> '.join(round_trip)}")
    return 1 if wrong or round_trip else 0


if __name__ == "__main__":
    sys.exit(main())
