"""The eight embedded tasks: small mirrors of the paper's data sets, drawn on demand, nothing to download.

Seven are drawn, one is real: scikit-learn's 1,797 handwritten digits. A task is a set of concepts (what is drawn), a
pose range and one camera of its own. Images are drawn in blocks of one class, each block from its own seed, so the
same seed gives the same bits whatever the number of threads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import lru_cache

import numpy as np
import torch

from rmtllmf_lib.arrays import one_of
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import TASK_NAMES, Split, Task, carve_validation, fingerprint
from rmtllmf_lib.tasks.embedded.camera import Camera
from rmtllmf_lib.tasks.embedded.concepts import aerial, cars, characters, landuse, scenes, signs, textures
from rmtllmf_lib.tasks.embedded.draw import SIZE, Canvas

Concept = Callable[[Canvas], None]
BLOCK = 64  # images of one class drawn together: the working set stays in the cache


@dataclass(frozen=True)
class Pose:
    """How an object stands before the camera: the arguments of `Canvas`."""

    angle: tuple[float, float] = (-10.0, 10.0)
    scale: tuple[float, float] = (0.75, 1.05)
    shift: float = 0.15
    flip: bool = False


@dataclass(frozen=True)
class DrawnTask:
    """The recipe of a drawn task."""

    title: str
    concepts: Mapping[str, Concept]
    templates: tuple[str, ...]
    pose: Pose
    camera: Camera = field(default_factory=Camera)


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
_DIGIT_TRAIN = 1200  # the other 597 of scikit-learn's 1,797 are the test set


def draw(concept: Concept, n: int, rng: np.random.Generator, pose: Pose, camera: Camera) -> np.ndarray:
    """`n` photographs (n, 3, 32, 32) uint8 of one concept."""
    canvas = Canvas(n, rng, **{f.name: getattr(pose, f.name) for f in fields(pose)})
    concept(canvas)
    return camera.photograph(canvas)


Job = tuple[Concept, int, Pose, Camera, tuple[int, ...]]  # what, how many, pose, camera, seed words


def draw_blocks(jobs: Sequence[Job]) -> np.ndarray:
    """Draw every job on all cores; photographs (n, 3, 32, 32) uint8 in the order of the jobs."""

    def one(job: Job) -> np.ndarray:
        concept, count, pose, camera, words = job
        return draw(concept, count, np.random.default_rng(words), pose, camera)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(one, jobs)))


def _word(text: str) -> int:
    """A seed word that does not depend on Python's hash seed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def _drawn(name: str, part: str, count: int, seed: int, dealer: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of one part of a drawn task, in the dealer's order."""
    recipe = DRAWN[name]
    jobs: list[Job] = []
    labels: list[int] = []
    classes = len(recipe.concepts)
    for label, concept in enumerate(recipe.concepts.values()):
        of_class = count // classes + (label < count % classes)
        for start in range(0, of_class, BLOCK):
            words = (seed, _word(name), _word(part), label, start)
            jobs.append((concept, min(BLOCK, of_class - start), recipe.pose, recipe.camera, words))
        labels += [label] * of_class
    order = torch.randperm(count, generator=dealer)
    return torch.from_numpy(draw_blocks(jobs))[order], torch.tensor(labels)[order]


@lru_cache(maxsize=1)
def _handwritten() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's digits at 32 pixels: (1797, 3, 32, 32) uint8 and labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images.astype(np.float32) / 16.0)[:, None]
    large = torch.nn.functional.interpolate(small, SIZE, mode="bilinear", align_corners=False)
    return (large * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous(), torch.tensor(bunch.target)


def procedural_task(name: str, *, seed: int = 0, n_train: int | None = None, n_test: int | None = None) -> Task:
    """One of the eight embedded tasks.

    Parameters
    ----------
    name : str
        One of `TASK_NAMES`.
    seed : int
        Draws other images of the same task. The digits are real: the seed only deals them into train and test.
    n_train, n_test : int, optional
        Images (validation is carved out of train); default 4,000 and 1,200. Digits: at most 1,200 and 597.

    Returns
    -------
    Task
        Images (n, 3, 32, 32) uint8 in memory, in random order.

    Raises
    ------
    InputError
        Unknown name, a negative seed, or a count below 10 or, for the digits, larger than there are.
    """
    one_of(name, TASK_NAMES, "procedural task")
    limits = (_DIGIT_TRAIN, len(_handwritten()[1]) - _DIGIT_TRAIN) if name == "digits" else (10**7, 10**7)
    wanted = [min(4000, limits[0]) if n_train is None else n_train, min(1200, limits[1]) if n_test is None else n_test]
    for what, count, limit in zip(("n_train", "n_test"), wanted, limits, strict=True):
        if not isinstance(count, int | np.integer) or not 10 <= count <= limit:
            raise InputError(f"{what} of task {name!r} is {count!r}: expected 10…{limit} images")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed is {seed!r}: expected a whole number of 0 or more")
    dealer = torch.Generator().manual_seed(_word(f"{name}-{seed}"))
    if name == "digits":
        title, class_names, templates = "Handwritten digits", characters.DIGIT_NAMES, _DIGIT_TEMPLATES
        images, labels = _handwritten()
        order = torch.randperm(len(labels), generator=dealer)
        parts = (order[: wanted[0]], order[_DIGIT_TRAIN : _DIGIT_TRAIN + wanted[1]])
        train, test = ((images[part], labels[part]) for part in parts)
    else:
        recipe = DRAWN[name]
        title, class_names, templates = recipe.title, tuple(recipe.concepts), recipe.templates
        train, test = (
            _drawn(name, part, count, seed, dealer) for part, count in zip(("train", "test"), wanted, strict=True)
        )
    kept, held_out = carve_validation(train[1], seed=seed)
    return Task(
        name=name,
        title=title,
        class_names=class_names,
        templates=templates,
        train=Split(*train).subset(kept),
        validation=Split(*train).subset(held_out),
        test=Split(*test),
        source="procedural",
        fingerprint=fingerprint([*train, *test, class_names]),
    )
