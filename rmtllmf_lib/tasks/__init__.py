"""Tasks: what is classified, from three sources behind one function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.assemble import MEMORY_LIMIT
from rmtllmf_lib.tasks.base import Split, Task, carve_validation, fingerprint
from rmtllmf_lib.tasks.images import LazyImages

__all__ = ["DECODED_SIDE", "SOURCES", "TASK_NAMES", "LazyImages", "Split", "Task", "carve_validation", "load_task"]

# Images up to this side are decoded once and kept in memory; larger ones would not fit and are decoded when used.
DECODED_SIDE = 64

SOURCES = ("procedural", "torchvision", "folder")

# The eight embedded tasks; those of the source "torchvision" are `rmtllmf_lib.tasks.vision.VISION_NAMES`.
TASK_NAMES = ("cars", "textures", "landuse", "signs", "digits", "aerial", "scenes", "housenumbers")


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
        from rmtllmf_lib.tasks.procedural import procedural_task

        task = procedural_task(_require_name(name, source), seed=seed, n_train=n_train, n_test=n_test)
        return task if image_size is None else _resized(task, image_size)
    if source not in SOURCES:
        raise InputError(f"unknown source {source!r}: expected one of {', '.join(SOURCES)}")
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
