from collections.abc import Sequence

import numpy as np
import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.assemble import Pool, RawTask, assemble_task
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.tasks.images import LazyImages


def pool(labels: Sequence[int], part: str, first: int = 0) -> Pool:
    """Images whose grey value is their number."""
    numbers = (torch.arange(len(labels)) + first).to(torch.uint8)
    images = numbers[:, None, None, None].expand(-1, 1, 6, 6).contiguous()
    return Pool(images, list(labels), [f"{part}/{i}" for i in range(len(labels))])


def assembled(**changes: object) -> Task:
    options = {key: changes.pop(key) for key in ("n_train", "n_test", "memory_limit") if key in changes}
    options["image_size"] = changes.pop("image_size", 6)
    raw = {
        "name": "toy",
        "title": "Toy",
        "source": "test",
        "class_names": ("a", "b", "c"),
        "templates": ("a {}",),
        "train": pool([0] * 60 + [1] * 36 + [2] * 4, "train"),
        "test": pool([0, 1, 2] * 10, "test", 100),
        "split_note": "rule",
    }
    return assemble_task(RawTask(**{**raw, **changes}), **options)


def numbers(task: Task, part: str) -> list[int]:
    return getattr(task, part).inputs[:, 0, 0, 0].tolist()


def test_every_image_lands_in_one_split() -> None:
    task = assembled()
    assert sorted(numbers(task, "train") + numbers(task, "validation")) == list(range(100))
    assert sorted(numbers(task, "test")) == list(range(100, 130))
    assert len(task.validation) == 10 and torch.bincount(task.validation.labels).tolist()[:2] == [6, 4]
    for number, label in zip(numbers(task, "train"), task.train.labels.tolist(), strict=True):
        assert label == (number >= 60) + (number >= 96)


def test_arrays_stay_lazy_without_a_size() -> None:
    lazy, decoded = assembled(image_size=None), assembled()
    assert isinstance(lazy.train.inputs, LazyImages)
    assert lazy.train.inputs[0].mode == "RGB" and lazy.train.inputs[0].size == (6, 6)
    assert torch.equal(lazy.train.in_memory(6).inputs, decoded.train.inputs)
    assert lazy.fingerprint != decoded.fingerprint


@pytest.mark.parametrize("n_train", [5, 20, 50, 99, 100, 1000])
def test_limits(n_train: int) -> None:
    everything, limited = assembled(), assembled(n_train=n_train, n_test=7)
    assert len(limited.train) + len(limited.validation) == min(n_train, 100)
    assert len(limited.validation) == min(max(1, round(n_train / 10)), 10)
    assert len(limited.test) == 7
    for part in ("train", "validation", "test"):
        assert set(numbers(limited, part)) <= set(numbers(everything, part)), "a limit moved an image to another split"
    assert set(limited.train.labels.tolist()) == {0, 1, 2}, "a class lost its training images"
    assert limited.fingerprint != everything.fingerprint or n_train >= 100


def test_more_than_there_is_means_all() -> None:
    assert assembled(n_train=10**6, n_test=10**6).fingerprint == assembled().fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_train": 3}, "n_train is 3, of which 1 are held out.*each of the 3 classes"),
        ({"n_train": 0}, "n_train is 0"),
        ({"n_test": 0}, "n_test of task .toy. is 0"),
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": 6, "memory_limit": 130 * 3 * 36 - 1}, "would take .* GiB at 6 pixels.*image_size=None"),
        ({"train": pool([], "train")}, "no training images"),
        ({"test": pool([], "test")}, "no test images"),
        ({"test": pool([0, 1, 2], "train")}, "3 images are both in train and in test, such as 'train/0'"),
        ({"train": pool([0, 0, 1, 1], "train")}, "classes in test that train lacks: 'c'"),
        ({"train": pool([0, 1, 2], "train")}, "no class has two training images"),
        ({"class_names": ("a", "b", "b")}, "'b' appears twice"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        assembled(**changes)


def test_the_memory_limit_is_exact() -> None:
    assert len(assembled(memory_limit=130 * 3 * 36).test) == 30


@pytest.mark.parametrize(
    "changes",
    [
        {"split_note": "other rule"},
        {"class_names": ("a", "b", "d")},
        {"templates": ("b {}",)},
        {"image_size": 7},
        {"source": "other"},
        {"train": pool([0] * 60 + [1] * 35 + [2] * 5, "train")},
        {"train": pool([0] * 60 + [1] * 36 + [2] * 4, "train", 1)},
        {"test": pool([0, 1, 2] * 10, "test", 101)},
        {"test": pool([0, 1, 2] * 10, "other", 100)},
    ],
)
def test_the_fingerprint_covers(changes: dict[str, object]) -> None:
    assert assembled().fingerprint == assembled().fingerprint
    assert assembled(**changes).fingerprint != assembled().fingerprint


@pytest.mark.parametrize("label", [3, -1])
def test_labels_beyond_the_classes_are_refused(label: int) -> None:
    with pytest.raises(InputError, match=f"training images have the label {label}, and there are 3 classes, 0 to 2"):
        assembled(train=pool([0] * 60 + [1] * 36 + [label] * 4, "train"))
    with pytest.raises(InputError, match=f"test images have the label {label}"):
        assembled(test=pool([0, 1, label] * 10, "test", 100))


def test_the_order_of_the_pool_does_not_matter() -> None:
    straight = assembled()
    train = pool([0] * 60 + [1] * 36 + [2] * 4, "train")
    order = np.random.default_rng(0).permutation(100)
    shuffled = Pool(train.inputs[order], [train.labels[i] for i in order], [train.keys[i] for i in order])
    assert assembled(train=shuffled).fingerprint == straight.fingerprint
    assert assembled(train=shuffled, n_train=30).fingerprint == assembled(n_train=30).fingerprint
