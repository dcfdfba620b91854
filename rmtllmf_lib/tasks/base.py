"""The form of a task: images or texts with labels in three splits, class names and prompt templates.

Every source (procedural, torchvision, a folder) returns the same `Task`, so that nothing downstream depends on where
its inputs came from. Two rules hold for all splits: validation inputs are carved out of the training inputs, never out
of the test inputs; and a hash of an image's name, or of a text, decides its split, so the split depends neither on the
order of the files nor on a random number generator.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rmtllmf_lib.arrays import seed_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.images import Indices, LazyImages, decode_images, require_decodable
from rmtllmf_lib.validated import validated_call, validated_init

# The eight embedded tasks; those of the source "torchvision" are `rmtllmf_lib.tasks.vision.VISION_NAMES`.
TASK_NAMES = ("cars", "textures", "landuse", "signs", "digits", "aerial", "scenes", "housenumbers")
SPLITS = ("train", "validation", "test")

# Pixel statistics that every OpenAI CLIP was trained with (Radford et al., 2021), for intensities in [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# RGB pixels in memory, images decoded on demand, or texts. Only the packages `tasks` and `model`, and the loading of
# batches, look inside.
Inputs: TypeAlias = Tensor | LazyImages | tuple[str, ...]

VALIDATION_FRACTION = 0.1
VALIDATION_AT_MOST = 5000


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs of a model with their labels.

    Attributes
    ----------
    inputs : (n, 3, H, W) uint8 tensor, LazyImages of length n, or tuple of n str
        RGB pixels in memory (0–255), images that are decoded on demand at their own sizes, or texts.
    labels : (n,) int64 tensor
        Positions in the task's `class_names`.

    Raises
    ------
    InputError
        if the inputs have another form, or the numbers of inputs and labels differ.
    """

    inputs: Inputs
    labels: Tensor

    __repr__ = short_repr

    def __post_init__(self) -> None:
        inputs, labels = self.inputs, self.labels
        rgb = isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.ndim == 4 and inputs.shape[1] == 3
        texts = isinstance(inputs, tuple) and all(isinstance(text, str) for text in inputs)
        if not rgb and not texts and not isinstance(inputs, LazyImages):
            raise InputError(
                f"inputs are {_form(inputs)}; expected LazyImages, a uint8 tensor of shape (n, 3, H, W), or a tuple of "
                "texts"
            )
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            raise InputError(f"labels are {_form(labels)}; expected int64 of shape (n,)")
        if len(inputs) != len(labels):
            raise InputError(f"{len(inputs)} {self.what} but {len(labels)} labels; each of them needs one label")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def what(self) -> str:
        """What the inputs are: "images" or "texts"."""
        return "texts" if isinstance(self.inputs, tuple) else "images"

    @property
    def bytes(self) -> int:
        """Uncompressed size of inputs and labels; texts count in UTF-8."""
        labels = self.labels.numel() * self.labels.element_size()
        if isinstance(self.inputs, tuple):
            return labels + sum(len(text.encode()) for text in self.inputs)
        if isinstance(self.inputs, LazyImages):
            raise InputError("images that are decoded on demand have no size: take them into memory first")
        return labels + self.inputs.numel() * self.inputs.element_size()

    @validated_call
    def subset(self, indices: Indices) -> Split:
        """The inputs at `indices`, in that order: a copy of a tensor, or still lazy."""
        found, n = np.asarray(indices), len(self)
        if found.size and (found.ndim != 1 or found.dtype.kind not in "iu" or not -n <= found.min() <= found.max() < n):
            raise InputError(f"indices are {indices!r:.60}: expected a list of whole numbers from 0 to {n - 1}")
        chosen = torch.as_tensor(found, dtype=torch.int64)
        return Split(take(self.inputs, chosen), self.labels[chosen])

    def in_memory(self, image_size: int | None) -> Split:
        """The same split with all images decoded or resized to (n, 3, image_size, image_size); texts as they are."""
        if isinstance(self.inputs, tuple):
            return self
        if image_size is None:
            raise InputError("image_size is None, which is for texts: give the side in pixels for images")
        return Split(decode_images(self.inputs, image_size), self.labels)

    @classmethod
    @validated_call
    def joined(cls, splits: Sequence[Split]) -> Split:
        """One split after another, all of texts, or all of images in memory at one size; InputError otherwise."""
        if not splits:
            raise InputError("there is no split to join: give at least one")
        first, labels = splits[0], torch.cat([split.labels for split in splits])
        if all(isinstance(split.inputs, tuple) for split in splits):
            return cls(tuple(text for split in splits for text in split.inputs), labels)  # type: ignore[misc]  # all are texts
        shapes = {tuple(split.inputs.shape[1:]) for split in splits if isinstance(split.inputs, Tensor)}
        if len(shapes) != 1 or not all(isinstance(split.inputs, Tensor) for split in splits):
            raise InputError(
                f"splits of {', '.join(sorted({split.what for split in splits}))} cannot be joined: expected "
                f"{first.what} alone, and images in memory at one size"
            )
        return cls(torch.cat([split.inputs for split in splits if isinstance(split.inputs, Tensor)]), labels)


def take(inputs: Inputs, indices: Tensor | NDArray[np.int64]) -> Inputs:
    """The inputs at `indices`, in that order."""
    if isinstance(inputs, tuple):
        return tuple(inputs[int(i)] for i in indices)
    return inputs.take(indices) if isinstance(inputs, LazyImages) else inputs[indices]


def _form(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


@validated_init
@dataclass(frozen=True, eq=False)
class Task:
    """A classification task with its inputs, class names and prompt templates.

    Attributes
    ----------
    name, title : str
        A short key (`"mnist"`) and a readable name (`"MNIST"`).
    class_names : tuple of str
        Readable names; a label is a position in this tuple.
    templates : tuple of str
        Prompts with one `{}` for the class name: `"a photo of a {}."`.
    train, validation, test : Split
        `validation` is carved out of the training inputs.
    source : str
        `"procedural"`, `"torchvision"` or `"folder"`.
    fingerprint : str
        sha256 that identifies the inputs, the labels and the split; a key for stored results.
    mean, std : three floats
        Pixel statistics for the normalisation of images, RGB, for intensities in [0, 1]. They must equal those of the
        backbone (checked by `training.heads.build_head`).
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    source: str
    fingerprint: str
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    __repr__ = short_repr

    @property
    def what(self) -> str:
        """What its inputs are: "images" or "texts"."""
        return self.train.what

    def __post_init__(self) -> None:
        require_class_names(self.class_names, f"task {self.name!r}")
        require_templates(self.templates, f"task {self.name!r}")
        if len({split.what for split in (self.train, self.validation, self.test)}) > 1:
            raise InputError(f"task {self.name!r} has splits of texts and of images: expected one kind in all of them")
        for split_name in ("train", "validation", "test"):
            labels = getattr(self, split_name).labels
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.class_names):
                raise InputError(
                    f"task {self.name!r}: {split_name} has labels from {int(labels.min())} to {int(labels.max())}; "
                    f"expected 0 to {len(self.class_names) - 1}, one for each of the {len(self.class_names)} classes"
                )


def require_readable(*tasks: Task) -> None:
    """Decode every lazy image of all splits once; `InputError` names all that cannot be decoded."""
    splits = (split for task in tasks for split in (task.train, task.validation, task.test))
    require_decodable([split.inputs for split in splits if isinstance(split.inputs, LazyImages)])


@validated_call
def require_class_names(names: Sequence[str], what: str) -> None:
    """Raise `InputError` if there are no names, or if one is empty or occurs twice."""
    if not names:
        raise InputError(f"{what}: no class names; at least one class is needed")
    for index, name in enumerate(names):
        if not name.strip():
            raise InputError(f"{what}: class {index} has an empty name; give it a readable one")
        if name in names[:index]:
            raise InputError(f"{what}: class name {name!r} appears twice; a text head needs one name per class")


@validated_call
def require_templates(templates: Sequence[str], what: str) -> None:
    """Raise `InputError` unless there is at least one template and each holds exactly one `{}`."""
    if not templates:
        raise InputError(f"{what}: no prompt templates; give at least one, such as 'a photo of a {{}}.'")
    for template in templates:
        if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
            raise InputError(
                f"{what}: template {template!r} must hold exactly one {{}} (the place of the class name) "
                "and no other braces"
            )


# --- splits -----------------------------------------------------------------------------------------------------------


def hash_fraction(key: str, salt: str = "") -> float:
    """A number in [0, 1) determined by `key` and `salt`: the first 8 bytes of a sha256, over 2^64."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _whole_numbers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and (found.dtype.kind not in "iu" or found.min() < 0)):
        raise InputError(f"{name} are {values!r:.60}: expected a list of whole numbers of at least 0")
    return found.astype(np.int64)


@validated_call
def stratified_counts(sizes: ArrayLike, total: int, keep: int = 0, least: int = 0) -> NDArray[np.int64]:
    """Number of images to take from each class so that `total` are taken in proportion to the class sizes.

    Rounded by the largest-remainder method; ties go to the earlier class.

    Parameters
    ----------
    sizes : (K,) int
        Images per class.
    total : int
        Images wanted in all; fewer are taken if `keep` does not leave enough.
    keep : int
        Images of every class that must not be taken.
    least : int
        Images to take from every class that has them, if `total` suffices for that.

    Returns
    -------
    (K,) int64
    """
    size = _whole_numbers(sizes, "sizes")
    for name, value in (("total", total), ("keep", keep), ("least", least)):
        whole_number(value, name, minimum=0)
    room = np.maximum(size - keep, 0)
    total = min(total, int(room.sum()))
    floor = np.minimum(room, least)
    if floor.sum() > total:
        floor[:] = 0
    excess = np.maximum(size * total / max(int(size.sum()), 1) - floor, 0)
    share = excess * (total - floor.sum()) / max(float(excess.sum()), 1e-300)
    counts = np.minimum(floor + np.floor(share).astype(np.int64), room)
    order = np.argsort(-(share - np.floor(share)), kind="stable")
    while (missing := total - int(counts.sum())) > 0:
        open_classes = order[counts[order] < room[order]]
        counts[open_classes[:missing]] += 1
    return counts


@validated_call
def pinned_sample(
    labels: ArrayLike, total: int, *, keys: Sequence[str] | None = None, salt: str = "", keep: int = 0, least: int = 0
) -> NDArray[np.int64]:
    """Positions of `total` images, stratified by class: in each class, those with the smallest hashes.

    Parameters
    ----------
    labels : (n,) int
        Class of each image.
    total : int
        Images wanted, distributed over the classes by `stratified_counts`.
    keys : n strings, optional
        Identifiers of the images, such as their relative paths. Default: their positions.
    salt : str
        Different salts give independent samples.
    keep, least : int
        As in `stratified_counts`.

    Returns
    -------
    (total,) int64, ascending
    """
    label = _whole_numbers(labels, "labels")
    names = list(map(str, range(len(label)))) if keys is None else keys
    if len(names) != len(label):
        raise InputError(f"{len(names)} keys for {len(label)} labels; each image needs one key")
    rank = np.array([hash_fraction(name, salt) for name in names])
    # Hashes are equal only if the keys are; the sort is stable, so the position breaks the tie.
    order = np.lexsort((rank, label))
    sizes = np.bincount(label)
    counts = stratified_counts(sizes, total, keep, least)
    place_in_class = np.arange(len(label)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[place_in_class < np.repeat(counts, sizes)])


@validated_call
def validation_count(images: int) -> int:
    """Number of images to hold out: 10 %, at least 1 and at most 5,000 (Ilharco et al., 2023)."""
    whole_number(images, "images", minimum=0)
    return min(max(round(VALIDATION_FRACTION * images), 1), VALIDATION_AT_MOST)


@validated_call
def carve_validation(
    labels: ArrayLike, seed: int = 0, keys: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split training images into training and validation, stratified by class and fixed by a hash.

    The same labels, keys and seed give the same split on every machine. `validation_count` images are held out, fewer
    if the classes cannot spare them: every class keeps at least one training image.

    Parameters
    ----------
    labels : (n,) int
        Class of each training image.
    seed : int
        Chooses another split of the same sizes.
    keys : n strings, optional
        Identifiers of the images; default their positions. With file names the split survives reordering.

    Returns
    -------
    (train, validation) : int64 positions, ascending, disjoint, together 0 … n−1
    """
    n = len(_whole_numbers(labels, "labels"))
    seed_number(seed)
    validation = pinned_sample(labels, validation_count(n), keys=keys, salt=f"validation {seed}", keep=1)
    return np.setdiff1d(np.arange(n), validation), validation


@validated_call
def fingerprint(parts: Iterable[Any]) -> str:
    """sha256 (hex) over a sequence of bytes, tensors, arrays and JSON values, each with its type and length."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            head = f"{part.dtype.str}{part.shape}".encode()
            body: Any = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
        elif isinstance(part, bytes):
            head, body = b"bytes", part
        else:
            head, body = b"json", json.dumps(part, sort_keys=True, allow_nan=False).encode()
        digest.update(f"{len(head)}:{len(body)}:".encode() + head)
        digest.update(body)
    return digest.hexdigest()
