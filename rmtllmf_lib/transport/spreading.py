"""A few numbers sent over all uses of a link, with all the power that a whole task vector has.

Place p of the vector that is sent carries number p mod k, times a sign that both ends know. The station adds up what
arrived, with the signs removed, and weights it for the least mean square error. Of n places, a number has n/k, so that
its errors have k/n of their power; and errors that users share, under signs of their own, are as good as independent.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.validated import validated_call


@validated_call
def spread(numbers: TaskVector, layout: Layout, rms: float, seed: NonNegativeInt = 0) -> TaskVector:
    """What a user sends: a vector of the tower's layout that carries its numbers.

    Parameters
    ----------
    layout : Layout
        Of the task vector that is sent in other schemes; it has at least as many places as there are numbers.
    rms : float
        At least 0: the root mean square of what is sent, that of the task vector under an equal power limit. Where some
        numbers have one place more than others, it is that of the numbers.
    seed : int
        Of the signs, one for each user.

    Raises
    ------
    InputError
        for more numbers than places, or a negative `rms`.
    """
    real_number(rms, "rms", minimum=0)
    _repeats(numbers.layout, layout)
    carried = numbers.values.repeat(-(-layout.size // numbers.layout.size))[: layout.size]
    return TaskVector(
        layout, carried * _signs(layout, seed) * (rms / numbers.rms if numbers.rms else 0.0), numbers.base_hash
    )


@validated_call
def despread(
    received: TaskVector, numbers: Layout, rms: float, number_rms: float, error: float, seed: NonNegativeInt = 0
) -> TaskVector:
    """The numbers as the station estimates them.

    Parameters
    ----------
    received : TaskVector
        What arrived of `spread`.
    numbers : Layout
        Of the numbers.
    rms : float
        As it was spread.
    number_rms : float
        Root mean square of the numbers, which the station knows; weights are for numbers of this size.
    error : float
        Variance of the errors in a place, at least 0.
    seed : int
        As it was spread.

    Returns
    -------
    TaskVector of the layout `numbers`
        0 where nothing was sent.

    Raises
    ------
    InputError
        for more numbers than places, or something negative.
    """
    for value, name in ((rms, "rms"), (number_rms, "number_rms"), (error, "error")):
        real_number(value, name, minimum=0)
    repeats, k = _repeats(numbers, received.layout), numbers.size
    flat = torch.zeros(-(-received.layout.size // k) * k)
    flat[: received.layout.size] = received.values * _signs(received.layout, seed)
    means = flat.view(-1, k).sum(0, dtype=torch.float64) / repeats
    power = rms**2
    weights = power / (power + error / repeats) if power else torch.zeros(k)
    values = (weights * means * (number_rms / rms if power else 0.0)).float()
    return TaskVector(numbers, values, received.base_hash)


def _repeats(numbers: Layout, layout: Layout) -> Tensor:
    """Places of each number."""
    if numbers.size > layout.size:
        raise InputError(f"there are {numbers.size} numbers for {layout.size} places: expected at most as many")
    whole, rest = divmod(layout.size, numbers.size)
    return torch.full((numbers.size,), whole, dtype=torch.float64) + (torch.arange(numbers.size) < rest)


def _signs(layout: Layout, seed: int) -> Tensor:
    return torch.randint(2, (layout.size,), generator=generator_for(seed), dtype=torch.float32).mul_(2).sub_(1)
