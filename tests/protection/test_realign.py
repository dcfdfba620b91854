"""Realignment: open_clip's own gradients, each task's own head, and frozen groups that stay."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.layout import GROUPS, group_of
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.protection.memory import Memory, draw_memory
from rmtllmf_lib.protection.realign import memory_loss, realign
from rmtllmf_lib.tasks.base import Split
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import Schedule, batches
from small import CLASSES, generator, small_backbone, small_head, small_task, small_tau

RECIPE = Recipe(steps=3, batch_size=10, lr=1e-3, freeze=("embeddings",))
HEADS = {"a": small_head(1), "b": small_head(2)}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone(layers=2)


@pytest.fixture(scope="module")
def memory() -> Memory:
    tasks = {"a": small_task("a", 1), "b": small_task("b", 2)}
    return draw_memory(tasks, 2, image_size=32, generator=generator())


@pytest.fixture(scope="module")
def start(backbone: Backbone) -> Weights:
    return fuse(backbone.weights, [small_tau(backbone.weights, seed) for seed in (1, 2)], 0.5)


def moved(before: Weights, after: Weights) -> set[str]:
    old, new = before.state_dict(), after.state_dict()
    return {name for name in old if not torch.equal(old[name], new[name])}


def plainly(
    backbone: Backbone, start: Weights, memory: Memory, recipe: Recipe, seed: int, optimizer_name: str
) -> dict[str, Tensor]:
    """Realignment with open_clip's tower, one image at a time through the head of its task."""
    tower = copy.deepcopy(backbone.model.visual)
    start.load_into(tower)
    owners = [(name, place) for name, split in memory.splits.items() for place in range(len(split))]
    schedule = Schedule.draw(len(owners), recipe.steps, recipe.batch_size, generator(seed))
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(group_of("visual." + name) not in recipe.freeze)
    trained = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    if optimizer_name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(trained, 1.0, 0.9, weight_decay=recipe.weight_decay)
    else:
        optimizer = torch.optim.AdamW(trained, weight_decay=recipe.weight_decay)
    for step in range(recipe.steps):
        losses = []
        for index in schedule.indices(step).tolist():
            name, place = owners[index]
            ((image, label),) = batches(backbone, memory.splits[name].subset([place]))
            head = HEADS[name]
            logits = head.logit_scale * functional.normalize(tower(image), dim=-1) @ head.weight.T
            losses.append(functional.cross_entropy(logits, label))
        optimizer.param_groups[0]["lr"] = recipe.lr_at(step)
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    return {"visual." + name: parameter.detach() for name, parameter in tower.named_parameters()}


@pytest.mark.parametrize(
    ("optimizer", "lr", "freeze"),
    [
        ("sgd", 1e-2, ("embeddings",)),
        ("sgd", 1e-2, ("embeddings", "mlp", "norm", "projection")),
        ("sgd", 1e-2, ()),
        ("adamw", 1e-3, ("embeddings",)),
    ],
)
def test_the_steps_are_those_of_a_plain_loop(
    backbone: Backbone, start: Weights, memory: Memory, optimizer: str, lr: float, freeze: tuple[str, ...]
) -> None:
    recipe = replace(RECIPE, freeze=freeze, weight_decay=0.1, lr=lr)
    found = realign(backbone, start, memory, HEADS, recipe, generator=generator(7), optimizer=optimizer)
    expected = plainly(backbone, start, memory, recipe, 7, optimizer)
    step = (start.layout.flatten(expected) - start.values).abs()
    off = (start.layout.flatten(expected) - found.values).abs()
    assert step.max() > 1e-3  # there was something to compare
    # Adam divides a gradient by its own size: where the gradient is rounding, so is the sign of the step.
    assert float((off > 1e-2 * lr).double().mean()) < (1e-6 if optimizer == "sgd" else 0.01)
    assert float(off.norm() / step.norm()) < (1e-4 if optimizer == "sgd" else 0.1)


@pytest.mark.parametrize("freeze", [(), *((group,) for group in GROUPS), GROUPS[1:]])
def test_what_is_frozen_stays_and_the_rest_moves(
    backbone: Backbone, start: Weights, memory: Memory, freeze: tuple[str, ...]
) -> None:
    before = start.values.clone()
    after = realign(backbone, start, memory, HEADS, replace(RECIPE, freeze=freeze), generator=generator())
    assert {group_of(name) for name in moved(start, after)} == set(GROUPS) - set(freeze)
    assert after.origin == start.origin == backbone.weights.hash
    assert torch.equal(start.values, before)  # the argument is not changed


def test_the_order_is_the_generators(backbone: Backbone, start: Weights, memory: Memory) -> None:
    hashes = [realign(backbone, start, memory, HEADS, RECIPE, generator=generator(seed)).hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_base_can_be_realigned_too(backbone: Backbone, memory: Memory) -> None:
    after = realign(backbone, backbone.weights, memory, HEADS, RECIPE, generator=generator())
    assert after.base_hash == backbone.weights.hash and after.hash != backbone.weights.hash


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 1e-3), ("sgd", 1e-2)])
def test_it_learns_the_memory(
    backbone: Backbone, start: Weights, memory: Memory, optimizer: str, lr: float
) -> None:  # fmt: skip
    recipe = replace(RECIPE, steps=15, lr=lr)
    after = realign(backbone, start, memory, HEADS, recipe, generator=generator(), optimizer=optimizer)
    before_loss, after_loss = (memory_loss(backbone, w, memory, HEADS) for w in (start, after))
    assert after_loss < 0.7 * before_loss


def test_heads_of_other_tasks_have_no_say(backbone: Backbone, start: Weights, memory: Memory) -> None:
    """Neither in the loss, nor for the result if a task is left out."""
    alone = memory.of(["a"])
    one, two = (
        realign(backbone, start, alone, heads, RECIPE, generator=generator())
        for heads in ({"a": HEADS["a"]}, {**HEADS, "c": small_head(9)})
    )
    assert one.hash == two.hash
    # without the mask, a foreign class that wins in every image would dominate
    features = torch.full((5, 64), 1.0)
    loud = Head(functional.normalize(features, dim=-1), 1000.0, "text", CLASSES)
    found = realign(backbone, start, memory, {"a": HEADS["a"], "b": loud}, RECIPE, generator=generator())
    assert found.values.isfinite().all()


def test_loss_over_the_memory(backbone: Backbone, start: Weights, memory: Memory) -> None:
    tower = copy.deepcopy(backbone.model.visual)
    start.load_into(tower)
    losses = []
    for name, split in memory.splits.items():
        for images, labels in batches(backbone, split):
            logits = HEADS[name].logit_scale * functional.normalize(tower(images), dim=-1) @ HEADS[name].weight.T
            losses += functional.cross_entropy(logits, labels, reduction="none").tolist()
    assert memory_loss(backbone, start, memory, HEADS) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    ruined = Weights(start.layout, start.values * 1e30, start.base_hash)
    assert memory_loss(backbone, ruined, memory, HEADS) == math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer is 'lion'"),
        ({"autocast": "float8"}, "autocast is 'float8'"),
        ({"recipe": replace(RECIPE, augment="crop")}, "augment is 'crop'"),
        ({"heads": {"a": HEADS["a"]}}, "'b'"),
        ({"heads": {**HEADS, "b": small_head(2, CLASSES[:3])}}, "'b'.* 4 .* 3 "),
        ({"recipe": replace(RECIPE, lr=1e30, steps=8)}, "step"),
    ],
)
def test_bad_input(backbone: Backbone, start: Weights, memory: Memory, change: dict, message: str) -> None:
    options = {"heads": HEADS, "recipe": RECIPE, **change}
    with pytest.raises(InputError, match=message):
        realign(backbone, start, memory, generator=generator(), **options)


def test_another_architecture_is_refused(backbone: Backbone, memory: Memory) -> None:
    with pytest.raises(InputError, match="the weights to realign"):
        realign(backbone, small_backbone(layers=1).weights, memory, HEADS, RECIPE, generator=generator())


def test_one_image_is_enough(backbone: Backbone, start: Weights) -> None:
    tiny = Memory(1, {"a": Split(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))})
    assert realign(backbone, start, tiny, HEADS, RECIPE, generator=generator()).hash != start.hash
