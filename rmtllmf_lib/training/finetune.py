"""Fine-tuning of the image tower for one task: a `Task` and a frozen head in, a `TaskVector` out, Eq. (1).

One loop serves the embedded tower and ViT-B/16; they differ by a `Recipe`. The weights, the optimiser's state and the
task vector are float32 also where the products run in lower precision: a task vector is a small difference of large
numbers, and half precision would lose most of it.
"""

from __future__ import annotations

import json
import logging
import math
import os
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from rmtllmf_lib.arrays import one_of, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import OPENAI_VIT, Backbone, load_backbone, vision_tower
from rmtllmf_lib.model.layout import GROUPS, PREFIX, group_of
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import AUGMENTATIONS, Schedule, resolve_device, training_batches
from rmtllmf_lib.training.training_state import TrainingState

log = logging.getLogger(__name__)

AUTOCAST = {"bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Recipe:
    """How a task is learnt: AdamW on the cross-entropy of the frozen head, warm-up, then half a cosine to 0.

    Attributes
    ----------
    steps, batch_size : int
    lr : float
        Learning rate at its highest, reached after `warmup_steps`.
    weight_decay : float
    warmup_steps : int
        Steps of linear growth.
    clip_norm : float or None
        Longest gradient, in Euclidean norm; None does not clip.
    betas : two floats
        Decay of AdamW's averages.
    freeze : tuple of str
        Groups (`task_vector.GROUPS`) that are not trained; the task vector is exactly 0 there.
    augment : "none" or "crop"
        "crop": a random .9 to 1 of the area, see `loading.training_batches`.
    """

    steps: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    warmup_steps: int = 0
    clip_norm: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    freeze: tuple[str, ...] = ()
    augment: str = "none"

    def __post_init__(self) -> None:
        whole_number(self.steps, "steps")
        whole_number(self.batch_size, "batch_size")
        bounds = {
            "lr": (self.lr, 0 < self.lr < math.inf, "a positive number"),
            "weight_decay": (self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more"),
            "warmup_steps": (self.warmup_steps, 0 <= self.warmup_steps <= self.steps, f"0 to steps = {self.steps}"),
            "clip_norm": (self.clip_norm, self.clip_norm is None or self.clip_norm > 0, "a positive number or None"),
            "betas": (
                self.betas,
                len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
                "two numbers in [0, 1)",
            ),
            "freeze": (self.freeze, set(self.freeze) < {*GROUPS}, f"some, but not all, of {', '.join(GROUPS)}"),
            "augment": (self.augment, self.augment in AUGMENTATIONS, " or ".join(AUGMENTATIONS)),
        }
        for name, (value, valid, expected) in bounds.items():
            if not valid:
                raise InputError(f"{name} is {value!r}; expected {expected}")

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, 0 ≤ step < steps."""
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


def recipe_for(backbone: Backbone) -> Recipe:
    """The default recipe of a backbone: by its name, and tiny's for a base of the same architecture from a folder.

    Raises
    ------
    InputError
        for any other backbone: what trains one architecture well may ruin another.
    """
    if backbone.name in RECIPES:
        return RECIPES[backbone.name]
    if backbone.weights.layout == load_backbone("tiny").weights.layout:
        return RECIPES["tiny"]
    raise InputError(
        f"there is no recipe for backbone {backbone.name!r}: expected {' or '.join(RECIPES)}, or a folder with a base "
        "of the architecture of tiny; give one, recipe=Recipe(steps=…, batch_size=…, lr=…)"
    )


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
    """Train the image tower on a task's training images under its frozen head; return what changed.

    Parameters
    ----------
    recipe : Recipe, optional
        Default: `recipe_for(backbone)`.
    generator : torch.Generator
        On the CPU; one number is drawn, from which all the run's randomness follows. The same number, on the CPU with
        the same number of threads, gives the same bits.
    start : Weights, optional
        Where to start; default theta_base.
    device : "cpu", "cuda", "cuda:<number>" or "auto"
    autocast : "bfloat16", optional
        Precision of the products in the tower; default float32.
    checkpoint : path, optional
        A safetensors file, written every `checkpoint_every` steps and after the last one. Where it is there already,
        the run goes on from it and ends with the same bits as one without a break. It stays: remove it when the task
        vector is stored. Until then a kill, or a disk that is full for the vector, costs no step.
    progress : bool
        A bar with the loss, on a terminal only.

    Returns
    -------
    TaskVector
        trained minus `start`; `info` tells task, backbone, head, recipe, seed and validation accuracy.

    Raises
    ------
    InputError
        for a task without training images, a head of another task, a start of another layout, a device that is not
        there, a checkpoint of another run, or where loss or gradient is not a finite number.
    OSError
        if a checkpoint cannot be written (disk full): the run stops, the checkpoint before it stays and can be used.
    """
    recipe = recipe or recipe_for(backbone)
    start = start or backbone.weights
    where = resolve_device(device)
    _require_usable(backbone, task, head, start, autocast)
    whole_number(checkpoint_every, "checkpoint_every")
    schedule = Schedule.draw(len(task.train), recipe.steps, recipe.batch_size, generator)
    # The copy stays in evaluation mode, as it comes: what is random in training mode has generators of its own.
    tower = vision_tower(backbone, start).to(where)
    optimizer = _optimizer(tower, recipe)
    run = _run(backbone, task, head, recipe, start, schedule, where, autocast)
    state = TrainingState(Path(checkpoint), run, tower, optimizer) if checkpoint else None
    first = state.resume() if state else 0
    rows = head.weight.to(where)
    stream = training_batches(backbone, task.train, schedule, augment=recipe.augment, first_step=first, device=where)
    shown = None if progress else True  # None: on a terminal only
    bar = tqdm(total=recipe.steps, initial=first, desc=task.name, unit="step", disable=shown, leave=False)
    with bar, closing(stream):
        for step, (images, labels) in enumerate(stream, first):
            with precision(where, autocast):
                features = tower(images)
            logits = head.logit_scale * functional.normalize(features.float(), dim=-1) @ rows.T
            loss = training_step(optimizer, functional.cross_entropy(logits, labels), recipe, step)
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if state and step + 1 == recipe.steps:
                _save_if_there_is_room(state, recipe.steps)
            elif state and (step + 1) % checkpoint_every == 0:
                state.save(step + 1)
    trained = Weights.from_module(tower)
    info = {key: str(run[key]) for key in ("task", "data", "seed")}
    info |= {"backbone": backbone.name, "head": head.kind, "recipe": json.dumps(run["recipe"])}
    if len(task.validation):
        info["validation_accuracy"] = f"{accuracy(backbone, trained, task.validation, head, device=device):.4f}"
    return replace(trained - start, info=info)


def _save_if_there_is_room(state: TrainingState, step: int) -> None:
    """After the last step: the vector, a third as large, may find room where the checkpoint does not."""
    try:
        state.save(step)
    except OSError as error:
        log.warning("the last checkpoint is missing, and the task vector is given all the same: %s", error)


def _run(
    backbone: Backbone,
    task: Task,
    head: Head,
    recipe: Recipe,
    start: Weights,
    schedule: Schedule,
    device: torch.device,
    autocast: str | None,
) -> dict[str, Any]:
    """What decides the bits of a run; a checkpoint of another one must not be taken up."""
    return {
        "base": backbone.weights.hash,
        "start": start.hash,
        "task": task.name,
        "data": task.fingerprint,
        "head": head.hash,
        "recipe": asdict(recipe),
        "seed": schedule.seed,
        "device": device.type,
        "autocast": autocast,
    }


def training_step(optimizer: torch.optim.Optimizer, loss: Tensor, recipe: Recipe, step: int) -> float:
    """Take one step down the gradient of a loss, at the recipe's learning rate and clip norm of that step.

    Parameters
    ----------
    optimizer : Optimizer
        Of one group of parameters.
    loss : () Tensor
        Its gradient is computed here.
    step : int
        Counted from 0.

    Returns
    -------
    float
        The loss before the step.

    Raises
    ------
    InputError
        A loss or gradient that is not finite; the parameters stay as they were.
    """
    optimizer.zero_grad()
    loss.backward()
    group = optimizer.param_groups[0]
    group["lr"] = recipe.lr_at(step)
    norm = nn.utils.clip_grad_norm_(group["params"], math.inf if recipe.clip_norm is None else recipe.clip_norm)
    value = loss.item()
    if not math.isfinite(value) or not math.isfinite(norm.item()):
        raise InputError(
            f"training broke down at step {step + 1} of {recipe.steps}: loss {value}, gradient norm {norm.item()}, "
            f"learning rate {group['lr']:.3g}; expected finite numbers: lower lr, warm up longer or set clip_norm"
        )
    optimizer.step()
    return value


def _optimizer(tower: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(group_of(PREFIX + name) not in recipe.freeze)
    trained = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=True)


def precision(device: torch.device, autocast: str | None) -> AbstractContextManager[Any]:
    """The context in which products run in the precision `autocast`, "bfloat16", or in their own (None)."""
    return torch.autocast(device.type, AUTOCAST[autocast]) if autocast else nullcontext()


def _require_usable(backbone: Backbone, task: Task, head: Head, start: Weights, autocast: str | None) -> None:
    start.layout.require_equal(backbone.weights.layout, "the start")
    if len(task.train) == 0:
        raise InputError(f"task {task.name!r} has no training images; give it at least one")
    if head.class_names != task.class_names:
        raise InputError(
            f"the head is for {len(head.class_names)} classes {head.class_names[:4]} … and task {task.name!r} has "
            f"{len(task.class_names)}, {task.class_names[:4]} …; build it from the task: build_head(backbone, task)"
        )
    require_autocast(autocast)


def require_autocast(autocast: str | None) -> None:
    """Raise an InputError unless `autocast` is None or a known precision."""
    one_of(autocast, (None, *AUTOCAST), "autocast")
