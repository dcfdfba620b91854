"""Load a task by name from any of three sources: drawn here, in torchvision's layout, or a folder of images or texts.

A task is written as a short text (`signs`, `torchvision:mnist`, `folder:pets=photos/pets`). `parse_tasks` turns such
texts into `TaskSpec`s, and `load_spec` loads them; `load_task` takes name, source and root as arguments. Everything
else sees only the `Task`, whatever its source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rmtllmf_lib.arrays import one_of, seed_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.assemble import MEMORY_LIMIT, RawTask, assemble_task
from rmtllmf_lib.tasks.base import Task, fingerprint
from rmtllmf_lib.tasks.embedded.difficulty import DEFAULT, UNDRAWN, severity
from rmtllmf_lib.tasks.folder import find_folder, holds_task, holds_texts, read_folder
from rmtllmf_lib.tasks.grammar_tasks import GRAMMAR_NAMES, grammar_task
from rmtllmf_lib.tasks.texts import read_texts
from rmtllmf_lib.validated import validated_call

# Images with up to this many pixels a side are decoded once and kept in memory; larger ones are decoded when used.
DECODED_SIDE = 64
SOURCES = ("procedural", "torchvision", "folder")

NAME = re.compile(r"\w[\w.+-]*")  # a task's name becomes part of file names


@dataclass(frozen=True)
class TaskSpec:
    """Where to find a task: its source and, if it is read, its root.

    The root is the folder of all data sets (torchvision) or the task's own folder (folder); `typed` is the latter as
    the user wrote it.
    """

    name: str
    source: str
    root: Path | None
    typed: str = field(default="", compare=False)


@validated_call
def parse_tasks(texts: Iterable[str], source: str, root: Path | None) -> list[TaskSpec]:
    """Parse tasks written as ``[source:]name`` or, for folders, ``[folder:][name=]path``.

    Parameters
    ----------
    texts : iterable of str
    source : {"procedural", "torchvision", "folder"}
        Source of the tasks that do not name one.
    root : path or None
        Folder with torchvision's data sets. A folder's path is looked up below it first, and then as it stands; a root
        with the very name of the task is that task. A folder's task is named after it unless a name is given.

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
            # not resolved: a link keeps its own name, and `.` has that of the folder
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


@validated_call
def severities(specs: Iterable[TaskSpec], difficulty: str | float | None) -> dict[str, float]:
    """The severity of each task whose images are drawn, see `difficulty.severity`; None is the default.

    Raises
    ------
    InputError
        for a difficulty that is out of range, or given where no task is drawn.
    """
    hard, undrawn = severity(DEFAULT if difficulty is None else difficulty), (*UNDRAWN, *GRAMMAR_NAMES)
    found = {spec.name: hard for spec in specs if spec.source == "procedural" and spec.name not in undrawn}
    if difficulty is not None and not found:
        raise InputError(f"difficulty is {difficulty!r} but no task is drawn: leave it out for real images")
    return found


@validated_call
def load_spec(
    spec: TaskSpec,
    resolution: int | None,
    *,
    seed: int,
    difficulty: str | float | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
) -> Task:
    """`load_task` for `spec`, images decoded to the backbone's resolution if that is at most `DECODED_SIDE`."""
    seed_number(seed)
    side = resolution if resolution is not None and resolution <= DECODED_SIDE else None
    sizes: dict[str, Any] = {"image_size": side, "n_train": n_train, "n_test": n_test}
    if spec.source == "folder" and spec.root is not None and difficulty is None:  # this folder, whatever its name
        return assemble_task(_read(spec.root, spec.name), **sizes)
    return load_task(spec.name, spec.source, root=spec.root, seed=seed, difficulty=difficulty, **sizes)


@validated_call
def load_task(
    name: str | None,
    source: str = "procedural",
    *,
    root: str | Path | None = None,
    seed: int = 0,
    difficulty: str | float | None = None,
    image_size: int | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Task:
    """Load a task by name from any source.

    Parameters
    ----------
    name : str
        Procedural: one of `TASK_NAMES` or, of texts, `GRAMMAR_NAMES`. torchvision: mnist, gtsrb, eurosat, svhn, dtd,
        sun397 or cars. Folder: any name, or None for that of the folder.
    source : {"procedural", "torchvision", "folder"}
    root : path
        The data (torchvision, folder); none for the procedural source. A folder may lie below it, under `name`, or be
        the root itself, if that is called `name`.
    seed : int
        Draws other images (procedural). The splits of real data do not depend on it.
    difficulty : str or float, optional
        Of drawn images, see `procedural_task`; photographs and the digits have none.
    image_size : int, optional
        Decode every image once to a uint8 tensor in memory: the shorter side is resized to this many pixels (bicubic,
        antialiased), the centre square kept. None: real images stay lazy, procedural ones keep their 32 pixels.
    n_train, n_test : int, optional
        Images in train and validation together, and in test (a fixed, stratified choice); default all of them.
    memory_limit : int
        Bytes that decoded images may take; more is an error.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        An unknown name or source, a missing or damaged data set (the message says what to download and where to put
        it), an unreadable image, a difficulty out of range or of images that are not drawn, impossible limits.
    """
    one_of(source, SOURCES, "source")
    seed_number(seed)
    whole_number(memory_limit, "memory_limit")
    if source == "procedural" and root is not None:
        raise InputError(f"root is {root} but procedural tasks are drawn, not read; leave it out or name a source")
    if source != "procedural" and difficulty is not None:
        raise InputError(f"difficulty is {difficulty!r} but source {source!r} reads images: leave it out")
    if source != "procedural" and root is None:
        raise InputError(f"source {source!r} reads files: give root, the folder that holds the data")
    place = Path(root or "").expanduser()
    if source == "folder":
        raw = _read(find_folder(name, place), name)
    elif name is None:
        raise InputError(f"source {source!r} needs a task name; only a folder has one of its own")
    elif source == "torchvision":
        from rmtllmf_lib.tasks.vision import read_data_set

        raw = read_data_set(name, place)
    elif name in GRAMMAR_NAMES:
        if difficulty is not None:
            raise InputError(f"difficulty is {difficulty!r} but task {name!r} is of texts: leave it out for this task")
        return grammar_task(name, seed=seed, n_train=n_train, n_test=n_test)
    else:
        from rmtllmf_lib.tasks.embedded.procedural import procedural_task

        task = procedural_task(name, seed=seed, difficulty=difficulty, n_train=n_train, n_test=n_test)
        return task if image_size is None else _resized(task, image_size)
    return assemble_task(raw, image_size=image_size, n_train=n_train, n_test=n_test, memory_limit=memory_limit)


def _read(folder: Path, name: str | None) -> RawTask:
    """The task of images or of texts in a folder."""
    return read_texts(folder, name) if holds_texts(folder) else read_folder(folder, name)


def _resized(task: Task, image_size: int) -> Task:
    splits = {split: getattr(task, split).in_memory(image_size) for split in ("train", "validation", "test")}
    return replace(task, **splits, fingerprint=fingerprint([task.fingerprint, image_size]))
