from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from artifacts import write_two_tasks
from image_files import write_image
from rmtllmf_lib.command import commands
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import LAMBDA_GRID, choose_lambda, fuse, lambda_n
from rmtllmf_lib.fusion.mergers import merger_named
from rmtllmf_lib.model.backbone import Backbone, WordTokenizer
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.protection.memory import draw_memory
from rmtllmf_lib.tasks.base import CLIP_MEAN, CLIP_STD, Split
from rmtllmf_lib.tasks.sources import TaskSpec, load_spec, parse_tasks
from rmtllmf_lib.training import finetune, suite
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.heads import build_head
from rmtllmf_lib.training.merging import learn_coefficients, merge_suite, training_sample
from small import small_backbone, small_tau

BACKBONE = replace(small_backbone(), mean=CLIP_MEAN, std=CLIP_STD)  # the pixel statistics of tasks from files
RECIPE = Recipe(steps=6, batch_size=8, lr=1e-2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_tasks(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def folder(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two task vectors, fine-tuned once."""
    out = tmp_path_factory.mktemp("tau")
    for spec in parse_tasks(["warm", "cold"], "folder", images):
        finetuned(spec, out)
    return out


@pytest.fixture
def vectors(folder: Path) -> dict[str, TaskVector]:
    return {name: TaskVector.load(folder / f"{name}.safetensors") for name in ("warm", "cold")}


def finetuned(
    spec: TaskSpec, out: Path, recipe: Recipe = RECIPE, backbone: Backbone = BACKBONE, **more: Any
) -> TaskVector:
    return commands.prepared(backbone, spec, out, recipe, **{"head": "prototype", "seed": 3, **more})()


# ---------------------------------------------------------------- fine-tuning


def test_a_vector_records_its_origin(images: Path, tmp_path: Path) -> None:
    (spec,) = parse_tasks(["warm"], "folder", images)
    made = finetuned(spec, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["warm.safetensors"]
    tau = TaskVector.load(tmp_path / "warm.safetensors", BACKBONE.weights)
    assert torch.equal(tau.values, made.values) and tau.info == made.info
    task = load_spec(spec, BACKBONE.image_size, seed=3)
    head = build_head(BACKBONE, task, "prototype")
    assert float(tau.info["base_accuracy"]) == pytest.approx(
        accuracy(BACKBONE, BACKBONE.weights, task.test, head), abs=1e-6
    )
    own = accuracy(BACKBONE, BACKBONE.weights + tau, task.test, head)
    assert float(tau.info["accuracy"]) == pytest.approx(own, abs=1e-6)
    expected = {
        "task": "warm",
        "source": "folder",
        "head": "prototype",
        "data_seed": "3",
        "n_train": "",
        "classes": "3",
    }
    assert expected.items() <= tau.info.items()
    assert (tau.info["train_images"], tau.info["test_images"]) == (str(len(task.train)), "18")
    assert str(images) not in str(tau.info)


def test_a_vector_made_in_the_same_way_is_kept(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (spec,) = parse_tasks(["warm"], "folder", images)
    made = finetuned(spec, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(suite, "finetune", lambda *_, **__: pytest.fail("trained again"))
        assert finetuned(spec, tmp_path).hash == made.hash
        others: list[dict[str, Any]] = [{"seed": 4}, {"n_train": 30}, {"recipe": replace(RECIPE, lr=0.02)}]
        for other in others:
            with pytest.raises(InputError, match=r"warm\.safetensors already exists, made with other settings"):
                finetuned(spec, tmp_path, **other)
    assert finetuned(spec, tmp_path, seed=4, overwrite=True).hash != made.hash


def test_a_vector_that_cannot_be_written_is_not_trained_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the very end: the second attempt needs no training step and gives the same vector."""
    steps: list[int] = []
    train = finetune.training_step
    monkeypatch.setattr(finetune, "training_step", lambda *given: steps.append(given[-1]) or train(*given))
    (spec,) = parse_tasks(["warm"], "folder", images)
    whole = finetuned(spec, tmp_path / "whole")
    taken = len(steps)

    def full(self: TaskVector, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(TaskVector, "save", full)
        finetuned(spec, tmp_path / "full")
    steps.clear()
    tau = finetuned(spec, tmp_path / "full")
    assert taken > 0 and steps == []
    assert torch.equal(tau.values, whole.values) and tau.info == whole.info
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["warm.safetensors"]


def test_a_folder_that_cannot_be_made_shows_before_the_training(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "finetune", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        finetuned(parse_tasks(["warm"], "folder", images)[0], tmp_path / "file")


def test_class_names_that_the_text_tower_does_not_know(images: Path, tmp_path: Path) -> None:
    few = replace(BACKBONE, tokenizer=WordTokenizer(("a", "photo", "of", "one", "two"), 12))
    (spec,) = parse_tasks(["warm"], "folder", images)
    with pytest.raises(
        InputError, match=r"no words for 1 of 3 class names of task 'warm' \('three'\).*--head prototype"
    ):
        finetuned(spec, tmp_path, backbone=few, head="text")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- files of models


def test_vectors_and_weights_are_distinguished(vectors: dict[str, TaskVector], folder: Path, tmp_path: Path) -> None:
    fused = fuse(BACKBONE.weights, list(vectors.values()), 0.5)
    for place in (tmp_path / "fused.safetensors", tmp_path / "again" / "fused.safetensors"):
        fused.save(place)
    paths = [*sorted(folder.iterdir()), tmp_path / "fused.safetensors"]
    taus, points = commands.read_models([*paths, tmp_path / "again" / "fused.safetensors"], BACKBONE.weights)
    assert list(taus) == ["cold", "warm"]
    assert list(points) == ["fused.safetensors", str(tmp_path / "again" / "fused.safetensors")]
    assert points["fused.safetensors"].hash == fused.hash
    with pytest.raises(InputError, match=r"warm\.safetensors is a second task vector of task 'warm'"):
        commands.read_models([paths[1], paths[1]], BACKBONE.weights)
    with pytest.raises(InputError, match=r"fused\.safetensors is given twice"):
        commands.read_models([paths[2]] * 3, BACKBONE.weights)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "model.pt")
    (tmp_path / "text.safetensors").write_text("not tensors")
    small_tau(BACKBONE.weights, 1, task="warm").save(tmp_path / "short.safetensors")
    data = (tmp_path / "short.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(data[: len(data) // 2])
    (tmp_path / "flipped.safetensors").write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    for name, message in {
        "model.pt": "pickle",
        "text.safetensors": "is a text",
        "short.safetensors": "corrupt or truncated",
        "flipped.safetensors": "checksum",
        "missing.safetensors": "does not exist",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            commands.read_models([tmp_path / name], BACKBONE.weights)
        assert name in str(caught.value)


def test_models_of_another_base_are_refused(tmp_path: Path) -> None:
    other = small_backbone(seed=1).weights
    small_tau(other, 1, task="warm").save(tmp_path / "tau.safetensors")
    other.save(tmp_path / "point.safetensors")
    for name in ("tau.safetensors", "point.safetensors"):
        with pytest.raises(InputError, match="another base"):
            commands.read_models([tmp_path / name], BACKBONE.weights)


def test_fusing_files(vectors: dict[str, TaskVector], folder: Path, tmp_path: Path) -> None:
    paths, out = sorted(folder.iterdir()), tmp_path / "out" / "fused.safetensors"
    base = BACKBONE.weights
    for lam, rule, expected in ((0.4, None, 0.4), (None, "inverse", 0.5), (None, None, 0.7), (None, "published", 0.7)):
        assert commands.fuse_files(paths, base, out, lam, rule) == (2, expected)
        fused = Weights.load(out)
        assert torch.allclose(
            fused.values, base.values + expected * sum(tau.values for tau in vectors.values()), atol=1e-6
        )
        assert fused.base_hash == base.hash
    with pytest.raises(InputError, match="give one of them"):
        commands.fuse_files(paths, base, out, 0.4, "inverse")
    with pytest.raises(InputError, match="'best'"):
        commands.fuse_files(paths, base, out, None, "best")
    with pytest.raises(InputError, match="hold weights: expected task vectors"):
        commands.fuse_files([*paths, out], base, out, None, None)
    assert Weights.load(out).hash == fused.hash


# ---------------------------------------------------------------- evaluation


def evaluated(
    taus: dict[str, TaskVector],
    points: dict[str, Weights],
    specs: list[TaskSpec],
    lam: float | str | None = None,
    rule: str | None = None,
    merger: str = "arithmetic",
    **options: Any,
) -> tuple[pd.DataFrame, float | None]:
    made = suite.assemble_suite(BACKBONE, specs, taus, **options)
    return commands.evaluate_suite(made, points, lam, rule, merger)


def test_the_table_holds_what_accuracy_says(images: Path, vectors: dict[str, TaskVector]) -> None:
    point = fuse(BACKBONE.weights, [vectors["warm"]], 2.0)
    specs = parse_tasks(["warm", "cold"], "folder", images)
    table, lam = evaluated(vectors, {"twice": point}, specs)
    assert lam == lambda_n(2)
    assert list(table.columns) == [*commands.COLUMNS, "twice"] and list(table["task"]) == ["warm", "cold"]
    fused = fuse(BACKBONE.weights, list(vectors.values()), lam)
    for row in table.to_dict("records"):
        task = load_spec(specs[0 if row["task"] == "warm" else 1], BACKBONE.image_size, seed=3)
        head = build_head(BACKBONE, task, "prototype")
        own = BACKBONE.weights + vectors[row["task"]]
        models = {"base": BACKBONE.weights, "fine_tuned": own, "fused": fused, "twice": point}
        for column, weights in models.items():
            assert row[column] == accuracy(BACKBONE, weights, task.test, head), column
        assert row["normalized"] == pytest.approx(row["fused"] / row["fine_tuned"])
        assert (row["head"], row["classes"], row["test"]) == ("prototype", 3, 18)


@pytest.mark.parametrize("merger", ["tsv", "regmean", "few-shot", "emr", "tall"])
def test_the_table_of_another_merger(
    merger: str, images: Path, vectors: dict[str, TaskVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(learn_coefficients, steps=2)
    monkeypatch.setattr("rmtllmf_lib.training.merging.learn_coefficients", quick)
    specs = parse_tasks(["warm", "cold"], "folder", images)
    table, lam = evaluated(vectors, {}, specs, merger=merger)
    assert lam == 1
    made = suite.assemble_suite(BACKBONE, specs, vectors)
    memory = draw_memory(made.tasks, 5, image_size=BACKBONE.image_size, generator=torch.Generator().manual_seed(0))
    splits = memory.splits if merger == "few-shot" else training_sample(made)
    merged = merge_suite(made, merger, splits, generator=torch.Generator().manual_seed(0))
    for row in table.to_dict("records"):
        name = row["task"]
        weights = fuse(BACKBONE.weights, [merged[name]], 1.0)
        assert row["fused"] == accuracy(BACKBONE, weights, made.tasks[name].test, made.heads[name])
        assert row["normalized"] == pytest.approx(row["fused"] / row["fine_tuned"])
    assert (merged["warm"] is merged["cold"]) == (merger not in ("emr", "tall"))
    _, chosen = evaluated(vectors, {}, specs, merger=merger, lam="validation")

    def score(lam: float) -> float:
        ratios = []
        for name, vector in merged.items():
            images, head = made.tasks[name].validation, made.heads[name]
            own = accuracy(BACKBONE, BACKBONE.weights + vectors[name], images, head)
            ratios.append(accuracy(BACKBONE, fuse(BACKBONE.weights, [vector], lam), images, head) / own)
        return sum(ratios) / len(ratios)

    assert chosen is not None and score(chosen) >= max(map(score, merger_named(merger).grid)) - 1e-9


def test_a_mergers_file_is_executed_once_in_a_command(
    images: Path, vectors: dict[str, TaskVector], tmp_path: Path
) -> None:
    file, log = tmp_path / "mine.py", tmp_path / "log"
    file.write_text(
        f"with open({str(log)!r}, 'a') as log:\n    log.write('x')\ndef half(taus):\n    return 0.5 * sum(taus)\n"
    )
    commands.require_merger(f"{file}:half")
    evaluated(vectors, {}, parse_tasks(["warm", "cold"], "folder", images), merger=f"{file}:half", lam="validation")
    assert log.read_text() == "x"


def test_a_vector_is_not_judged_by_another_task(
    images: Path, vectors: dict[str, TaskVector], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warm = {"warm": vectors["warm"]}
    shutil.copytree(images / "warm", tmp_path / "else" / "warm")
    (spec,) = parse_tasks(["warm"], "folder", tmp_path / "else")
    evaluated(warm, {}, [spec])
    assert caplog.text == ""
    write_image(tmp_path / "else" / "warm" / "test" / "one" / "new.png", size=(32, 32))
    evaluated(warm, {}, [spec], n_test=9)
    assert caplog.text == ""  # cannot be checked with some of the images only
    evaluated(warm, {}, [spec])
    assert "'warm' was trained on other images" in caplog.text
    for part in ("train", "test"):
        shutil.rmtree(tmp_path / "else" / "warm" / part / "three")
    with pytest.raises(InputError, match="'warm' was made with classes = 3: expected 2"):
        evaluated(warm, {}, [spec], n_test=9)


def test_the_base_alone_and_a_task_without_a_vector(images: Path, vectors: dict[str, TaskVector]) -> None:
    specs = parse_tasks(["warm", "cold"], "folder", images)
    table, lam = evaluated({}, {}, specs, head="prototype", n_test=9)
    assert lam is None and list(table.columns) == ["task", "head", "classes", "test", "base"]
    assert list(table["test"]) == [9, 9]
    table, _ = evaluated({"warm": vectors["warm"]}, {}, specs, head="prototype", lam=0.5)
    assert table["fine_tuned"].isna().tolist() == table["normalized"].isna().tolist() == [False, True]
    with pytest.raises(InputError, match="says how to fuse task vectors, and none is given"):
        evaluated({}, {}, specs, head="prototype", lam="validation")


def test_the_head_of_a_vector_is_made_from_the_images_it_was_trained_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = parse_tasks(["warm"], "folder", images)
    tau = finetuned(spec, tmp_path, n_train=9)
    loaded, load = [], load_spec
    monkeypatch.setattr(suite, "load_spec", lambda *given, **named: loaded.append(named) or load(*given, **named))
    table, _ = evaluated({"warm": tau}, {}, [spec])
    assert table["fine_tuned"][0] == pytest.approx(float(tau.info["accuracy"]), abs=1e-6)
    assert table["base"][0] == pytest.approx(float(tau.info["base_accuracy"]), abs=1e-6)
    assert loaded == [{"seed": 3, "difficulty": None, "n_train": 9, "n_test": None}]


def test_lambda_is_chosen_on_validation_images_alone(
    images: Path, vectors: dict[str, TaskVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs, load = parse_tasks(["warm", "cold"], "folder", images), load_spec
    vectors["cold"] = TaskVector(
        vectors["cold"].layout, vectors["cold"].values / 50, vectors["cold"].base_hash, vectors["cold"].info
    )
    tasks = {spec.name: load(spec, BACKBONE.image_size, seed=3) for spec in specs}
    heads = {name: build_head(BACKBONE, task, "prototype") for name, task in tasks.items()}

    def validated(weights: Weights, name: str) -> float:
        return accuracy(BACKBONE, weights, tasks[name].validation, heads[name])

    own = {name: validated(BACKBONE.weights + tau, name) for name, tau in vectors.items()}
    assert own["cold"] != own["warm"]
    scores = [
        np.mean([validated(fuse(BACKBONE.weights, list(vectors.values()), factor), name) / own[name] for name in tasks])
        for factor in LAMBDA_GRID
    ]
    tables = []

    def recorded(*arguments: Any, **named: Any) -> Any:
        tables.append(choose_lambda(*arguments, **named))
        return tables[-1]

    monkeypatch.setattr(commands, "choose_lambda", recorded)
    _, lam = evaluated(vectors, {}, specs, lam="validation")
    table = tables[0][1].set_index("lam")["score"]
    assert table[list(LAMBDA_GRID)].tolist() == pytest.approx(scores)
    assert lam == table.idxmax()

    def other_test(*arguments: Any, **named: Any) -> Any:
        task = load(*arguments, **named)
        return replace(task, test=Split(task.test.inputs, (task.test.labels + 1) % 3))

    monkeypatch.setattr(suite, "load_spec", other_test)
    assert evaluated(vectors, {}, specs, lam="validation")[1] == lam
    with pytest.raises(InputError, match="'validation' and by the rule 'inverse'"):
        evaluated(vectors, {}, specs, lam="validation", rule="inverse")


def test_lambda_without_validation_images(
    images: Path, vectors: dict[str, TaskVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs, load = parse_tasks(["warm", "cold"], "folder", images), load_spec

    def bare(*arguments: Any, **named: Any) -> Any:
        task = load(*arguments, **named)
        return replace(task, validation=task.validation.subset([]))

    monkeypatch.setattr(suite, "load_spec", bare)
    with pytest.raises(InputError, match="cannot be chosen on validation images"):
        evaluated(vectors, {}, specs, lam="validation")


def test_tasks_from_the_metadata_of_vectors(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images.parent)
    for text, root in (("warm", images), (f"mine={images.name}/cold", None), (f"far={images}/cold", None)):
        (spec,) = parse_tasks([text], "folder", root)
        tau = finetuned(spec, tmp_path)
        assert str(images) not in str(tau.info)
        found = commands.specs_of({spec.name: tau}, root)
        assert found == ([spec] if spec.name != "far" else [TaskSpec("far", "folder", Path("far"))])
    # A root for other tasks does no harm.
    tau = TaskVector.load(tmp_path / "mine.safetensors")
    assert commands.specs_of({"mine": tau}, tmp_path) == parse_tasks([f"mine={images.name}/cold"], "folder", None)
    with pytest.raises(InputError, match="'x' .*give --task"):
        commands.specs_of({"x": small_tau(BACKBONE.weights, 1)}, images)


def test_means_are_of_rates_only() -> None:
    table = pd.DataFrame(
        {"task": ["a", "b"], "head": "text", "test": [3, 5], "base": [0.5, 1.0], "fused": [np.nan, 0.2]}
    )
    lines = commands.shown(table).splitlines()
    assert lines[1].split() == ["a", "text", "3", "0.500", "-"]
    assert lines[-1].split() == ["mean", "0.750", "0.200"]  # counts are left empty
