"""Decoded images, kept on the disk: evaluation reads them thousands of times, and decodes them once.

Large images are decoded when they are used. For evaluation they are the same each time, resized and cropped, so they
are kept as bytes in one file a split, memory-mapped: the system holds in memory what fits. Training images are not
kept, since each random crop is cut from the whole image.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rmtllmf_lib.arrays import whole_number
from rmtllmf_lib.folders import default_root
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.locks import locked
from rmtllmf_lib.tasks.base import Split, Task
from rmtllmf_lib.tasks.images import LazyImages, resize_image
from rmtllmf_lib.threads import ordered
from rmtllmf_lib.validated import validated_call

SMALLEST = 2**28  # bytes of a split from which it is kept; smaller ones are decoded into memory, see `evaluate.prepare`
VERSION = 1  # of how images are decoded and resized: another number, other files

log = logging.getLogger(__name__)


@validated_call
def with_decoded(
    task: Task, image_size: int | None, folder: str | Path | None = None, *, smallest: int = SMALLEST
) -> Task:
    """The task with large validation and test splits decoded, in files below `folder`; the same task otherwise.

    Parameters
    ----------
    image_size : int or None
        Side of the result in pixels; the bytes are those that a lazy split gives at this size. None for texts, which
        stay as they are.
    folder : path, optional
        Default: `.images` in the store's folder. A file there belongs to the fingerprint of a task, so that changed
        images are decoded anew.
    smallest : int
        Bytes of a split from which it is kept.

    Returns
    -------
    Task
        Its fingerprint is the same, since no result depends on how images are kept.

    Raises
    ------
    InputError
        for an image that cannot be decoded; the file is not written then.
    OSError
        for a disk that is full.
    """
    whole_number(smallest, "smallest", minimum=0)
    if image_size is None and task.what == "texts":
        return task
    size = whole_number(image_size, "image_size")
    place = default_root() / ".images" if folder is None else Path(folder).expanduser()

    def kept(which: str) -> Split:
        split: Split = getattr(task, which)
        if not isinstance(split.inputs, LazyImages) or len(split) * 3 * size**2 < max(smallest, 1):
            return split
        key = hashlib.sha256(f"{VERSION} {task.fingerprint} {which} {size}".encode()).hexdigest()[:32]
        file = place / f"{task.name}-{which}-{size}-{key}.npy"
        return Split(_mapped(file, split.inputs, size, f"{task.name} {which}"), split.labels)

    return replace(task, validation=kept("validation"), test=kept("test"))


def _mapped(file: Path, images: LazyImages, image_size: int, what: str) -> Tensor:
    """The decoded images (n, 3, S, S) uint8 in a file, which is made if it is not there, or not whole."""
    shape = (len(images), 3, image_size, image_size)
    if (found := _opened(file, shape)) is not None:
        return found
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_suffix(".lock"), f"the decoded images of {what}"):  # another process may make it meanwhile
        if (found := _opened(file, shape)) is None:
            log.info("decoding %d images of %s to %s", len(images), what, file)
            _write(file, images, shape)
            found = _opened(file, shape)
    assert found is not None, f"{file} was written, and cannot be read"
    return found


def _write(file: Path, images: LazyImages, shape: tuple[int, int, int, int]) -> None:
    with atomic_write(file) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a disk that is full would end the process at the first byte without room
            with open(temporary, "r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, temporary.stat().st_size)

        def decode(index: int) -> None:
            out[index] = resize_image(images[index], shape[-1]).transpose(2, 0, 1)

        for _ in ordered(decode, range(shape[0]), min(8, os.cpu_count() or 1)):
            pass
        out.flush()


def _opened(file: Path, shape: tuple[int, int, int, int]) -> Tensor | None:
    """The file's array, memory-mapped; None if there is none, or it is truncated or of another shape."""
    try:
        array = np.load(file, mmap_mode="c", allow_pickle=False)  # changes stay in memory: torch wants to write
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if array.shape == shape and array.dtype == np.uint8 else None
