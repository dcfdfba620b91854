"""Run a notebook with checked parameters, by papermill.

Papermill runs a notebook with a misspelt parameter to its end, checks no types, and leaves a part of a notebook under
the final name when a cell fails. Here names and types are checked before anything starts, and the output gets its name
when the last cell has run.
"""

from __future__ import annotations

import ast
import importlib.util
import io
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
from rmtllmf_lib.storage.atomic import atomic_write

if TYPE_CHECKING:
    from nbformat import NotebookNode

_TAG, _INJECTED_TAG = "parameters", "injected-parameters"


class NotebookError(RuntimeError):
    """A cell failed, or the kernel died; the message holds the cell's traceback and says where the notebook is kept."""


@dataclass(frozen=True)
class Parameter:
    """One name of a notebook's `parameters` cell.

    `type` is the annotation, or what the default shows ("any" where it shows nothing); `default` is its source text;
    `help` is the comment behind the assignment.
    """

    name: str
    type: str
    default: str
    help: str

    def __str__(self) -> str:
        line = f"{self.name}: {self.type} = {self.default}"
        return f"{line}  # {self.help}" if self.help else line


def parameters(path: str | os.PathLike[str]) -> list[Parameter]:
    """Parameters of the notebook at `path`, in the order of its `parameters` cell; none where it has no such cell.

    Raises
    ------
    InputError
        if there is no such notebook, it cannot be read, or its `parameters` cell is not Python.
    """
    return _parameters(_read(Path(path)), Path(path))


def run_notebook(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    *,
    progress: bool | None = None,
) -> Path:
    """Execute the notebook at `path` and write it, with its outputs, to `output`.

    The kernel is the running interpreter, whatever kernels are installed and whatever the notebook names. It runs in
    the current folder, as papermill's does, so that paths among the parameters mean what they mean to the caller.

    Parameters
    ----------
    path, output
        Notebook to run, and the name (``*.ipynb``) it gets when every cell has run. They may be the same.
    parameters
        Values by name. Text is read as the parameter's type (``"1e-3"`` for a float, ``"[2, 3]"`` for a list,
        ``"None"`` for an optional one); other values are checked.
    progress
        Show a bar of the cells; None means on a terminal only.

    Returns
    -------
    Path
        The output.

    Raises
    ------
    InputError
        for an unknown name or a value of another type, before anything runs; the message lists the known ones.
    NotebookError
        if a cell fails. The notebook up to that cell is kept as ``<output>.failed.ipynb``, and `output` is untouched.
    """
    source, final = Path(path), Path(output)
    if final.suffix != ".ipynb" or final.is_dir():
        raise InputError(f"the output must be a notebook file, *.ipynb, not {str(final)!r}")
    notebook = _read(source)
    values = checked_values(parameters or {}, _parameters(notebook, source), source)
    if importlib.util.find_spec("ipykernel") is None:
        raise InputError(f"running a notebook needs a kernel: {sys.executable} -m pip install ipykernel")
    _inject(notebook, values)

    import nbformat
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    failed = final.with_suffix(".failed.ipynb")
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.stem}.{uuid.uuid4().hex}.ipynb")
    try:
        nbformat.write(notebook, temporary)  # a folder that cannot be written shows now, not after hours
        done = _execute(temporary, progress)
        # Papermill records its own absolute, temporary paths; and infinity is not JSON, hence source text.
        given = {name: parameter_types.source(value) for name, value in values.items()}
        done.metadata.papermill.update(input_path=str(path), output_path=str(output), parameters=given)
        with atomic_write(final) as place:
            nbformat.write(done, place)
    except (PapermillExecutionError, DeadKernelError) as error:
        os.replace(temporary, failed)
        raise NotebookError(
            f"{source} failed: {str(error).strip()}\nIt is kept, up to that cell, as {failed}"
        ) from error
    except KeyboardInterrupt:
        os.replace(temporary, failed)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    failed.unlink(missing_ok=True)  # of an earlier run: it would tell of a failure that is mended
    return final


def _read(path: Path) -> NotebookNode:
    import nbformat

    if not path.is_file():
        raise InputError(f"there is no notebook {str(path)!r}: give the path of an .ipynb file")
    try:
        notebook = nbformat.read(path, as_version=4)
    except (
        nbformat.reader.NotJSONError,
        nbformat.ValidationError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise InputError(f"{str(path)!r} cannot be read as a notebook: {' '.join(str(error).split())[:200]}") from error
    language = notebook.metadata.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise InputError(f"{str(path)!r} is written in {language}: only Python notebooks can be run here")
    return notebook


def _tagged(notebook: NotebookNode, tag: str) -> int | None:
    return next((i for i, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", ())), None)


def _parameters(notebook: NotebookNode, path: Path) -> list[Parameter]:
    # Papermill's own inspection reads line by line with a pattern: it passes over `n: int | None = 3`, and over every
    # line with a second "=", as in a comment that gives an example. Hence Python's own parser.
    index = _tagged(notebook, _TAG)
    if index is None:
        return []
    source = re.sub(r"^[ \t]*[%!].*$", "", notebook.cells[index].source, flags=re.MULTILINE)
    try:
        statements = ast.parse(source).body
        comments = {
            token.start[0]: token.string.lstrip("# ").rstrip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
    except SyntaxError as error:
        raise InputError(f"the cell tagged 'parameters' of {str(path)!r} is not valid Python: {error}") from error
    found = {}
    for statement in statements:
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
            continue
        annotation = ast.unparse(statement.annotation) if isinstance(statement, ast.AnnAssign) else None
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        help = comments.get(statement.end_lineno or statement.lineno, comments.get(statement.lineno, ""))
        default = ast.unparse(statement.value)
        for target in targets:
            if isinstance(target, ast.Name):
                type_ = (annotation or parameter_types.shown_by(default)).strip("'\"")
                found[target.id] = Parameter(target.id, type_, default, help)
    return list(found.values())


def checked_values(values: Mapping[str, Any], known: Sequence[Parameter], path: Path) -> dict[str, Any]:
    """`values` as the types that `known` wants, or an InputError that shows them all, with the notebook's `path`."""
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
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"{str(path)!r} has no parameter {name!r}{hint} It has\n{listing}".replace("' It", "'. It")
            )
        try:
            checked[name] = parameter_types.convert(value, by_name[name].type)
        except InputError as error:
            raise InputError(f"parameter {name!r} of {str(path)!r}: {error}. It has\n{listing}") from error
    return checked


def _inject(notebook: NotebookNode, values: Mapping[str, Any]) -> None:
    """Put a cell that assigns `values` behind the `parameters` cell, in the place of one from an earlier run."""
    # Papermill would write a tuple as text in quotes, so the cell is made here.
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
    """Run the notebook at `path`, which is saved there after each cell, in the current folder."""
    import papermill

    from rmtllmf_lib.command.kernel import ThisInterpreter

    place = str(path.resolve()).replace("{", "{{").replace("}", "}}")  # papermill formats paths
    return papermill.execute_notebook(
        place,
        place,
        kernel_name="python3",
        language="python",
        progress_bar=sys.stderr.isatty() if progress is None else progress,
        kernel_manager_class=ThisInterpreter,
        resources={"metadata": {"path": os.getcwd()}},  # not that of the temporary file
    )
