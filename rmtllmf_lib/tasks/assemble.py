"""Make a `Task` from labelled inputs of any source: validation split, limits, checks, decoding, fingerprint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmtllmf_lib.arrays import whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.base import (
    Inputs,
    Split,
    Task,
    carve_validation,
    fingerprint,
    hash_fraction,
    pinned_sample,
    require_class_names,
    take,
    validation_count,
)
from rmtllmf_lib.tasks.images import ArrayImages, LazyImages, decode_images, inspect_files, open_rgb, require_decodable
from rmtllmf_lib.validated import validated_call

# Bytes that the decoded images of one task may take; a constant, so that a run does not depend on the machine.
MEMORY_LIMIT = 16 * 2**30

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pool:
    """The labelled inputs of an official training or test set, not yet split, limited or decoded.

    Attributes
    ----------
    inputs : (n, 1 or 3, H, W) uint8 tensor, LazyImages whose items are paths, or tuple of n str
    labels : n ints
    keys : n strings
        Permanent identifiers, the paths relative to the data set, or the texts. They decide the splits.
    """

    inputs: Inputs
    labels: Sequence[int]
    keys: Sequence[str]

    __repr__ = short_repr

    @classmethod
    def of_files(cls, folder: Path, samples: Sequence[tuple[str | Path, int]]) -> Pool:
        """The image files (path, label) below `folder`."""
        paths = [Path(path) for path, _ in samples]
        keys = [path.relative_to(folder).as_posix() for path in paths]
        return cls(LazyImages(paths, open_rgb), [int(label) for _, label in samples], keys)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def what(self) -> str:
        """What the inputs are: "images" or "texts"."""
        return "texts" if isinstance(self.inputs, tuple) else "images"

    def subset(self, indices: NDArray[np.int64]) -> Pool:
        """The inputs at `indices`, in that order."""
        return Pool(take(self.inputs, indices), [self.labels[i] for i in indices], [self.keys[i] for i in indices])

    def limited(self, count: int) -> Pool:
        """`count` of the inputs, stratified by class, with at least one of every class."""
        return self.subset(pinned_sample(self.labels, count, keys=self.keys, salt="limit", least=1))

    def shuffled(self) -> Pool:
        """All inputs, in the order of a hash of their keys."""
        return self.subset(np.argsort([hash_fraction(key, "order") for key in self.keys], kind="stable"))

    def content(self) -> list[Any]:
        """What the fingerprint covers of the inputs: an array's pixels, size and hash of each file, or each text."""
        if isinstance(self.inputs, tuple):
            return [[text] for text in self.inputs]
        return [self.inputs] if isinstance(self.inputs, Tensor) else inspect_files(self.inputs.items)

    def split(self, image_size: int | None, what: str) -> Split:
        """The images decoded to `image_size`, or lazy if that is None; texts as they are."""
        labels = torch.tensor(self.labels, dtype=torch.int64)
        inputs = self.inputs
        if isinstance(inputs, tuple):
            return Split(inputs, labels)
        if image_size is not None:
            return Split(decode_images(inputs, image_size, what), labels)
        lazy = LazyImages(range(len(self)), ArrayImages(inputs)) if isinstance(inputs, Tensor) else inputs
        return Split(lazy, labels)


@dataclass(frozen=True, eq=False)
class RawTask:
    """A task as read from the disk; `split_note` is the rule that made its training and test sets."""

    name: str
    title: str
    source: str
    class_names: Sequence[str]
    templates: Sequence[str]
    train: Pool
    test: Pool
    split_note: str

    __repr__ = short_repr


@validated_call
def assemble_task(
    raw: RawTask,
    *,
    image_size: int | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Task:
    """Carve out validation, apply the limits, check and decode the inputs, and take the fingerprint.

    Inputs are ordered by a hash of their keys, so that any prefix of a split is a fair sample of it. The limits are
    applied after the validation inputs have been chosen: an input held out once is never trained on under another
    limit. The fingerprint covers everything a result can depend on: keys, labels and contents of the inputs in their
    splits (all pixels of an array, all bytes of a file), class names, templates, image size and the rule of the split.

    Parameters
    ----------
    image_size : int, optional
        Decode all images to this size; None leaves them lazy. Texts have none.
    n_train, n_test : int, optional
        Number of inputs in train and validation together, and in test, stratified; None: all of them.
    memory_limit : int
        Bytes that decoded images may take.

    Raises
    ------
    InputError
        No images, an image in both train and test, a test class without training images, too few images for a
        validation split, impossible limits, more memory than `memory_limit`, unreadable images, all of which are named.
    """
    name, train, test = raw.name, raw.train, raw.test
    whole_number(memory_limit, "memory_limit")
    require_class_names(raw.class_names, f"task {name!r}")
    _check_pools(raw)
    kept, held_out = map(train.subset, carve_validation(train.labels, keys=train.keys))
    if not len(held_out):
        raise InputError(
            f"task {name!r}: no class has two training {train.what}, so none can be held out for validation; add some"
        )
    if n_train is not None:
        whole_number(n_train, "n_train")
        n_validation = min(validation_count(n_train), len(held_out))
        if n_train - n_validation < (classes := len(set(train.labels))):
            raise InputError(
                f"task {name!r}: n_train is {n_train}, of which {n_validation} are held out for validation; "
                f"expected at least one for training from each of the {classes} classes"
            )
        kept, held_out = kept.limited(n_train - n_validation), held_out.limited(n_validation)
    if n_test is not None:
        test = test.limited(whole_number(n_test, f"n_test of task {name!r}"))
    pools = {"train": kept.shuffled(), "validation": held_out.shuffled(), "test": test.shuffled()}
    if raw.train.what == "texts":
        image_size = None
    if image_size is not None:
        needed = sum(map(len, pools.values())) * 3 * whole_number(image_size, "image_size") ** 2
        if needed > memory_limit:
            raise InputError(
                f"task {name!r}: its images would take {needed / 2**30:.1f} GiB at {image_size} pixels, "
                f"more than the limit of {memory_limit / 2**30:.1f} GiB; use fewer (n_train, n_test), "
                "decode them lazily (image_size=None), or raise memory_limit"
            )
    record: list[Any] = ["task 1", raw.source, raw.split_note, list(raw.class_names), list(raw.templates), image_size]
    try:
        contents = {split: pool.content() for split, pool in pools.items()}
        splits = {split: pool.split(image_size, f"{name} {split}") for split, pool in pools.items()}
    except InputError:
        require_decodable([pool.inputs for pool in pools.values() if isinstance(pool.inputs, LazyImages)])
        raise
    for split, pool in pools.items():
        record += [split, pool.keys, pool.labels, *contents[split]]
    _warn_of_copies(name, contents)
    return Task(
        name=name,
        title=raw.title,
        class_names=tuple(raw.class_names),
        templates=tuple(raw.templates),
        source=raw.source,
        fingerprint=fingerprint(record),
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
    )


def _check_pools(raw: RawTask) -> None:
    name, class_names = raw.name, raw.class_names
    for kind, pool in (("training", raw.train), ("test", raw.test)):
        if not len(pool):
            raise InputError(f"task {name!r}: no {kind} {pool.what} were found; at least one per class is needed")
        if beyond := sorted(label for label in set(pool.labels) if not 0 <= label < len(class_names)):
            raise InputError(
                f"task {name!r}: {kind} {pool.what} have the label {beyond[0]}, and there are {len(class_names)} "
                f"classes, 0 to {len(class_names) - 1}; the file of labels is damaged or belongs to another data set"
            )
    if both := set(raw.train.keys) & set(raw.test.keys):
        raise InputError(
            f"task {name!r}: {len(both)} {raw.train.what} are both in train and in test, such as {min(both)!r}; "
            "list each once"
        )
    trained, tested = set(raw.train.labels), set(raw.test.labels)
    if unknown := ", ".join(repr(class_names[i]) for i in sorted(tested - trained)):
        raise InputError(f"task {name!r}: classes in test that train lacks: {unknown}; add some to train")
    if untested := ", ".join(repr(class_names[i]) for i in sorted(trained - tested)):
        what = raw.test.what
        logger.warning("task %r: no test %s for %s; they are possible answers but never tested", name, what, untested)


def _warn_of_copies(name: str, contents: dict[str, list[Any]]) -> None:
    """Log a warning if test inputs are copies of training inputs, which inflates the test accuracy."""
    if any(isinstance(item, Tensor) for item in contents["test"]):
        return
    seen = {tuple(item) for split in ("train", "validation") for item in contents[split]}
    if copies := sum(tuple(item) in seen for item in contents["test"]):
        logger.warning("task %r: %d test inputs are copies of training inputs; test accuracy is inflated", name, copies)
