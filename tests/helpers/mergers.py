"""Task vectors for tests of mergers: matrices high, wide and square, and tensors that are none."""

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
