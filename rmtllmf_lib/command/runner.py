"""Run a notebook with checked parameters, through papermill.

Papermill accepts misspelt parameters, checks no types, and leaves an incomplete notebook under the output's name if a
cell fails. Here names, types and ranges are checked before anything runs, and the output is written after the last
cell.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import logging
import os
import re
import sys
import tokenize
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmtllmf_lib.command import parameter_types
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.progress import tqdm

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from nbformat import NotebookNode

_TAG, _INJECTED_TAG = "parameters", "injected-parameters"


class NotebookError(RuntimeError):
    """A cell failed or the kernel died; the message has the cell's traceback and the path of the kept notebook."""


@dataclass(frozen=True)
class Parameter:
    """A parameter from a notebook's `parameters` cell.

    `type` is the annotation, or the type of the default ("any" if it has none); `default` is source text; `help` is the
    comment after the assignment, which may end in a range: see `parameter_types.check_range`.
    """

    name: str
    type: str
    default: str
    help: str

    def __str__(self) -> str:
        line = f"{self.name}: {self.type} = {self.default}"
        return f"{line}  # {self.help}" if self.help else line


def parameters(path: str | os.PathLike[str]) -> list[Parameter]:
    """The parameters of a notebook, in the order of its `parameters` cell; empty without such a cell.

    Raises
    ------
    InputError
        if the notebook does not exist or cannot be read, or its `parameters` cell is not valid Python.
    """
    return _parameters(_read(Path(path)), Path(path))


def run_notebook(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    *,
    progress: bool | None = None,
) -> Path:
    """Execute a notebook and write it, with its outputs, to `output`; return that path.

    The kernel is the running interpreter, whatever kernels are installed and whichever the notebook names. It runs in
    the current folder, as papermill's does, so relative paths among the parameters are relative to that. Numbers that
    the prose repeats are filled in from what the cells recorded, see `recorded`.

    Parameters
    ----------
    path, output
        Notebook to run, and output file (``*.ipynb``), written after the last cell. They may be the same.
    parameters
        Values by name. Strings are parsed as the parameter's type (``"1e-3"`` for a float, ``"[2, 3]"`` for a list,
        ``"None"`` for an optional one); other values are checked.
    progress
        Show a bar of the cells; default: on a terminal only.

    Raises
    ------
    InputError
        for an unknown name, or a value of the wrong type or out of range, before anything runs; the message lists the
        parameters.
    NotebookError
        if a cell fails. The notebook up to that cell is kept as ``<output>.failed.ipynb``; `output` is untouched.
    """
    source, final = Path(path), Path(output)
    require_notebook_name(final)
    notebook = _read(source)
    values = checked_values(parameters or {}, _parameters(notebook, source), source)
    if importlib.util.find_spec("ipykernel") is None:
        raise InputError(f"running a notebook needs a kernel: {sys.executable} -m pip install ipykernel")
    _inject(notebook, values)

    import nbformat
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from rmtllmf_lib.recorded import fill
    from rmtllmf_lib.storage.atomic import atomic_write

    failed = failed_name(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.stem}.{uuid.uuid4().hex}.ipynb")
    try:
        nbformat.write(notebook, temporary)  # fails now, not after hours, if the folder is not writable
        done = _execute(temporary, progress)
        # Papermill records temporary, absolute paths; values as source text, because infinity is not valid JSON.
        given = {name: parameter_types.source(value) for name, value in values.items()}
        done.metadata.papermill.update(input_path=str(path), output_path=str(output), parameters=given)
        try:
            fill(done)
        except InputError as error:  # the results are worth more than the prose
            log.warning("numbers are missing in the prose of %s: %s", final, error)
        with atomic_write(final) as place:
            nbformat.write(done, place)
    except (PapermillExecutionError, DeadKernelError) as error:
        os.replace(temporary, failed)
        raise NotebookError(
            f"{source} failed: {str(error).strip()}\nThe notebook up to that cell is kept as {failed}"
        ) from error
    except KeyboardInterrupt:
        os.replace(temporary, failed)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    failed.unlink(missing_ok=True)  # left by an earlier run
    return final


def require_notebook_name(output: Path) -> None:
    """Raise an InputError unless a notebook can be written under this name."""
    if output.suffix != ".ipynb" or output.is_dir():
        raise InputError(f"the output must be a notebook file, *.ipynb, not {str(output)!r}")


def failed_name(output: Path) -> Path:
    """Where the notebook of a failed run is kept, and removed after the next run that succeeds."""
    return output.with_suffix(".failed.ipynb")


def _read(path: Path) -> NotebookNode:
    import nbformat

    if not path.is_file():
        raise InputError(f"there is no notebook {str(path)!r}: give the path of an .ipynb file")
    try:
        notebook = nbformat.read(path, as_version=4)
    except (nbformat.ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a notebook: {' '.join(str(error).split())[:200]}") from error
    for language in _languages(notebook):
        if language.lower() != "python":
            raise InputError(f"{str(path)!r} is written in {language}: only Python notebooks can be run here")
    return notebook


def _languages(notebook: NotebookNode) -> list[str]:
    """The languages that a notebook's metadata name; tools write either place, or none."""
    places = (("kernelspec", "language"), ("language_info", "name"))
    about = [(notebook.metadata.get(place), key) for place, key in places]
    named = [entry.get(key) for entry, key in about if isinstance(entry, dict)]
    return [language for language in named if isinstance(language, str) and language]


def _tagged(notebook: NotebookNode, tag: str) -> int | None:
    return next((i for i, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", ())), None)


def _parameters(notebook: NotebookNode, path: Path) -> list[Parameter]:
    # Not by `papermill.inspect_notebook`: it matches line by line and overlooks `n: int | None = 3`, types with quotes,
    # and lines with a second "=", even in a comment; without the annotation there is no type to check a value against.
    index = _tagged(notebook, _TAG)
    if index is None:
        return []
    source = re.sub(r"^[ \t]*[%!].*$", "", notebook.cells[index].source, flags=re.MULTILINE)
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InputError(f"the cell tagged 'parameters' of {str(path)!r} is not valid Python: {error}") from error
    comments = {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for statement in statements:
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
            continue
        default = ast.unparse(statement.value)
        if isinstance(statement, ast.Assign):
            targets, type_ = statement.targets, parameter_types.shown_by(default)
        else:
            targets, type_ = [statement.target], ast.unparse(statement.annotation).strip("'\"")
        help = comments.get(statement.end_lineno or 0, comments.get(statement.lineno, ""))
        found.update({t.id: Parameter(t.id, type_, default, help) for t in targets if isinstance(t, ast.Name)})
    return list(found.values())


def checked_values(values: Mapping[str, Any], known: Sequence[Parameter], path: Path) -> dict[str, Any]:
    """`values` converted to the types of the `known` parameters; InputError, with their list, where that fails.

    A range at the end of a parameter's comment, ``[1 to 64]``, is checked as well.
    """
    by_name = {parameter.name: parameter for parameter in known}
    if not values:
        return {}
    if not known:
        raise InputError(
            f"{str(path)!r} takes no parameters (it has no assignments in a cell tagged 'parameters'), but got"
            f" {', '.join(values)}"
        )
    listing = "\n".join(f"  {parameter}" for parameter in known)
    checked = {}
    for name, value in values.items():
        if name not in by_name:
            near = get_close_matches(name, by_name, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise InputError(f"{str(path)!r} has no parameter {name!r}{hint} It has\n{listing}")
        try:
            checked[name] = parameter_types.convert(value, by_name[name].type)
            parameter_types.check_range(checked[name], by_name[name].help)
        except InputError as error:
            raise InputError(f"parameter {name!r} of {str(path)!r}: {error}. It has\n{listing}") from error
    return checked


def _inject(notebook: NotebookNode, values: Mapping[str, Any]) -> None:
    """Insert a cell that assigns `values` after the `parameters` cell, in place of one from an earlier run."""
    # Papermill itself would write a tuple as a string.
    if not values:
        return
    import nbformat

    lines = [f"{name} = {parameter_types.source(value)}" for name, value in values.items()]
    cell = nbformat.v4.new_code_cell("\n".join(["# Parameters", *lines]), metadata={"tags": [_INJECTED_TAG]})
    if notebook.nbformat_minor < 5:
        cell.pop("id", None)
    earlier = _tagged(notebook, _INJECTED_TAG)
    if earlier is not None:
        notebook.cells[earlier] = cell
    else:
        notebook.cells.insert((_tagged(notebook, _TAG) or 0) + 1, cell)


def _execute(path: Path, progress: bool | None) -> NotebookNode:
    """Run the notebook at `path` in the current folder; it is saved after each cell."""
    import nbformat
    import papermill

    from rmtllmf_lib.command.kernel import ThisInterpreter

    place = str(path.resolve()).replace("{", "{{").replace("}", "}}")  # papermill formats paths
    cells = sum(cell.cell_type == "code" for cell in nbformat.read(path, as_version=4).cells)
    drawn = sys.stderr.isatty() if progress is None else progress
    with tqdm(
        total=cells, desc="notebook", unit="cell", disable=None if progress is None and not drawn else True
    ) as log:
        return papermill.execute_notebook(
            place,
            place,
            kernel_name="python3",
            language="python",
            progress_bar=drawn,
            kernel_manager_class=ThisInterpreter,
            resources={"metadata": {"path": os.getcwd()}},  # not the folder of the temporary file
            on_cell_complete=lambda **_: log.update(),
        )
