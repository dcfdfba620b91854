"""Accuracy of a model on the inputs of one task.

Evaluation dominates the cost of a study: thousands of models see the same inputs. So a split can be prepared once for
all models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from rmtllmf_lib.arrays import whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.model.tower import EMBEDDINGS, AnyTower, any_tower, cut, embed, encode
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.base import Split, pinned_sample
from rmtllmf_lib.tasks.images import LazyImages
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import batches, by_length, require_kind, resolve_device
from rmtllmf_lib.validated import validated_call

BATCH = 125  # images; their activations in the tiny tower about fill a typical L2 cache
CACHE_BYTES = 2**28  # of a prepared split; for larger ones the forward pass costs far more than the preparation


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
    order : (n,) int64, optional
        Order in which inputs are taken: texts of like lengths together, since the longest fills a batch up. Logits are
        in the order of the split all the same.
    """

    backbone: Backbone
    tower: AnyTower
    split: Split
    batch_size: int
    device: torch.device
    patches: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)
    order: Tensor | None = None

    __repr__ = short_repr

    def cut(self) -> Iterator[Tensor]:
        """Yield patches (b, patches, 3 * patch**2) of images, or tokens of texts, batch by batch."""
        if self.patches:
            yield from self.patches
        else:
            split = self.split if self.order is None else self.split.subset(self.order)
            for inputs, _ in batches(self.backbone, split, batch_size=self.batch_size, device=self.device):
                yield cut(self.tower, inputs)

    @torch.no_grad()
    def logits(self, weights: Weights, head: Head) -> Tensor:
        """Logits (n, C) of a model, on the CPU: logit_scale · normalise(f(x)) · weightᵀ."""
        weights.layout.require_equal(self.backbone.weights.layout, "the weights")
        tensors = weights.layout.views(weights.values.to(self.device))
        rows = head.weight.to(self.device)
        if rows.shape[1] != self.backbone.output_dim:
            raise InputError(
                f"the head has {rows.shape[1]} columns and the backbone {self.backbone.name!r} makes "
                f"{self.backbone.output_dim} features; build the head with the same backbone"
            )
        shared = bool(self.tokens) and all(torch.equal(tensors[name], base) for name, base in self.embeddings.items())
        batch_tokens = self.tokens if shared else (embed(self.tower, tensors, patches) for patches in self.cut())
        features = (encode(self.tower, tensors, tokens) for tokens in batch_tokens)
        found = torch.cat([(head.logit_scale * functional.normalize(part, dim=-1) @ rows.T).cpu() for part in features])
        return found if self.order is None else found[self.order.argsort()]


@validated_call
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
        Use only so many inputs, stratified by class, the same ones each time.
    batch_size : int
        Inputs per forward pass.
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
        raise InputError("there is nothing to evaluate on: the split is empty; give one with at least one input")
    tower = any_tower(backbone.tower)
    require_kind(backbone, split.what)
    side = backbone.image_size
    if side is None:
        return _prepared_texts(Prepared(backbone, tower, split, batch_size, resolve_device(device)), keep)
    if keep and isinstance(split.inputs, LazyImages) and len(split) * 3 * side**2 <= CACHE_BYTES:
        split = split.in_memory(side)
    plain = Prepared(backbone, tower, split, batch_size, resolve_device(device))
    base = backbone.weights.state_dict()
    one = cut(tower, torch.zeros(1, 3, side, side))
    per_image = 4 * (one.numel() + embed(tower, base, one).numel())
    if not keep or per_image * len(split) > CACHE_BYTES:
        return plain
    patches = list(plain.cut())
    embeddings = {name: base[name].to(plain.device) for name in EMBEDDINGS if name in base}
    tokens = [embed(tower, embeddings, part) for part in patches]
    return replace(plain, patches=patches, tokens=tokens, embeddings=embeddings)


def _prepared_texts(plain: Prepared, keep: bool) -> Prepared:
    """Texts in the order of their lengths, as tokens if they are to be kept; embedding them again costs little."""
    plain = replace(plain, order=by_length(plain.split))
    return replace(plain, patches=[*plain.cut()]) if keep else plain


@validated_call
def predictions(
    backbone: Backbone, weights: Weights, split: Split | Prepared, head: Head, *, device: str = "cpu"
) -> Tensor:
    """The class that a model predicts for each input.

    Parameters
    ----------
    weights
        The model's parameters theta, of the backbone's layout.
    split
        Images; a split from `prepare` has its own device.

    Returns
    -------
    (n,) int64; -1 where the logits are not finite, so that a model destroyed by noise gets no credit for a guess.

    Raises
    ------
    InputError
        for an empty split, another layout, a head of another dimension, a device that does not exist.
    """
    if not isinstance(split, Prepared):
        split = prepare(backbone, split, device=device, keep=False)
    logits = split.logits(weights, head)
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


@validated_call
def accuracy(
    backbone: Backbone, weights: Weights, split: Split | Prepared, head: Head, *, device: str = "cpu"
) -> float:
    """Share of the inputs that a model classifies correctly, in [0, 1]; see `predictions`.

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
    predicted = predictions(backbone, weights, split, head, device=device)
    return int((predicted == labels).sum()) / len(labels)
