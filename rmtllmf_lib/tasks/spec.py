"""The short text that names a task, wherever it comes from: `signs`, `torchvision:mnist`, `folder:pets=photos/pets`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks import DECODED_SIDE, SOURCES, load_task
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.tasks.folder import holds_task, read_folder

NAME = re.compile(r"\w[\w.+-]*")  # of a task: it becomes part of file names


@dataclass(frozen=True)
class TaskSpec:
    """Where a task is: `load_task(name, source, root=root)`; `typed` is a folder's path as the user wrote it."""

    name: str
    source: str
    root: Path | None
    typed: str = field(default="", compare=False)


def parse_tasks(texts: Iterable[str], source: str, root: Path | None) -> list[TaskSpec]:
    """Read tasks as they are written: ``[source:]name`` or, for folders, ``[folder:][name=]path``.

    Parameters
    ----------
    texts : iterable of str
    source : {"procedural", "torchvision", "folder"}
        Of the tasks that do not name their own.
    root : path or None
        Folder with the data of torchvision. A folder's path is looked up in it, and then as it stands; a root that
        has the very name of the task is that task. The name is the last part of the path unless given.

    Raises
    ------
    InputError
        for an unknown source, a name that cannot be part of a file's name, and a task named twice.
    """
    specs: dict[str, TaskSpec] = {}
    root = None if root is None else root.expanduser()
    for text in texts:
        prefix, colon, rest = text.partition(":")
        own, rest = (prefix, rest) if colon and prefix in SOURCES else (source, text)
        if own not in SOURCES:
            raise InputError(f"unknown source {own!r}: expected one of {', '.join(SOURCES)}")
        name, place, typed = rest, root if own != "procedural" else None, ""
        if own == "folder":
            given, equals, path = rest.partition("=")
            typed = path if equals else rest
            place = _folder(Path(typed).expanduser(), root)
            # as it is written: a link keeps its name, `.` has that of the folder
            name = given if equals else Path(os.path.abspath(place)).name
        if not NAME.fullmatch(name):
            raise InputError(
                f"{text!r} does not name a task: expected letters, digits, _ . + -, such as cars=path/to/it"
            )
        if name in specs:
            raise InputError(f"task {name!r} is given twice: name each once (name=path gives a folder another name)")
        specs[name] = TaskSpec(name, own, place, typed)
    return list(specs.values())


def _folder(typed: Path, root: Path | None) -> Path:
    if root is None or (root / typed).is_dir():
        return typed if root is None else root / typed
    if typed.is_dir():
        return typed
    return root if str(typed) in (root.name, root.resolve().name) and holds_task(root) else root / typed


def load_spec(
    spec: TaskSpec, resolution: int, *, seed: int, n_train: int | None = None, n_test: int | None = None
) -> Task:
    """The task of `spec`, decoded to the backbone's resolution if its images fit into memory then; see `load_task`."""
    side = resolution if resolution <= DECODED_SIDE else None
    if spec.source == "folder" and spec.root is not None:  # the very folder that was written, whatever its name
        return read_folder(spec.root, spec.name, image_size=side, n_train=n_train, n_test=n_test)
    return load_task(spec.name, spec.source, root=spec.root, seed=seed, image_size=side, n_train=n_train, n_test=n_test)
