"""Classification heads: a frozen linear classifier built from class names or from mean features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rmtllmf_lib.arrays import one_of
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone, WordTokenizer, text_features
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training.loading import batches, by_length, require_kind, require_tasks
from rmtllmf_lib.validated import validated_call

HEAD_KINDS = ("text", "prototype")


@dataclass(frozen=True, eq=False)
class Head:
    """A frozen classifier on features: logits = logit_scale · normalise(f(x)) · weightᵀ.

    Attributes
    ----------
    weight : (C, embed_dim) float32, rows of norm 1
    logit_scale : float
    kind : "text" or "prototype"
    class_names : tuple of C str
    """

    weight: Tensor
    logit_scale: float
    kind: str
    class_names: tuple[str, ...]

    __repr__ = short_repr

    @cached_property
    def hash(self) -> str:
        """sha256 of the weight and the scale, which decide the logits. Never change the weight in place."""
        return hashlib.sha256(self.weight.numpy().tobytes() + str(self.logit_scale).encode()).hexdigest()

    @validated_call
    def require_classes(self, task: Task) -> None:
        """Check that the head was built for the classes of the task."""
        if self.class_names != task.class_names:
            raise InputError(
                f"the head for task {task.name!r} is for {len(self.class_names)} classes {self.class_names[:4]} …: "
                f"expected {len(task.class_names)}, {task.class_names[:4]} …; use build_head(backbone, task)"
            )


@validated_call
def build_head(backbone: Backbone, task: Task, kind: str = "text") -> Head:
    """The zero-shot head of a task.

    Parameters
    ----------
    kind : "text" or "prototype"
        "text": for each class, the text features of all templates, normalised, averaged, normalised (Radford et al.,
        2021). "prototype": for each class, the mean of the base's normalised features of the training inputs,
        normalised; for class names outside the text tower's vocabulary.

    Raises
    ------
    InputError
        for an unknown kind; class names or templates outside the vocabulary (kind "text"); a class without training
        inputs, and images of any split that cannot be decoded (kind "prototype"); a task of texts for a backbone that
        reads images, or the reverse; a task with other pixel statistics than the backbone, which normalises all images.
    """
    one_of(kind, HEAD_KINDS, "head")
    require_kind(backbone, task.what, f"task {task.name!r}")
    if task.what == "texts":
        require_tasks(backbone, [task])
    for statistic in ("mean", "std"):
        asked, used = (tuple(getattr(owner, statistic)) for owner in (task, backbone))
        if asked != used:
            raise InputError(
                f"task {task.name!r} has pixel {statistic} {asked}: expected {used}, with which backbone "
                f"{backbone.name!r} normalises all images; leave the task's {statistic} at the backbone's"
            )
    weight = _text_rows(backbone, task) if kind == "text" else _prototype_rows(backbone, task)
    return Head(torch.nn.functional.normalize(weight, dim=-1), backbone.logit_scale, kind, task.class_names)


@torch.no_grad()
def _text_rows(backbone: Backbone, task: Task) -> Tensor:
    if isinstance(backbone.tokenizer, WordTokenizer):
        split, lacks = backbone.tokenizer.split, backbone.tokenizer.unknown
        if unknown := [name for name in task.class_names if lacks(name) or not split(name)]:
            some = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
            raise InputError(
                f"backbone {backbone.name!r} has no words for {len(unknown)} of {len(task.class_names)} class names of "
                f"task {task.name!r} ({some}): expected words of its vocabulary; "
                "choose the prototype head (kind='prototype', --head prototype)"
            )
    rows = []
    for name in task.class_names:
        rows.append(text_features(backbone, [template.format(name) for template in task.templates]).mean(0))
    return torch.stack(rows)


@torch.no_grad()
def _prototype_rows(backbone: Backbone, task: Task) -> Tensor:
    counts = torch.bincount(task.train.labels, minlength=len(task.class_names))
    if empty := [name for name, count in zip(task.class_names, counts.tolist(), strict=True) if count == 0]:
        raise InputError(
            f"task {task.name!r} has no training {task.what} of {', '.join(map(repr, empty[:5]))}: a prototype head "
            "needs at least one of every class; take more of them"
        )
    require_tasks(backbone, [task])
    total = torch.zeros(len(task.class_names), backbone.output_dim)
    for inputs, labels in batches(backbone, task.train.subset(by_length(task.train))):
        features = torch.nn.functional.normalize(backbone.tower(inputs), dim=-1)
        total.index_add_(0, labels, features)
    return total
