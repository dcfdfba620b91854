"""Balanced signs: a scrambler under which errors that all users have in common cancel in the sum.

User q sends `s_q tau_q` with signs s_q that both ends know, and the station multiplies by s_q again. The vectors are
untouched and errors become `s_q eps_q`. In every place half of the users have +, so an error e that is common to all
contributes `e sum s_q` = 0 to the sum of an even number of users. Independent errors stay as they are.

It costs nothing, and does not help where the common error is not the link's, such as a noisy base at the station.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from rmtllmf_lib.arrays import torch_generator
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, require_alike
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.validated import validated_call

_PLACES_AT_ONCE = 2**16
_KEY = "signs"  # of the metadata, which name the seed while a vector is scrambled


@validated_call
def balanced_signs(users: PositiveInt, places: PositiveInt, *, generator: torch.Generator) -> Tensor:
    """Random signs (user, place), +1 or -1, whose sum over the users is 0 in every place, or +-1 for an odd number.

    Parameters
    ----------
    generator : torch.Generator
        On the CPU.
    """
    order = torch.rand(users, places, generator=torch_generator(generator)).argsort(0)
    extra = torch.randint(2, (places,), generator=generator) * (users % 2)  # who is in the majority
    return torch.where(order < users // 2 + extra, 1.0, -1.0)


@validated_call
def sign_correlation(users: PositiveInt) -> float:
    """Mean of `s_p s_q` for two of so many users: -1/(N - 1), or -1/N for an odd N."""
    return -1.0 / (users - 1 + users % 2)


@validated_call
def scramble(taus: Sequence[TaskVector], seed: NonNegativeInt = 0) -> list[TaskVector]:
    """The users' task vectors with balanced signs, one vector per user of the uplink.

    Parameters
    ----------
    seed : int
        Of the signs; the station's `unscramble` needs the same.

    Raises
    ------
    InputError
        for no vectors, several layouts or bases, or vectors that are scrambled already.
    """
    require_alike(taus)
    for index, tau in enumerate(taus):
        if _KEY in tau.info:
            raise InputError(f"task vector {index} is scrambled already, with seed {tau.info[_KEY]}: unscramble it")
    return [replace(tau, info={**tau.info, _KEY: str(seed)}) for tau in _flipped(taus, seed)]


@validated_call
def unscramble(taus: Sequence[TaskVector], seed: NonNegativeInt = 0) -> list[TaskVector]:
    """Received task vectors of all users with the signs of `scramble` removed.

    Raises
    ------
    InputError
        for another seed than they were scrambled with, or vectors that were not scrambled.
    """
    require_alike(taus)
    for index, tau in enumerate(taus):
        if (found := tau.info.get(_KEY)) != str(seed):
            made = "was not scrambled" if found is None else f"was scrambled with seed {found}"
            raise InputError(f"task vector {index} {made}, and seed is {seed}: give the seed of scramble()")
    clean = [{key: value for key, value in tau.info.items() if key != _KEY} for tau in taus]
    return [replace(tau, info=info) for tau, info in zip(_flipped(taus, seed), clean, strict=True)]


def _flipped(taus: Sequence[TaskVector], seed: int) -> list[TaskVector]:
    layout, generator = taus[0].layout, generator_for(seed)
    targets = [layout.empty() for _ in taus]
    for start in range(0, layout.size, _PLACES_AT_ONCE):
        where = slice(start, min(start + _PLACES_AT_ONCE, layout.size))
        signs = balanced_signs(len(taus), where.stop - start, generator=generator)
        for tau, target, row in zip(taus, targets, signs, strict=True):
            torch.mul(tau.values[where], row, out=target[where])
    return [replace(tau, values=values) for tau, values in zip(taus, targets, strict=True)]
