"""Few-shot realignment: a fused model trained for a few steps on the memory of all its tasks (Section III).

The loss is the mean cross-entropy over a batch that mixes the tasks, each input through the frozen head of its own
task. The forward pass is that of training, see `differentiable_tower.features`, without the gradients of frozen
parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from rmtllmf_lib.arrays import one_of, torch_generator
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.differentiable_tower import features
from rmtllmf_lib.model.layout import group_of
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.model.tower import trainable_tower
from rmtllmf_lib.protection.memory import Memory
from rmtllmf_lib.tasks.base import Split
from rmtllmf_lib.training.evaluate import prepare
from rmtllmf_lib.training.finetune import Recipe, precision, training_step
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import Schedule, inputs, resolve_device
from rmtllmf_lib.validated import validated_call

OPTIMIZERS = ("adamw", "sgd")

REALIGNMENT = Recipe(steps=60, batch_size=64, lr=1e-3, freeze=("embeddings",))


def _joined(memory: Memory, heads: Mapping[str, Head], device: torch.device) -> tuple[Split, Tensor, Tensor, Tensor]:
    """The memory of several tasks as one task whose classes are those of all heads.

    Returns
    -------
    inputs : Split
        All of them, with their labels in their own tasks.
    labels : (n,) int64
        Positions in `rows`.
    foreign : (n, C) bool
        True for the classes of other tasks.
    rows : (C, d)
        The rows of all heads, times their logit scales.
    """
    _require_heads(memory, heads)
    sizes = [len(heads[name].class_names) for name in memory.splits]
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    splits = list(memory.splits.values())
    labels = torch.cat([split.labels + start for split, start in zip(splits, starts, strict=True)])
    rows = torch.cat([heads[name].logit_scale * heads[name].weight for name in memory.splits])
    foreign = owner[labels][:, None] != owner
    return Split.joined(splits), labels, foreign.to(device), rows.to(device)


def _require_heads(memory: Memory, heads: Mapping[str, Head]) -> None:
    if missing := [name for name in memory.splits if name not in heads]:
        raise InputError(f"there is a memory of task {missing[0]!r} but no head: give the heads of all tasks")
    for name, split in memory.splits.items():
        if int(split.labels.max()) >= len(heads[name].class_names):
            raise InputError(
                f"the memory of task {name!r} has labels up to {int(split.labels.max())} and its head "
                f"{len(heads[name].class_names)} classes: take memory and head of the same task"
            )


@validated_call
def realign(
    backbone: Backbone,
    weights: Weights,
    memory: Memory,
    heads: Mapping[str, Head],
    recipe: Recipe = REALIGNMENT,
    *,
    generator: torch.Generator,
    optimizer: str = "adamw",
    device: str = "cpu",
    autocast: str | None = None,
) -> Weights:
    """Train a fused model on the memory of its tasks.

    Parameters
    ----------
    weights : Weights
        The starting point: a fused model, or the base itself.
    memory : Memory
        Of the fused tasks, and of no others.
    heads : mapping of task to Head
        For at least the tasks of the memory; frozen.
    recipe : Recipe
        Steps, batch size, learning rate; `freeze` names the groups that are not trained.
    generator : torch.Generator
        On the CPU; one number is drawn, which seeds the order of the inputs.
    optimizer : "adamw" or "sgd"
        "sgd" has momentum .9 and the learning rates of the recipe.
    device, autocast
        As in `finetune`.

    Returns
    -------
    Weights
        A new point on the same base. On the CPU, equal input and number of threads give equal bits.

    Raises
    ------
    InputError
        for an unknown optimiser or precision, a recipe with augmentation, a tower that `trainable_tower` refuses, a
        head that does not match the memory, or a loss or gradient that is not finite.
    """
    weights.layout.require_equal(backbone.weights.layout, "the weights to realign")
    one_of(optimizer, OPTIMIZERS, "optimizer")
    torch_generator(generator)
    if recipe.augment != "none":
        raise InputError(f"augment is {recipe.augment!r}: expected 'none', since realignment uses the memory unchanged")
    where = resolve_device(device)
    matmul = precision(where, autocast)
    kept, labels, foreign, rows = _joined(memory, heads, where)
    tower = trainable_tower(backbone.tower)
    tensors = {name: view.to(where, copy=True) for name, view in weights.state_dict().items()}
    trained = [tensor for name, tensor in tensors.items() if group_of(name) not in recipe.freeze]
    for tensor in trained:
        tensor.requires_grad_(True)
    descent = _optimizer(trained, recipe, optimizer)
    schedule = Schedule.draw(len(labels), recipe.steps, recipe.batch_size, generator)
    for step in range(recipe.steps):
        chosen = schedule.indices(step)
        batch = inputs(backbone, kept, chosen, where)
        with matmul:
            found = features(tower, tensors, batch)
        logits = functional.normalize(found.float(), dim=-1) @ rows.T
        logits = logits.masked_fill(foreign[chosen.to(where)], -math.inf)
        training_step(descent, functional.cross_entropy(logits, labels[chosen].to(where)), recipe, step)
    values = weights.layout.flatten({name: tensor.detach() for name, tensor in tensors.items()})
    return replace(weights, values=values, base_hash=weights.origin)


@validated_call
def memory_loss(
    backbone: Backbone, weights: Weights, memory: Memory, heads: Mapping[str, Head], *, device: str = "cpu"
) -> float:
    """Mean cross-entropy (nats) of a model over the memory, each input through the head of its own task.

    Infinite where logits are not finite, so that a model destroyed by noise is never preferred.
    """
    _require_heads(memory, heads)
    total = 0.0
    for name, split in memory.splits.items():
        logits = prepare(backbone, split, device=device, keep=False).logits(weights, heads[name])
        total += float(functional.cross_entropy(logits, split.labels, reduction="sum"))
    return total / memory.samples if math.isfinite(total) else math.inf


def _optimizer(trained: list[Tensor], recipe: Recipe, name: str) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(trained, recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(trained, recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=True)
