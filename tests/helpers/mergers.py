"""Task vectors for tests of mergers: matrices high, wide and square, and tensors that are none."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector

LAYOUT = Layout(
    (
        "visual.class_embedding",
        "visual.conv1.weight",
        "visual.positional_embedding",
        "visual.proj",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
        "visual.transformer.resblocks.0.ln_1.bias",
        "visual.transformer.resblocks.1.mlp.c_proj.weight",
    ),
    ((5,), (5, 3, 2, 2), (7, 8), (8, 6), (24, 8), (8,), (8, 16)),
)


def vector(values: Tensor, **info: str) -> TaskVector:
    return TaskVector(LAYOUT, values, "b" * 64, info)


def vectors(count: int, seed: int = 0, scale: float = 0.5) -> list[TaskVector]:
    generator = torch.Generator().manual_seed(seed)
    return [vector(scale * torch.randn(LAYOUT.size, generator=generator), task=f"task{k}") for k in range(count)]


def stacked(taus: list[TaskVector]) -> np.ndarray:
    """The vectors (N, size) in float64."""
    return np.array([tau.values.double().numpy() for tau in taus])


def given_for(taus: list[TaskVector], order: list[int] | None = None) -> dict[str, Any]:
    """Everything that a merger may need, for each user in that order: the first one's, the second one's, …"""
    places = order or list(range(len(taus)))
    linear = {name: shape[0 if name == "visual.proj" else 1] for name, shape in _shapes().items() if "weight" in name}
    linear |= {"visual.proj": 8}
    grams, fishers, coefficients = [], [], []
    for place in places:
        generator = torch.Generator().manual_seed(place)
        inputs = {name: torch.randn(50, size, generator=generator) for name, size in linear.items()}
        grams.append({name: x.T @ x for name, x in inputs.items()})
        fishers.append(torch.rand(LAYOUT.size, generator=generator))
        coefficients.append(float(torch.rand(1, generator=generator)))
    return {
        "generator": torch.Generator().manual_seed(1), "task": places.index(0), "grams": grams, "fishers": fishers,
        "coefficients": coefficients,
    }  # fmt: skip


def _shapes() -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in zip(LAYOUT.names, LAYOUT.shapes, strict=True) if len(shape) == 2}
