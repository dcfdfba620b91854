"""The eight embedded tasks: small counterparts of the paper's data sets, made on demand, with nothing to download.

Seven are drawn; one is real, scikit-learn's 1,797 handwritten digits. A drawn task is a set of concepts (what is
drawn), a range of poses and one camera of its own. Images are drawn in blocks of one class, each from its own seed, so
that the same seed gives the same bits whatever the number of threads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rmtllmf_lib.arrays import one_of, seed_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.base import TASK_NAMES, Split, Task, carve_validation, fingerprint
from rmtllmf_lib.tasks.embedded.camera import Camera
from rmtllmf_lib.tasks.embedded.concepts import aerial, cars, characters, landuse, scenes, signs, textures
from rmtllmf_lib.tasks.embedded.difficulty import DEFAULT, UNDRAWN, severity
from rmtllmf_lib.tasks.embedded.draw import SIZE, Canvas, Concept, Pose
from rmtllmf_lib.threads import ordered

BLOCK = 64  # images of one class drawn together, so that the working set stays in the cache


@dataclass(frozen=True)
class DrawnTask:
    """What a drawn task shows, and how."""

    title: str
    concepts: Mapping[str, Concept]
    templates: tuple[str, ...]
    pose: Pose
    camera: Camera = field(default_factory=Camera)

    __repr__ = short_repr


ANY_ANGLE = (-180.0, 180.0)

DRAWN: dict[str, DrawnTask] = {
    "cars": DrawnTask(
        "Car silhouettes",
        cars.CONCEPTS,
        ("a photo of a {}.", "a photo of the {} on the street.", "a photo of my {}."),
        Pose((10.0, 30.0), (0.6, 0.88), 0.18, True),
        Camera(hue=60, saturation=0.7, gamma=1.2, blur=0.7, noise=(0.02, 0.07), clutter=0.25),
    ),
    "textures": DrawnTask(
        "Textures",
        textures.CONCEPTS,
        ("a photo of a {} texture.", "a photo of a {} pattern."),
        Pose((-35.0, 35.0), (0.5, 0.8), 0.2, True),
        Camera(hue=-40, saturation=0.6, blur=0.6, contrast=(0.45, 0.85), noise=(0.02, 0.07), clutter=0.25),
    ),
    "landuse": DrawnTask(
        "Land use from above",
        landuse.CONCEPTS,
        ("a satellite photo of {}.", "a photo of {} from above."),
        Pose(ANY_ANGLE, (0.6, 0.95), 0.2, True),
        Camera(hue=155, saturation=0.8, gamma=1.25, blur=0.6, noise=(0.02, 0.07)),
    ),
    "signs": DrawnTask(
        "Traffic signs",
        signs.CONCEPTS,
        ("a photo of a {}.", "a {} by the road."),
        Pose((2.0, 26.0), (0.6, 0.88), 0.2),
        Camera(hue=-110, gamma=1.4, blur=0.6, gain=(0.5, 1.2), noise=(0.02, 0.07), clutter=0.2),
    ),
    "aerial": DrawnTask(
        "Aerial scenes",
        aerial.CONCEPTS,
        ("an aerial photo of a {}.", "a satellite photo of the {}."),
        Pose(ANY_ANGLE, (0.58, 0.88), 0.2, True),
        Camera(hue=150, saturation=0.85, gamma=0.9, blur=0.6, contrast=(0.55, 0.95), noise=(0.02, 0.06)),
    ),
    "scenes": DrawnTask(
        "Scenes",
        scenes.CONCEPTS,
        ("a photo of a {}.", "a photo of the {}."),
        Pose((-8.0, 8.0), (0.65, 0.95), 0.18, True),
        Camera(hue=180, saturation=0.8, gamma=1.25, blur=0.5, noise=(0.03, 0.09), clutter=0.4),
    ),
    "housenumbers": DrawnTask(
        "House numbers",
        characters.TASK_HOUSE_NUMBERS,
        ("a photo of the house number {}.", "a photo of the number {} on a wall."),
        Pose((9.0, 29.0), (0.62, 0.92), 0.18),
        Camera(hue=40, saturation=0.6, blur=0.6, contrast=(0.5, 0.95), noise=(0.02, 0.08), clutter=0.2),
    ),
}

_DIGIT_TEMPLATES: tuple[str, ...] = ("a photo of the number {}.", "a photo of a handwritten {}.")
_DIGIT_TRAIN, _DIGIT_TEST = 1200, 597  # of scikit-learn's 1,797


LARGEST = 10**6  # images that a split can have drawn: 3 GB

Seed = tuple[int, ...]


def draw(concept: Concept, n: int, seed: Seed, pose: Pose, camera: Camera) -> np.ndarray:
    """`n` photographs (n, 3, 32, 32) uint8 of one concept."""
    canvas = Canvas(n, np.random.default_rng(seed), pose)
    concept(canvas)
    return camera.photograph(canvas)


def draw_evenly(
    concepts: Sequence[Concept], count: int, setting: Callable[[int, int], tuple[Seed, Pose, Camera]]
) -> tuple[Tensor, Tensor]:
    """Draw `count` images with one thread per core, equally many of each concept, in blocks of one concept.

    Parameters
    ----------
    setting : function of (label, start)
        The seed, pose and camera of the block that begins with image `start` of the concept `label`.

    Returns
    -------
    images : (count, 3, 32, 32) uint8
    labels : (count,) int64
        The index of each image's concept, ascending.
    """
    jobs, labels = [], []
    for label, concept in enumerate(concepts):
        size = count // len(concepts) + (label < count % len(concepts))
        jobs += [(concept, min(BLOCK, size - start), *setting(label, start)) for start in range(0, size, BLOCK)]
        labels += [label] * size
    blocks = ordered(lambda job: draw(*job), jobs, os.cpu_count())
    return torch.from_numpy(np.concatenate(list(blocks))), torch.tensor(labels)


def _count(given: int | None, default: int, limit: int, what: str) -> int:
    return min(default, limit) if given is None else whole_number(given, what, 10, limit)


def _word(text: str) -> int:
    """A number for seeds that does not depend on Python's hash seed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def _drawn(name: str, split: str, count: int, seed: int, hard: float, shuffle: torch.Generator) -> Split:
    """One split of a drawn task of severity `hard`, shuffled."""
    task = DRAWN[name]
    pose, camera = task.pose.at(hard), task.camera.at(hard)

    def setting(label: int, start: int) -> tuple[Seed, Pose, Camera]:
        return (seed, _word(name), _word(split), label, start), pose, camera

    drawn = Split(*draw_evenly(list(task.concepts.values()), count, setting))
    return drawn.subset(torch.randperm(count, generator=shuffle))


@lru_cache(maxsize=1)
def _handwritten() -> Split:
    """scikit-learn's 1,797 digits at 32 pixels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images.astype(np.float32) / 16.0)[:, None]
    large = torch.nn.functional.interpolate(small, SIZE, mode="bilinear", align_corners=False)
    return Split((large * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous(), torch.tensor(bunch.target))


def procedural_task(
    name: str,
    *,
    seed: int = 0,
    difficulty: str | float | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
) -> Task:
    """One of the eight embedded tasks.

    Parameters
    ----------
    name : str
        One of `TASK_NAMES`.
    seed : int
        Draws other images of the same task. The digits are real: the seed only assigns them to train and test.
    difficulty : str or float, optional
        Of drawn images: "easy", "calibrated" (the default), "hard" or a number, see `difficulty.severity`. The digits
        have none.
    n_train, n_test : int, optional
        Images in train (with validation) and test; default 4,000 and 1,200. Digits: at most 1,200 and 597.

    Returns
    -------
    Task
        Images (n, 3, 32, 32) uint8 in memory, in random order.

    Raises
    ------
    InputError
        An unknown name, a negative seed, a difficulty for the digits or one out of range, or fewer than 10 images or,
        for the digits, more than there are.
    """
    one_of(name, TASK_NAMES, "procedural task")
    seed_number(seed)
    digits = name in UNDRAWN
    if digits and difficulty is not None:
        raise InputError(f"difficulty is {difficulty!r} but the {name} are real images: leave it out for this task")
    hard = severity(DEFAULT if difficulty is None else difficulty)
    train_count = _count(n_train, 4000, _DIGIT_TRAIN if digits else LARGEST, f"n_train of task {name!r}")
    test_count = _count(n_test, 1200, _DIGIT_TEST if digits else LARGEST, f"n_test of task {name!r}")
    shuffle = torch.Generator().manual_seed(_word(f"{name}-{seed}"))
    if digits:
        title, class_names, templates = "Handwritten digits", characters.DIGIT_NAMES, _DIGIT_TEMPLATES
        real = _handwritten()
        order = torch.randperm(len(real), generator=shuffle)
        train, test = real.subset(order[:train_count]), real.subset(order[_DIGIT_TRAIN:][:test_count])
    else:
        drawn = DRAWN[name]
        title, class_names, templates = drawn.title, tuple(drawn.concepts), drawn.templates
        train = _drawn(name, "train", train_count, seed, hard, shuffle)
        test = _drawn(name, "test", test_count, seed, hard, shuffle)
    kept, held_out = carve_validation(train.labels, seed=seed)
    return Task(
        name=name,
        title=title,
        class_names=class_names,
        templates=templates,
        train=train.subset(kept),
        validation=train.subset(held_out),
        test=test,
        source="procedural",
        fingerprint=fingerprint([train.inputs, train.labels, test.inputs, test.labels, class_names]),
    )
