from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from papermill import inspect_notebook

from places import ROOT
from rmtllmf_lib import progress
from rmtllmf_lib.command import runner
from rmtllmf_lib.command.parameter_types import check_range
from rmtllmf_lib.command.runner import NotebookError, Parameter, parameters, run_notebook
from rmtllmf_lib.errors import InputError

PARAMETERS = """\
%matplotlib inline
seed: int = 0  # for every draw; with the same seed = the same result
lam = 0.3
tasks: list[str] = ["mnist", "gtsrb"]  # in the order of fusion
sizes: tuple[int, ...] = (
    2,  # the smallest
    8,
)  # combinations of so many tasks
limit: int | None = None  # test images, None = all
device: 'Literal["cpu", "cuda"]' = "cpu"
verbose = False
anything = None
low = high = 1.5
fast: bool
import math
"""


def write(path: Path, *cells: str, parameters: str | None = PARAMETERS, **metadata: Any) -> Path:
    notebook = nbformat.v4.new_notebook(metadata=metadata)
    if parameters is not None:
        notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", ()))


# ---------------------------------------------------------------- what a notebook takes


def test_parameters_have_types_defaults_and_help(tmp_path: Path) -> None:
    assert parameters(write(tmp_path / "n.ipynb")) == [
        Parameter("seed", "int", "0", "for every draw; with the same seed = the same result"),
        Parameter("lam", "float", "0.3", ""),
        Parameter("tasks", "list[str]", "['mnist', 'gtsrb']", "in the order of fusion"),
        Parameter("sizes", "tuple[int, ...]", "(2, 8)", "combinations of so many tasks"),
        Parameter("limit", "int | None", "None", "test images, None = all"),
        Parameter("device", 'Literal["cpu", "cuda"]', "'cpu'", ""),
        Parameter("verbose", "bool", "False", ""),
        Parameter("anything", "any", "None", ""),
        Parameter("low", "float", "1.5", ""),
        Parameter("high", "float", "1.5", ""),
    ]


def test_papermill_reads_the_chapters_parameters_in_the_same_way() -> None:
    """An independent parser: names, types, defaults and help of every shipped notebook."""
    count = 0
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        theirs = inspect_notebook(path).values()
        ours = parameters(path)
        assert [(each.name, each.help) for each in ours] == [(each["name"], each["help"]) for each in theirs]
        assert [each.type for each in ours] == [each["inferred_type_name"] for each in theirs]
        defaults = [ast.literal_eval(each["default"]) for each in theirs]
        assert [ast.literal_eval(each.default) for each in ours] == defaults
        count += len(ours)
    assert count > 80


def test_what_papermill_overlooks_is_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Papermill's inspection drops some assignments; a parameter that it drops must not be accepted unchecked."""
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    path = write(tmp_path / "n.ipynb", kernelspec=kernel)
    with caplog.at_level("ERROR", logger="papermill"):
        found = inspect_notebook(path)
    overlooked = {each.name for each in parameters(path)} - found.keys()
    assert overlooked == {"seed", "sizes", "limit", "device", "low", "high"}
    for name in overlooked:
        with pytest.raises(InputError, match=f"parameter {name!r}.*expected"):
            run_notebook(path, tmp_path / "out.ipynb", {name: "no such value"})


def test_a_notebook_without_a_parameters_cell_takes_none(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "print(1)", parameters=None)
    assert parameters(path) == []
    with pytest.raises(InputError, match="takes no parameters .*but got seed"):
        run_notebook(path, tmp_path / "out.ipynb", {"seed": 1})


def test_a_parameters_cell_that_is_not_python(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'parameters' of .* is not valid Python"):
        parameters(write(tmp_path / "n.ipynb", parameters="seed = "))


@pytest.mark.parametrize(
    "content", [None, "", "not json", "{}", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5}', "[]"]
)
def test_what_is_not_a_notebook(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "n.ipynb").write_text(content)
    with pytest.raises(InputError, match=r"n\.ipynb"):
        run_notebook(tmp_path / "n.ipynb", tmp_path / "out.ipynb")


@pytest.mark.parametrize(
    "metadata",
    [
        {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}},
        {"kernelspec": {"name": "ir", "display_name": "R"}, "language_info": {"name": "R"}},
        {"language_info": {"name": "R"}},
        {"kernelspec": {"name": "x", "language": "Python", "display_name": "x"}, "language_info": {"name": "R"}},
    ],
)
def test_a_notebook_in_another_language(tmp_path: Path, metadata: Any) -> None:
    with pytest.raises(InputError, match="written in R"):
        parameters(write(tmp_path / "n.ipynb", **metadata))


@pytest.mark.parametrize(
    "metadata",
    [
        {"kernelspec": {"name": "python3", "language": "Python", "display_name": "x"}},
        {"language_info": {"name": "PYTHON"}},
        {"kernelspec": {"name": "python3", "language": "", "display_name": "x"}},
        {},
    ],
)
def test_python_is_python_in_any_spelling(tmp_path: Path, metadata: Any) -> None:
    assert parameters(write(tmp_path / "n.ipynb", **metadata))


@pytest.mark.parametrize("output", ["out", "out.html", "folder.ipynb"])
def test_an_output_that_is_not_a_notebook_file(tmp_path: Path, output: str) -> None:
    (tmp_path / "folder.ipynb").mkdir()
    with pytest.raises(InputError, match="output must be a notebook file"):
        run_notebook(write(tmp_path / "n.ipynb"), tmp_path / output)


LISTING = """It has
  seed: int = 0  # for every draw; with the same seed = the same result
  lam: float = 0.3
  tasks: list[str] = ['mnist', 'gtsrb']  # in the order of fusion
"""


def test_an_unknown_name_lists_the_known_ones_and_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb")
    with pytest.raises(InputError) as caught:
        run_notebook(path, tmp_path / "out.ipynb", {"sed": "1"})
    assert f"{str(path)!r} has no parameter 'sed'; did you mean 'seed'? {LISTING}" in str(caught.value)
    with pytest.raises(InputError) as caught:
        run_notebook(path, tmp_path / "out.ipynb", {"xyzzy": "1"})
    assert f"has no parameter 'xyzzy'. {LISTING}" in str(caught.value)
    assert [found.name for found in tmp_path.iterdir()] == ["n.ipynb"]


def test_a_wrong_type_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_notebook(write(tmp_path / "n.ipynb"), tmp_path / "out.ipynb", {"lam": "0.5", "seed": "half"})
    assert f"expected int (such as 2000), found 'half'. {LISTING}" in str(caught.value)
    assert [found.name for found in tmp_path.iterdir()] == ["n.ipynb"]


def test_a_value_out_of_range_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", parameters="users: int = 8  # Q [1 to 64]\nsizes: list = [2]  # [2 to 8]\n")
    assert [str(each) for each in parameters(path)][0] == "users: int = 8  # Q [1 to 64]"
    with pytest.raises(InputError) as caught:
        run_notebook(path, tmp_path / "out.ipynb", {"users": "0"})
    assert "parameter 'users'" in str(caught.value)
    assert "expected a number 1 to 64, found 0. It has\n  users: int = 8  # Q [1 to 64]" in str(caught.value)
    with pytest.raises(InputError, match=r"parameter 'sizes'.*found 9"):
        run_notebook(path, tmp_path / "out.ipynb", {"sizes": "[2, 9]"})
    assert [found.name for found in tmp_path.iterdir()] == ["n.ipynb"]


def test_the_defaults_of_the_chapters_are_in_their_ranges() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for each in parameters(path):
            check_range(ast.literal_eval(each.default), each.help)


# ---------------------------------------------------------------- runs


def unexecuted(path: Path, progress: bool | None) -> nbformat.NotebookNode:
    """What a run returns, without a kernel: the notebook as it was written."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.setdefault("papermill", {})
    return notebook


def test_a_run_uses_the_values_this_interpreter_and_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.05)
    caplog.set_level("INFO", logger=progress.__name__)
    # A kernel of the same name that cannot start: whatever is installed for the user must not be used.
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/bin/false"], "display_name": "trap", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.chdir(tmp_path)
    write(
        Path("folder {0} {x}/n.ipynb"),
        "import os, sys\nprint(sys.executable, os.path.basename(os.getcwd()))",
        "print(repr((seed, lam, tasks, sizes, limit, device, anything)))",
        kernelspec={"name": "conda-env-somebody-else", "language": "python", "display_name": "gone"},
    )
    values = {"seed": "7", "lam": "inf", "tasks": '["a\\"b", "c"]', "sizes": "[2, 4]", "limit": "5", "anything": "(1,)"}
    output = run_notebook("folder {0} {x}/n.ipynb", "out {y}/result.ipynb", values)
    assert output == Path("out {y}/result.ipynb")
    assert [path.name for path in output.parent.iterdir()] == ["result.ipynb"]
    assert "notebook: 0 of 4 cells" in caplog.text and "notebook: 4 of 4 cells" not in caplog.messages[0]
    text = printed(output)
    assert text.startswith(f"{sys.executable} {tmp_path.name}\n")
    assert text.endswith("(7, inf, ['a\"b', 'c'], (2, 4), 5, 'cpu', (1,))\n")
    notebook = nbformat.read(output, as_version=4)
    nbformat.validate(notebook)
    assert [cell.metadata.get("tags") for cell in notebook.cells[:2]] == [["parameters"], ["injected-parameters"]]
    assert notebook.metadata.papermill.input_path == "folder {0} {x}/n.ipynb"
    assert notebook.metadata.papermill.output_path == "out {y}/result.ipynb"
    assert str(tmp_path) not in output.read_text().replace(sys.executable, "")

    # In place, without values, the injected cell stays; other values replace it.
    monkeypatch.setattr(runner, "_execute", unexecuted)
    injected = notebook.cells[1].source
    assert nbformat.read(run_notebook(output, output), as_version=4).cells[1].source == injected
    cells = nbformat.read(run_notebook(output, output, {"seed": 8}), as_version=4).cells
    assert cells[1].source.splitlines()[1:] == ["seed = 8"] and len(cells) == len(notebook.cells)


def test_numbers_in_the_prose_are_filled_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorded = "from rmtllmf_lib.chapters.findings import measured\nmeasured(lost=36.2, seed=seed)"
    source = write(tmp_path / "n.ipynb", recorded)
    notebook = nbformat.read(source, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("Lost: <!--=lost:.0f-->9<!--/-->, <!--=seed:.0f--><!--/-->."))
    nbformat.write(notebook, source)
    output = run_notebook(source, tmp_path / "out.ipynb", {"seed": 3})
    prose = nbformat.read(output, as_version=4).cells[-1].source
    assert prose == "Lost: <!--=lost:.0f-->36<!--/-->, <!--=seed:.0f-->3<!--/-->." and caplog.text == ""
    notebook.cells[-1].source = "<!--=won-->1<!--/-->"
    nbformat.write(notebook, source)
    run_notebook(source, output)  # the results are kept
    assert "'won' is marked in the prose but not recorded" in caplog.text


def test_a_failed_run_is_kept_aside_and_the_old_output_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, output = (
        write(tmp_path / "n.ipynb", "print('before')", "1 / (seed - 1)", "print('after')"),
        tmp_path / "o.ipynb",
    )
    output.write_text("old")
    with pytest.raises(NotebookError) as caught:
        run_notebook(path, output, {"seed": 1})
    failed = tmp_path / "o.failed.ipynb"
    assert "ZeroDivisionError" in str(caught.value) and str(failed) in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert output.read_text() == "old"
    assert printed(failed) == "before\n" and "ZeroDivisionError" in failed.read_text()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["n.ipynb", "o.failed.ipynb", "o.ipynb"]

    assert "Traceback (most recent call last)" in str(caught.value)  # the cell's, not ours
    assert "papermill" not in str(caught.value)
    monkeypatch.setattr(runner, "_execute", unexecuted)
    run_notebook(path, output, {"seed": 2})
    assert sorted(found.name for found in tmp_path.iterdir()) == ["n.ipynb", "o.ipynb"]


def test_a_kernel_that_dies_is_a_failed_run(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "import os, signal", "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotebookError, match=r"died[\s\S]*o\.failed\.ipynb"):
        run_notebook(path, tmp_path / "o.ipynb")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["n.ipynb", "o.failed.ipynb"]


def test_an_interrupted_run_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_notebook(write(tmp_path / "n.ipynb"), tmp_path / "o.ipynb")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["n.ipynb", "o.failed.ipynb"]


def test_a_full_disk_leaves_nothing_under_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(runner, "_execute", full)
    with pytest.raises(OSError, match="No space left"):
        run_notebook(write(tmp_path / "n.ipynb"), tmp_path / "o.ipynb")
    assert [found.name for found in tmp_path.iterdir()] == ["n.ipynb"]


def test_a_missing_kernel_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install ipykernel"):
        run_notebook(write(tmp_path / "n.ipynb"), tmp_path / "o.ipynb")
