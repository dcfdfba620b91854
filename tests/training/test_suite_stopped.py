"""Task vectors of a suite whose training, or storing, was stopped."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rmtllmf_lib.training.finetune as finetune_module
import rmtllmf_lib.training.suite as module
from bases import write_base
from rmtllmf_lib.model.backbone import Backbone, load_backbone
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.suite import Suite, load_suite
from small import small_suites

QUICK = Recipe(steps=6, batch_size=32, lr=3e-3)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_base(tmp_path_factory.mktemp("base"), seed=5))


@pytest.fixture(scope="module", autouse=True)
def _small_tasks() -> Iterator[None]:
    with small_suites():
        yield


def hashes(suite: Suite) -> dict[str, str]:
    return {name: tau.hash for name, tau in suite.taus.items()}


def test_a_stopped_run_goes_on_where_it_was(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt starts at the checkpoint of the first, and its vector is that of an undisturbed run."""
    store, recipe = Store(tmp_path), replace(QUICK, steps=12)
    spy = module.finetune

    def often(*arguments: Any, **options: Any) -> Any:
        return spy(*arguments, **options, checkpoint_every=4)

    monkeypatch.setattr(module, "finetune", often)
    started: list[int] = []
    plain_update, stop = finetune_module.training_step, True

    def update(optimizer: Any, loss: Any, recipe: Recipe, step: int) -> float:
        started.append(step)
        if stop and step == 9:
            raise KeyboardInterrupt
        return plain_update(optimizer, loss, recipe, step)

    monkeypatch.setattr(finetune_module, "training_step", update)
    with pytest.raises(KeyboardInterrupt):
        load_suite(backbone, ["signs"], recipe=recipe, store=store)
    assert started == [*range(10)]
    stop = False
    started.clear()
    resumed = load_suite(backbone, ["signs"], recipe=recipe, store=store)
    assert started == [8, 9, 10, 11]
    undisturbed = load_suite(backbone, ["signs"], recipe=recipe, store=Store(tmp_path / "other"))
    assert hashes(resumed) == hashes(undisturbed)
    assert [*tmp_path.rglob("*checkpoint*")] == [] and store.verify() == []


def test_a_full_disk_after_the_training_costs_no_step(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vector cannot be stored; the second attempt does not train. Until then, the store tells what lies there."""
    store = Store(tmp_path)
    steps: list[int] = []
    train, write = finetune_module.training_step, Store._write

    def counted(optimizer: Any, loss: Any, recipe: Recipe, step: int) -> float:
        steps.append(step)
        return train(optimizer, loss, recipe, step)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(finetune_module, "training_step", counted)
    for cleared in (False, True):
        monkeypatch.setattr(Store, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            load_suite(backbone, ["signs"], recipe=QUICK, store=store)
        assert steps == [*range(QUICK.steps)]
        (problem,) = store.verify()
        assert problem.kind == "task-vector" and "unfinished" in problem.reason and problem.path.is_file()
        monkeypatch.setattr(Store, "_write", write)
        steps.clear()
        if cleared:
            assert store.clear() == 0 and store.verify() == [] and not problem.path.exists()
        load_suite(backbone, ["signs"], recipe=QUICK, store=store)
        assert steps == [*range(QUICK.steps)] * cleared and store.verify() == []
        assert store.clear("task-vector") == 1
        steps.clear()
