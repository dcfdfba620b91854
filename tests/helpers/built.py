"""The book, built once for a module of tests."""

import subprocess
import sys
from pathlib import Path

import yaml

from places import ROOT

CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text())
_CHAPTERS = [chapter for part in CONTENTS["parts"] for chapter in part["chapters"]]
_SECTIONS = [section for chapter in _CHAPTERS for section in chapter.get("sections", ())]
PAGES = [CONTENTS["root"], *(page["file"] for page in (*_CHAPTERS, *_SECTIONS))]
_BUILD = "import sys; from jupyter_book.cli.main import main; sys.exit(main(prog_name='jupyter-book'))"


def build_book(folder: Path) -> tuple[Path, str]:
    """Build the book from the committed outputs; return its folder and what the builder said."""
    command = [sys.executable, "-c", _BUILD, "build", str(ROOT), "--path-output", str(folder)]
    run = subprocess.run(
        [*command, "-W", "-n", "--keep-going"], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    said = run.stdout + run.stderr
    assert run.returncode == 0, said[-4000:]
    return folder / "_build" / "html", said
