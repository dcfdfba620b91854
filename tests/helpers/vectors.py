"""A small layout, points and vectors in it, and a small CLIP."""

import numpy as np
import open_clip
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector, Weights

# the clock of a busy machine says nothing about a property
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)

LAYOUT = Layout(
    (
        "visual.class_embedding",
        "visual.conv1.weight",
        "visual.ln_post.bias",
        "visual.proj",
        "visual.transformer.resblocks.0.attn.in_proj_bias",
        "visual.transformer.resblocks.0.mlp.c_fc.weight",
    ),
    ((4,), (2, 1, 2, 2), (4,), (4, 2), (12,), (3, 4)),
)
SIZE = LAYOUT.size


def random_values(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


BASE = Weights(LAYOUT, random_values(0))


def vector(values: Tensor | np.ndarray | int, **info: str) -> TaskVector:
    if isinstance(values, int):
        values = random_values(values)
    return TaskVector(LAYOUT, torch.as_tensor(values), BASE.hash, info)


def model(seed: int = 0) -> open_clip.CLIP:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8}
        text = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
        return open_clip.CLIP(8, vision, text).eval()
