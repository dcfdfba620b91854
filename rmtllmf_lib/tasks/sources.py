"""The short text that names a task, wherever it comes from: `signs`, `torchvision:mnist`, `folder:pets=photos/pets`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rmtllmf_lib.arrays import one_of
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.assemble import MEMORY_LIMIT
from rmtllmf_lib.tasks.base import Task, fingerprint
from rmtllmf_lib.tasks.folder import holds_task, read_folder

# Images up to this side are decoded once and kept in memory; larger ones would not fit and are decoded when used.
DECODED_SIDE = 64
SOURCES = ("procedural", "torchvision", "folder")

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
        one_of(own, SOURCES, "source")
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


def load_task(
    name: str | None,
    source: str = "procedural",
    *,
    root: str | Path | None = None,
    seed: int = 0,
    image_size: int | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Task:
    """A task by name, from any source.

    Parameters
    ----------
    name : str
        Procedural: one of `TASK_NAMES`. torchvision: mnist, gtsrb, eurosat, svhn, dtd, sun397 or cars. Folder: any
        name, or None for that of the folder.
    source : {"procedural", "torchvision", "folder"}
    root : path
        Where the data lie (torchvision, folder); the procedural source has none.
    seed : int
        Draws other images (procedural). The splits of real data are pinned: they do not depend on it.
    image_size : int, optional
        Decode every image once: shorter side to this many pixels (bicubic, antialiased), centre square, uint8 tensors
        in memory. None: real images stay lazy, procedural ones keep their 32 pixels.
    n_train, n_test : int, optional
        Images in train and validation together, and in test (a fixed, stratified choice); default all there are.
    memory_limit : int
        Bytes that decoded images may take; beyond it, an error instead of a full memory.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        An unknown name or source, a missing or damaged data set (the message says what to download and where to put
        it), impossible limits.
    """
    if source == "procedural":
        if root is not None:
            raise InputError(f"root is {root} but procedural tasks are drawn, not read; leave it out or name a source")
        from rmtllmf_lib.tasks.embedded.procedural import procedural_task

        task = procedural_task(_require_name(name, source), seed=seed, n_train=n_train, n_test=n_test)
        return task if image_size is None else _resized(task, image_size)
    one_of(source, SOURCES, "source")
    if root is None:
        raise InputError(f"source {source!r} reads files: give root, the folder that holds the data")
    if source == "torchvision":
        from rmtllmf_lib.tasks.vision import vision_task

        known = _require_name(name, source)
        return vision_task(
            known, root=root, image_size=image_size, n_train=n_train, n_test=n_test, memory_limit=memory_limit
        )
    from rmtllmf_lib.tasks.folder import folder_task

    return folder_task(
        name, root=root, image_size=image_size, n_train=n_train, n_test=n_test, memory_limit=memory_limit
    )


def _require_name(name: str | None, source: str) -> str:
    if name is None:
        raise InputError(f"source {source!r} needs a task name; only a folder names itself")
    return name


def _resized(task: Task, image_size: int) -> Task:
    return replace(
        task,
        train=task.train.in_memory(image_size),
        validation=task.validation.in_memory(image_size),
        test=task.test.in_memory(image_size),
        fingerprint=fingerprint([task.fingerprint, image_size]),
    )
