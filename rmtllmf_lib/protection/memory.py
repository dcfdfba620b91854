"""Episodic memory: a few labelled images of every class that the base station keeps for realignment (Section III)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from rmtllmf_lib.arrays import known_names, torch_generator, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.base import Split, Task
from rmtllmf_lib.training.loading import pixels
from rmtllmf_lib.validated import validated_call, validated_init


@validated_init
@dataclass(frozen=True, eq=False)
class Memory:
    """Labelled images of each task, decoded at the backbone's size.

    Attributes
    ----------
    per_class : int
        Images kept of each class, at most.
    splits : dict of task name to Split
        `images` are (n, 3, S, S) uint8 tensors.
    """

    per_class: NonNegativeInt
    splits: Mapping[str, Split]

    __repr__ = short_repr

    @property
    def samples(self) -> int:
        """Total number of images."""
        return sum(len(split) for split in self.splits.values())

    @property
    def bytes(self) -> int:
        """Uncompressed size of images and labels."""
        tensors = [tensor for split in self.splits.values() for tensor in (split.images, split.labels)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, Tensor))

    def of(self, names: Iterable[str]) -> Memory:
        """The memory of some of the tasks, in the order of `names`."""
        names = known_names(names, self.splits, "task of the memory")
        return Memory(self.per_class, {name: self.splits[name] for name in names})


@validated_call
def draw_memory(tasks: Mapping[str, Task], per_class: int, *, image_size: int, generator: torch.Generator) -> Memory:
    """Keep `per_class` random TRAINING images of every class of every task.

    The same state of the generator gives nested memories: the first five images of ten are the memory of five. A class
    with fewer than `per_class` training images contributes all of them.

    Parameters
    ----------
    per_class : int
        At least 1.
    image_size : int
        Side of the decoded images in pixels, as the backbone takes them.
    generator : torch.Generator
        On the CPU.

    Raises
    ------
    InputError
        if there is no task, `per_class` is not a positive whole number, or a class has no training image.
    """
    whole_number(per_class, "per_class")
    torch_generator(generator)
    if not tasks:
        raise InputError("there is no task to remember: give at least one")
    splits = {}
    for name, task in tasks.items():
        chosen = []
        for label, class_name in enumerate(task.class_names):
            images = torch.nonzero(task.train.labels == label)[:, 0]
            if len(images) == 0:
                raise InputError(
                    f"task {name!r} has no training image of {class_name!r}: a memory needs at least one of every class"
                )
            chosen.append(images[torch.randperm(len(images), generator=generator)[:per_class]])
        indices = torch.cat(chosen)
        splits[name] = Split(pixels(task.train, indices, image_size), task.train.labels[indices])
    return Memory(per_class, splits)
