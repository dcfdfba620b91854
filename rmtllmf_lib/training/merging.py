"""What some mergers need to know of the users' inputs: Gram matrices, Fisher diagonals, learnt coefficients.

All of them take training images that the caller chooses; none may see test images. The published mergers of [1] adapt
to the unlabelled *test* images; here the same loss is minimised on training images.

References
----------
.. [1] E. Yang et al., "AdaMerging: Adaptive model merging for multi-task learning", ICLR 2024, arXiv:2310.02575.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmtllmf_lib.arrays import Real, one_of, real_number, torch_generator, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.mergers import merge, merger_named
from rmtllmf_lib.fusion.scaling import depths
from rmtllmf_lib.fusion.tensors import require_mergeable
from rmtllmf_lib.model.backbone import Backbone, fresh_tower
from rmtllmf_lib.model.differentiable_tower import Layers, features, forward
from rmtllmf_lib.model.layout import layout_name
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.model.text_tower import TextTower
from rmtllmf_lib.model.tower import cut, read_tower, trainable_tower
from rmtllmf_lib.tasks.base import Split, pinned_sample
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import Schedule, batches, inputs
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.validated import validated_call

LOSSES = ("entropy", "cross-entropy")

_RARE = 1e-4  # probability of a class that adds nothing to a Fisher diagonal that one would see


@dataclass(frozen=True, eq=False)
class _Listening(Layers):
    """Layers that add up the Gram matrices of what enters each matrix, found by the address of its numbers."""

    grams: dict[str, Tensor] = field(default_factory=dict)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        for name, tensor in self.weights.items():
            if tensor.data_ptr() == weight.data_ptr() and tensor.ndim == 2:
                rows = x.flatten(0, -2).double()
                self.grams[name] = self.grams.get(name, 0) + rows.T @ rows
        return super().linear(x, weight, bias)


@validated_call
@torch.no_grad()
def input_grams(backbone: Backbone, weights: Weights, split: Split) -> dict[str, Tensor]:
    """The sum of `x x'` over the inputs x of every matrix of a model, for `regmean`.

    Parameters
    ----------
    weights : Weights
        The model of one user.
    split : Split
        Images of its task; the labels are not used.

    Returns
    -------
    dict of parameter name to (n, n) float64
    """
    _require(backbone, weights, split)
    if isinstance(backbone.tower, TextTower):
        return _text_grams(backbone, weights, split)
    layers = _Listening(read_tower(backbone.tower), weights.state_dict())
    for images, _ in batches(backbone, split):
        forward(layers, cut(layers.tower, images))
    return layers.grams


def _text_grams(backbone: Backbone, weights: Weights, split: Split) -> dict[str, Tensor]:
    """Of what enters every linear layer of a text tower, without the tokens that fill rows up."""
    tower, grams = fresh_tower(backbone, weights), dict[str, Tensor]()
    assert isinstance(tower, TextTower)
    counted = torch.ones(1, 1, dtype=torch.bool)

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hear(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            rows = given[0][counted].double()
            grams[name] = grams.get(name, 0) + rows.T @ rows

        return hear

    for name, part in tower.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_pre_hook(listen(layout_name(f"{name}.weight")))
    for tokens, _ in batches(backbone, split):
        counted = tokens != tower.pad
        tower.together(tokens)  # in this order, which the mask has
    return grams


@validated_call
def fisher_diagonal(backbone: Backbone, weights: Weights, split: Split, head: Head) -> Tensor:
    """The diagonal of a model's Fisher information: the mean square of each log-likelihood's gradient.

    The mean is over the images and, exactly, over the classes as the model itself predicts them. Public code often
    squares a gradient summed over images and classes instead, which adds products of different ones.

    Parameters
    ----------
    weights : Weights
        The model of one user.
    split : Split
        Images of its task; the labels are not used.

    Returns
    -------
    (layout.size,) float32
    """
    _require(backbone, weights, split)
    tensors = {name: view.clone().requires_grad_(True) for name, view in weights.state_dict().items()}
    tower = trainable_tower(backbone.tower)
    total = [torch.zeros_like(tensor) for tensor in tensors.values()]
    for found, _ in batches(backbone, split):
        for one in found:
            log_p = _logits(features(tower, tensors, one[None]), head).log_softmax(-1)[0]
            for likelihood, p in zip(log_p, log_p.detach().exp(), strict=True):
                if p > _RARE:
                    gradients = torch.autograd.grad(likelihood, [*tensors.values()], retain_graph=True)
                    for square, gradient in zip(total, gradients, strict=True):
                        square.addcmul_(gradient, gradient, value=float(p) / len(split))
    return weights.layout.flatten(dict(zip(tensors, total, strict=True)))


@validated_call
def learn_coefficients(
    backbone: Backbone,
    taus: Sequence[TaskVector],
    splits: Mapping[str, Split],
    heads: Mapping[str, Head],
    *,
    loss: str = "entropy",
    by_depth: bool = False,
    steps: int = 1000,
    batch_size: int = 16,
    lr: float = 1e-3,
    start: float = 0.3,
    generator: torch.Generator,
) -> Real:
    """Coefficients of the task vectors that minimise a loss of the merged model, by Adam.

    Parameters
    ----------
    splits : mapping of task to Split
        Training images, or a memory's. A step takes `batch_size` of each.
    heads : mapping of task to Head
        For at least these tasks.
    loss : "entropy" or "cross-entropy"
        The mean entropy of the predictions, as in AdaMerging [1], which uses no labels; or their mean cross-entropy
        with the labels.
    by_depth : bool
        A coefficient for each vector and each of `scaling.depths`.
    steps, batch_size, lr, start
        As in [1]; coefficients stay in [0, 1].
    generator : torch.Generator
        On the CPU; a number is drawn for each task.

    Returns
    -------
    (N,) or (N, depth) float64, for `scaling.weighted`
    """
    one_of(loss, LOSSES, "loss")
    torch_generator(generator)
    require_mergeable(taus)
    taus[0].require_base(backbone.weights)
    if not splits or any(name not in heads for name in splits):
        raise InputError(f"there are inputs of {list(splits)} and heads of {list(heads)}: expected a head for each")
    for name, count in (("steps", steps), ("batch_size", batch_size)):
        whole_number(count, name)
    base, depth = backbone.weights.state_dict(), depths(backbone.weights.layout)
    shape = (len(taus), 1 + max(depth.values()) if by_depth else 1)
    c = torch.full(shape, real_number(start, "start", minimum=0, maximum=1), requires_grad=True)
    descent = torch.optim.Adam([c], real_number(lr, "lr", positive=True))
    schedules = {name: Schedule.draw(len(split), steps, batch_size, generator) for name, split in splits.items()}
    tower, users = trainable_tower(backbone.tower), [tau.state_dict() for tau in taus]
    for step in range(steps):
        chosen = {name: schedule.indices(step) for name, schedule in schedules.items()}
        parts = [splits[name].subset(where).in_memory(backbone.image_size) for name, where in chosen.items()]
        batch = inputs(backbone, Split.joined(parts), torch.arange(len(parts) * batch_size))
        row = c if by_depth else c.expand(-1, 1 + max(depth.values()))
        merged = {
            name: tensor + sum(row[k, depth[name]] * user[name] for k, user in enumerate(users))
            for name, tensor in base.items()
        }
        found = features(tower, merged, batch)
        total = torch.zeros(())
        for (name, where), part in zip(chosen.items(), found.split(batch_size), strict=True):
            total = total + _loss(_logits(part, heads[name]), splits[name].labels[where], loss)
        descent.zero_grad()
        total.backward()
        descent.step()
        with torch.no_grad():
            c.clamp_(0, 1)
    return c.detach().double().numpy() if by_depth else c.detach().double().numpy()[:, 0]


def _loss(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    if loss == "cross-entropy":
        return functional.cross_entropy(logits, labels)
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def _logits(features: Tensor, head: Head) -> Tensor:
    return head.logit_scale * functional.normalize(features.float(), dim=-1) @ head.weight.T


def _require(backbone: Backbone, weights: Weights, split: Split) -> None:
    weights.layout.require_equal(backbone.weights.layout, "the weights")
    if not len(split):
        raise InputError("there is nothing to learn from: the split is empty; give at least one input")


@validated_call
def training_sample(suite: Suite, images: int = 256) -> dict[str, Split]:
    """A fixed choice of training images of every task with a vector, stratified by class; labels come along."""
    whole_number(images, "images")
    return {
        name: split if len(split) <= images else split.subset(pinned_sample(split.labels, images, salt="merging"))
        for name, split in ((name, suite.tasks[name].train) for name in suite.taus)
    }


@validated_call
def merge_suite(
    suite: Suite, name: str, splits: Mapping[str, Split], *, generator: torch.Generator, **settings: Any
) -> dict[str, TaskVector]:
    """The vectors of a suite merged by name, with what the merger needs of the images.

    Parameters
    ----------
    name : str
        See `mergers.merger_named`.
    splits : mapping of task to Split
        Training images of every task with a vector: those of `training_sample`, or of a memory. Unused by mergers that
        need none.
    generator : torch.Generator
        On the CPU.
    **settings
        Of the merger, or of `learn_coefficients`.

    Returns
    -------
    dict of task to TaskVector
        The same one for all tasks, but for mergers that need the task of an image.

    Raises
    ------
    InputError
        for a task without images, and what `merge` raises.
    """
    torch_generator(generator)
    merger, taus, backbone = merger_named(name), suite.taus, suite.backbone
    images = {"grams", "fishers", "coefficients"} & {*merger.needs}
    if images and (missing := [task for task in taus if task not in splits]):
        raise InputError(f"merger {name!r} needs inputs of {', '.join(missing)}: expected training inputs of each task")
    if "coefficients" in merger.needs:
        users = {task: splits[task] for task in taus}
        learnt = {"loss": merger.learns, "by_depth": merger.by_depth, **settings, "generator": generator}
        settings = {"coefficients": learn_coefficients(backbone, [*taus.values()], users, suite.heads, **learnt)}
    measures: dict[str, Callable[[str], Any]] = {
        "grams": lambda task: input_grams(backbone, backbone.weights + taus[task], splits[task]),
        "fishers": lambda task: fisher_diagonal(
            backbone, backbone.weights + taus[task], splits[task], suite.heads[task]
        ),
    }
    given: dict[str, Any] = {
        need: [measure(task) for task in taus] for need, measure in measures.items() if need in merger.needs
    }
    given |= {"generator": generator, **settings}
    if "task" in merger.needs:
        return {task: merge(name, [*taus.values()], task=place, **given) for place, task in enumerate(taus)}
    return dict.fromkeys(taus, merge(name, [*taus.values()], **given))
