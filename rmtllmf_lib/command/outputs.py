"""Checks of the files that a command writes, before any work: one guard for all commands."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rmtllmf_lib.errors import InputError

OVERWRITE = "--overwrite"
LONGEST_NAME = 200  # bytes; file systems take 255, and temporary files have longer names than what they become

_JSON = {"nbformat": "a notebook", "config_sha256": "the provenance of a base", "study": "the provenance of a study"}
_FORMATS = {
    "rmtllmf-task-vector": "a task vector",
    "rmtllmf-weights": "fused weights",
    "rmtllmf-payload": "a payload file",
}


def guard(out: Path, kind: str, *, inputs: Iterable[Path | None] = (), overwrite: bool = False) -> None:
    """Refuse an output that would destroy something, or that cannot be written.

    Parameters
    ----------
    out : Path
        File that the command will write.
    kind : str
        What it will hold, in the words of `kind_of`.
    inputs : iterable of Path or None
        What the command reads; links and other spellings of the same file are the same file.
    overwrite : bool
        Whether the user allowed to replace an existing file of that kind. Files of another kind and inputs stay in any
        case.

    Raises
    ------
    InputError
        with the reason and what to do.
    """
    if len(os.fsencode(out.name)) > LONGEST_NAME:
        raise InputError(f"the output {str(out)!r} has a name of more than {LONGEST_NAME} bytes: give a shorter one")
    for given in filter(None, inputs):
        if _same(out, given):
            raise InputError(f"the output {out} is the input {given}, which it would destroy: give another output")
    if os.path.lexists(out) and not _is_dangling(out):
        found = kind_of(out)
        if found not in (kind, "an empty file"):
            raise InputError(f"the output {out} exists and is {found}, not {kind}: give another output")
        if not overwrite:
            raise InputError(f"the output {out} exists: give another output, or {OVERWRITE} to replace it")
    require_writable(out.parent)


def require_writable(folder: Path, size: int = 0) -> None:
    """Raise an InputError unless `size` bytes can be written to a folder, which need not exist; nothing is made."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    if not there.is_dir():
        raise InputError(f"the output folder {folder} cannot be made: {there} is not a folder; give another one")
    try:
        with tempfile.TemporaryFile(dir=there):  # the rights of a user do not tell: root may not write everywhere
            pass
    except OSError as error:
        reason = error.strerror
        raise InputError(f"the output folder {folder} cannot be written ({reason}): give another one") from error
    if (free := shutil.disk_usage(there).free) < size:
        raise InputError(
            f"the disk of the output folder {folder} has {free / 1e6:,.0f} MB left: expected at least "
            f"{size / 1e6:,.0f} MB; free some space, or give another folder"
        )


def kind_of(path: Path) -> str:
    """What an existing path holds, by its content: "a task vector", "a notebook", "another file" and so on."""
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return "a device or pipe"
    with open(path, "rb") as file:
        start = file.read(16)
    if not start:
        return "an empty file"
    if start.startswith(b"PAR1"):
        return "a parquet table"
    if start.startswith(b"task,head,"):
        return "a table of accuracies"
    if start[8:9] == b"{":
        return _FORMATS.get(_format(path), "another file")
    if start.lstrip().startswith(b"{"):
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return "another file"
        return next((kind for key, kind in _JSON.items() if key in content), "another file")
    return "another file"


def _format(path: Path) -> str:
    """The format that the metadata of a safetensors file state."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("format", "")
    except SafetensorError:
        return ""


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them does not exist
        return os.path.realpath(one) == os.path.realpath(other)


def _is_dangling(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
