"""Fine-tuning of the image tower on one task: a `Task` and a frozen head in, a `TaskVector` out, Eq. (1).

The same loop trains the embedded tower and ViT-B/16, with a different `Recipe`. Weights, optimiser state and task
vector stay in float32 even under autocast: a task vector is a small difference of large numbers, and most of it would
be lost in half precision.
"""

from __future__ import annotations

import json
import logging
import math
import os
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from rmtllmf_lib.arrays import one_of, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import OPENAI_VIT, Backbone, load_backbone, vision_tower
from rmtllmf_lib.model.layout import GROUPS, PREFIX, group_of
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.progress import tqdm
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.base import Task, require_readable
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import Schedule, resolve_device, training_batches
from rmtllmf_lib.training.training_state import TrainingState
from rmtllmf_lib.validated import validated, validated_call

log = logging.getLogger(__name__)

AUTOCAST = {"bfloat16": torch.bfloat16}

Beta = Annotated[float, Field(ge=0, lt=1)]


@validated
class Recipe:
    """Settings of a training run: AdamW on the cross-entropy of the frozen head, warm-up, then half a cosine to 0.

    Attributes
    ----------
    steps, batch_size : int
    lr : float
        Peak learning rate, reached after `warmup_steps`.
    weight_decay : float
    warmup_steps : int
        Steps of linear warm-up, at most `steps`.
    clip_norm : float or None
        Largest Euclidean norm of the gradient; None does not clip.
    betas : two floats
        Decay rates of AdamW's averages, in [0, 1).
    freeze : tuple of str
        Groups of parameters (`layout.GROUPS`) that are not trained; the task vector is exactly 0 there.
    augment : "none" or "crop"
        "crop": a random crop of 0.9 to 1 of the area, see `loading.training_batches`.
    """

    steps: Annotated[int, Field(ge=1, le=10**7)]
    batch_size: Annotated[int, Field(ge=1, le=10**6)]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 0
    clip_norm: PositiveFloat | None = None
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    freeze: tuple[str, ...] = ()
    augment: Literal["none", "crop"] = "none"

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.warmup_steps > self.steps:
            raise InputError(f"warmup_steps is {self.warmup_steps}: expected at most steps = {self.steps}")
        if not set(self.freeze) < {*GROUPS}:
            raise InputError(f"freeze is {self.freeze}: expected some, but not all, of {', '.join(GROUPS)}")

    def lr_at(self, step: int) -> float:
        """Learning rate at a step, 0 ≤ step < steps."""
        whole_number(step, "step", minimum=0, maximum=self.steps - 1)
        if step < self.warmup_steps:
            return self.lr * ((step + 1) / self.warmup_steps)
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return self.lr * ((1 + math.cos(math.pi * done)) / 2)


RECIPES = {
    "tiny": Recipe(steps=80, batch_size=64, lr=3e-4, warmup_steps=8, freeze=("embeddings",)),
    # Ilharco et al., "Editing models with task arithmetic", ICLR 2023, appendix B.
    OPENAI_VIT: Recipe(
        steps=2000, batch_size=128, lr=1e-5, weight_decay=0.1, warmup_steps=200, clip_norm=1.0, augment="crop"
    ),
}


@validated_call
def recipe_for(
    backbone: Backbone, *, steps: int | None = None, lr: float | None = None, batch_size: int | None = None
) -> Recipe:
    """The default recipe of a backbone, by its name; a base from a folder with tiny's architecture gets tiny's.

    Parameters
    ----------
    steps, lr, batch_size : optional
        Values that replace the recipe's; the warm-up keeps its share of the steps.

    Raises
    ------
    InputError
        for any other backbone: a recipe that suits one architecture may ruin another.
    """
    if backbone.name not in RECIPES and backbone.weights.layout != load_backbone("tiny").weights.layout:
        raise InputError(
            f"there is no recipe for backbone {backbone.name!r}: expected {' or '.join(RECIPES)}, or a folder with a "
            "base of the architecture of tiny; give one, recipe=Recipe(steps=…, batch_size=…, lr=…)"
        )
    recipe = RECIPES.get(backbone.name, RECIPES["tiny"])
    given: dict[str, Any] = {"steps": steps, "lr": lr, "batch_size": batch_size}
    warmup = recipe.warmup_steps if steps is None else round(recipe.warmup_steps * steps / recipe.steps)
    return replace(recipe, warmup_steps=warmup, **{name: value for name, value in given.items() if value is not None})


@validated_call
def finetune(
    backbone: Backbone,
    task: Task,
    head: Head,
    recipe: Recipe | None = None,
    *,
    generator: torch.Generator,
    start: Weights | None = None,
    device: str = "cpu",
    autocast: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 250,
    progress: bool = True,
) -> TaskVector:
    """The task vector of fine-tuning the image tower on a task's training images under its frozen head.

    Parameters
    ----------
    recipe : Recipe, optional
        Default: `recipe_for(backbone)`.
    generator : torch.Generator
        On the CPU. One number is drawn from it as the seed of the run; the same seed gives the same bits, on the CPU
        with the same number of threads.
    start : Weights, optional
        Initial weights; default theta_base.
    device : "cpu", "cuda", "cuda:<number>" or "auto"
    autocast : "bfloat16", optional
        Precision of the matrix products in the tower; default float32.
    checkpoint : path, optional
        A safetensors file, written every `checkpoint_every` steps and after the last one. If it exists, the run resumes
        from it and ends with the same bits as an uninterrupted one. It is not removed: delete it once the task vector
        is stored. Until then no step is lost if the process is killed or the vector does not fit on the disk.
    progress : bool
        Show a bar with the loss, on a terminal only.

    Returns
    -------
    TaskVector
        Trained weights minus `start`; `info` holds task, backbone, head, recipe, seed and validation accuracy.

    Raises
    ------
    InputError
        for a task without training images, a head of another task, a start of another layout, a device that does not
        exist, images of any split that cannot be decoded (all are named, before the first step), a checkpoint of
        another run, or a loss or gradient that is not finite.
    OSError
        if a checkpoint cannot be written (disk full): the run stops, and the previous checkpoint stays usable.
    """
    recipe = recipe or recipe_for(backbone)
    start = start or backbone.weights
    where = resolve_device(device)
    start.layout.require_equal(backbone.weights.layout, "the start")
    if len(task.train) == 0:
        raise InputError(f"task {task.name!r} has no training images: expected at least one")
    head.require_classes(task)
    matmul = precision(where, autocast)
    whole_number(checkpoint_every, "checkpoint_every")
    schedule = Schedule.draw(len(task.train), recipe.steps, recipe.batch_size, generator)
    # The copy stays in evaluation mode: layers that are random in training mode would use other generators.
    tower = vision_tower(backbone, start).to(where)
    optimizer = _optimizer(tower, recipe)
    run = {  # everything that decides the bits of the run
        "base": backbone.weights.hash,
        "start": start.hash,
        "task": task.name,
        "data": task.fingerprint,
        "head": head.hash,
        "recipe": asdict(recipe),
        "seed": schedule.seed,
        "device": where.type,
        "autocast": autocast,
    }
    state = TrainingState(Path(checkpoint), run, tower, optimizer) if checkpoint else None
    first = state.resume() if state else 0
    require_readable(task)  # a file found damaged at the end would cost the whole run
    rows = head.weight.to(where)
    stream = training_batches(backbone, task.train, schedule, augment=recipe.augment, first_step=first, device=where)
    shown = None if progress else True  # None: on a terminal only
    bar = tqdm(total=recipe.steps, initial=first, desc=task.name, unit="step", disable=shown, leave=False)
    with bar, closing(stream):
        for step, (images, labels) in enumerate(stream, first):
            with matmul:
                features = tower(images)
            logits = head.logit_scale * functional.normalize(features.float(), dim=-1) @ rows.T
            loss = training_step(optimizer, functional.cross_entropy(logits, labels), recipe, step)
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            last = step + 1 == recipe.steps
            if state and (last or (step + 1) % checkpoint_every == 0):
                try:
                    state.save(step + 1)
                except OSError as error:
                    if not last:
                        raise
                    # the task vector is a third as large as the checkpoint and may still fit on the disk
                    log.warning("the last checkpoint is missing; the task vector is returned all the same: %s", error)
    trained = Weights.from_module(tower)
    info = {key: str(run[key]) for key in ("task", "data", "seed")}
    info |= {"backbone": backbone.name, "head": head.kind, "recipe": json.dumps(run["recipe"])}
    if len(task.validation):
        info["validation_accuracy"] = f"{accuracy(backbone, trained, task.validation, head, device=device):.4f}"
    return replace(trained - start, info=info)


def training_step(optimizer: torch.optim.Optimizer, loss: Tensor, recipe: Recipe, step: int) -> float:
    """Take one optimiser step on `loss`, at the learning rate of that step; return the loss.

    Parameters
    ----------
    optimizer : Optimizer
        With one group of parameters.
    loss : () Tensor
        Not yet differentiated.
    step : int
        Counted from 0.

    Raises
    ------
    InputError
        for a loss or gradient that is not finite; the parameters are unchanged then.
    """
    optimizer.zero_grad()
    loss.backward()
    group = optimizer.param_groups[0]
    group["lr"] = recipe.lr_at(step)
    norm = nn.utils.clip_grad_norm_(group["params"], math.inf if recipe.clip_norm is None else recipe.clip_norm)
    value = loss.item()
    if not math.isfinite(value) or not math.isfinite(norm.item()):
        raise InputError(
            f"training diverged at step {step + 1} of {recipe.steps}: loss {value}, gradient norm {norm.item()}, "
            f"learning rate {group['lr']:.3g}; expected finite numbers: lower lr, warm up longer or set clip_norm"
        )
    optimizer.step()
    return value


def _optimizer(tower: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(group_of(PREFIX + name) not in recipe.freeze)
    trained = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=True)


@validated_call
def precision(device: torch.device, autocast: str | None) -> AbstractContextManager[Any]:
    """Reusable context manager for matrix products in the precision `autocast`, or in float32 for None.

    Raises
    ------
    InputError
        for an unknown precision.
    """
    one_of(autocast, (None, *AUTOCAST), "autocast")
    return torch.autocast(device.type, AUTOCAST[autocast]) if autocast else nullcontext()
