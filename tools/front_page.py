"""Write what the book shows of its chapters' records outside of them: the first page, and all verdicts in one file.

The numbers of `intro.md` stand between marks, as in a notebook, with the number of the chapter before the recorded
name: `<!--=04/clean:.0f-->80<!--/-->`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rmtllmf_lib import recorded
from rmtllmf_lib.chapters.findings import collected
from rmtllmf_lib.chapters.verdicts.claims import as_csv
from rmtllmf_lib.chapters.verdicts.figures import answer

ROOT = Path(__file__).resolve().parents[1]
FUSION = "04"


def pages(root: Path) -> dict[Path, str]:
    """Return the files below a copy of the book, with the text that its notebooks' records give them."""
    book, known = root / "book", {}
    for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        known[path.stem[:2]] = recorded.numbers(json.loads(path.read_text(encoding="utf-8")))
    named = {f"{chapter}/{name}": value for chapter, found in known.items() for name, value in found.items()}
    return {
        book / "intro.md": recorded.fill_page((book / "intro.md").read_text(encoding="utf-8"), named),
        book / "verdicts.csv": as_csv(collected(root / "notebooks")),
        book / "_static" / "answer.svg": answer(known[FUSION]),
    }


def main() -> int:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "root", type=Path, nargs="?", default=ROOT, help="folder with notebooks and book; default: this"
    )
    for path, text in pages(parser.parse_args().root).items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
