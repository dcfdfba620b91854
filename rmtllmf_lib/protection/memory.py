"""Episodic memory: the few labelled images that the base station keeps of every class to realign with (Section III)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rmtllmf_lib.arrays import whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import Split, Task
from rmtllmf_lib.training.loading import pixels


@dataclass(frozen=True, eq=False)
class Memory:
    """What is remembered of each task: decoded images at the backbone's size, with their labels.

    Attributes
    ----------
    per_class : int
        Images kept of each class, at most.
    splits : dict of task name to Split
        `images` are (n, 3, S, S) uint8 tensors.
    """

    per_class: int
    splits: Mapping[str, Split]

    @property
    def samples(self) -> int:
        """Images in all."""
        return sum(len(split) for split in self.splits.values())

    @property
    def bytes(self) -> int:
        """What it takes to store the images and labels, uncompressed."""
        tensors = [tensor for split in self.splits.values() for tensor in (split.images, split.labels)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, Tensor))

    def of(self, names: Iterable[str]) -> Memory:
        """The memory of some of the tasks, in the order of `names`."""
        names = list(names)
        if missing := [name for name in names if name not in self.splits]:
            raise InputError(f"nothing is remembered of task {missing[0]!r}: expected some of {', '.join(self.splits)}")
        return Memory(self.per_class, {name: self.splits[name] for name in names})


def draw_memory(
    tasks: Mapping[str, Task], per_class: int, *, image_size: int, generator: torch.Generator
) -> Memory:  # fmt: skip
    """Keep `per_class` random TRAINING images of every class of every task.

    The same state of the generator gives nested memories: the first five of ten are the memory of five. A class with
    fewer training images than that gives all it has.

    Parameters
    ----------
    per_class : int
        At least 1.
    image_size : int
        Side in pixels to which images are decoded, the backbone's.
    generator : torch.Generator
        On the CPU.

    Raises
    ------
    InputError
        No task, `per_class` is not a positive whole number, or a class has no training image.
    """
    whole_number(per_class, "per_class")
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
