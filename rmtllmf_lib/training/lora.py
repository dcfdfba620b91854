"""Fine-tuning of low-rank factors in place of the tower's weights: LoRA, and L-LoRA where A is frozen.

Only the factors are trained, on the loop and with the recipes of `finetune`. The weights below them stay as they are:
the layer computes `W x + alpha/r B (A dropout(x))`, and no product `B A` is formed before the end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.differentiable_tower import Layers, forward
from rmtllmf_lib.model.layout import group_of
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.model.tower import cut, read_tower
from rmtllmf_lib.payload.lora import Lora, Slot
from rmtllmf_lib.payload.payload import Encoded
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training.finetune import Recipe, Trainee, recipe_for, train, with_accuracy
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import resolve_device
from rmtllmf_lib.validated import validated_call

_DROPOUT = 2  # purpose of random numbers, beside those of `loading.Schedule`


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What a user has trained.

    Attributes
    ----------
    tau : TaskVector
        The change of the weights, `alpha/r B A` in each adapted matrix and 0 elsewhere.
    encoded : Encoded
        The factors, as a payload: what `lora.decode` turns into `tau`.
    lora : Lora
    """

    tau: TaskVector
    encoded: Encoded
    lora: Lora

    __repr__ = short_repr


@validated_call
def finetune_lora(
    backbone: Backbone,
    task: Task,
    head: Head,
    lora: Lora,
    recipe: Recipe | None = None,
    *,
    generator: torch.Generator,
    dropout: Annotated[float, Field(ge=0)] = 0.0,
    device: str = "cpu",
    autocast: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 250,
    progress: bool = True,
) -> Adaptation:
    """Train the factors of a `Lora` on a task's training images under its frozen head.

    B starts at 0, and A at `lora.start`, the same for all users of one seed. Weight decay shrinks B alone: it pulls the
    change to 0 already, and an A that is not trained, or meets no gradient, would be lost.

    Parameters
    ----------
    recipe : Recipe, optional
        Default: `recipe_for(backbone)`, whose learning rate suits whole weights; factors take about ten times as much.
    dropout : float
        Part of the inputs of A that is set to 0 in training, in [0, 1).

    Other parameters, errors: as `finetune`; also `InputError` for a tower that is no plain vision transformer, a rank
    above a matrix, and a recipe that freezes a group with an adapted matrix.
    """
    recipe = recipe or recipe_for(backbone)
    if real_number(dropout, "dropout", minimum=0) >= 1:
        raise InputError(f"dropout is {dropout:g}: expected a number in [0, 1)")
    layout, slots = backbone.weights.layout, lora.slots(backbone.weights.layout)
    if frozen := {group_of(slot.tensor) for slot in slots} & {*recipe.freeze}:
        raise InputError(
            f"the recipe freezes {', '.join(sorted(frozen))}, and matrices is {lora.matrices}: expected matrices of "
            "other groups; change one of them"
        )
    where = resolve_device(device)
    factors = _Factors(lora, slots, lora.start(layout)).to(where)
    base = {name: view.to(where) for name, view in backbone.weights.state_dict().items()}
    tower = read_tower(backbone.tower)

    def features(images: Tensor, step: int, seed: int) -> Tensor:
        draws = generator_for(seed, _DROPOUT, step) if dropout else None
        layers = _Adapted(tower, base, fused=True, change=factors.changes(dropout, draws))
        return forward(layers, cut(tower, images))

    groups: list[dict[str, Any]] = [{"params": [*factors.B]}]
    groups += [] if lora.frozen else [{"params": [*factors.A], "weight_decay": 0.0}]
    run = {"lora": asdict(lora), "dropout": dropout}
    options: dict[str, Any] = {"generator": generator, "device": device, "autocast": autocast, "progress": progress}
    info = train(
        Trainee(factors, groups, features), backbone, task, head, recipe, run,
        **options, checkpoint=checkpoint, checkpoint_every=checkpoint_every,
    )  # fmt: skip
    numbers = lora.numbers_layout(layout)
    values = numbers.flatten(factors.named())
    encoded = lora.encoded(TaskVector(numbers, values, backbone.weights.origin, info))
    tau = lora.decode(encoded, layout)
    about = with_accuracy(info, backbone, backbone.weights + tau, task, head, device)
    return Adaptation(replace(tau, info=about), encoded, lora)


class _Factors(nn.Module):
    """The factors of all slots; those that are trained are parameters, a frozen A is none."""

    def __init__(self, lora: Lora, slots: list[Slot], start: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.lora, self.slots = lora, slots
        self.B = nn.ParameterList([torch.zeros(slot.shape[0], lora.rank) for slot in slots])
        if lora.frozen:
            for place, slot in enumerate(slots):
                self.register_buffer(f"A_{place}", start[slot.key])
        else:
            self.A = nn.ParameterList([start[slot.key] for slot in slots])

    def pairs(self) -> dict[str, list[tuple[Slot, Tensor, Tensor]]]:
        """Slot, A and B of each tensor's adapted matrices, by the tensor's name."""
        found: dict[str, list[tuple[Slot, Tensor, Tensor]]] = {}
        for place, slot in enumerate(self.slots):
            A = getattr(self, f"A_{place}") if self.lora.frozen else self.A[place]
            found.setdefault(slot.tensor, []).append((slot, A, self.B[place]))
        return found

    def named(self) -> dict[str, Tensor]:
        """What is sent, by its name among the numbers."""
        found = {slot.b: B.detach() for slot, B in zip(self.slots, self.B, strict=True)}
        return found if self.lora.frozen else found | {s.a: A.detach() for s, A in zip(self.slots, self.A, strict=True)}

    def changes(self, dropout: float, draws: torch.Generator | None) -> _Change:
        """The change of each tensor's output, with the dropout of one step."""
        return _Change(self.pairs(), self.lora.scale, dropout, draws)


@dataclass(frozen=True, eq=False)
class _Change:
    """What the factors add to the output of a tensor."""

    pairs: Mapping[str, list[tuple[Slot, Tensor, Tensor]]]
    scale: float
    dropout: float = 0.0
    draws: torch.Generator | None = None

    def added(self, output: Tensor, x: Tensor, tensor: str) -> Tensor:
        """The output (…, m) of a tensor for inputs x (…, n) with the change of its adapted rows."""
        for slot, A, B in self.pairs.get(tensor, ()):
            change = self.scale * (self._kept(x) @ A.T) @ B.T
            before, after = slot.rows.start, output.shape[-1] - slot.rows.stop
            output = output + nn.functional.pad(change, (before, after))
        return output

    def _kept(self, x: Tensor) -> Tensor:
        if self.draws is None:
            return x
        kept = torch.rand(x.shape, generator=self.draws) >= self.dropout  # on the CPU: the same on every device
        return x * kept.to(x.device) / (1 - self.dropout)


@dataclass(frozen=True, eq=False)
class _Adapted(Layers):
    """Layers of a frozen tower with the changes of its adapted matrices."""

    change: _Change = _Change({}, 0.0)

    __repr__ = short_repr

    def named_linear(self, x: Tensor, name: str) -> Tensor:
        """See `Layers`."""
        return self.change.added(super().named_linear(x, name), x, name + ".weight")

    def queries_keys_values(self, x: Tensor, name: str, asking: slice) -> list[Tensor]:
        """See `Layers`."""
        q, k, v = super().queries_keys_values(x, name, asking)
        nothing = x.new_zeros(*x.shape[:-1], 3 * x.shape[-1])
        changes = self.change.added(nothing, x, name + ".in_proj_weight").chunk(3, -1)
        parts = [part.unflatten(-1, (self.tower.heads, -1)).movedim(-2, -3) for part in changes]
        return [q + parts[0][..., asking, :], k + parts[1], v + parts[2]]
