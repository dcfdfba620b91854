"""Fine-tuning of low-rank factors: the loop, the frozen A, and what is linear in it."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import jvp
from torch.nn.utils import parametrize

import rmtllmf_lib.training.finetune as loop
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone, fresh_tower
from rmtllmf_lib.model.differentiable_tower import Layers, forward
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.model.tower import cut, read_tower
from rmtllmf_lib.payload.lora import ALL, Lora, Slot
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import Schedule, normalize
from rmtllmf_lib.training.lora import _Adapted, _Change, _Factors, finetune_lora
from small import SHORT, generator, small_backbone, small_head, small_split

pytestmark = pytest.mark.usefixtures("one_thread")

LORA = Lora(3, 6.0, ("q", "v", "out_proj", "c_fc"))
RECIPE = replace(SHORT, lr=5e-3)


def random_factors(backbone: Backbone, lora: Lora, seed: int) -> _Factors:
    layout = backbone.weights.layout
    factors = _Factors(lora, lora.slots(layout), lora.start(layout))
    drawn = generator(seed)
    for parameter in factors.parameters():
        parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape, generator=drawn)
    return factors


def images(backbone: Backbone, n: int = 6) -> Tensor:
    split = small_split(n, 1)
    assert isinstance(split.inputs, Tensor)
    return normalize(split.inputs, backbone)


def test_it_learns(backbone: Backbone, task: Task) -> None:
    head = small_head()  # knows nothing
    recipe = Recipe(steps=40, batch_size=20, lr=2e-2, warmup_steps=4)
    for frozen in (False, True):
        made = finetune_lora(backbone, task, head, Lora(4, 4.0, frozen=frozen), recipe, generator=generator())
        assert accuracy(backbone, backbone.weights, task.test, head) < 0.5
        assert accuracy(backbone, backbone.weights + made.tau, task.test, head) > 0.9
        assert float(made.tau.info["validation_accuracy"]) > 0.9 and made.tau.info["task"] == task.name


@pytest.mark.parametrize("lora", [LORA, Lora(2, 5.0, ALL), Lora(2, 5.0, ALL, frozen=True)])
def test_the_adapted_tower_is_that_of_the_merged_weights(backbone: Backbone, lora: Lora) -> None:
    factors, x = random_factors(backbone, lora, 3), images(backbone)
    layout = lora.numbers_layout(backbone.weights.layout)
    numbers = TaskVector(layout, layout.flatten(factors.named()), backbone.weights.hash)
    tau = lora.decode(lora.encoded(numbers), backbone.weights.layout)
    tower = read_tower(backbone.model.visual)
    layers = _Adapted(tower, backbone.weights.state_dict(), fused=True, change=factors.changes(0.0, None))
    with torch.no_grad():
        ours = forward(layers, cut(tower, x))
        merged = fresh_tower(backbone, backbone.weights + tau)(x)
        plain = fresh_tower(backbone)(x)
    assert (ours - merged).abs().max() < 1e-4 * merged.abs().max() < 0.1 * (merged - plain).abs().max()


class Product(torch.nn.Module):
    """`W` with the change of its adapted rows, formed as a whole."""

    def __init__(self, lora: Lora, slots: list[Slot], start: dict[str, Tensor]) -> None:
        super().__init__()
        self.slots, self.scale = slots, lora.alpha / lora.rank
        self.A = torch.nn.ParameterList([start[slot.key].clone() for slot in slots])
        self.B = torch.nn.ParameterList([torch.zeros(slot.shape[0], lora.rank) for slot in slots])

    def forward(self, W: Tensor) -> Tensor:
        rows = list(W.split([1] * len(W)))
        for slot, A, B in zip(self.slots, self.A, self.B, strict=True):
            changed = W[slot.rows] + self.scale * B @ A
            rows[slot.rows] = changed.split([1] * len(changed))
        return torch.cat(rows)


@pytest.mark.parametrize("frozen", [False, True])
def test_equals_a_plain_loop(backbone: Backbone, task: Task, head: Head, frozen: bool) -> None:
    """The same run on open_clip's own tower with merged weights, by torch's unfused optimiser; A never decays."""
    lora = replace(LORA, frozen=frozen)
    made = finetune_lora(backbone, task, head, lora, RECIPE, generator=generator(3))
    schedule = Schedule.draw(len(task.train), RECIPE.steps, RECIPE.batch_size, generator(3))
    tower = fresh_tower(backbone).requires_grad_(False)
    slots, start = lora.slots(backbone.weights.layout), lora.start(backbone.weights.layout)
    A, B = [], []
    for tensor in {slot.tensor: None for slot in slots}:
        path, _, name = tensor.removeprefix("visual.").rpartition(".")
        product = Product(lora, [slot for slot in slots if slot.tensor == tensor], start)
        parametrize.register_parametrization(tower.get_submodule(path), name, product)
        A, B = [*A, *product.A], [*B, *product.B]
    groups = [{"params": B}] + ([] if frozen else [{"params": A, "weight_decay": 0.0}])
    optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=RECIPE.weight_decay, fused=False, foreach=False)
    assert isinstance(task.train.inputs, Tensor)
    for step in range(RECIPE.steps):
        chosen = schedule.indices(step)
        features = tower(normalize(task.train.inputs[chosen], backbone))
        logits = head.logit_scale * torch.nn.functional.normalize(features, dim=1) @ head.weight.T
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, task.train.labels[chosen]).backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RECIPE.lr_at(step)
        optimizer.step()
    names = [name.removeprefix("visual.") for name in backbone.weights.layout.names]
    with torch.no_grad():
        after = {"visual." + name: tower.get_parameter(name) if "weight" not in name else _value(tower, name)
                 for name in names}  # fmt: skip
    difference = made.tau.values - (backbone.weights.layout.flatten(after) - backbone.weights.values)
    assert difference.norm() < 2e-2 * made.tau.norm


def _value(tower: torch.nn.Module, name: str) -> Tensor:
    path, _, last = name.rpartition(".")
    return getattr(tower.get_submodule(path), last)


@dataclass(frozen=True, eq=False)
class Linearised(Layers):
    """Layers whose adapted outputs are linearised in (A, B) at (A_0, 0), by forward differentiation."""

    factors: _Factors | None = None
    start: dict[str, Tensor] | None = None

    def change(self, x: Tensor, tensor: str, width: int) -> Tensor:
        total = x.new_zeros(*x.shape[:-1], width)
        assert self.factors is not None and self.start is not None
        for slot, A, B in self.factors.pairs().get(tensor, ()):
            at = self.start[slot.key]

            def output(A: Tensor, B: Tensor) -> Tensor:
                return self.factors.lora.scale * (x @ A.T) @ B.T  # type: ignore[union-attr]

            value, slope = jvp(output, (at, torch.zeros_like(B)), (A - at, B))
            total[..., slot.rows] += value + slope
        return total

    def named_linear(self, x: Tensor, name: str) -> Tensor:
        out = super().named_linear(x, name)
        return out + self.change(x, name + ".weight", out.shape[-1])

    def queries_keys_values(self, x: Tensor, name: str, asking: slice) -> list[Tensor]:
        plain = super().queries_keys_values(x, name, asking)
        added = self.change(x, name + ".in_proj_weight", 3 * x.shape[-1]).chunk(3, -1)
        heads = [part.unflatten(-1, (self.tower.heads, -1)).movedim(-2, -3) for part in added]
        heads[0] = heads[0][..., asking, :]
        return [one + other for one, other in zip(plain, heads, strict=True)]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # of torch, where it loads its jvp
def test_a_frozen_a_is_layerwise_linearisation(backbone: Backbone) -> None:
    """The slope in A is 0 at B = 0, so a layer linearised in both factors does not see that A has moved."""
    x, layout = images(backbone), backbone.weights.layout
    lora = Lora(3, 6.0, ("q", "v", "out_proj", "c_fc", "c_proj"))
    moved = random_factors(backbone, lora, 3)  # A away from its start
    frozen = replace(lora, frozen=True)
    kept = _Factors(frozen, frozen.slots(layout), frozen.start(layout))
    for mine, theirs in zip(kept.B, moved.B, strict=True):
        mine.data = theirs.data
    tower, weights = read_tower(backbone.model.visual), backbone.weights.state_dict()
    with torch.no_grad():
        linear = forward(Linearised(tower, weights, factors=moved, start=lora.start(layout)), cut(tower, x))
        ours = forward(_Adapted(tower, weights, fused=True, change=kept.changes(0.0, None)), cut(tower, x))
        curved = forward(_Adapted(tower, weights, fused=True, change=moved.changes(0.0, None)), cut(tower, x))
    assert (ours - linear).abs().max() < 1e-6 * linear.abs().max().clamp(min=1)
    assert (curved - linear).abs().max() > 1e-3


@pytest.mark.parametrize("frozen", [False, True])
def test_an_unused_a_is_not_shrunk(backbone: Backbone, task: Task, head: Head, frozen: bool) -> None:
    """A head that says nothing gives no gradient: the weight decay of many steps leaves A where it was."""
    silent = replace(head, weight=torch.zeros_like(head.weight))
    lora = replace(LORA, frozen=frozen)
    made = finetune_lora(backbone, task, silent, lora, replace(RECIPE, weight_decay=10.0), generator=generator())
    assert made.tau.norm == 0
    factors, start = made.encoded.numbers.state_dict(), lora.start(backbone.weights.layout)
    assert [name for name in factors if name.endswith("lora_A")] == ([] if frozen else [k + ".lora_A" for k in start])
    if not frozen:
        assert all(torch.equal(factors[key + ".lora_A"], A) for key, A in start.items())


def test_only_the_chosen_matrices_change(backbone: Backbone, task: Task, head: Head) -> None:
    made = finetune_lora(backbone, task, head, Lora(2, 2.0, ("q", "v")), RECIPE, generator=generator())
    for name, tensor in made.tau.state_dict().items():
        q, k, v = (tensor[:64], tensor[64:128], tensor[128:]) if "in_proj_weight" in name else (torch.zeros(1, 1),) * 3
        assert (q.norm() > 0) == (v.norm() > 0) == ("in_proj_weight" in name), name
        assert k.norm() == 0 and ("in_proj_weight" in name or tensor.norm() == 0)
        assert torch.linalg.matrix_rank(q) <= 2 or "in_proj_weight" not in name
    decoded = made.lora.decode(made.encoded, made.tau.layout)
    assert torch.equal(decoded.values, made.tau.values)


def test_users_of_one_seed_share_a(backbone: Backbone, task: Task, head: Head) -> None:
    lora = Lora(2, 2.0, frozen=True, seed=4)
    users = [finetune_lora(backbone, task, head, lora, RECIPE, generator=generator(seed)) for seed in (1, 2)]
    numbers = users[0].encoded.numbers + users[1].encoded.numbers
    together = lora.decode(lora.encoded(numbers), backbone.weights.layout)
    assert (together - (users[0].tau + users[1].tau)).norm < 1e-6 * together.norm


def test_dropout(backbone: Backbone, task: Task, head: Head) -> None:
    run = partial(finetune_lora, backbone, task, head, LORA, RECIPE)
    one, two, none = (run(generator=generator(5), dropout=part).tau for part in (0.3, 0.3, 0.0))
    assert torch.equal(one.values, two.values) and not torch.equal(one.values, none.values)
    A, B, x = torch.randn(2, 5, generator=generator(1)), torch.randn(7, 2, generator=generator(2)), torch.ones(20000, 5)
    slot = Slot("x", "x", "c_fc", slice(0, 7), (7, 5))
    change = partial(_Change, {"x": [(slot, A, B)]}, 2.0)
    nothing = torch.zeros(20000, 7)
    dropped, whole = change(0.4, generator()).added(nothing, x, "x"), change().added(nothing, x, "x")
    spread = dropped.std(0) / 20000**0.5
    assert torch.allclose(whole, 2 * x @ A.T @ B.T, atol=1e-5)
    assert ((dropped.mean(0) - whole.mean(0)).abs() < 4 * spread).all() and (spread > 0).all()
    assert change(0.4, generator()).added(nothing, x, "other") is nothing


def test_a_resumed_run_ends_with_the_same_bits(
    backbone: Backbone, task: Task, head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = partial(finetune_lora, backbone, task, head, LORA, RECIPE, dropout=0.2, checkpoint_every=2)
    whole = run(generator=generator(7))
    step = loop.training_step

    def killed(optimizer: object, loss: object, recipe: object, number: int) -> float:
        if number == 4:
            raise KeyboardInterrupt
        return step(optimizer, loss, recipe, number)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(generator=generator(7), checkpoint=tmp_path / "c.safetensors")
    monkeypatch.setattr(loop, "training_step", step)
    again = run(generator=generator(7), checkpoint=tmp_path / "c.safetensors")
    assert torch.equal(again.tau.values, whole.tau.values)
    with pytest.raises(InputError, match="belongs to another run: lora is"):
        finetune_lora(backbone, task, head, replace(LORA, alpha=1.0), RECIPE, dropout=0.2, generator=generator(7),
                      checkpoint=tmp_path / "c.safetensors")  # fmt: skip


def test_bad_input_is_named(backbone: Backbone, task: Task, head: Head) -> None:
    def refused(message: str, **changes: object) -> None:
        with pytest.raises(InputError, match=message):
            arguments = {"backbone": backbone, "task": task, "head": head, "lora": LORA, "recipe": RECIPE, **changes}
            finetune_lora(**arguments, generator=generator())  # type: ignore[arg-type]

    refused("dropout is 1", dropout=1.0)
    refused("dropout is -0.1", dropout=-0.1)
    refused("the recipe freezes attention", recipe=replace(RECIPE, freeze=("attention",)))
    refused("rank is 65", lora=replace(LORA, rank=65))
    refused("no training images", task=replace(task, train=task.train.subset([])))
    refused("autocast is 'float8'", autocast="float8")
    refused("no recipe for backbone", backbone=small_backbone(layers=3), recipe=None)
