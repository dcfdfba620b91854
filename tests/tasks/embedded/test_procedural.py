"""The eight embedded tasks: what is drawn is what the labels say, and the same with any number of cores."""

import os
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d
from scipy.spatial import KDTree
from sklearn.datasets import load_digits

from canvases import PLAIN, STILL
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import TASK_NAMES, Split, Task
from rmtllmf_lib.tasks.embedded import procedural
from rmtllmf_lib.tasks.embedded.draw import Canvas
from rmtllmf_lib.tasks.embedded.procedural import DRAWN, procedural_task
from rmtllmf_lib.tasks.sources import load_task

PARTS = ("train", "validation", "test")


@cache
def small(name: str, seed: int = 0) -> Task:
    return procedural_task(name, seed=seed, n_train=100, n_test=60)


def pictures(split: Split) -> set[bytes]:
    assert isinstance(split.inputs, torch.Tensor)
    return {image.numpy().tobytes() for image in split.inputs}


def test_eight_tasks_with_a_name_for_every_class() -> None:
    assert len(TASK_NAMES) == 8 and set(TASK_NAMES) == {*DRAWN, "digits"}
    tasks = [small(name) for name in TASK_NAMES]
    assert sum(len(task.class_names) for task in tasks) >= 84
    assert all(task.name == name and task.source == "procedural" for task, name in zip(tasks, TASK_NAMES, strict=True))
    assert len({task.title for task in tasks}) == 8
    cameras = [recipe.camera for recipe in DRAWN.values()]
    assert len(set(cameras)) == 7  # the domain shift: a camera of its own for each


@pytest.mark.parametrize("name", TASK_NAMES)
def test_sizes_and_balance(name: str) -> None:
    task = small(name)
    for part in PARTS:
        split = getattr(task, part)
        assert split.inputs.dtype == torch.uint8 and split.inputs.shape == (len(split), 3, 32, 32)
        assert split.labels.dtype == torch.int64
    assert len(task.train) + len(task.validation) == 100 and len(task.test) == 60
    assert len(task.validation) == 10
    learnt = torch.cat([task.train.labels, task.validation.labels])
    for labels in (learnt, task.test.labels):
        counts = torch.bincount(labels, minlength=len(task.class_names))
        assert len(counts) == len(task.class_names) and counts.min() > 0
        if name != "digits":
            assert counts.max() - counts.min() <= 1
    assert (learnt[1:] < learnt[:-1]).any()  # in random order


@pytest.mark.parametrize("name", TASK_NAMES)
def test_no_image_is_in_two_splits(name: str) -> None:
    task = small(name)
    train, validation, test = (pictures(getattr(task, part)) for part in PARTS)
    assert not train & validation and not train & test and not validation & test
    assert len(train | validation | test) == 160


@pytest.mark.parametrize("name", TASK_NAMES)
def test_bits_do_not_depend_on_the_number_of_cores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = small(name)
    other = 4 if os.cpu_count() == 1 else 1
    monkeypatch.setattr(os, "cpu_count", lambda: other)
    again = procedural_task(name, n_train=100, n_test=60)
    assert again.fingerprint == expected.fingerprint
    for part in PARTS:
        first, second = getattr(expected, part), getattr(again, part)
        assert torch.equal(first.inputs, second.inputs) and torch.equal(first.labels, second.labels)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_seed_gives_other_images(name: str) -> None:
    first, second = small(name), small(name, seed=1)
    assert first.fingerprint != second.fingerprint
    if name == "digits":  # the images are what they are; the seed deals them
        assert pictures(first.test) != pictures(second.test)
    else:
        assert not pictures(first.test) & pictures(second.test)
    assert first.class_names == second.class_names


def test_training_and_test_images_differ_also_where_there_are_as_many() -> None:
    task = procedural_task("signs", n_train=60, n_test=60)
    train, validation, test = (pictures(getattr(task, part)) for part in PARTS)
    assert not (train | validation) & test


@pytest.mark.parametrize("part", ["train", "test"])
def test_fingerprint_covers_every_pixel_and_label(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {small("signs").fingerprint}
    plain = procedural._drawn
    for place in (0, 1):  # images, labels

        def changed(name: str, own: str, *rest: Any, place: int = place) -> Split:
            drawn = plain(name, own, *rest)
            if own == part:
                (drawn.inputs, drawn.labels)[place].view(-1)[-1] ^= 1
            return drawn

        monkeypatch.setattr(procedural, "_drawn", changed)
        found.add(procedural_task("signs", n_train=100, n_test=60).fingerprint)
    assert len(found) == 3


def test_fingerprint_depends_on_the_sizes() -> None:
    tasks = [procedural_task("signs", n_train=a, n_test=b) for a, b in ((50, 20), (50, 21), (51, 20))]
    assert len({task.fingerprint for task in tasks}) == 3


def test_the_number_of_training_images_does_not_touch_the_test_images() -> None:
    few, many = (procedural_task("signs", n_train=n, n_test=64) for n in (12, 100))
    assert pictures(few.test) == pictures(many.test)
    assert pictures(procedural_task("digits", n_train=12).test) == pictures(procedural_task("digits").test)


def test_default_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    def black(concept: object, n: int, *setting: object) -> np.ndarray:
        return np.zeros((n, 3, 32, 32), np.uint8)

    monkeypatch.setattr(procedural, "draw", black)
    task = load_task("cars")
    assert len(task.train) + len(task.validation) == 4000 and len(task.test) == 1200
    digits = load_task("digits")
    assert len(digits.train) + len(digits.validation) == 1200 and len(digits.test) == 597


@pytest.mark.parametrize("name", DRAWN)
def test_labels_are_those_of_the_concepts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the concept of class k fill the frame with the grey level 10 k: the picture then tells its class."""

    def grey(canvas: Canvas, level: int) -> None:
        canvas.fill((level / 255,) * 3)

    names = list(DRAWN[name].concepts)
    marked = {each: partial(grey, level=10 * k) for k, each in enumerate(names)}
    monkeypatch.setitem(DRAWN, name, replace(DRAWN[name], concepts=marked, pose=STILL, camera=PLAIN))
    task = procedural_task(name, n_train=90, n_test=40, difficulty="easy")
    assert task.class_names == tuple(names)
    for part in PARTS:
        split = getattr(task, part)
        assert torch.equal(split.inputs[:, 0, 0, 0].long(), 10 * split.labels)


# Mean of red, green and blue, standard deviation, and mean step from row to row: of grey levels, to two places.
LOOKS = {
    "cars": (107.93, 105.72, 107.65, 66.99, 17.15),
    "textures": (125.92, 125.78, 125.03, 41.10, 23.45),
    "landuse": (64.95, 62.93, 89.86, 36.40, 14.07),
    "signs": (83.96, 85.81, 89.07, 58.49, 17.58),
    "digits": (78.24, 78.24, 78.24, 82.91, 8.59),
    "aerial": (115.13, 110.10, 121.74, 29.22, 13.21),
    "scenes": (105.36, 95.06, 96.57, 60.54, 18.55),
    "housenumbers": (131.53, 133.76, 133.63, 58.41, 17.50),
}


@pytest.mark.parametrize("name", LOOKS)
def test_images_are_those_that_the_base_was_trained_for(name: str) -> None:
    """Other drawings would ask for another base. Bits may differ between processors, these numbers hardly."""
    difficulty = None if name == "digits" else "easy"
    levels = procedural_task(name, difficulty=difficulty, n_train=20, n_test=100).test.inputs.float()
    rows = (levels[:, :, 1:] - levels[:, :, :-1]).abs().mean()
    found = [*levels.mean((0, 2, 3)).tolist(), levels.std().item(), rows.item()]
    assert found == pytest.approx(LOOKS[name], abs=0.02)


def test_the_digits_are_real() -> None:
    """Every image is one of scikit-learn's, enlarged, with its own label; no one serves for training and test."""
    real = load_digits()
    # enlarged linearly to four times the side, then averaged over 4 x 4 pixels: a known small blur
    blurred = real.images / 16
    for axis in (1, 2):
        blurred = convolve1d(blurred, [0.125, 0.75, 0.125], axis=axis, mode="nearest")
    tree = KDTree(blurred.reshape(-1, 64))
    task = procedural_task("digits")
    index: dict[str, np.ndarray] = {}
    for part in PARTS:
        split = getattr(task, part)
        images = split.inputs.numpy() / 255
        assert (images[:, :1] == images).all()  # grey
        small_again = images[:, 0].reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64)
        gaps, index[part] = tree.query(small_again, p=np.inf)
        assert gaps.max() < 0.005
        assert np.array_equal(real.target[index[part]], split.labels)
    everything = np.concatenate(list(index.values()))
    assert len(set(everything)) == len(everything) == 1797
    assert task.class_names[:3] == ("zero", "one", "two")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "procedural task is 'mnist'"),
        ({"name": "cars", "n_train": 0}, "n_train of task 'cars' is 0: .* 10"),
        ({"name": "cars", "n_test": 0}, "n_test of task 'cars' is 0"),
        ({"name": "cars", "n_test": -5}, "n_test of task 'cars' is -5"),
        ({"name": "cars", "n_train": 50.5}, "n_train of task 'cars' is 50.5"),
        ({"name": "digits", "n_train": 1201}, "n_train of task 'digits' is 1201: .*1200"),
        ({"name": "digits", "n_test": 598}, "n_test of task 'digits' is 598: .*597"),
        ({"name": "cars", "seed": -1}, "seed is -1"),
        ({"name": "cars", "seed": 0.5}, "seed is 0.5"),
        ({"name": "cars", "seed": 2**64}, "seed is 18446744073709551616"),
        ({"name": "digits", "seed": 2**63}, "seed is 9223372036854775808"),
        ({"name": "cars", "n_train": 10**7}, "n_train of task 'cars' is 10000000: .*1000000"),
        ({"name": "cars", "n_test": 10**12}, "n_test of task 'cars' is 1000000000000"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmtllmf_lib.tasks.embedded.procedural.draw_evenly", None)  # before anything is drawn
    with pytest.raises(InputError, match=message):
        procedural_task(**arguments)


def test_any_other_seed_is_drawn() -> None:
    for seed in (10**12, 2**63 - 1):
        assert len(procedural_task("cars", seed=seed, n_train=10, n_test=10).test) == 10
