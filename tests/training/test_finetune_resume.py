"""An interrupted fine-tuning run resumes to the same bits, or the error says why it cannot."""

import pickle
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rmtllmf_lib.model.tensor_file as file_module
import rmtllmf_lib.training.finetune as module
from artifacts import truncate
from forks import die, exit_code, forked
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.storage.tensors import save_tensors
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training.finetune import Recipe, finetune
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.training_state import TrainingState
from small import SHORT, generator, small_backbone, small_head, small_tau

pytestmark = pytest.mark.usefixtures("one_thread")


class StoppedError(Exception):
    pass


def stop_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an exception right after the n-th checkpoint of a run."""
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
    assert [*file.parent.iterdir()] == [file]
    trained.clear()  # the checkpoint stays: a lost vector is recovered without a step
    again = finetune(backbone, task, head, recipe, generator=generator(), checkpoint=file, checkpoint_every=every)
    assert trained == [] and torch.equal(again.values, whole.values) and again.info == whole.info
    used = generator()
    finetune(backbone, task, head, recipe, generator=used)
    assert torch.equal(other.get_state(), used.get_state())


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    real, steps = module.training_step, []

    def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor, recipe: Recipe, step: int) -> float:
        steps.append(step)
        return real(optimizer, loss, recipe, step)

    monkeypatch.setattr(module, "training_step", update)
    return steps


def test_a_killed_run_resumes_to_the_same_bits(
    backbone: Backbone, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real SIGKILL in a forked process, in the middle of the third checkpoint."""
    file = tmp_path / "run.safetensors"
    recipe = Recipe(steps=12, batch_size=8, lr=1e-3, warmup_steps=3, augment="crop")
    whole = finetune(backbone, task, small_head(), recipe, generator=generator(9))
    assert exit_code(forked(killed_run, backbone, task, recipe, file)) == -signal.SIGKILL
    assert len([*tmp_path.iterdir()]) == 2  # the second checkpoint, and half of the third
    trained = count_steps(monkeypatch)
    resumed = finetune(backbone, task, small_head(), recipe, generator=generator(9), checkpoint=file)
    assert trained == [*range(4, 12)]
    assert torch.equal(resumed.values, whole.values)


def killed_run(backbone: Backbone, task: Task, recipe: Recipe, file: Path) -> None:
    saved: list[Path] = []

    def half(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        saved.append(path)
        save_tensors(path, tensors, metadata)
        if len(saved) == 3:
            truncate(path)
            die()

    file_module.save_tensors = half
    finetune(
        backbone, task, small_head(), recipe, generator=generator(9), checkpoint=file, checkpoint_every=2,
        progress=False,
    )  # fmt: skip


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
    assert stopped.with_name("run.safetensors.damaged").read_bytes() == found
    assert torch.equal(tau.values, finetune(backbone, task, head, SHORT, generator=generator()).values)


def test_a_vector_needs_no_last_checkpoint(
    backbone: Backbone, task: Task, head: Head, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """There may be room for the vector and not for the checkpoint, which is three times as large."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        tau = finetune(backbone, task, head, SHORT, generator=generator(), checkpoint=tmp_path / "run.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(tau.values, finetune(backbone, task, head, SHORT, generator=generator()).values)
    assert "the last checkpoint is missing" in caplog.text and [*tmp_path.iterdir()] == []


def test_a_checkpoint_of_another_run_is_refused(backbone: Backbone, task: Task, head: Head, stopped: Path) -> None:
    def refused(named: str, seed: int = 0, **changes: object) -> None:
        with pytest.raises(InputError, match=f"another run: {named} is .*expected"):
            arguments = {"backbone": backbone, "task": task, "head": head, "recipe": SHORT, **changes}
            finetune(**arguments, generator=generator(seed), checkpoint=stopped)  # type: ignore[arg-type]

    before = stopped.read_bytes()
    refused("recipe", recipe=replace(SHORT, lr=2e-3))
    refused("seed", seed=1)
    refused("data", task=replace(task, fingerprint="other"))
    refused("head", head=replace(head, logit_scale=3.0))
    refused("start", start=backbone.weights + small_tau(backbone.weights, 0))
    refused("autocast", autocast="bfloat16")
    other = small_backbone(1, layers=2)
    refused("base", backbone=other)
    assert stopped.read_bytes() == before
    with pytest.raises(InputError, match="is not a file"):
        finetune(backbone, task, head, SHORT, generator=generator(), checkpoint=stopped.parent)


def test_a_full_disk_is_reported_and_the_previous_checkpoint_stays(
    backbone: Backbone, task: Task, head: Head, stopped: Path
) -> None:
    """A limit on the size of files fails the write half-way, as a full disk does."""
    before = stopped.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"step 5: .*previous checkpoint") as caught:
            finetune(backbone, task, head, SHORT, generator=generator(), checkpoint=stopped, checkpoint_every=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(stopped)
    assert stopped.read_bytes() == before and [*stopped.parent.iterdir()] == [stopped]
    tau = finetune(backbone, task, head, SHORT, generator=generator(), checkpoint=stopped)
    assert torch.equal(tau.values, finetune(backbone, task, head, SHORT, generator=generator()).values)
