"""tools/execute.py: notebooks are stored clean and whole, or not at all."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from places import ROOT


def write(path: Path, *sources: str) -> Path:
    """Write a notebook that was never executed, with traces of another machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = [
        new_code_cell(source, execution_count=7, metadata={"execution": {"iopub.status": "t"}}) for source in sources
    ]
    metadata = {
        "language_info": {"name": "python", "version": "3.99"},
        "kernelspec": {"name": "mine", "display_name": "Mine"},
    }
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title"), *code], metadata=metadata), path)
    return path


def execute(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "execute.py"), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def book(tmp_path: Path) -> Path:
    write(
        tmp_path / "notebooks" / "good.ipynb",
        "import os, sys\nprint('a')\nprint('b')",
        "print(os.getcwd(), sys.executable)",
    )
    write(tmp_path / "notebooks" / "bad.ipynb", "print(1)", "1 / 0", "print(2)")
    return tmp_path


def test_in_place_gives_a_clean_notebook(book: Path) -> None:
    run = execute(book, "notebooks/good.ipynb")
    assert run.returncode == 0, run.stderr
    notebook = nbformat.read(book / "notebooks" / "good.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2]
    assert [cell.metadata for cell in code] == [{}, {}]
    assert [output.text for output in code[0].outputs] == ["a\nb\n"]
    assert code[1].outputs[0].text.split() == [str(book / "notebooks"), sys.executable]
    assert notebook.metadata.kernelspec.name == "python3"
    assert "version" not in notebook.metadata.language_info


def test_executing_twice_changes_no_byte(book: Path) -> None:
    assert execute(book, "notebooks/good.ipynb").returncode == 0
    first = (book / "notebooks" / "good.ipynb").read_bytes()
    assert execute(book, "notebooks/good.ipynb").returncode == 0
    assert (book / "notebooks" / "good.ipynb").read_bytes() == first


def test_a_failure_stores_nothing_and_is_told(book: Path) -> None:
    before = {path: path.read_bytes() for path in book.rglob("*") if path.is_file()}
    run = execute(book, "--jobs", "2", "--into", "copy", "notebooks/bad.ipynb", "notebooks/good.ipynb")
    assert run.returncode == 1
    assert "ZeroDivisionError" in run.stderr
    assert "notebooks/bad.ipynb" in run.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in (book / "copy" / "notebooks").iterdir()) == ["good.ipynb"]
