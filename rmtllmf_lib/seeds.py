"""Generators for independent purposes, all from one seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rmtllmf_lib.errors import InputError


def generator_for(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on the given non-negative numbers, a seed and what it is used for, and no others."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def drawn_seed(generator: torch.Generator) -> int:
    """A seed drawn from a CPU generator."""
    return int(torch.randint(2**62, (), generator=generator))


def torch_generator(value: Any, name: str = "generator") -> torch.Generator:
    """Generator of torch on the CPU; `InputError` otherwise, also for None, which torch takes for its global one."""
    if not isinstance(value, torch.Generator) or value.device.type != "cpu":
        raise InputError(f"{name} is {value!r}: expected torch.Generator().manual_seed(…), on the CPU")
    return value
