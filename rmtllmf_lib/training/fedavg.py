"""Federated averaging: rounds of local training and averaging, every upload over the link.

One round is task arithmetic with lambda = 1/N on the vectors of that round's training: Eq. (6) is federated averaging
that stops after one round [3].

References
----------
.. [1] B. McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
   arXiv:1602.05629.
.. [2] T. Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, arXiv:1812.06127.
.. [3] Z. S. Tao, I. Mason, S. Kulkarni, X. Boix, "Task arithmetic through the lens of one-shot federated learning",
   TMLR 2025, arXiv:2411.18607.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from pydantic import PositiveInt

from rmtllmf_lib.arrays import real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.seeds import drawn_seed, generator_for
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training.finetune import Recipe, finetune
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.validated import validated_call

_TRAINING, _NOISE = range(2)  # purposes of random numbers


@runtime_checkable
class Receives(Protocol):
    """A link, such as `transport.scenario.Scenario`."""

    def receive(self, taus: Sequence[TaskVector], base: Weights, *, generator: torch.Generator) -> list[TaskVector]:
        """The users' vectors as they arrive."""


@dataclass(frozen=True, eq=False)
class Round:
    """The model after a round.

    Attributes
    ----------
    number : int
        From 1.
    model : Weights
        Of the station, which sends it to all users without errors.
    uses : int
        Channel uses of each user so far, for uploads alone; all users send at the same time.
    """

    number: int
    model: Weights
    uses: int

    __repr__ = short_repr


@validated_call
def federated_averaging(
    backbone: Backbone,
    tasks: Mapping[str, Task],
    heads: Mapping[str, Head],
    recipe: Recipe,
    rounds: int,
    *,
    link: Receives | None = None,
    proximal: float = 0.0,
    upload_uses: PositiveInt | None = None,
    generator: torch.Generator,
    device: str = "cpu",
) -> Generator[Round, None, None]:
    """Train one tower for all tasks: FedAvg [1], or FedProx [2] with `proximal` above 0.

    In a round every user trains the station's model on its own task for `recipe.steps` steps, with a new optimiser and
    the whole schedule of learning rates, and sends the change. The station adds the mean of what arrives. All users
    count the same; [1] weighs them by their images, which is the same for equally many.

    Parameters
    ----------
    tasks, heads : mappings by task name
        A user for each task; its frozen head stays with it.
    recipe : Recipe
        Of the training within a round.
    rounds : int
        At least 1.
    link : with a method `receive`, optional
        Disturbs every upload; default: uploads arrive as they are.
    proximal : float
        rho ≥ 0 of the term `rho/2 ||theta - theta_round||²` that is added to every user's loss.
    upload_uses : int, optional
        Channel uses of one upload; default those of a whole vector sent analog, two numbers a symbol.
    generator : torch.Generator
        On the CPU. One number is drawn from it; users, rounds and noise have generators of their own that follow from
        it, so that the training of a round does not depend on the noise but through the model it starts from.
    device : str
        As in `finetune`.

    Yields
    ------
    Round
        One after the other, `rounds` of them.

    Raises
    ------
    InputError
        for no tasks, a task without a head, rounds below 1, a link for another number of users, and as `finetune`.
    """
    whole_number(rounds, "rounds")
    real_number(proximal, "proximal", minimum=0)
    if not tasks:
        raise InputError("there are no tasks: expected at least one user with a task")
    if missing := [name for name in tasks if name not in heads]:
        raise InputError(f"there is no head for {', '.join(missing)}: expected one for each task")
    uses = math.ceil(backbone.weights.layout.size / 2) if upload_uses is None else upload_uses
    seed, model = drawn_seed(generator), backbone.weights
    # nobody looks at how well a user does in the middle of a round
    users = {name: replace(task, validation=task.validation.subset([])) for name, task in tasks.items()}
    for number in range(1, rounds + 1):
        changes = [
            finetune(
                backbone, task, heads[name], recipe, start=model, proximal=proximal, device=device, progress=False,
                generator=generator_for(seed, _TRAINING, number, user),
            )
            for user, (name, task) in enumerate(users.items())
        ]  # fmt: skip
        if link is not None:
            changes = link.receive(changes, model, generator=generator_for(seed, _NOISE, number))
        model = fuse(model, changes, 1 / len(changes))
        yield Round(number, model, number * uses)
