"""Suites: stored task vectors, vectors from files, and lambda chosen on validation images."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rmtllmf_lib.training.finetune as finetune_module
import rmtllmf_lib.training.suite as module
from artifacts import write_two_tasks
from bases import write_base
from image_files import write_folder, write_image
from rmtllmf_lib.command.commands import prepared
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.backbone import Backbone, load_backbone
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.tasks import sources as task_spec
from rmtllmf_lib.tasks.embedded.difficulty import DEFAULT, severity
from rmtllmf_lib.tasks.sources import load_task, parse_tasks
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.finetune import RECIPES, Recipe, finetune
from rmtllmf_lib.training.heads import build_head
from rmtllmf_lib.training.suite import Suite, load_suite, with_vectors
from small import limited, small_suites, small_tau

NAMES = ("signs", "digits", "scenes")
QUICK = Recipe(steps=6, batch_size=32, lr=3e-3)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_base(tmp_path_factory.mktemp("base"), seed=5))


@pytest.fixture(scope="module", autouse=True)
def _small_tasks() -> Iterator[None]:
    with small_suites():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def suite(backbone: Backbone, store: Store) -> Suite:
    return load_suite(backbone, NAMES, recipe=QUICK, store=store)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tasks that are trained during the test."""
    seen: list[str] = []

    def spy(backbone: Backbone, task: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(task.name)
        return finetune(backbone, task, *arguments, **options)

    monkeypatch.setattr(module, "finetune", spy)
    return seen


def hashes(suite: Suite) -> dict[str, str]:
    return {name: tau.hash for name, tau in suite.taus.items()}


# --- loading ----------------------------------------------------------------------------------------------------------


def test_a_suite_holds_its_tasks_heads_and_vectors(suite: Suite, backbone: Backbone) -> None:
    assert tuple(suite.tasks) == tuple(suite.heads) == tuple(suite.taus) == NAMES
    for name in NAMES:
        assert suite.heads[name].class_names == suite.tasks[name].class_names
        assert suite.taus[name].info == {"task": name}
        assert suite.taus[name].base_hash == backbone.weights.hash and suite.taus[name].norm > 0
    # the vector is what finetune makes from the seed
    by_hand = finetune(
        backbone, suite.tasks["signs"], suite.heads["signs"], QUICK, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(by_hand.values, suite.taus["signs"].values)


@pytest.mark.parametrize(
    ("head", "named"),
    [
        ("text", ["one/train/car/1", "one/test/street/2", "two/train/car/2", "two/test/street/0"]),
        ("prototype", ["one/train/car/1", "one/test/street/2"]),
    ],
)
def test_files_of_all_tasks_are_checked_before_any_training(
    backbone: Backbone,
    tmp_path: Path,
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
    head: str,
    named: list[str],
) -> None:
    """Those of one task already for its prototypes."""
    monkeypatch.setattr(task_spec, "DECODED_SIDE", 8)  # images of 32 pixels stay lazy
    for name in ("one", "two"):
        write_folder(tmp_path / name, {"car": 8, "street": 9}, {"car": 2, "street": len(name)})
    write_image(tmp_path / "two" / "test" / "car" / "0.png", shade=99)
    for name in ("one/train/car/1", "one/test/street/2", "two/train/car/2", "two/test/street/0"):
        path = tmp_path / f"{name}.png"
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError) as caught:
        load_suite(
            backbone,
            ["one", "two"],
            source="folder",
            root=tmp_path,
            head=head,
            recipe=QUICK,
            store=Store(tmp_path / "s"),
        )
    assert [name for name in named if f"{name}.png" not in str(caught.value)] == [] and trained == []
    assert str(caught.value).count("unreadable") == len(named)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, True, None])
def test_another_seed_is_refused(suite: Suite, seed: Any) -> None:
    with pytest.raises(InputError, match=f"seed is {seed}"):
        suite.train("signs", QUICK, seed)


def test_a_second_time_nothing_is_trained(suite: Suite, backbone: Backbone, store: Store, trained: list[str]) -> None:
    again = load_suite(backbone, NAMES, recipe=replace(QUICK), store=store)
    assert trained == [] and hashes(again) == hashes(suite)


def test_a_vector_does_not_depend_on_the_others(
    suite: Suite, backbone: Backbone, tmp_path: Path, trained: list[str]
) -> None:
    backwards = load_suite(backbone, NAMES[::-1], recipe=QUICK, store=Store(tmp_path))
    assert trained == [*NAMES[::-1]] and tuple(backwards.taus) == NAMES[::-1]
    assert hashes(backwards) == hashes(suite)
    alone = load_suite(backbone, ["digits"], recipe=QUICK, store=Store(tmp_path / "other"))
    assert hashes(alone)["digits"] == hashes(suite)["digits"]


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": replace(QUICK, steps=5)},
        {"recipe": replace(QUICK, freeze=("embeddings",))},
        {"seed": 1},
        {"head": "prototype"},
    ],
)
def test_other_settings_train_a_vector_again(
    suite: Suite, backbone: Backbone, store: Store, trained: list[str], change: dict[str, Any]
) -> None:
    other = load_suite(backbone, ["signs"], **{"recipe": QUICK, "store": store, **change})
    assert trained == ["signs"]
    assert other.taus["signs"].hash != suite.taus["signs"].hash


def test_another_image_or_text_tower_trains_again(
    suite: Suite, backbone: Backbone, store: Store, trained: list[str], tmp_path: Path
) -> None:
    load_suite(load_backbone(write_base(tmp_path, seed=6)), ["signs"], recipe=QUICK, store=store)
    assert trained == ["signs"]
    trained.clear()
    # the same image tower under another text tower: the heads differ, and with them what is learnt
    words = write_base(tmp_path / "words", seed=7)
    other = load_backbone(words)
    mixed = replace(other, weights=backbone.weights)
    mixed.model.visual.load_state_dict(backbone.model.visual.state_dict())
    assert mixed.weights.hash == backbone.weights.hash
    load_suite(mixed, ["signs"], recipe=QUICK, store=store)
    assert trained == ["signs"]


def test_other_data_train_again(
    backbone: Backbone, store: Store, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_spec, "load_task", limited(131))
    load_suite(backbone, ["signs"], recipe=QUICK, store=store)
    assert trained == ["signs"]


def test_another_seed_trains_on_real_data_again(
    backbone: Backbone, store: Store, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that are not drawn do not depend on the seed; their order in training does."""
    monkeypatch.setattr(task_spec, "load_task", lambda name, source, seed, **_: load_task(name, n_train=130, n_test=60))
    first, second = (load_suite(backbone, ["signs"], recipe=QUICK, store=store, seed=seed) for seed in (11, 12))
    assert first.tasks["signs"].fingerprint == second.tasks["signs"].fingerprint
    assert trained == ["signs", "signs"] and hashes(first) != hashes(second)
    again = with_vectors(first, QUICK, 12, store=store)  # without reading the images once more
    assert trained == ["signs", "signs"] and hashes(again) == hashes(second) and again.tasks is first.tasks


def test_the_default_recipe_is_the_backbones(backbone: Backbone, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Recipe] = []

    def record(*arguments: Any) -> Any:
        suite, name, recipe, *_ = arguments
        asked.append(recipe)
        return small_tau(suite.backbone.weights, 0)

    monkeypatch.setattr(module, "_stored_vector", record)
    for name in ("tiny", "ViT-B-16-quickgelu"):
        load_suite(replace(backbone, name=name), ["digits"], store=store)
        assert asked.pop() == RECIPES[name]
    with pytest.raises(InputError, match="no recipe for backbone"):  # of another architecture
        load_suite(backbone, ["digits"], store=store)


def test_the_same_images_under_two_names_are_refused(
    backbone: Backbone, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        task_spec, "load_task", lambda name, source, seed, **_: load_task("signs", n_train=130, n_test=60)
    )
    with pytest.raises(InputError, match="tasks 'one' and 'two' hold the same images"):
        load_suite(backbone, ["one", "two"], recipe=QUICK, store=store)


def test_tasks_of_several_sources_make_one_suite(backbone: Backbone, tmp_path: Path, trained: list[str]) -> None:
    """As the paper's eight: seven that torchvision reads, and RESISC45 from a folder."""
    images = write_two_tasks(tmp_path / "images")
    names = ["procedural:signs", "warm", "mine=cold"]
    suite = load_suite(
        backbone, names, source="folder", root=images, head="prototype", recipe=QUICK, store=Store(tmp_path / "store")
    )
    assert list(suite.tasks) == list(suite.taus) == trained == ["signs", "warm", "mine"]
    assert [suite.tasks[name].source for name in suite.tasks] == ["procedural", "folder", "folder"]
    assert set(suite.accuracies(suite.fuse(lam=0.3))) == {"signs", "warm", "mine"}


def test_vectors_come_from_files(backbone: Backbone, suite: Suite, tmp_path: Path, trained: list[str]) -> None:
    """With metadata from fine-tuning, and imported ones without."""
    for name, tau in suite.taus.items():
        about = {"task": name, "head": "text", "classes": str(len(suite.tasks[name].class_names)), "data_seed": "0"}
        about["difficulty"] = f"{severity(DEFAULT):g}"
        replace(tau, info=about if name != "scenes" else {}).save(tmp_path / f"{name}.safetensors")
    found = load_suite(backbone, NAMES, vectors=tmp_path)
    assert hashes(found) == hashes(suite) and trained == []
    assert [tau.info["task"] for tau in found.taus.values()] == list(NAMES)
    assert found.accuracies(found.fuse(lam=0.3)) == suite.accuracies(suite.fuse(lam=0.3))
    for options, message in (
        ({"head": "prototype"}, "of 'signs' was made with head = text: expected prototype"),
        ({"seed": 1}, "of 'signs' was made with data_seed = 0: expected 1"),
        ({"difficulty": 0.7}, "of 'signs' was made with difficulty = .*: expected 0.7"),
        ({"recipe": QUICK}, "a recipe is for training"),
        ({"names": ["signs", "cars"]}, "has no cars.safetensors: expected a task vector for each of signs, cars"),
    ):
        with pytest.raises(InputError, match=message):
            load_suite(backbone, **{"names": NAMES, "vectors": tmp_path, **options})
    tau = suite.taus["signs"]
    replace(tau, info={"task": "signs", "data_seed": "0"}).save(tmp_path / "signs.safetensors")  # before difficulties
    with pytest.raises(InputError, match="made with difficulty = 0: expected"):
        load_suite(backbone, ["signs"], vectors=tmp_path)
    assert load_suite(backbone, ["signs"], vectors=tmp_path, difficulty="easy").taus["signs"].hash == tau.hash
    tau.save(tmp_path / "signs.safetensors")
    tau.save(tmp_path / "digits.safetensors")
    with pytest.raises(InputError, match="digits.safetensors holds the task vector of 'signs': expected that of 'dig"):
        load_suite(backbone, NAMES, vectors=tmp_path)
    replace(tau, info={}).save(tmp_path / "digits.safetensors")
    with pytest.raises(InputError, match=r"digits.safetensors holds the same task vector as .*signs.safetensors"):
        load_suite(backbone, NAMES, vectors=tmp_path)
    TaskVector(tau.layout, tau.values, "0" * 64).save(tmp_path / "signs.safetensors")
    with pytest.raises(InputError, match="belongs to another base"):
        load_suite(backbone, ["signs"], vectors=tmp_path)
    replace(tau, info={"classes": "7"}).save(tmp_path / "signs.safetensors")
    with pytest.raises(InputError, match="made with classes = 7"):
        load_suite(backbone, ["signs"], vectors=tmp_path)


@pytest.mark.parametrize("same", [True, False])
def test_vectors_of_other_images_give_a_warning(
    backbone: Backbone, suite: Suite, tmp_path: Path, caplog: pytest.LogCaptureFixture, same: bool
) -> None:
    data = suite.tasks["signs"].fingerprint if same else "of other images"
    replace(suite.taus["signs"], info={"data": data}).save(tmp_path / "signs.safetensors")
    load_suite(backbone, ["signs"], vectors=tmp_path)
    assert ("of 'signs' was trained on other images" in caplog.text) != same


def test_a_head_uses_the_images_of_the_vector(backbone: Backbone, tmp_path: Path) -> None:
    """The prototypes of a vector trained on few images are means over these images."""
    images = write_two_tasks(tmp_path / "images")
    (spec,) = parse_tasks(["warm"], "folder", images)
    prepared(backbone, spec, tmp_path / "tau", QUICK, head="prototype", seed=0, n_train=9)()
    suite = load_suite(backbone, ["warm"], source="folder", root=images, head="prototype", vectors=tmp_path / "tau")
    assert len(suite.tasks["warm"].train) + len(suite.tasks["warm"].validation) == 9
    own = suite.accuracies(backbone.weights + suite.taus["warm"])["warm"]
    assert own == pytest.approx(float(suite.taus["warm"].info["accuracy"]), abs=1e-6)


def test_auto_selects_an_existing_device(backbone: Backbone, suite: Suite, store: Store, trained: list[str]) -> None:
    where = load_suite(backbone, NAMES, recipe=QUICK, store=store, device="auto").device
    assert where in ("cpu", "cuda") and (where == "cuda" or trained == [])


def test_a_full_disk_after_the_training_costs_no_step(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vector cannot be stored; the second attempt starts from the checkpoint, which `verify` reports until then."""
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


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ((), {}, "there is no task: expected at least one"),
        (("signs", "signs"), {}, "task 'signs' is given twice"),
        (("signs", "procedural:signs"), {}, "task 'signs' is given twice"),
        (("signs",), {"root": "data"}, "root is data but procedural tasks are drawn, not read"),
        (("mnist",), {}, "procedural task is 'mnist'"),
        (("signs",), {"source": "internet"}, "source is 'internet'"),
        (("signs",), {"head": "linear"}, "head is 'linear'"),
        (("signs",), {"seed": 2**64}, "seed is 18446744073709551616: expected a whole number from 0"),
        (("signs",), {"device": "gpu"}, "device is 'gpu'"),
    ],
)
def test_what_makes_no_suite(
    backbone: Backbone, store: Store, names: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_suite(backbone, names, recipe=QUICK, store=store, **options)


# --- what a suite computes --------------------------------------------------------------------------------------------


def test_fusing_and_scoring_are_those_of_the_library(suite: Suite, backbone: Backbone) -> None:
    weights = suite.fuse(["digits", "signs"], 0.7)
    assert weights.hash == fuse(backbone.weights, [suite.taus["digits"], suite.taus["signs"]], 0.7).hash
    assert suite.fuse(lam=0.3).hash == fuse(backbone.weights, list(suite.taus.values()), 0.3).hash
    found = suite.accuracies(weights, "validation", ["digits"])
    digits = suite.tasks["digits"]
    assert found == {"digits": accuracy(backbone, weights, digits.validation, suite.heads["digits"])}
    assert list(suite.accuracies(weights)) == [*NAMES]
    assert suite.accuracies(weights, names=[]) == {}


def test_a_task_is_named_once_and_a_list_is_no_text(suite: Suite) -> None:
    for call in (suite.fuse, lambda names: suite.accuracies(suite.backbone.weights, names=names)):
        with pytest.raises(InputError, match="'signs' is given twice"):
            call(["signs", "digits", "signs"])
        with pytest.raises(InputError, match="'signs'"):
            call("signs")


def test_an_unknown_split_is_reported(suite: Suite) -> None:
    weights = suite.backbone.weights
    for call in (lambda: suite.accuracies(weights, "tset"), lambda: suite.score({}, "tset")):
        with pytest.raises(InputError, match="split is 'tset'.*did you mean 'test'"):
            call()


def test_unknown_and_missing_names_are_reported(suite: Suite) -> None:
    with pytest.raises(InputError, match="unknown task 'cars': expected some of signs, digits, scenes"):
        suite.fuse(["signs", "cars"])
    with pytest.raises(InputError, match="unknown task 'cars'"):
        suite.accuracies(suite.backbone.weights, names=["cars"])
    with pytest.raises(InputError, match="nothing to fuse"):
        suite.fuse([])


def test_table_of_the_single_tasks(suite: Suite, backbone: Backbone) -> None:
    table = suite.score({"zero_shot": backbone.weights})
    assert list(table.columns) == ["task", "classes", "images", "zero_shot", "fine_tuned"]
    assert table["task"].tolist() == [*NAMES] and table["classes"].tolist() == [12, 10, 12]
    assert table["images"].tolist() == [60, 60, 60]
    for row in table.itertuples():
        task, head = suite.tasks[row.task], suite.heads[row.task]
        assert row.zero_shot == accuracy(backbone, backbone.weights, task.test, head)
        assert row.fine_tuned == accuracy(backbone, backbone.weights + suite.taus[row.task], task.test, head)
    assert suite.score({}, "validation")["images"].tolist() == [13, 13, 13]


# --- heads ------------------------------------------------------------------------------------------------------------


def test_heads_of_the_suite_are_the_backbones(suite: Suite, backbone: Backbone) -> None:
    for name, head in suite.heads.items():
        assert head.kind == "text"
        assert torch.equal(head.weight, build_head(backbone, suite.tasks[name]).weight)
