"""Fine-tuning of the tower on one task: a `Task` and a frozen head in, a `TaskVector` out, Eq. (1).

The same loop trains the embedded tower and ViT-B/16, with a different `Recipe`. Weights, optimiser state and task
vector stay in float32 even under autocast: a task vector is a small difference of large numbers, and most of it would
be lost in half precision.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from rmtllmf_lib.arrays import one_of, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import MINILM, OPENAI_VIT, Backbone, fresh_tower, load_backbone
from rmtllmf_lib.model.layout import GROUPS, group_of, layout_name
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.progress import tqdm
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import Schedule, require_tasks, resolve_device, training_batches
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
    MINILM: Recipe(steps=120, batch_size=32, lr=1e-4, warmup_steps=12, freeze=("embeddings",)),
}


@validated_call
def recipe_for(
    backbone: Backbone, *, steps: int | None = None, lr: float | None = None, batch_size: int | None = None
) -> Recipe:
    """The default recipe of a backbone, by its name; one from a folder gets that of its kind: minilm's or tiny's.

    Parameters
    ----------
    steps, lr, batch_size : optional
        Values that replace the recipe's; the warm-up keeps its share of the steps.

    Raises
    ------
    InputError
        for any other backbone: a recipe that suits one architecture may ruin another.
    """
    usual = MINILM if backbone.reads == "texts" else "tiny"
    known = backbone.name in RECIPES or usual == MINILM
    if not known and backbone.weights.layout != load_backbone("tiny").weights.layout:
        raise InputError(
            f"there is no recipe for backbone {backbone.name!r}: expected {' or '.join(RECIPES)}, or a folder with a "
            "base of the architecture of tiny; give one, recipe=Recipe(steps=…, batch_size=…, lr=…)"
        )
    recipe = RECIPES.get(backbone.name, RECIPES[usual])
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
    proximal: float = 0.0,
    device: str = "cpu",
    autocast: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 250,
    progress: bool = True,
) -> TaskVector:
    """The task vector of fine-tuning the tower on a task's training inputs under its frozen head.

    Parameters
    ----------
    recipe : Recipe, optional
        Default: `recipe_for(backbone)`.
    generator : torch.Generator
        On the CPU. One number is drawn from it as the seed of the run; the same seed gives the same bits, on the CPU
        with the same number of threads.
    start : Weights, optional
        Initial weights; default theta_base.
    proximal : float
        rho ≥ 0 of the term `rho/2 ||theta - start||²` that is added to the loss, as in FedProx (see `fedavg`).
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
    # The copy stays in evaluation mode: layers that are random in training mode would use other generators.
    tower = fresh_tower(backbone, start).to(where)
    trained = _trained(tower, recipe)
    trainee = Trainee(tower, [{"params": trained}], lambda inputs, _step, _seed: tower(inputs))
    if real_number(proximal, "proximal", minimum=0):
        origin = [parameter.detach().clone() for parameter in trained]
        trainee = replace(trainee, penalty=lambda: proximal / 2 * _square_distance(trained, origin))
    run = {"start": start.hash} | ({"proximal": proximal} if proximal else {})
    options: dict[str, Any] = {"generator": generator, "device": device, "autocast": autocast, "progress": progress}
    info = train(
        trainee, backbone, task, head, recipe, run, **options, checkpoint=checkpoint, checkpoint_every=checkpoint_every
    )
    after = Weights.from_module(tower)
    return replace(after - start, info=with_accuracy(info, backbone, after, task, head, device))


@dataclass(frozen=True, eq=False)
class Trainee:
    """What `train` trains, in place.

    Attributes
    ----------
    module : nn.Module
        Holds the parameters, all in float32 on the device of the training.
    groups : list of dict
        The trained ones, as groups of AdamW.
    features : function of a batch of inputs, step and seed of the run
        Features (b, d).
    penalty : function, optional
        Added to the loss.
    """

    module: nn.Module
    groups: Sequence[dict[str, Any]]
    features: Callable[[Tensor, int, int], Tensor]
    penalty: Callable[[], Tensor] | None = None

    __repr__ = short_repr


@validated_call
def train(
    trainee: Trainee,
    backbone: Backbone,
    task: Task,
    head: Head,
    recipe: Recipe,
    run: Mapping[str, Any],
    *,
    generator: torch.Generator,
    device: str = "cpu",
    autocast: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 250,
    progress: bool = True,
) -> dict[str, str]:
    """Train on a task's training images under its frozen head; the loop of `finetune`, for any trainee.

    Parameters
    ----------
    run : mapping of str to JSON values
        What decides the bits of the run, beside what is known here: base, data, head, recipe, seed and device.

    Other parameters, errors: as `finetune`.

    Returns
    -------
    dict of str to str
        Metadata of what was trained: task, data, seed, backbone, head and recipe.
    """
    where = resolve_device(device)
    if len(task.train) == 0:
        raise InputError(f"task {task.name!r} has no training {task.what}: expected at least one")
    head.require_classes(task)
    matmul = precision(where, autocast)
    whole_number(checkpoint_every, "checkpoint_every")
    schedule = Schedule.draw(len(task.train), recipe.steps, recipe.batch_size, generator)
    optimizer = torch.optim.AdamW(trainee.groups, recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=True)
    run = {  # everything that decides the bits of the run
        "base": backbone.weights.hash,
        "task": task.name,
        "data": task.fingerprint,
        "head": head.hash,
        "recipe": asdict(recipe),
        "seed": schedule.seed,
        "device": where.type,
        "autocast": autocast,
        **run,
    }
    state = TrainingState(Path(checkpoint), run, trainee.module, optimizer) if checkpoint else None
    first = state.resume() if state else 0
    require_tasks(backbone, [task])  # a file found damaged at the end would cost the whole run
    rows = head.weight.to(where)
    stream = training_batches(backbone, task.train, schedule, augment=recipe.augment, first_step=first, device=where)
    shown = None if progress else True  # None: on a terminal only
    bar = tqdm(total=recipe.steps, initial=first, desc=task.name, unit="step", disable=shown, leave=False)
    with bar, closing(stream):
        for step, (inputs, labels) in enumerate(stream, first):
            with matmul:
                features = trainee.features(inputs, step, schedule.seed)
            logits = head.logit_scale * functional.normalize(features.float(), dim=-1) @ rows.T
            objective = functional.cross_entropy(logits, labels)
            if trainee.penalty:
                objective = objective + trainee.penalty()
            loss = training_step(optimizer, objective, recipe, step)
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
    info = {key: str(run[key]) for key in ("task", "data", "seed")}
    return info | {"backbone": backbone.name, "head": head.kind, "recipe": json.dumps(run["recipe"])}


@validated_call
def with_accuracy(
    info: Mapping[str, str], backbone: Backbone, trained: Weights, task: Task, head: Head, device: str
) -> dict[str, str]:
    """The metadata of a run with the accuracy of what was trained on validation images, if there are any."""
    if not len(task.validation):
        return dict(info)
    found = accuracy(backbone, trained, task.validation, head, device=device)
    return {**info, "validation_accuracy": f"{found:.4f}"}


def training_step(optimizer: torch.optim.Optimizer, loss: Tensor, recipe: Recipe, step: int) -> float:
    """Take one optimiser step on `loss`, at the learning rate of that step; return the loss.

    Parameters
    ----------
    optimizer : Optimizer
        All of its groups have the same learning rate.
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
    rate = recipe.lr_at(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, math.inf if recipe.clip_norm is None else recipe.clip_norm)
    value = loss.item()
    if not math.isfinite(value) or not math.isfinite(norm.item()):
        raise InputError(
            f"training diverged at step {step + 1} of {recipe.steps}: loss {value}, gradient norm {norm.item()}, "
            f"learning rate {rate:.3g}; expected finite numbers: lower lr, warm up longer or set clip_norm"
        )
    optimizer.step()
    return value


def _trained(tower: nn.Module, recipe: Recipe) -> list[nn.Parameter]:
    """The parameters that the recipe trains; the others are frozen in place."""
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(group_of(layout_name(name)) not in recipe.freeze)
    return [parameter for parameter in tower.parameters() if parameter.requires_grad]


def _square_distance(parameters: Sequence[Tensor], origin: Sequence[Tensor]) -> Tensor:
    """The squared Euclidean distance of parameters from where they were."""
    parts = [(one - other).square().sum() for one, other in zip(parameters, origin, strict=True)]
    return torch.stack(parts).sum()


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
