"""Fine-tuning: what it learns, what it leaves alone, and that a stopped run ends with the same bits."""

import io
import json
import math
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rmtllmf_lib.finetune as module
from rmtllmf_lib.backbone import OPENAI_VIT, Backbone, Head, build_head, vision_tower
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.evaluate import accuracy
from rmtllmf_lib.finetune import RECIPES, Recipe, finetune
from rmtllmf_lib.loading import Schedule, normalize
from rmtllmf_lib.task_vector import GROUPS, TaskVector
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training_state import TrainingState
from small import CLASSES, small_backbone, small_head, small_split, small_task, small_tau

SHORT = Recipe(steps=6, batch_size=8, lr=1e-3, warmup_steps=2, weight_decay=0.1, clip_norm=1.0, freeze=("embeddings",))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone(layers=2)


@pytest.fixture(scope="module")
def task() -> Task:
    return small_task()


@pytest.fixture(scope="module")
def head(backbone: Backbone, task: Task) -> Head:
    return build_head(backbone, task, "prototype")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    tower = vision_tower(backbone).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-3, weight_decay=0.1, fused=False, foreach=False)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 2, 1, total_iters=1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[2])
    assert isinstance(task.train.images, torch.Tensor)
    for step in range(recipe.steps):
        chosen = schedule.indices(step)
        features = tower(normalize(task.train.images[chosen], backbone))
        cosines = features / features.norm(dim=1, keepdim=True) @ head.weight.T
        loss = -(head.scale * cosines).log_softmax(1)[torch.arange(len(chosen)), task.train.labels[chosen]].mean()
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


def test_a_start_elsewhere(backbone: Backbone, task: Task, head: Head) -> None:
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


def test_gradients_are_clipped() -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    recipe = Recipe(steps=1, batch_size=1, lr=1.0, clip_norm=0.5)
    assert module._update(optimizer, (weight * 3).sum() + 2, recipe, 0) == 2
    assert weight.detach().norm() == pytest.approx(0.5, rel=1e-5)
    module._update(optimizer, (weight * 3).sum(), replace(recipe, clip_norm=None), 0)
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
    assert (vit.steps, vit.batch_size, vit.lr, vit.weight_decay, vit.warmup_steps) == (2000, 128, 1e-5, 0.1, 200)
    assert vit.clip_norm == 1 and vit.augment == "crop" and vit.freeze == ()


# ------------------------------------------------------------------------------------------- stopped and taken up again


class StoppedError(Exception):
    pass


def stop_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run end with an exception right after its n-th checkpoint."""
    real, done = TrainingState.save, []

    def save(self: TrainingState, step: int) -> None:
        real(self, step)
        done.append(step)
        if len(done) == saves:
            raise StoppedError

    monkeypatch.setattr(TrainingState, "save", save)


@pytest.mark.parametrize(
    ("every", "saves", "augment"), [(1, 1, "none"), (1, 5, "crop"), (2, 2, "none"), (4, 1, "crop")]
)
def test_a_resumed_run_has_the_same_bits(
    backbone: Backbone, task: Task, head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    every: int, saves: int, augment: str,
) -> None:  # fmt: skip
    recipe = replace(SHORT, augment=augment)
    whole = finetune(backbone, task, head, recipe, generator=generator())
    file = tmp_path / "new" / "run.safetensors"
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        stop_after(saves, patch)
        finetune(backbone, task, head, recipe, generator=generator(), checkpoint=file, checkpoint_every=every)
    assert file.is_file()
    trained = count_steps(monkeypatch)
    other = generator()
    resumed = finetune(backbone, task, head, recipe, generator=other, checkpoint=file, checkpoint_every=every)
    assert len(trained) == recipe.steps - every * saves
    assert torch.equal(resumed.values, whole.values) and resumed.info == whole.info
    assert not file.exists() and [*file.parent.iterdir()] == []
    used = generator()
    finetune(backbone, task, head, recipe, generator=used)
    assert torch.equal(other.get_state(), used.get_state())


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    real, steps = module._update, []

    def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor, recipe: Recipe, step: int) -> float:
        steps.append(step)
        return real(optimizer, loss, recipe, step)

    monkeypatch.setattr(module, "_update", update)
    return steps


KILLED = """
import sys, time
import torch
torch.set_num_threads(1)
from small import small_backbone, small_head, small_task
import rmtllmf_lib.finetune as module
update = module._update
def slow(*args):
    time.sleep(0.02)
    return update(*args)
module._update = slow
recipe = module.Recipe(steps=30, batch_size=8, lr=1e-3, warmup_steps=3, augment="crop")
module.finetune(small_backbone(layers=2), small_task(), small_head(), recipe,
                generator=torch.Generator().manual_seed(9), checkpoint=sys.argv[1], checkpoint_every=2)
"""


def test_a_killed_run_goes_on_to_the_same_bits(
    backbone: Backbone, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.safetensors"
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path[:0] = [{here!r}, {str(Path(here).parent)!r}]\n{KILLED}"
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not file.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    _, told = process.communicate()
    assert process.returncode == -signal.SIGKILL, told.decode()
    assert file.exists()
    recipe = Recipe(steps=30, batch_size=8, lr=1e-3, warmup_steps=3, augment="crop")
    whole = finetune(backbone, task, small_head(), recipe, generator=generator(9))
    trained = count_steps(monkeypatch)
    resumed = finetune(backbone, task, small_head(), recipe, generator=generator(9), checkpoint=file)
    assert 0 < len(trained) < 30
    assert torch.equal(resumed.values, whole.values)
    assert not file.exists()


@pytest.fixture
def stopped(backbone: Backbone, task: Task, head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that was stopped after 4 of 6 steps."""
    file = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        stop_after(2, patch)
        finetune(backbone, task, head, SHORT, generator=generator(), checkpoint=file, checkpoint_every=2)
    return file


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "one bit":
        content[-5000] ^= 1
    elif how == "other step":
        content = bytearray(bytes(content).replace(b'"step":"4"', b'"step":"2"'))
    elif how == "empty":
        content.clear()
    elif how == "pickle":
        content = bytearray(pickle.dumps({"weights": 1}))
    assert bytes(content) != file.read_bytes()
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "one bit", "other step", "empty", "pickle"])
def test_a_damaged_checkpoint_is_set_aside(
    backbone: Backbone, task: Task, head: Head, stopped: Path, how: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    damage(stopped, how)
    found = stopped.read_bytes()
    trained = count_steps(monkeypatch)
    tau = finetune(backbone, task, head, SHORT, generator=generator(), checkpoint=stopped)
    assert len(trained) == SHORT.steps and "training starts over" in caplog.text
    assert stopped.with_name("run.safetensors.damaged").read_bytes() == found and not stopped.exists()
    assert torch.equal(tau.values, finetune(backbone, task, head, SHORT, generator=generator()).values)


def test_a_checkpoint_of_another_run_is_refused(backbone: Backbone, task: Task, head: Head, stopped: Path) -> None:
    def refused(named: str, seed: int = 0, **changes: object) -> None:
        with pytest.raises(InputError, match=f"another run: {named} is .*expected"):
            arguments = {"backbone": backbone, "task": task, "head": head, "recipe": SHORT, **changes}
            finetune(**arguments, generator=generator(seed), checkpoint=stopped)  # type: ignore[arg-type]

    before = stopped.read_bytes()
    refused("recipe", recipe=replace(SHORT, lr=2e-3))
    refused("seed", seed=1)
    refused("data", task=replace(task, fingerprint="other"))
    refused("head", head=replace(head, scale=3.0))
    refused("start", start=backbone.weights + small_tau(backbone.weights, 0))
    refused("autocast", autocast="bfloat16")
    other = small_backbone(1, layers=2)
    refused("base", backbone=other)
    assert stopped.read_bytes() == before
    with pytest.raises(InputError, match="is not a file"):
        finetune(backbone, task, head, SHORT, generator=generator(), checkpoint=stopped.parent)


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(
    backbone: Backbone, task: Task, head: Head, stopped: Path
) -> None:
    """A limit on the size of files fails the write half-way, as a full disk does."""
    before = stopped.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"stopped at step 5: make room .* checkpoint before") as caught:
            finetune(backbone, task, head, SHORT, generator=generator(), checkpoint=stopped, checkpoint_every=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(stopped)
    assert stopped.read_bytes() == before and [*stopped.parent.iterdir()] == [stopped]
    tau = finetune(backbone, task, head, SHORT, generator=generator(), checkpoint=stopped)
    assert torch.equal(tau.values, finetune(backbone, task, head, SHORT, generator=generator()).values)


# ------------------------------------------------------------------------------------------------------------ bad input


def test_a_breakdown_names_step_and_learning_rate(backbone: Backbone, task: Task, head: Head) -> None:
    with pytest.raises(InputError, match=r"step [2-9]\d* of 20: loss .* learning rate 1e\+30; .* lower lr"):
        finetune(backbone, task, head, Recipe(steps=20, batch_size=4, lr=1e30, warmup_steps=1), generator=generator())


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch_size": 1.5}, {"lr": 0.0}, {"lr": math.nan}, {"lr": math.inf}, {"weight_decay": -1.0},
        {"warmup_steps": 7}, {"clip_norm": 0.0}, {"betas": (0.9, 1.0)}, {"freeze": ("head",)}, {"freeze": GROUPS},
        {"augment": "flip"},
    ],
)  # fmt: skip
def test_a_bad_recipe_is_named(wrong: dict[str, object]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(InputError, match=f"{name} is .*; expected"):
        replace(SHORT, **wrong)


def test_bad_input_is_named(backbone: Backbone, task: Task, head: Head) -> None:
    def refused(message: str, **changes: object) -> None:
        with pytest.raises(InputError, match=message):
            arguments = {"backbone": backbone, "task": task, "head": head, "recipe": SHORT, **changes}
            finetune(**arguments, generator=generator())  # type: ignore[arg-type]

    refused("no training images", task=replace(task, train=task.train.subset([])))
    refused("the head is for 3 classes", head=small_head(classes=CLASSES[:3]))
    refused("the layout of the start", start=small_backbone(layers=3).weights)
    refused("autocast 'float8'", autocast="float8")
    refused("device 'tpu'", device="tpu")
    refused("checkpoint_every is 0", checkpoint_every=0)
    refused("no recipe for backbone 'small'", recipe=None)
    if not torch.cuda.is_available():
        refused("'cuda' was asked for", device="cuda")


def test_validation_images_are_not_needed(backbone: Backbone, task: Task, head: Head) -> None:
    tau = finetune(backbone, replace(task, validation=small_split(0)), head, SHORT, generator=generator())
    assert "validation_accuracy" not in tau.info


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_for_terminals(
    backbone: Backbone, task: Task, head: Head, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def shown(progress: bool) -> str:
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal)
            finetune(backbone, task, head, replace(SHORT, steps=30), generator=generator(), progress=progress)
        return terminal.getvalue()

    assert "colours" in shown(True) and "loss=" in shown(True)
    assert shown(False) == ""
    finetune(backbone, task, head, SHORT, generator=generator())
    assert capfd.readouterr() == ("", "")


def test_a_tau_goes_through_a_file(backbone: Backbone, task: Task, head: Head, tmp_path: Path) -> None:
    tau = finetune(backbone, task, head, SHORT, generator=generator())
    tau.save(tmp_path / "tau.safetensors")
    again = TaskVector.load(tmp_path / "tau.safetensors", backbone.weights)
    assert torch.equal(again.values, tau.values) and again.info == tau.info
