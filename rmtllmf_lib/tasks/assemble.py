"""From labelled images, wherever they lie, to a `Task`: validation, limits, checks, decoding, fingerprint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import (
    VALIDATION_FRACTION,
    Split,
    Task,
    carve_validation,
    fingerprint,
    hash_fraction,
    pinned_sample,
    require_class_names,
)
from rmtllmf_lib.tasks.images import ArrayImages, LazyImages, inspect_files, require_image_size, resize_batch

# Bytes that the decoded images of one task may take; a fixed number, so that a run does not depend on the machine.
MEMORY_LIMIT = 16 * 2**30

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pool:
    """The labelled images of one official part, training or test, not yet split, limited or decoded.

    Attributes
    ----------
    images : (n, 1 or 3, H, W) uint8 tensor, or LazyImages whose items are paths
    labels : n ints
    keys : n strings
        What identifies an image for ever: its path relative to the data set. Decides the splits.
    """

    images: Tensor | LazyImages
    labels: Sequence[int]
    keys: Sequence[str]

    def take(self, indices: NDArray[np.int64], image_size: int | None, what: str) -> Split:
        """Those images as a split: decoded to `image_size`, or lazy if that is None."""
        labels = torch.as_tensor(np.asarray(self.labels, dtype=np.int64)[indices])
        if isinstance(self.images, LazyImages):
            lazy = Split(self.images.take(indices), labels)
            return lazy if image_size is None else lazy.in_memory(image_size, what)
        if image_size is None:
            return Split(LazyImages(indices.tolist(), ArrayImages(self.images)), labels)
        return Split(resize_batch(self.images[torch.from_numpy(indices)], image_size), labels)

    def content(self, indices: NDArray[np.int64]) -> list[Any]:
        """What of those images enters the fingerprint: the pixels of an array, size and hash of the head of a file."""
        if isinstance(self.images, Tensor):
            return [self.images[torch.from_numpy(indices)]]
        return inspect_files(self.images.take(indices).items)


def assemble_task(
    *,
    name: str,
    title: str,
    source: str,
    class_names: Sequence[str],
    templates: Sequence[str],
    train: Pool,
    test: Pool,
    split_note: str,
    image_size: int | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Task:
    """Carve out validation, apply the limits, check and decode the images, and take the fingerprint.

    Images lie in the order of a hash of their keys, so that any prefix of a split is a fair sample of it. The limits
    are applied after the validation images have been chosen: an image held out once is never trained on under another
    limit. The fingerprint covers everything a result can depend on: keys, labels and contents of the images in their
    splits (all pixels of an array; byte count and first 64 KiB of a file, so a change beyond that which keeps the size
    goes unseen), class names, templates, image size and the rule of the split.

    Parameters
    ----------
    split_note : str
        The rule that made the train and test parts, for the fingerprint.
    image_size : int, optional
        Decode everything to this size; None leaves the images lazy.
    n_train, n_test : int, optional
        Images wanted in train and validation together, and in test, stratified; None: all of them.
    memory_limit : int
        Bytes that decoded images may take.

    Raises
    ------
    InputError
        No images, an image in both parts, a test class without training images, too few images for a validation
        split, impossible limits, more memory than `memory_limit`, an unreadable image.
    """
    require_class_names(class_names, f"task {name!r}")
    _require_sound_parts(name, class_names, train, test)
    labels = np.asarray(train.labels, dtype=np.int64)
    kept, held_out = carve_validation(labels, keys=train.keys)
    if not len(held_out):
        raise InputError(
            f"task {name!r}: no class has two training images, so none can be held out for validation; add images"
        )
    if n_train is not None:
        kept, held_out = _limit_train(name, train, kept, held_out, n_train)
    tested = np.arange(len(test.labels), dtype=np.int64)
    if n_test is not None:
        if n_test < 1:
            raise InputError(f"task {name!r}: n_test is {n_test}; expected at least 1")
        tested = pinned_sample(test.labels, n_test, keys=test.keys, salt="limit", least=1)
    parts = {"train": (train, kept), "validation": (train, held_out), "test": (test, tested)}
    if image_size is not None:
        require_image_size(image_size)
        needed = sum(len(chosen) for _, chosen in parts.values()) * 3 * image_size**2
        if needed > memory_limit:
            raise InputError(
                f"task {name!r}: its images would take {needed / 2**30:.1f} GiB at {image_size} pixels, "
                f"more than the limit of {memory_limit / 2**30:.1f} GiB; use fewer (n_train, n_test), "
                "decode them lazily (image_size=None), or raise memory_limit"
            )
    record: list[Any] = ["task 1", source, split_note, list(class_names), list(templates), image_size]
    contents: dict[str, list[Any]] = {}
    for part, (pool, chosen) in parts.items():
        ranks = [hash_fraction(pool.keys[i], "order") for i in chosen]
        chosen = chosen[np.argsort(ranks, kind="stable")]
        contents[part] = pool.content(chosen)
        record += [part, [pool.keys[i] for i in chosen], np.asarray(pool.labels)[chosen].tolist(), *contents[part]]
        parts[part] = (pool, chosen)
    _warn_of_copies(name, contents)
    splits = {part: pool.take(chosen, image_size, f"{name} {part}") for part, (pool, chosen) in parts.items()}
    return Task(
        name=name,
        title=title,
        class_names=tuple(class_names),
        templates=tuple(templates),
        source=source,
        fingerprint=fingerprint(record),
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
    )


def _require_sound_parts(name: str, class_names: Sequence[str], train: Pool, test: Pool) -> None:
    for part, pool in (("training", train), ("test", test)):
        if not len(pool.labels):
            raise InputError(f"task {name!r}: no {part} images were found; at least one per class is needed")
        if beyond := sorted(label for label in set(pool.labels) if not 0 <= label < len(class_names)):
            raise InputError(
                f"task {name!r}: {part} images have the label {beyond[0]}, and there are {len(class_names)} classes, "
                f"0 to {len(class_names) - 1}; the file of labels is damaged, or another data set's"
            )
    if both := set(train.keys) & set(test.keys):
        raise InputError(
            f"task {name!r}: {len(both)} images are both in train and in test, such as {min(both)!r}; "
            "list each image once"
        )
    trained, tested = set(train.labels), set(test.labels)
    if unknown := sorted(tested - trained):
        names = ", ".join(repr(class_names[i]) for i in unknown)
        raise InputError(f"task {name!r}: classes in test that train lacks: {names}; add training images for them")
    if untested := sorted(trained - tested):
        names = ", ".join(repr(class_names[i]) for i in untested)
        logger.warning("task %r: no test images for %s; they stay possible answers but are never tested", name, names)


def _limit_train(
    name: str, pool: Pool, kept: NDArray[np.int64], held_out: NDArray[np.int64], n_train: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n_validation = min(max(round(VALIDATION_FRACTION * n_train), 1), len(held_out))
    classes = len(set(pool.labels))
    if n_train - n_validation < classes:
        raise InputError(
            f"task {name!r}: n_train is {n_train}, of which {n_validation} are held out for validation; "
            f"expected at least one training image for each of the {classes} classes"
        )
    limited = []
    for chosen, count in ((kept, n_train - n_validation), (held_out, n_validation)):
        labels, keys = [pool.labels[i] for i in chosen], [pool.keys[i] for i in chosen]
        limited.append(chosen[pinned_sample(labels, count, keys=keys, salt="limit", least=1)])
    return limited[0], limited[1]


def _warn_of_copies(name: str, contents: dict[str, list[Any]]) -> None:
    """Log a warning if test files are copies of training files: the accuracy would flatter."""
    if any(isinstance(item, Tensor) for item in contents["test"]):
        return
    seen = {tuple(item) for part in ("train", "validation") for item in contents[part]}
    if copies := sum(tuple(item) in seen for item in contents["test"]):
        logger.warning("task %r: %d test files are copies of training files; test accuracy will flatter", name, copies)
