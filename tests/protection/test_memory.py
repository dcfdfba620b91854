"""The memory: a number of training images of every class, and none of any other split."""

from dataclasses import replace

import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.protection.memory import Memory, draw_memory
from rmtllmf_lib.tasks.base import Split, Task
from small import CLASSES, generator, small_split, small_task


def draw(tasks: dict[str, Task], per_class: int, seed: int = 0) -> Memory:
    return draw_memory(tasks, per_class, image_size=32, generator=generator(seed))


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {name: small_task(name, seed) for seed, name in enumerate(("a", "b", "c"))}


def pictures(split: Split) -> set[tuple[bytes, int]]:
    assert isinstance(split.inputs, torch.Tensor)
    return {
        (image.numpy().tobytes(), int(label)) for image, label in zip(split.inputs, split.labels, strict=True)
    }  # fmt: skip


def test_so_many_training_images_of_every_class(tasks: dict[str, Task]) -> None:
    memory = draw(tasks, 4)
    assert memory.per_class == 4 and memory.samples == 3 * 4 * len(CLASSES)
    assert memory.bytes == memory.samples * (3 * 32 * 32 + 8)
    for name, task in tasks.items():
        kept = memory.splits[name]
        assert torch.bincount(kept.labels).tolist() == [4] * len(CLASSES)
        assert len(pictures(kept)) == len(kept)  # none twice
        assert pictures(kept) <= pictures(task.train)  # with its own label
        assert not pictures(kept) & (pictures(task.validation) | pictures(task.test))


def test_smaller_memories_are_parts_of_larger_ones(tasks: dict[str, Task]) -> None:
    memories = [draw(tasks, count) for count in (1, 2, 5, 12)]
    for name in tasks:
        sets = [pictures(memory.splits[name]) for memory in memories]
        assert all(small < large for small, large in zip(sets, sets[1:], strict=False))


def test_the_draw_is_the_generators(tasks: dict[str, Task]) -> None:
    first, again, other = (draw(tasks, 3, seed).splits["b"] for seed in (0, 0, 1))
    assert pictures(first) == pictures(again) != pictures(other)


def test_classes_with_few_images_give_all_they_have(tasks: dict[str, Task]) -> None:
    task = tasks["a"]
    few = replace(task, train=task.train.subset([*range(10), 14]))  # two of each class, three of the last
    kept = draw({"a": few}, 3).splits["a"]
    assert torch.bincount(kept.labels).tolist() == [2, 2, 2, 2, 3]


def test_images_are_kept_at_the_backbones_size() -> None:
    task = replace(small_task(), train=small_split(30, size=48))
    memory = draw_memory({"a": task}, 1, image_size=32, generator=generator())
    assert memory.splits["a"].inputs.shape == (5, 3, 32, 32)


def test_the_memory_of_some_tasks(tasks: dict[str, Task]) -> None:
    memory = draw(tasks, 2)
    some = memory.of(["c", "a"])
    assert list(some.splits) == ["c", "a"] and some.splits["a"] is memory.splits["a"] and some.per_class == 2
    with pytest.raises(InputError, match="'d'.*a, b, c"):
        memory.of(["a", "d"])


@pytest.mark.parametrize("count", [0, -1, 1.5, True, None])
def test_counts_that_are_none(tasks: dict[str, Task], count: object) -> None:
    with pytest.raises(InputError, match="per_class"):
        draw(tasks, count)  # type: ignore[arg-type]


def test_nothing_to_remember(tasks: dict[str, Task]) -> None:
    with pytest.raises(InputError, match="no task"):
        draw({}, 1)
    task = tasks["a"]
    without = replace(task, train=task.train.subset(torch.nonzero(task.train.labels != 1)[:, 0]))
    with pytest.raises(InputError, match="'a'.*'green'"):
        draw({"a": without}, 1)
