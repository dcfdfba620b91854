"""Accuracy of models: on one task, normalised by the specialists', and for every combination of tasks.

Evaluation dominates the cost of a study: thousands of models see the same images. So a split can be prepared once for
all models, and the models of a table are shared among threads. torch uses one core in each of these threads, so the
bits of a table do not depend on their number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from rmtllmf_lib.arrays import one_of, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.fusion import fuse
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.model.tower import EMBEDDINGS, AnyTower, any_tower, cut, embed, encode
from rmtllmf_lib.tasks.base import Split, Task, pinned_sample
from rmtllmf_lib.tasks.images import LazyImages
from rmtllmf_lib.threads import single_threads
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import batches, resolve_device

BATCH = 125  # images; their activations in the tiny tower about fill a typical L2 cache
CACHE_BYTES = 2**28  # of a prepared split; for larger ones the forward pass costs far more than the preparation
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A split prepared by `prepare` for the evaluation of many models.

    Attributes
    ----------
    split : Split
    patches, tokens : lists of float32 tensors, one per batch; empty if they are recomputed for each model
        Images cut into patches; their embeddings by the base, for all models that share its embeddings.
    embeddings : mapping
        The base's embedding weights, by name.
    """

    backbone: Backbone
    tower: AnyTower
    split: Split
    batch_size: int
    device: torch.device
    patches: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)

    def cut(self) -> Iterator[Tensor]:
        """Yield the patches (b, patches, 3 * patch**2), batch by batch."""
        if self.patches:
            yield from self.patches
        else:
            for images, _ in batches(self.backbone, self.split, batch_size=self.batch_size, device=self.device):
                yield cut(self.tower, images)

    @torch.no_grad()
    def logits(self, weights: Weights, head: Head) -> Tensor:
        """Logits (n, C) of a model, on the CPU: logit_scale · normalise(f(x)) · weightᵀ."""
        weights.layout.require_equal(self.backbone.weights.layout, "the weights")
        tensors = weights.layout.views(weights.values.to(self.device))
        rows = head.weight.to(self.device)
        if rows.shape[1] != self.backbone.model.visual.output_dim:
            raise InputError(
                f"the head has {rows.shape[1]} columns and the backbone {self.backbone.name!r} makes "
                f"{self.backbone.model.visual.output_dim} features; build the head with the same backbone"
            )
        shared = bool(self.tokens) and all(torch.equal(tensors[name], base) for name, base in self.embeddings.items())
        batch_tokens = self.tokens if shared else (embed(self.tower, tensors, patches) for patches in self.cut())
        features = (encode(self.tower, tensors, tokens) for tokens in batch_tokens)
        return torch.cat([(head.logit_scale * functional.normalize(part, dim=-1) @ rows.T).cpu() for part in features])


@torch.no_grad()
def prepare(
    backbone: Backbone,
    split: Split,
    *,
    limit: int | None = None,
    batch_size: int = BATCH,
    device: str = "cpu",
    keep: bool = True,
) -> Prepared:
    """A split with everything precomputed that does not depend on the model.

    Parameters
    ----------
    limit : int, optional
        Use only so many images, stratified by class, the same ones each time.
    batch_size : int
        Images per forward pass.
    device : "cpu", "cuda", "cuda:<number>" or "auto"
    keep : bool
        False, for a single model, keeps nothing in memory.

    Raises
    ------
    InputError
        for an empty split, or a device that is not there.
    """
    whole_number(batch_size, "batch_size")
    if limit is not None:
        whole_number(limit, "limit")
        if limit < len(split):
            split = split.subset(pinned_sample(split.labels, limit, salt="limit"))
    if len(split) == 0:
        raise InputError("there are no images to evaluate on: the split is empty; give one with at least one image")
    tower = any_tower(backbone.model.visual)
    if keep and isinstance(split.images, LazyImages) and len(split) * 3 * backbone.image_size**2 <= CACHE_BYTES:
        split = split.in_memory(backbone.image_size)
    plain = Prepared(backbone, tower, split, batch_size, resolve_device(device))
    base = backbone.weights.state_dict()
    one = cut(tower, torch.zeros(1, 3, backbone.image_size, backbone.image_size))
    per_image = 4 * (one.numel() + embed(tower, base, one).numel())
    if not keep or per_image * len(split) > CACHE_BYTES:
        return plain
    patches = list(plain.cut())
    embeddings = {name: base[name].to(plain.device) for name in EMBEDDINGS if name in base}
    tokens = [embed(tower, embeddings, part) for part in patches]
    return replace(plain, patches=patches, tokens=tokens, embeddings=embeddings)


def predictions(
    backbone: Backbone,
    weights: Weights,
    split: Split | Prepared,
    head: Head,
    *,
    batch_size: int = BATCH,
    device: str = "cpu",
) -> Tensor:
    """The class that a model predicts for each image.

    Parameters
    ----------
    weights
        The model's parameters theta, of the backbone's layout.
    split
        Images; a prepared split has its own batch size and device.

    Returns
    -------
    (n,) int64; -1 where the logits are not finite, so that a model destroyed by noise gets no credit for a guess.

    Raises
    ------
    InputError
        for an empty split, another layout, a head of another dimension, a device that does not exist.
    """
    if not isinstance(split, Prepared):
        split = prepare(backbone, split, batch_size=batch_size, device=device, keep=False)
    logits = split.logits(weights, head)
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def accuracy(
    backbone: Backbone,
    weights: Weights,
    split: Split | Prepared,
    head: Head,
    *,
    batch_size: int = BATCH,
    device: str = "cpu",
) -> float:
    """Share of the images that a model classifies correctly, in [0, 1]; see `predictions`.

    Raises
    ------
    InputError
        as `predictions` does, and for labels that are not classes of the head.
    """
    labels = split.split.labels if isinstance(split, Prepared) else split.labels
    classes = len(head.class_names)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"labels go from {int(labels.min())} to {int(labels.max())} and the head has {classes} classes, "
            f"so 0 to {classes - 1} were expected; take split and head of the same task"
        )
    predicted = predictions(backbone, weights, split, head, batch_size=batch_size, device=device)
    return int((predicted == labels).sum()) / len(labels)


def normalized_accuracy(accuracy: ArrayLike, reference: ArrayLike) -> Any:
    """Accuracy divided by that of the model fine-tuned on the task alone, elementwise; 1 equals the specialist.

    Raises
    ------
    InputError
        if a reference is not a positive number.
    """
    if not (valid := np.isfinite(reference) & (np.asarray(reference) > 0)).all():
        found = np.asarray(reference)[~valid].flat[0]
        raise InputError(
            f"a reference accuracy is {found}: expected a number above 0; evaluate the specialist on more images, "
            "or fine-tune it longer"
        )
    ratio = np.asarray(accuracy) / np.asarray(reference)
    return float(ratio) if ratio.ndim == 0 else ratio


def task_combinations(names: Iterable[str], sizes: Iterable[int] | None = None) -> list[tuple[str, ...]]:
    """All combinations of tasks of the given sizes (default: 2 to all), smaller ones first, names in the given order.

    Eight tasks have 247 combinations of two or more.
    """
    names = tuple(names)
    if len(set(names)) < len(names):
        raise InputError(f"task names {names} are not all different; give each task once")
    sizes = range(2, len(names) + 1) if sizes is None else tuple(sizes)
    if not names or any(not 1 <= size <= len(names) for size in sizes):
        raise InputError(f"sizes {tuple(sizes)} for {len(names)} tasks; expected whole numbers from 1 to that")
    return [combination for size in sizes for combination in itertools.combinations(names, size)]


def evaluate_combinations(
    backbone: Backbone,
    taus: Mapping[str, TaskVector],
    tasks: Mapping[str, Task],
    heads: Mapping[str, Head],
    lam: Callable[[int], float],
    *,
    split: str = "test",
    limit: int | None = None,
    sizes: Sequence[int] | None = None,
    all_tasks: bool = False,
    threads: int = 1,
    batch_size: int = BATCH,
    device: str = "cpu",
    progress: bool = True,
) -> pd.DataFrame:
    """Fuse every combination of task vectors, Eq. (6), and evaluate it on the tasks in it.

    Parameters
    ----------
    taus, tasks, heads : mappings with the same names
    lam : callable
        The coefficient lambda_N for N fused tasks; `fusion.lambda_n`, for example.
    split : "test", "validation" or "train"
    limit : int, optional
        Images of each task, see `prepare`.
    sizes : sequence of int, optional
        Numbers of tasks in a combination; default 2 to all.
    all_tasks : bool
        Evaluate each combination on all tasks; a column `member` marks those in it.
    threads : int
        Threads that share the combinations; always one on a GPU. The table does not depend on their number.
    progress : bool
        Show a bar, on a terminal only.

    Returns
    -------
    DataFrame with one row for each combination and task: `combination` (names joined by +), `n_tasks`, `task`, `lam`,
    `accuracy`, `reference` (accuracy of base + tau of the task alone, on the same images) and their ratio `normalized`.

    Raises
    ------
    InputError
        if the names differ, a head belongs to another task, or for the reasons of `accuracy` and `fuse`.
    """
    whole_number(threads, "threads")
    names = list(taus)
    one_of(split, SPLITS, "split")
    for what, mapping in (("tasks", tasks), ("heads", heads)):
        if missing := [name for name in names if name not in mapping]:
            raise InputError(f"there are task vectors of {', '.join(names)}, but no {what} for {', '.join(missing)}")
    for name in names:
        heads[name].require_classes(tasks[name])
    combinations = task_combinations(names, sizes)
    prepared = {
        name: prepare(backbone, getattr(tasks[name], split), limit=limit, batch_size=batch_size, device=device)
        for name in names
    }
    factors = {size: float(lam(size)) for size in sorted({len(c) for c in combinations})}

    def specialist(name: str) -> float:
        weights = fuse(backbone.weights, [taus[name]], 1.0)
        return accuracy(backbone, weights, prepared[name], heads[name])

    def evaluate(combination: tuple[str, ...]) -> list[tuple[str, float]]:
        weights = fuse(backbone.weights, [taus[name] for name in combination], factors[len(combination)])
        members = names if all_tasks else combination
        return [(name, accuracy(backbone, weights, prepared[name], heads[name])) for name in members]

    with single_threads(1 if resolve_device(device).type == "cuda" else threads) as pool:
        reference = dict(zip(names, pool.map(specialist, names), strict=True))
        if useless := [name for name, value in reference.items() if value == 0]:
            raise InputError(
                f"the accuracy of the fine-tuned models of {', '.join(useless)} is 0: expected some correct images to "
                "normalise by; fine-tune them longer, or evaluate on more images"
            )
        bar = tqdm(total=len(combinations), desc="combinations", disable=None if progress else True, leave=False)
        with bar:
            results = []
            # The largest ones first, so that all threads finish at about the same time.
            for result in pool.map(evaluate, reversed(combinations)):
                results.append(result)
                bar.update()
    rows = [
        ("+".join(c), len(c), name, factors[len(c)], value, reference[name], name in c)
        for c, result in zip(combinations, reversed(results), strict=True)
        for name, value in result
    ]
    columns = ["combination", "n_tasks", "task", "lam", "accuracy", "reference", "member"]
    table = pd.DataFrame(rows, columns=columns)
    table["normalized"] = normalized_accuracy(table["accuracy"], table["reference"])
    return table if all_tasks else table.drop(columns="member")
