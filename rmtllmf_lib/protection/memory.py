"""Episodic memory: a few labelled inputs of every class that the base station keeps for realignment (Section III)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from pydantic import NonNegativeInt

from rmtllmf_lib.arrays import known_names, torch_generator, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.base import Split, Task
from rmtllmf_lib.validated import validated_call, validated_init


@validated_init
@dataclass(frozen=True, eq=False)
class Memory:
    """Labelled inputs of each task, images decoded at the backbone's size.

    Attributes
    ----------
    per_class : int
        Inputs kept of each class, at most.
    splits : dict of task name to Split
        Of texts, or of images (n, 3, S, S) uint8.
    """

    per_class: NonNegativeInt
    splits: Mapping[str, Split]

    __repr__ = short_repr

    @property
    def samples(self) -> int:
        """Total number of inputs."""
        return sum(len(split) for split in self.splits.values())

    @property
    def bytes(self) -> int:
        """Uncompressed size of inputs and labels."""
        return sum(split.bytes for split in self.splits.values())

    def of(self, names: Iterable[str]) -> Memory:
        """The memory of some of the tasks, in the order of `names`."""
        names = known_names(names, self.splits, "task of the memory")
        return Memory(self.per_class, {name: self.splits[name] for name in names})


@validated_call
def draw_memory(
    tasks: Mapping[str, Task], per_class: int, *, image_size: int | None, generator: torch.Generator
) -> Memory:
    """Keep `per_class` random TRAINING inputs of every class of every task.

    The same state of the generator gives nested memories: the first five of ten are the memory of five. A class with
    fewer than `per_class` training inputs contributes all of them.

    Parameters
    ----------
    per_class : int
        At least 1.
    image_size : int or None
        Side of the decoded images in pixels, as the backbone takes them; None for texts.
    generator : torch.Generator
        On the CPU.

    Raises
    ------
    InputError
        if there is no task, `per_class` is not a positive whole number, a class has no training input, or images are
        to be kept without a size.
    """
    whole_number(per_class, "per_class")
    torch_generator(generator)
    if not tasks:
        raise InputError("there is no task to remember: give at least one")
    splits = {}
    for name, task in tasks.items():
        chosen = []
        for label, class_name in enumerate(task.class_names):
            places = torch.nonzero(task.train.labels == label)[:, 0]
            if len(places) == 0:
                raise InputError(
                    f"task {name!r} has no training {task.what} of {class_name!r}: a memory needs at least one "
                    "of every class"
                )
            chosen.append(places[torch.randperm(len(places), generator=generator)[:per_class]])
        splits[name] = task.train.subset(torch.cat(chosen)).in_memory(image_size)
    return Memory(per_class, splits)
