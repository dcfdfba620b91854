"""Texts go the whole way: heads, fine-tuning, evaluation, mergers that need inputs, memory, realignment, studies."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from rmtllmf_lib.command import cli
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.fusion.mergers import MERGERS
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.backbone import Backbone, fresh_tower, load_backbone, text_features
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.lora import Lora
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.protection.memory import draw_memory
from rmtllmf_lib.protection.realign import memory_loss, realign
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.study import Study, run_study
from rmtllmf_lib.tasks.base import Split
from rmtllmf_lib.training.evaluate import accuracy, predictions, prepare
from rmtllmf_lib.training.finetune import RECIPES, Recipe, finetune, recipe_for
from rmtllmf_lib.training.heads import Head, build_head
from rmtllmf_lib.training.loading import Schedule, batches
from rmtllmf_lib.training.lora import finetune_lora
from rmtllmf_lib.training.merging import fisher_diagonal, input_grams, merge_suite, training_sample
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario
from small import generator, small_backbone, small_task, small_tau
from texts import LENGTH, text_backbone, text_split, text_task, write_text_model, write_texts

RECIPE = Recipe(steps=30, batch_size=16, lr=3e-3, warmup_steps=3, freeze=("embeddings",))
NAMES = ("a", "b")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return text_backbone()


@pytest.fixture(scope="module")
def suite(backbone: Backbone) -> Suite:
    """Two users, each with topics in another order, and their vectors."""
    tasks = {name: text_task(name, seed) for seed, name in enumerate(NAMES)}
    heads = {name: build_head(backbone, task, "prototype") for name, task in tasks.items()}
    taus = {
        name: finetune(backbone, tasks[name], heads[name], RECIPE, generator=generator(seed), progress=False)
        for seed, name in enumerate(NAMES)
    }
    return Suite(backbone, tasks, heads, taus)


def plain_logits(backbone: Backbone, split: Split, head: Head) -> torch.Tensor:
    """One text at a time through the module."""
    tower = fresh_tower(backbone)
    with torch.no_grad():
        rows = torch.cat([tower(backbone.tokenizer([text])) for text in split.inputs])
    return head.logit_scale * functional.normalize(rows, dim=-1) @ head.weight.T


def test_heads_are_prompts_or_prototypes(backbone: Backbone) -> None:
    task = text_task()
    text, prototype = (build_head(backbone, task, kind) for kind in ("text", "prototype"))
    expected = text_features(backbone, [f"about {name}" for name in task.class_names])
    assert text.weight.allclose(expected, atol=1e-6) and text.logit_scale == 20
    features = text_features(backbone, list(task.train.inputs))
    for label, row in enumerate(prototype.weight):
        mean = features[task.train.labels == label].mean(0)
        assert row.allclose(mean / mean.norm(), atol=1e-5)


@pytest.mark.parametrize("keep", [True, False])
def test_evaluation_sorts_by_length_and_answers_in_the_splits_order(backbone: Backbone, keep: bool) -> None:
    split = text_split(50, 7)
    head = build_head(backbone, text_task(), "prototype")
    prepared = prepare(backbone, split, batch_size=8, keep=keep)
    expected = plain_logits(backbone, split, head)
    assert prepared.logits(backbone.weights, head).allclose(expected, atol=1e-4)
    assert torch.equal(predictions(backbone, backbone.weights, prepared, head), expected.argmax(1))
    lengths = [part.shape[1] for part in prepared.cut()]
    unsorted = [part.shape[1] for part, _ in batches(backbone, split, batch_size=8)]
    assert lengths[0] < lengths[-1] and sum(lengths) < sum(unsorted)
    share = float((expected.argmax(1) == split.labels).float().mean())
    assert accuracy(backbone, backbone.weights, prepared, head) == pytest.approx(share)


def test_fine_tuning_learns_and_freezes_the_embeddings(suite: Suite) -> None:
    for name, tau in suite.taus.items():
        own = suite.backbone.weights + tau
        before = suite.accuracies(suite.backbone.weights, names=[name])[name]
        after = suite.accuracies(own, names=[name])[name]
        assert after > before + 0.1
        assert tau.only("embeddings").norm == 0 and all(tau.only(g).norm > 0 for g in ("attention", "mlp", "norm"))


def test_fine_tuning_is_a_plain_loop(backbone: Backbone, one_thread: None) -> None:
    task, head = text_task(), build_head(backbone, text_task(), "prototype")
    recipe = replace(RECIPE, steps=2, warmup_steps=0)
    tau = finetune(backbone, task, head, recipe, generator=generator(5), progress=False)
    tower = fresh_tower(backbone)
    tower.bert.encoder.requires_grad_(True)  # type: ignore[union-attr]
    trained = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, recipe.lr, weight_decay=0.0)
    seed = int(tau.info["seed"])
    schedule = Schedule(len(task.train), 2, recipe.batch_size, seed)
    for step in range(2):
        chosen = schedule.indices(step)
        tokens = backbone.tokenizer([task.train.inputs[int(i)] for i in chosen])
        logits = 20 * functional.normalize(tower(tokens), dim=-1) @ head.weight.T
        optimizer.param_groups[0]["lr"] = recipe.lr_at(step)
        optimizer.zero_grad()
        functional.cross_entropy(logits, task.train.labels[chosen]).backward()
        optimizer.step()
    expected = type(backbone.weights).from_module(tower)
    found = (backbone.weights + tau).state_dict()
    for name, view in expected.state_dict().items():
        if not name.endswith("key.bias"):  # its gradient is rounding alone, which AdamW makes as large as any other
            assert found[name].allclose(view, atol=1e-5), name


def test_a_stopped_run_goes_on(backbone: Backbone, tmp_path: Path, one_thread: None) -> None:
    task, head = text_task(), build_head(backbone, text_task(), "prototype")
    recipe = replace(RECIPE, steps=6)
    options = {"progress": False, "checkpoint": tmp_path / "c.safetensors", "checkpoint_every": 3}
    whole = finetune(backbone, task, head, recipe, generator=generator(1), progress=False)
    finetune(backbone, task, head, recipe, generator=generator(1), **options)
    again = finetune(backbone, task, head, recipe, generator=generator(1), **options)
    assert again.hash == whole.hash


def test_recipes(backbone: Backbone) -> None:
    assert recipe_for(backbone) == RECIPES["minilm"] and recipe_for(backbone, steps=10).warmup_steps == 1
    head = build_head(backbone, text_task(), "prototype")
    with pytest.raises(InputError, match="augment is 'crop'"):
        finetune(backbone, text_task(), head, replace(RECIPE, augment="crop"), generator=generator(), progress=False)


def test_fusing_and_realigning(suite: Suite) -> None:
    base, taus = suite.backbone.weights, list(suite.taus.values())
    memory = draw_memory(suite.tasks, 3, image_size=None, generator=generator())
    assert memory.samples == 18 and all(split.what == "texts" for split in memory.splits.values())
    assert memory.bytes == sum(split.bytes for split in memory.splits.values())
    fused = fuse(base, taus, 0.3)
    recipe = Recipe(steps=20, batch_size=12, lr=3e-3, freeze=("embeddings",))
    aligned = realign(suite.backbone, fused, memory, suite.heads, recipe, generator=generator())
    before, after = (memory_loss(suite.backbone, model, memory, suite.heads) for model in (fused, aligned))
    assert after < 0.5 * before
    assert (aligned - base).only("embeddings").norm == 0
    again = realign(suite.backbone, fused, memory, suite.heads, recipe, generator=generator())
    assert again.hash == aligned.hash


def test_low_rank_payloads_of_text_vectors(suite: Suite) -> None:
    tau = suite.taus["a"]
    payload = LowRank(4)
    encoded = payload.encode(tau)
    decoded = payload.decode(encoded, tau.layout)
    assert encoded.numbers.layout.size == 4 * sum(
        sum(shape) for shape, group in zip(tau.layout.shapes, tau.layout.groups, strict=True)
        if len(shape) == 2 and group in ("attention", "mlp")
    )  # fmt: skip
    assert (tau - decoded).norm < tau.norm
    assert tsv_merge([decoded, decoded]).norm > 0


def test_input_grams_are_those_of_each_layer(suite: Suite) -> None:
    backbone, split = suite.backbone, suite.tasks["a"].train.subset([0, 1, 2])
    grams = input_grams(backbone, backbone.weights, split)
    assert {*grams} == {
        name for name, shape in zip(backbone.weights.layout.names, backbone.weights.layout.shapes, strict=True)
        if len(shape) == 2 and ".encoder." in name
    }  # fmt: skip
    states = []
    for text in split.inputs:  # one by one: nothing is filled up
        with torch.no_grad():
            states.append(backbone.tower.bert.embeddings(backbone.tokenizer([text]))[0])  # type: ignore[union-attr]
    rows = torch.cat(states).double()
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert grams[name].allclose(rows.T @ rows, atol=1e-4)


def test_fisher_diagonal_of_a_text(suite: Suite) -> None:
    backbone, head = suite.backbone, suite.heads["a"]
    split = suite.tasks["a"].train.subset([0])
    found = fisher_diagonal(backbone, backbone.weights, split, head)
    tower = fresh_tower(backbone).requires_grad_(True)
    logits = 20 * functional.normalize(tower(backbone.tokenizer(list(split.inputs))), dim=-1) @ head.weight.T
    log_p = logits.log_softmax(-1)[0]
    expected = torch.zeros_like(found)
    views = backbone.weights.layout.views(expected)
    for likelihood in log_p:
        tower.zero_grad()
        likelihood.backward(retain_graph=True)
        for name, parameter in tower.named_parameters():
            views[name] += parameter.grad**2 * likelihood.exp().item()  # type: ignore[operator]
    assert found.allclose(expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("merger", sorted(MERGERS))
def test_every_merger_takes_text_vectors(suite: Suite, merger: str) -> None:
    needs = MERGERS[merger].needs
    settings = {"steps": 2} if "coefficients" in needs else {}
    merged = merge_suite(suite, merger, training_sample(suite, 6), generator=generator(), **settings)
    assert {*merged} == {*NAMES} and all(bool(tau.values.isfinite().all()) for tau in merged.values())


def test_a_study_runs_on_texts(suite: Suite, tmp_path: Path) -> None:
    study = Study(
        scenarios=(Scenario("clean", 0.0), Scenario("noisy", 0.21, scale="weight")),
        protections=("unprotected", "freeze", "rmtllmf", "control"), per_class=(2,), seeds=1, sizes=(2,),
        realignment=Recipe(steps=4, batch_size=6, lr=1e-3, freeze=("embeddings",)),
    )  # fmt: skip
    table = run_study(study, suite, store=Store(tmp_path / "store"))
    assert {*table["task"]} == {*NAMES} and table["accuracy"].between(0, 1).all()
    mean = table.groupby(["scenario", "protection"])["accuracy"].mean()
    assert mean["noisy", "freeze"] >= mean["noisy", "unprotected"]
    assert mean["clean", "unprotected"] == mean["clean", "freeze"]


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_images_and_texts_do_not_mix(backbone: Backbone) -> None:
    image_backbone, image_task = small_backbone(layers=1), small_task()
    with pytest.raises(InputError, match=r"task 'topics' holds texts, and backbone 'small' reads images"):
        build_head(image_backbone, text_task())
    with pytest.raises(InputError, match=r"holds images, and backbone .* reads texts"):
        build_head(backbone, image_task)
    head = build_head(backbone, text_task(), "prototype")
    with pytest.raises(InputError, match="reads texts"):
        predictions(backbone, backbone.weights, image_task.test, head)
    with pytest.raises(InputError, match="reads images"):
        next(batches(image_backbone, text_split(4)))
    with pytest.raises(InputError, match="cannot be joined"):
        mixed = draw_memory({"a": text_task(), "b": image_task}, 1, image_size=32, generator=generator())
        heads = {"a": head, "b": replace(head, class_names=image_task.class_names)}
        realign(backbone, backbone.weights, mixed, heads, RECIPE, generator=generator())


def test_long_texts_are_told_once_and_empty_ones_refused(backbone: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    long = " ".join(["ball"] * (LENGTH + 3))
    task = text_task("long")
    task = replace(task, train=Split((long, *task.train.inputs[1:]), task.train.labels))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            build_head(backbone, task, "prototype")
    assert caplog.text.count(f"'long': 1 of 141 texts are longer than {LENGTH} tokens, and are cut there") == 1
    empty = replace(task, test=Split(("\u200b", *task.test.inputs[1:]), task.test.labels))
    with pytest.raises(InputError, match="has no token"):
        build_head(backbone, empty)


def test_lora_is_for_image_towers(backbone: Backbone) -> None:
    task = text_task()
    head = build_head(backbone, task, "prototype")
    with pytest.raises(InputError, match="no matrix"):
        finetune_lora(backbone, task, head, Lora(2, 2.0), RECIPE, generator=generator())


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_commands_on_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_text_model(tmp_path / "bert")
    for seed, name in enumerate(NAMES):
        write_texts(tmp_path / "texts" / name, seed=10 * seed)
    common = ["--backbone", "bert"]
    short = ["--head", "prototype", "--steps", "3", "--out", "tau"]
    assert cli.main(["finetune", "texts/a", "texts/b", *common, *short]) == 0
    files = ["tau/a.safetensors", "tau/b.safetensors"]
    assert cli.main(["fuse", *files, "--lam", "0.5", "--out", "fused.safetensors", *common]) == 0
    assert cli.main(["evaluate", *files, "fused.safetensors", *common, "--lam", "validation"]) == 0
    assert "fused.safetensors" in capsys.readouterr().out
    assert cli.main(["evaluate", *files]) == 2
    assert "other architecture" in (error := capsys.readouterr().err) or "does not match" in error
    base = load_backbone(tmp_path / "bert").weights
    tau = TaskVector.load(tmp_path / "tau" / "a.safetensors", base)
    assert tau.info["folder"] == "texts/a" and tau.info["source"] == "folder"
    assert small_tau(base, 1).layout == tau.layout
