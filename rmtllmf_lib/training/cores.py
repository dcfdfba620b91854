"""Fine-tuning in a few directions that both ends know: only the cores of `payload.cores` are trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.differentiable_tower import Layers, forward
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.model.tower import cut, read_tower
from rmtllmf_lib.payload.cores import Cores
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training.finetune import Recipe, Trainee, train
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import resolve_device
from rmtllmf_lib.validated import validated_call


@validated_call
def finetune_cores(
    backbone: Backbone,
    task: Task,
    head: Head,
    cores: Cores,
    recipe: Recipe,
    *,
    generator: torch.Generator,
    device: str = "cpu",
    autocast: str | None = None,
    progress: bool = True,
) -> TaskVector:
    """Train the cores on a task's training images under its frozen head, from the known vector on.

    Parameters
    ----------
    cores : Cores
        Its known vector is where the training starts, and its directions stay as they are.
    recipe : Recipe
        Its `freeze` has no effect: nothing but the cores is trained. They take a learning rate of about .01.

    Returns
    -------
    TaskVector
        The numbers, for `cores.decode`.

    Other parameters, errors: as `finetune`; also `InputError` for a known vector of another base, and a tower that is
    no plain vision transformer.
    """
    where, layout = resolve_device(device), backbone.weights.layout
    fixed = {name: view.to(where) for name, view in (backbone.weights + cores.known).state_dict().items()}
    trained = _Cores(cores.directions(), cores.rank).to(where)
    tower = read_tower(backbone.model.visual)

    def features(images: Tensor, _step: int, _seed: int) -> Tensor:
        return forward(Layers(tower, fixed | trained.moved(fixed), fused=True), cut(tower, images))

    run = {"cores": cores.rank, "known": cores.known.hash}
    info = train(
        Trainee(trained, [{"params": [*trained.cores]}], features), backbone, task, head, recipe, run,
        generator=generator, device=device, autocast=autocast, progress=progress,
    )  # fmt: skip
    numbers = cores.numbers_layout(layout)
    found = {f"{name}.core": core.detach() for name, core in zip(trained.names, trained.cores, strict=True)}
    return TaskVector(numbers, numbers.flatten(found), backbone.weights.origin, info)


class _Cores(nn.Module):
    """A core of zeros for each matrix, between directions that are not trained."""

    def __init__(self, directions: Mapping[str, tuple[Tensor, Tensor]], rank: int) -> None:
        super().__init__()
        self.names = [*directions]
        self.cores = nn.ParameterList([torch.zeros(rank, rank) for _ in directions])
        for place, (U, V) in enumerate(directions.values()):
            self.register_buffer(f"U_{place}", U.float())
            self.register_buffer(f"V_{place}", V.float())

    def moved(self, fixed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The matrices with their changes."""
        found = {}
        for place, (name, core) in enumerate(zip(self.names, self.cores, strict=True)):
            found[name] = fixed[name] + getattr(self, f"U_{place}") @ core @ getattr(self, f"V_{place}").T
        return found
