"""The book, built once for all files of tests that look at it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from places import ROOT

CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text())
_CHAPTERS = [chapter for part in CONTENTS["parts"] for chapter in part["chapters"]]
_SECTIONS = [section for chapter in _CHAPTERS for section in chapter.get("sections", ())]
PAGES = [CONTENTS["root"], *(page["file"] for page in (*_CHAPTERS, *_SECTIONS))]
_BUILD = "import sys; from jupyter_book.cli.main import main; sys.exit(main(prog_name='jupyter-book'))"


def shared_book(factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The book of this run of the tests: whichever process is first builds it, see `build_book`."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "book"
    said = folder / "said.json"
    with FileLock(f"{folder}.lock"):
        if not said.exists():
            folder.mkdir(exist_ok=True)
            said.write_text(json.dumps(build_book(folder)[1]))
    return folder / "_build" / "html", json.loads(said.read_text())


def build_book(folder: Path) -> tuple[Path, str]:
    """Build the book from the committed outputs; return its folder and what the builder said."""
    command = [sys.executable, "-c", _BUILD, "build", str(ROOT), "--path-output", str(folder)]
    run = subprocess.run(
        [*command, "-W", "-n", "--keep-going"], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    said = run.stdout + run.stderr
    assert run.returncode == 0, said[-4000:]
    return folder / "_build" / "html", said
