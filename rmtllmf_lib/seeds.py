"""Generators for independent purposes, all from one seed."""

from __future__ import annotations

import numpy as np
import torch

from rmtllmf_lib.arrays import torch_generator


def generator_for(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on the given non-negative numbers, a seed and what it is used for, and no others."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def drawn_seed(generator: torch.Generator) -> int:
    """A seed drawn from a CPU generator."""
    return int(torch.randint(2**62, (), generator=torch_generator(generator)))
