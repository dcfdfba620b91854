"""Task vectors to send in the tests of the link, and what to make of those that arrive."""

from collections.abc import Sequence

import numpy as np
import torch

from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.transport.link import Received


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(users: int, n: int, seed: int = 5, scale: float = 1e-3) -> list[TaskVector]:
    """Gaussian numbers; each user has a scale of its own."""
    layout, draws = Layout(("visual.proj",), ((n,),)), generator(seed)
    return [
        TaskVector(layout, scale * (q + 1) * torch.randn(n, generator=draws), "base", {"task": f"t{q}"})
        for q in range(users)
    ]


def normalised(taus: Sequence[TaskVector], sent: Sequence[TaskVector]) -> np.ndarray:
    return np.stack([tau.values.double().numpy() / of.rms for tau, of in zip(taus, sent, strict=True)])


def deviations(received: Received) -> np.ndarray:
    table = received.statistics.table
    return ((table.variance - table.predicted) / table.standard_error).to_numpy()
