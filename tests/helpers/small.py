"""Small objects for tests: a random CLIP of the shape of the tiny one, tasks that can be learnt, heads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.linearise import Network, first_order, network
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.tasks import sources as task_spec
from rmtllmf_lib.tasks.base import Split, Task
from rmtllmf_lib.tasks.sources import load_task
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.heads import Head

# Not CLIP's, so that code that normalises with CLIP's is detected.
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES = ("red", "green", "blue", "white", "black")
SHORT = Recipe(steps=6, batch_size=8, lr=1e-3, warmup_steps=2, weight_decay=0.1, clip_norm=1.0, freeze=("embeddings",))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_backbone(seed: int = 0, quick_gelu: bool = False, layers: int = 4) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            64,
            {"image_size": 32, "patch_size": 8, "width": 64, "layers": layers, "head_width": 32},
            {"context_length": 12, "vocab_size": 20, "width": 64, "heads": 2, "layers": 2},
            quick_gelu=quick_gelu,
        )
    model = model.eval().requires_grad_(False)
    return Backbone("small", model, _no_text, 32, None, Weights.from_module(model), MEAN, STD)


def _no_text(texts: list[str]) -> Tensor:
    raise NotImplementedError


def small_split(n: int, seed: int = 0, size: int = 32, classes: int = len(CLASSES)) -> Split:
    """Noise whose colour depends on the class; labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    colours = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 200], [60, 60, 60]])
    noise = torch.randint(-55, 56, (n, 3, size, size), generator=generator)
    return Split((colours[labels % 5, :, None, None] + noise).to(torch.uint8), labels)


def small_task(name: str = "colours", seed: int = 0, n: int = 60) -> Task:
    splits = [small_split(count, 3 * seed + part) for part, count in enumerate((n, 20, n))]
    return Task(name, name.title(), CLASSES, ("a {} square.",), *splits, "procedural", f"{name} {seed}", MEAN, STD)


def limited(n_train: int) -> Callable[..., Task]:
    """`load_task` with few images, for any request."""
    return lambda *given, **options: load_task(*given, **{**options, "n_train": n_train, "n_test": 60})


@contextmanager
def small_suites() -> Iterator[None]:
    """Inside, suites load tasks of few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_spec, "load_task", limited(130))
        yield


def small_head(seed: int = 0, classes: tuple[str, ...] = CLASSES, dimension: int = 64) -> Head:
    rows = torch.randn(len(classes), dimension, generator=torch.Generator().manual_seed(seed))
    return Head(functional.normalize(rows, dim=-1), 20.0, "text", classes)


def small_tau(base: Weights, seed: int, size: float = 0.02, task: str | None = None) -> TaskVector:
    values = size * torch.randn(base.layout.size, generator=torch.Generator().manual_seed(seed))
    return TaskVector(base.layout, values, base.origin, {"task": task} if task else {})


@cache
def small_networks(n: int) -> tuple[dict[str, Network], Weights, dict[str, FirstOrder]]:
    """Two tasks of n images on a random tower, which separates their classes by little."""
    backbone = small_backbone(3, layers=2)
    nets = {
        name: network(backbone, small_split(n, seed), small_head(seed, classes))
        for name, seed, classes in (("a", 5, ("1", "2", "3", "4", "5")), ("b", 7, ("1", "2", "3")))
    }
    return nets, backbone.weights, {name: first_order(net, backbone.weights) for name, net in nets.items()}
