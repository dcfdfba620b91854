"""Batches of a `Split` as a backbone takes them: in its own order for evaluation, shuffled for training.

Normalised floats of images, tokens of texts. This is the one place that turns the former into the latter.

Lazy images are decoded ahead by a few threads: decoders release Python's lock, so no processes are needed. The batches
do not depend on the number of threads, since every random number belongs to a training step.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from rmtllmf_lib.arrays import one_of, seed_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.text_tower import TextTokenizer
from rmtllmf_lib.seeds import drawn_seed, generator_for
from rmtllmf_lib.tasks.base import SPLITS, Split, Task, require_readable
from rmtllmf_lib.tasks.images import LazyImages, resize_batch, resize_image
from rmtllmf_lib.threads import ordered
from rmtllmf_lib.validated import validated_call

log = logging.getLogger(__name__)

AUGMENTATIONS = ("none", "crop")
CROP_SCALE = (0.9, 1.0)  # share of the area, Ilharco et al. (2023)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10


def resolve_device(device: str | torch.device) -> torch.device:
    """The device "cpu", "cuda", "cuda:<number>" or "auto", which is a GPU if there is one.

    Raises
    ------
    InputError
        for any other name, and for a GPU that does not exist.
    """
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise InputError(f"device is {name!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:<number>'")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise InputError(
            f"device is {name!r}: expected a GPU that torch can use, and it finds {count}; "
            "use 'cpu' or 'auto', or install a driver and a torch build that match the GPU"
        )
    return torch.device(name)


def normalize(images: Tensor, backbone: Backbone, device: str | torch.device = "cpu") -> Tensor:
    """Images normalised with the backbone's pixel statistics: (x / 255 - mean) / std per channel.

    Parameters
    ----------
    images : (n, 3, H, W) uint8

    Returns
    -------
    (n, 3, H, W) float32 on `device`
    """
    std = torch.tensor(backbone.std, dtype=torch.float64)
    gain = (1 / (255 * std)).to(device, torch.float32).view(3, 1, 1)
    shift = (torch.tensor(backbone.mean, dtype=torch.float64) / std).to(device, torch.float32).view(3, 1, 1)
    return images.to(device).to(torch.float32).mul_(gain).sub_(shift)


@validated_call
def require_kind(backbone: Backbone, what: str, of: str = "the split") -> None:
    """Raise an `InputError` unless a backbone reads "images" or "texts", whichever `of` holds."""
    if backbone.reads != what:
        other = "'minilm'" if what == "texts" else "'tiny'"
        raise InputError(
            f"{of} holds {what}, and backbone {backbone.name!r} reads {backbone.reads}: expected {backbone.reads}; "
            f"choose another task, or a backbone that reads {what}, such as {other}"
        )


@validated_call
def require_tasks(backbone: Backbone, tasks: Sequence[Task]) -> None:
    """Look once at every input of tasks, before the first of them is used.

    Texts that are longer than the backbone reads are cut, with one warning for each task.

    Raises
    ------
    InputError
        for tasks of another kind than the backbone reads, images that cannot be decoded, all of which are named, and a
        text without tokens.
    """
    for task in tasks:
        require_kind(backbone, task.what, f"task {task.name!r}")
    require_readable(*tasks)
    for task in tasks:
        texts = [text for part in SPLITS for text in getattr(task, part).inputs] if task.what == "texts" else []
        tokenizer = backbone.tokenizer
        if texts and isinstance(tokenizer, TextTokenizer) and (cut := tokenizer.beyond(texts)):
            _warn_of_cut(task.name, cut, len(texts), tokenizer.context_length)


@lru_cache(maxsize=1000)
def _warn_of_cut(task: str, cut: int, texts: int, length: int) -> None:
    log.warning("task %r: %d of %d texts are longer than %d tokens, and are cut there", task, cut, texts, length)


@validated_call
def batches(
    backbone: Backbone,
    split: Split,
    *,
    batch_size: int = 125,
    device: str | torch.device = "cpu",
    threads: int | None = None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield a split in batches, in its own order, as the backbone takes them.

    Parameters
    ----------
    backbone
        Determines the image size and the pixel statistics.
    batch_size : int
        Inputs per batch; the last batch may be smaller.
    threads : int, optional
        Threads that decode lazy images ahead, 0 for none; default: none for images in memory, else up to 8.

    Yields
    ------
    inputs, labels (b,) int64 on `device`
        The inputs are images (b, 3, S, S) float32, resized (bicubic, centre square) and normalised, or the tokens
        (b, T) int64 of texts.
    """
    require_kind(backbone, split.what)
    whole_number(batch_size, "batch_size")
    starts = range(0, len(split), batch_size)

    def make(start: int) -> tuple[Tensor, Tensor]:
        chosen = torch.arange(start, min(start + batch_size, len(split)))
        return _chosen(backbone, split, chosen), split.labels[chosen]

    for found, labels in ordered(make, starts, _threads(split, threads)):
        yield _ready(found, backbone, device), labels.to(device)


@dataclass(frozen=True)
class Schedule:
    """The order of the images in a training run and its random numbers, all from one seed.

    The random numbers of a step depend on the seed and the step alone, so a run can resume at any step.

    Attributes
    ----------
    images, steps, batch_size : int
        Number of training images, of steps, and of images per step.
    seed : int
    """

    images: int
    steps: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("images", "steps", "batch_size"):
            whole_number(getattr(self, name), name)
        seed_number(self.seed)

    @classmethod
    def draw(cls, images: int, steps: int, batch_size: int, generator: torch.Generator) -> Schedule:
        """A schedule whose seed is drawn from a CPU generator."""
        return cls(images, steps, batch_size, drawn_seed(generator))

    def indices(self, step: int) -> Tensor:
        """Indices (batch_size,) int64 of a step's images: one random permutation of all images after another."""
        first, last = step * self.batch_size, (step + 1) * self.batch_size
        epochs = range(first // self.images, (last - 1) // self.images + 1)
        orders = [torch.randperm(self.images, generator=generator_for(self.seed, 0, epoch)) for epoch in epochs]
        start = first - epochs[0] * self.images
        return torch.cat(orders)[start : start + self.batch_size]

    def uniforms(self, step: int, count: int) -> NDArray[np.float64]:
        """Random numbers (batch_size, count) in [0, 1) for a step's augmentation."""
        generator = generator_for(self.seed, 1, step)
        return torch.rand(self.batch_size, count, dtype=torch.float64, generator=generator).numpy()


@validated_call
def training_batches(
    backbone: Backbone,
    split: Split,
    schedule: Schedule,
    *,
    augment: str = "none",
    first_step: int = 0,
    device: str | torch.device = "cpu",
    threads: int | None = None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield the batches of a schedule from `first_step` on; `augment` is "none" or "crop".

    "crop" is a random crop of 0.9 to 1 of the area, of aspect ratio 3/4 to 4/3, resized bicubically.

    Yields
    ------
    inputs, labels (b,) int64 on `device`
        The inputs are images (b, 3, S, S) float32, resized (bicubic, centre square) and normalised, or the tokens
        (b, T) int64 of texts.
    """
    one_of(augment, AUGMENTATIONS, "augment")
    whole_number(first_step, "first_step", minimum=0)
    require_kind(backbone, split.what)
    side = backbone.image_size or 0
    if augment != "none" and split.what == "texts":
        raise InputError(f"augment is {augment!r}: expected 'none' for texts, which are not cropped")

    def make(step: int) -> tuple[Tensor, Tensor]:
        chosen = schedule.indices(step)
        if augment == "none":
            return _chosen(backbone, split, chosen), split.labels[chosen]
        uniforms = schedule.uniforms(step, 2 * CROP_TRIES + 2)
        return cropped_pixels(split, chosen, side, uniforms), split.labels[chosen]

    ahead = _threads(split, threads, busy=augment != "none")
    for found, labels in ordered(make, range(first_step, schedule.steps), ahead):
        yield _ready(found, backbone, device), labels.to(device)


@validated_call
def by_length(split: Split) -> Tensor:
    """Indices (n,) int64 that put short texts first, since the longest fills a batch up; images stay in order."""
    lengths = [len(text) if isinstance(text, str) else 0 for text in split.inputs] if split.what == "texts" else []
    return torch.tensor(lengths).argsort(stable=True) if lengths else torch.arange(len(split))


def inputs(backbone: Backbone, split: Split, indices: Tensor, device: str | torch.device = "cpu") -> Tensor:
    """The inputs of a split at `indices` as the backbone takes them, see `batches`."""
    return _ready(_chosen(backbone, split, indices), backbone, device)


def _chosen(backbone: Backbone, split: Split, indices: Tensor) -> Tensor:
    """Pixels of the images at `indices`, see `pixels`, or the tokens (n, T) int64 of the texts."""
    require_kind(backbone, split.what)
    if isinstance(split.inputs, tuple):
        return backbone.tokenizer([split.inputs[int(i)] for i in indices])
    return pixels(split, indices, backbone.image_size or 0)


def _ready(found: Tensor, backbone: Backbone, device: str | torch.device = "cpu") -> Tensor:
    """What `_chosen` returned, on a device: images normalised, tokens as they are."""
    return found.to(device) if backbone.reads == "texts" else normalize(found, backbone, device)


def pixels(split: Split, indices: Tensor, image_size: int) -> Tensor:
    """The images at `indices`, resized to the shorter side, centre square: (n, 3, image_size, image_size) uint8."""
    if isinstance(split.inputs, Tensor):
        return resize_batch(split.inputs[indices], image_size)
    images = split.inputs
    assert isinstance(images, LazyImages)
    return _stack(resize_image(images[int(i)], image_size) for i in indices)


def cropped_pixels(split: Split, indices: Tensor, image_size: int, uniforms: NDArray[np.float64]) -> Tensor:
    """Random crops of the images at `indices`, see `crop_box`: (n, 3, image_size, image_size) uint8."""

    def crop(index: int, numbers: NDArray[np.float64]) -> NDArray[np.uint8]:
        image: Any = split.inputs[index]
        if isinstance(image, Tensor):
            image = Image.fromarray(image.permute(1, 2, 0).numpy())
        box = crop_box(numbers, image.height, image.width)
        part = transforms.resized_crop(image, *box, [image_size, image_size], InterpolationMode.BICUBIC)
        return np.asarray(part, dtype=np.uint8)

    return _stack(crop(int(index), numbers) for index, numbers in zip(indices, uniforms, strict=True))


def crop_box(uniforms: NDArray[np.float64], height: int, width: int) -> tuple[int, int, int, int]:
    """The box that torchvision's RandomResizedCrop would choose, from given random numbers.

    Parameters
    ----------
    uniforms : (2 * CROP_TRIES + 2,) in [0, 1)
        Area and aspect ratio of each try, then the position.

    Returns
    -------
    top, left, height, width : int, pixels
        The largest centre crop of an allowed aspect ratio if no try fits into the image.
    """
    low, high = (math.log(ratio) for ratio in CROP_RATIO)
    for area, ratio in uniforms[:-2].reshape(CROP_TRIES, 2):
        target = height * width * (CROP_SCALE[0] + (CROP_SCALE[1] - CROP_SCALE[0]) * area)
        aspect = math.exp(low + (high - low) * ratio)
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(uniforms[-2] * (height - h + 1)), int(uniforms[-1] * (width - w + 1)), h, w
    aspect = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return (height - h) // 2, (width - w) // 2, h, w


def _stack(images: Iterable[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack([*images])).permute(0, 3, 1, 2).contiguous()


def _threads(split: Split, threads: int | None, busy: bool = False) -> int:
    if threads is None:
        lazy = busy or isinstance(split.inputs, LazyImages)
        return min(8, os.cpu_count() or 1) if lazy else 0
    return whole_number(threads, "threads", minimum=0)
