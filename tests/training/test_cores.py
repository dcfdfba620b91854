"""Cores that are trained, against gradients of the whole matrices."""

import pytest
import torch
from torch.nn import functional

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.cores import Cores
from rmtllmf_lib.payload.payload import Encoded
from rmtllmf_lib.training.cores import finetune_cores
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.loading import Schedule, training_batches
from small import generator, small_backbone, small_head, small_task, small_tau

BACKBONE, TASK, HEAD = small_backbone(layers=2), small_task("warm", n=24), small_head()
KNOWN = small_tau(BACKBONE.weights, 1)
CORES = Cores(KNOWN, 2)
ONE = Recipe(steps=1, batch_size=8, lr=1e-3)


def test_the_first_step_follows_the_gradient_in_the_directions() -> None:
    """AdamW's first step has the size of the learning rate and the sign of the gradient."""
    numbers = finetune_cores(BACKBONE, TASK, HEAD, CORES, ONE, generator=generator(3))
    model = small_backbone(layers=2).model.visual.requires_grad_(True)
    (BACKBONE.weights + KNOWN).load_into(model)
    schedule = Schedule.draw(len(TASK.train), 1, 8, generator(3))
    images, labels = next(iter(training_batches(BACKBONE, TASK.train, schedule)))
    features = functional.normalize(model(images), dim=-1)
    functional.cross_entropy(HEAD.logit_scale * features @ HEAD.weight.T, labels).backward()
    gradients = dict(model.named_parameters())
    for name, core in numbers.state_dict().items():
        tensor = name.removesuffix(".core")
        U, V = CORES.directions()[tensor]
        gradient = U.float().T @ gradients[tensor.removeprefix("visual.")].grad @ V.float()
        clear = gradient.abs() > 1e-3 * gradient.abs().max()
        torch.testing.assert_close(core[clear], -1e-3 * gradient.sign()[clear], rtol=1e-3, atol=0)


def test_training_lowers_the_loss_and_says_what_it_was() -> None:
    recipe = Recipe(steps=30, batch_size=24, lr=2e-2)
    numbers = finetune_cores(BACKBONE, TASK, HEAD, CORES, recipe, generator=generator())
    again = finetune_cores(BACKBONE, TASK, HEAD, CORES, recipe, generator=generator())
    assert numbers.hash == again.hash and numbers.info["task"] == "warm"
    tau = CORES.decode(CORES.encode(KNOWN), BACKBONE.weights.layout)
    assert torch.equal(tau.values, KNOWN.values)

    def loss(point: TaskVector) -> float:
        model = small_backbone(layers=2).model.visual
        (BACKBONE.weights + point).load_into(model)
        schedule = Schedule.draw(len(TASK.train), 1, len(TASK.train), generator())
        images, labels = next(iter(training_batches(BACKBONE, TASK.train, schedule)))
        with torch.no_grad():
            features = functional.normalize(model(images), dim=-1)
        return float(functional.cross_entropy(HEAD.logit_scale * features @ HEAD.weight.T, labels))

    trained = CORES.decode(Encoded(numbers, torch.empty(0)), BACKBONE.weights.layout)
    assert loss(trained) < loss(KNOWN) - 0.05


def test_bad_input() -> None:
    other = TaskVector(KNOWN.layout, KNOWN.values, "0" * 64)
    with pytest.raises(InputError, match="belongs to another base"):
        finetune_cores(BACKBONE, TASK, HEAD, Cores(other, 2), ONE, generator=generator())
    with pytest.raises(InputError, match="generator is 0"):
        finetune_cores(BACKBONE, TASK, HEAD, CORES, ONE, generator=0)  # type: ignore[arg-type]
