"""Fine-tuning: the training loop, frozen groups, recipes and bad input."""

import io
import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tqdm import tqdm

import rmtllmf_lib.training.finetune as module
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import OPENAI_VIT, Backbone, fresh_tower, load_backbone
from rmtllmf_lib.model.layout import GROUPS
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.tasks.base import Split, Task
from rmtllmf_lib.tasks.images import ArrayImages, LazyImages
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.finetune import RECIPES, Recipe, finetune, recipe_for
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import Schedule, normalize
from small import CLASSES, SHORT, generator, small_backbone, small_head, small_split, small_task, small_tau

pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_learns(backbone: Backbone, task: Task) -> None:
    head = small_head()  # knows nothing, so the tower has to learn all
    recipe = Recipe(steps=40, batch_size=20, lr=2e-3, warmup_steps=4)
    tau = finetune(backbone, task, head, recipe, generator=generator())
    before = accuracy(backbone, backbone.weights, task.test, head)
    after = accuracy(backbone, backbone.weights + tau, task.test, head)
    assert before < 0.5 and after > 0.9
    assert float(tau.info["validation_accuracy"]) > 0.9
    assert tau.info["task"] == task.name and json.loads(tau.info["recipe"])["steps"] == 40
    assert tau.base_hash == backbone.weights.hash


def test_equals_a_plain_loop(backbone: Backbone, task: Task, head: Head) -> None:
    """The same run written with torch's own scheduler, unfused optimiser and the definition of the loss."""
    recipe = replace(SHORT, freeze=())
    tau = finetune(backbone, task, head, recipe, generator=generator(3))
    schedule = Schedule.draw(len(task.train), recipe.steps, recipe.batch_size, generator(3))
    tower = fresh_tower(backbone).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-3, weight_decay=0.1, fused=False, foreach=False)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 2, 1, total_iters=1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[2])
    assert isinstance(task.train.inputs, torch.Tensor)
    for step in range(recipe.steps):
        chosen = schedule.indices(step)
        features = tower(normalize(task.train.inputs[chosen], backbone))
        cosines = features / features.norm(dim=1, keepdim=True) @ head.weight.T
        loss = -(head.logit_scale * cosines).log_softmax(1)[torch.arange(len(chosen)), task.train.labels[chosen]].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        both.step()
    difference = tau.values - (type(backbone.weights).from_module(tower) - backbone.weights).values
    # AdamW turns rounding into full steps where the true gradient is 0 (the bias of the keys).
    assert difference.norm() < 1e-2 * tau.norm


@pytest.mark.parametrize("freeze", [("embeddings",), ("attention", "norm"), ("mlp", "projection"), ()])
def test_frozen_groups_are_exactly_zero(backbone: Backbone, task: Task, head: Head, freeze: tuple[str, ...]) -> None:
    tau = finetune(backbone, task, head, replace(SHORT, freeze=freeze), generator=generator())
    for group in GROUPS:
        assert (tau.only(group).norm == 0) == (group in freeze), group


def test_the_same_seed_gives_the_same_bits(backbone: Backbone, task: Task, head: Head) -> None:
    one, two = generator(5), generator(5)
    a = finetune(backbone, task, head, SHORT, generator=one)
    torch.rand(7)  # the global generator has no say
    b = finetune(backbone, task, head, SHORT, generator=two)
    assert torch.equal(a.values, b.values)
    assert torch.equal(one.get_state(), two.get_state())
    following = finetune(backbone, task, head, SHORT, generator=one)
    assert not torch.equal(a.values, following.values)
    assert torch.equal(a.values, finetune(backbone, task, head, SHORT, generator=generator(5), progress=False).values)
    assert backbone.weights.hash == small_backbone(layers=2).weights.hash  # the base is not trained in place


def test_training_from_other_weights(backbone: Backbone, task: Task, head: Head) -> None:
    start = backbone.weights + small_tau(backbone.weights, 1)
    tau = finetune(backbone, task, head, SHORT, generator=generator(), start=start)
    assert tau.base_hash == backbone.weights.hash
    assert 0 < tau.rms < small_tau(backbone.weights, 1).rms
    assert not torch.equal(tau.values, finetune(backbone, task, head, SHORT, generator=generator()).values)


def test_lower_precision_changes_little(backbone: Backbone, task: Task, head: Head) -> None:
    exact = finetune(backbone, task, head, SHORT, generator=generator())
    rough = finetune(backbone, task, head, SHORT, generator=generator(), autocast="bfloat16")
    assert rough.values.dtype == torch.float32
    assert 0 < (exact - rough).norm < 0.7 * exact.norm


def test_cropped_images_are_learnt_from(backbone: Backbone, task: Task, head: Head) -> None:
    taus = [
        finetune(backbone, task, head, replace(SHORT, augment=augment), generator=generator())
        for augment in ("crop", "crop", "none")
    ]
    assert torch.equal(taus[0].values, taus[1].values) and not torch.equal(taus[0].values, taus[2].values)


def test_all_files_are_checked_before_the_first_step(
    backbone: Backbone, task: Task, head: Head, tmp_path: Path
) -> None:
    broken: set[str] = set()

    def lazy(name: str) -> Split:
        split = getattr(task, name)

        def decode(index: int) -> Image.Image:
            if f"{name}/{index}" in broken:
                raise InputError(f"unreadable image {name}/{index}")
            return ArrayImages(split.inputs)(index)

        return Split(LazyImages(range(len(split)), decode), split.labels)

    splits = {name: lazy(name) for name in ("train", "validation", "test")}
    run = partial(finetune, backbone, replace(task, **splits), head, SHORT, checkpoint=tmp_path / "c.safetensors")
    broken |= {"train/3", "validation/0", "validation/5", "test/9"}
    with pytest.raises(InputError) as caught:
        run(generator=generator())
    assert {line.split()[-1] for line in str(caught.value).splitlines()} == broken
    assert not [*tmp_path.iterdir()], "a step was made"
    broken.clear()
    assert torch.equal(
        run(generator=generator()).values, finetune(backbone, task, head, SHORT, generator=generator()).values
    )


@pytest.mark.parametrize("wrong", [0, None, 0.5, "cpu", np.random.default_rng(0), torch.Generator])
def test_another_generator_is_refused(backbone: Backbone, task: Task, head: Head, wrong: object) -> None:
    with pytest.raises(InputError, match="generator is .*expected torch.Generator"):
        finetune(backbone, task, head, SHORT, generator=wrong)


def test_gradients_are_clipped() -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    recipe = Recipe(steps=1, batch_size=1, lr=1.0, clip_norm=0.5)
    assert module.training_step(optimizer, (weight * 3).sum() + 2, recipe, 0) == 2
    assert weight.detach().norm() == pytest.approx(0.5, rel=1e-5)
    module.training_step(optimizer, (weight * 3).sum(), replace(recipe, clip_norm=None), 0)
    assert weight.detach().norm() == pytest.approx(6.5, rel=1e-5)


@given(st.integers(1, 50), st.integers(0, 50), st.floats(1e-6, 1))
def test_the_learning_rate_rises_then_falls(steps: int, warmup: int, lr: float) -> None:
    recipe = Recipe(steps=steps, batch_size=1, lr=lr, warmup_steps=min(warmup, steps))
    rates = [recipe.lr_at(step) for step in range(steps)]
    top = min(recipe.warmup_steps, steps - 1)
    assert all(0 < rate <= lr for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(lr)


def test_recipes() -> None:
    tiny, vit = RECIPES["tiny"], RECIPES[OPENAI_VIT]
    assert (tiny.steps, tiny.batch_size, tiny.lr, tiny.freeze) == (80, 64, 3e-4, ("embeddings",))
    assert (tiny.warmup_steps, tiny.weight_decay, tiny.clip_norm, tiny.augment) == (8, 0.0, None, "none")
    assert (vit.steps, vit.batch_size, vit.lr, vit.weight_decay, vit.warmup_steps) == (2000, 128, 1e-5, 0.1, 200)
    assert vit.clip_norm == 1 and vit.augment == "crop" and vit.freeze == ()


def test_a_step_at_the_size_of_vit_b_16() -> None:
    """One step with the recipe of the paper's backbone: its image size, width and heads, two layers, random weights."""
    config = open_clip.get_model_config(OPENAI_VIT)
    config["vision_cfg"]["layers"] = 2
    small_text = {"context_length": 8, "vocab_size": 20, "width": 64, "heads": 2, "layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], small_text, quick_gelu=True)
    model = model.eval().requires_grad_(False)
    base = Backbone(OPENAI_VIT, model, lambda texts: torch.zeros(0), 224, None, Weights.from_module(model))
    task = replace(small_task(n=2), test=small_split(1), validation=small_split(0))
    recipe = replace(recipe_for(base), steps=1, batch_size=2, warmup_steps=0)
    head = small_head(dimension=config["embed_dim"])
    tau = finetune(base, task, head, recipe, generator=generator())
    assert tau.layout.size == 86_192_640 - 10 * (12 * 768**2 + 13 * 768)
    moved = {group: tau.only(group).values.count_nonzero().item() for group in GROUPS}
    assert min(moved.values()) > 0 and tau.values.isfinite().all()
    assert tau.values.abs().max() == pytest.approx(recipe.lr, rel=0.2)  # AdamW's first step is as long as the rate


def test_the_recipe_of_a_backbone(backbone: Backbone) -> None:
    """By its name, else by its architecture; none for an unknown architecture."""
    tiny = load_backbone("tiny")
    assert recipe_for(tiny) == recipe_for(replace(tiny, name="my/base")) == RECIPES["tiny"]
    assert recipe_for(replace(backbone, name=OPENAI_VIT)) == RECIPES[OPENAI_VIT]
    with pytest.raises(InputError, match="no recipe for backbone 'small'"):
        recipe_for(small_backbone(layers=2))


def test_values_in_place_of_the_recipes() -> None:
    """The warm-up keeps its share of the steps."""
    base, tiny = load_backbone("tiny"), RECIPES["tiny"]
    longer = recipe_for(base, steps=10 * tiny.steps, lr=0.5, batch_size=7)
    assert longer == replace(tiny, steps=10 * tiny.steps, warmup_steps=10 * tiny.warmup_steps, lr=0.5, batch_size=7)
    for name, value in {"steps": 0, "lr": 0.0, "batch_size": -5}.items():
        with pytest.raises(InputError, match=f"{name} is {value}"):
            recipe_for(base, **{name: value})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ bad input


def test_divergence_names_step_and_learning_rate(backbone: Backbone, task: Task, head: Head) -> None:
    with pytest.raises(InputError, match=r"step [2-9]\d* of 20: loss .* learning rate 1e\+30; .*expected"):
        finetune(backbone, task, head, Recipe(steps=20, batch_size=4, lr=1e30, warmup_steps=1), generator=generator())


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch_size": 1.5}, {"lr": 0.0}, {"lr": math.nan}, {"lr": math.inf}, {"weight_decay": -1.0},
        {"warmup_steps": 7}, {"warmup_steps": -1}, {"clip_norm": 0.0}, {"betas": (0.9, 1.0)}, {"betas": (0.9,)},
        {"freeze": ("head",)}, {"freeze": GROUPS}, {"augment": "flip"}, {"steps": True}, {"lr": "1e-3"},
    ],
)  # fmt: skip
def test_a_bad_recipe_is_named(wrong: dict[str, object]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(InputError, match=rf"^{name}(\[\d\])? is .*: expected"):
        replace(SHORT, **wrong)


def test_bad_input_is_named(backbone: Backbone, task: Task, head: Head) -> None:
    def refused(message: str, **changes: object) -> None:
        with pytest.raises(InputError, match=message):
            arguments = {"backbone": backbone, "task": task, "head": head, "recipe": SHORT, **changes}
            finetune(**arguments, generator=generator())  # type: ignore[arg-type]

    refused("no training images", task=replace(task, train=task.train.subset([])))
    refused("is for 3 classes", head=small_head(classes=CLASSES[:3]))
    refused("the layout of the start", start=small_backbone(layers=3).weights)
    refused("autocast is 'float8'", autocast="float8")
    refused("autocast is 'bf16'", autocast="bf16")
    refused("device is 'tpu'", device="tpu")
    refused("checkpoint_every is 0", checkpoint_every=0)
    other = small_backbone(layers=2)
    refused("no recipe for backbone 'small': expected tiny or .*; give one", backbone=other, recipe=None)
    if not torch.cuda.is_available():
        refused("device is 'cuda'", device="cuda")


def test_validation_images_are_not_needed(backbone: Backbone, task: Task, head: Head) -> None:
    tau = finetune(backbone, replace(task, validation=small_split(0)), head, SHORT, generator=generator())
    assert "validation_accuracy" not in tau.info


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_for_terminals(
    backbone: Backbone, task: Task, head: Head, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "tqdm", partial(tqdm, mininterval=0, miniters=1))  # redraw at every step

    def shown(progress: bool) -> str:
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal)
            finetune(backbone, task, head, SHORT, generator=generator(), progress=progress)
        return terminal.getvalue()

    written = shown(True)
    assert "colours" in written and "loss=" in written
    assert shown(False) == ""
    finetune(backbone, task, head, SHORT, generator=generator())
    assert capfd.readouterr() == ("", "")


def test_a_tau_survives_saving_and_loading(backbone: Backbone, task: Task, head: Head, tmp_path: Path) -> None:
    tau = finetune(backbone, task, head, SHORT, generator=generator())
    tau.save(tmp_path / "tau.safetensors")
    again = TaskVector.load(tmp_path / "tau.safetensors", backbone.weights)
    assert torch.equal(again.values, tau.values) and again.info == tau.info
