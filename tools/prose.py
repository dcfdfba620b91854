"""Read the prose of the book, the documents and the docstrings, and print what its style does not allow.

Spelling is codespell's (`make prose` runs it on the files), usage proselint's, and a few habits are our own. Code,
formulas and links are taken out first, and every finding is printed with file, line and reason.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Checks of proselint that suit technical prose; typography and matters of taste are left out.
CHECKS = (
    "archaism", "cliches", "hedging", "malapropisms", "misc.apologizing", "misc.but",
    "misc.false_plurals", "misc.illogic", "misc.many_a", "misc.waxed", "misc.whence", "mixed_metaphors",
    "mondegreens", "needless_variants", "nonwords", "oxymorons", "redundancy", "spelling", "uncomparables",
)  # fmt: skip
# Words of the field that proselint takes for something else.
ALLOWED = ("on the spot",)

# Our own: pattern and what to write instead.
STYLE = {
    r"\b(?:simply|obviously|of course|needless to say|it is worth noting)\b": "leave it out",
    r"\b(?:utili[sz]e[sd]?|leverag(?:e[sd]?|ing))\b": "use",
    r"\bin order to\b": "to",
    r"\bdue to the fact that\b": "because",
    r"\ba lot of\b": "many, or much",
    r"\b(?:novel|state[- ]of[- ]the[- ]art|cutting[- ]edge|seamless(?:ly)?)\b": "say what it does",
    r"\b(?:behavior|color|optimize[sd]?|analyze[sd]?|realize[sd]?|neighbor)\b": "British spelling",
    r"\b([a-z]{3,}) \1\b": "a word twice",
}

_CODE = re.compile(
    r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$"  # fenced blocks
    r"|\$\$.*?\$\$|(?<!\\)\$[^$\n]+\$"  # formulas
    r"|\{[\w:-]+\}`[^`]*`|``[^`]+``|`[^`\n]*`"  # roles and code
    r"|\]\([^)]*\)|<!--.*?-->|<[^>\n]+>|https?://\S+"
    r"|^\|.*?$|^ {4,}.*?$",  # tables and indented code
    flags=re.DOTALL | re.MULTILINE,
)


def without_code(text: str) -> str:
    """Return a text of the same length in which all that is no prose is blank; lines stay lines."""
    return _CODE.sub(lambda found: re.sub(r"[^\n]", "\x00", found[0]), text)


def documents() -> Iterator[tuple[str, str]]:
    """Yield name and prose of each document and chapter; the lines of a chapter are those of its joined cells."""
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "book").rglob("*.md"))]:
        yield path.relative_to(ROOT).as_posix(), without_code(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        yield path.relative_to(ROOT).as_posix(), without_code(prose)


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield name and prose of the docstrings of each module of the library, in the places where they stand."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for path in sorted((ROOT / "rmtllmf_lib").rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [""] * len(lines)
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, kinds) and ast.get_docstring(node) is not None:
                first = node.body[0]
                for number in range(first.lineno - 1, first.end_lineno or first.lineno):
                    cited = lines[number].strip().startswith(".. [")  # titles are other people's words
                    kept[number] = "" if cited else lines[number].strip().replace('"""', "")
        yield path.relative_to(ROOT).as_posix(), without_code("\n".join(kept))


def findings(name: str, prose: str) -> list[str]:
    """Return what our own style does not allow in a text, one line each."""
    found = []
    for pattern, reason in STYLE.items():
        for match in re.finditer(pattern, prose, flags=re.IGNORECASE):
            line = prose.count("\n", 0, match.start()) + 1
            found.append(f"{name}:{line}: {match[0].strip()!r}: {reason}")
    return found


def usage(name: str, prose: str) -> list[str]:
    """Return what proselint finds in a text, one line each."""
    from proselint.checks import __register__
    from proselint.registry import CheckRegistry
    from proselint.tools import LintFile

    if not CheckRegistry().checks:
        CheckRegistry().register_many(__register__)
    # A blank of the same length would be one long gap, and words around code would meet.
    text = prose.replace("\x00", "¦")
    checks = {name: True for name in CHECKS}
    results = LintFile(name, text).lint({"checks": checks, "max_errors": 10**6})  # type: ignore[typeddict-item]
    lines = []
    for result in results:
        start, end = (position - 1 for position in result.check_result.span)  # it puts a line break before the text
        words = " ".join(text[start:end].split())
        if not any(word in words.lower() for word in ALLOWED) and "¦" not in words:
            place = text.count("\n", 0, start) + 1
            lines.append(f"{name}:{place}: {words!r}: {' '.join(result.check_result.message.split())}")
    return lines


def main() -> int:
    """Print all findings; return 1 if there are any."""
    parser = argparse.ArgumentParser(description="Print what the style of the prose does not allow.")
    parser.add_argument("--own", action="store_true", help="our own habits only, without proselint")
    own = parser.parse_args().own
    texts = [*documents(), *docstrings()]
    found = [line for name, prose in texts for line in findings(name, prose)]
    if not own:
        found += [line for name, prose in texts for line in usage(name, prose)]
    print("\n".join(sorted(found)))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
