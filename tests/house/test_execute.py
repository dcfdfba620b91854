"""tools/execute.py: notebooks are stored clean and whole; one that fails stops neither the others nor the book."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from places import ROOT
from tools import execute


def write(path: Path, *sources: str) -> None:
    """Write a notebook with stored outputs and traces of another machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"execution_count": 7, "metadata": {"execution": {"iopub.status": "t"}}}
    code = [new_code_cell(source, **stored, outputs=[new_output("stream", text="stored\n")]) for source in sources]
    metadata = {
        "language_info": {"name": "python", "version": "3.99"},
        "kernelspec": {"name": "mine", "display_name": "Mine"},
    }
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title"), *code], metadata=metadata), path)


NOTEBOOKS = {
    "good": ["import os, sys\nprint('a')\nprint('b')", "print(os.getcwd(), sys.executable)"],
    "bad": ["print(1)", "1 / 0", "print(2)"],
    "slow": ["print(1)", "import time\ntime.sleep(60)"],
    "dead": ["print(1)", "print(2)", "import os\nos._exit(1)"],
}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks, one good and the others not, and one that is no notebook, executed into a copy."""
    folder = tmp_path_factory.mktemp("book")
    for name, sources in NOTEBOOKS.items():
        write(folder / "notebooks" / f"{name}.ipynb", *sources)
    (folder / "notebooks" / "torn.ipynb").write_text("{")
    return folder


@pytest.fixture(scope="module")
def said(book: Path) -> str:
    """What was printed; the exit status is that of a failure, and the stored notebooks stay as they were."""
    before = {path: path.read_bytes() for path in book.rglob("*.ipynb")}
    words = ["--jobs", "5", "--timeout", "2", "--into", "copy", *(f"notebooks/{path.name}" for path in before)]
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "execute.py"), *words],
        cwd=book, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert {path: path.read_bytes() for path in before} == before
    return run.stdout + run.stderr


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bad", ["cell [2]", "ZeroDivisionError"]),
        ("slow", ["cell [2]", "2 s", "TIMEOUT=", "Start it again"]),
        ("dead", ["cell [3]", "died", "Start it again"]),
    ],
)
def test_a_failure_names_notebook_cell_and_remedy(said: str, book: Path, name: str, expected: list[str]) -> None:
    report = said[said.index(f"notebooks/{name}.ipynb failed") :]
    assert [words for words in expected if words not in report] == []
    notebook = nbformat.read(book / "copy" / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert "{warning}" in notebook.cells[1].source and expected[0] in notebook.cells[1].source
    outputs = [output.text for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs == ["stored\n"] * len(NOTEBOOKS[name])


def test_every_notebook_is_attempted(said: str, book: Path) -> None:
    assert "notebooks/torn.ipynb failed" in said and "4 of 5" in said
    assert {path.stem for path in (book / "copy" / "notebooks").iterdir()} == set(NOTEBOOKS)


def test_a_notebook_is_stored_clean(said: str, book: Path) -> None:
    notebook = nbformat.read(book / "copy" / "notebooks" / "good.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2]
    assert [cell.metadata for cell in code] == [{}, {}]
    assert [output.text for output in code[0].outputs] == ["a\nb\n"]
    assert code[1].outputs[0].text.split() == [str(book / "notebooks"), sys.executable]
    assert notebook.metadata.kernelspec.name == "python3"
    assert "version" not in notebook.metadata.language_info


def test_executing_again_in_place_changes_no_byte(
    said: str, book: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(book)
    assert execute.main(["notebooks/good.ipynb"]) == 0
    assert Path("notebooks/good.ipynb").read_bytes() == Path("copy/notebooks/good.ipynb").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_an_interrupt_ends_the_kernel_and_stores_nothing(tmp_path: Path) -> None:
    write(
        tmp_path / "long.ipynb",
        "import os, time\nopen('pid', 'w').write(str(os.getpid()))\nos.rename('pid', 'kernel')\ntime.sleep(60)",
    )
    before = (tmp_path / "long.ipynb").read_bytes()
    run = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "execute.py"), "long.ipynb", "--into", "copy"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "kernel").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    kernel = int((tmp_path / "kernel").read_text())
    run.send_signal(signal.SIGINT)
    assert "Start it again" in run.communicate(timeout=60)[1]
    assert run.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)
    assert (tmp_path / "long.ipynb").read_bytes() == before and not (tmp_path / "copy").exists()
