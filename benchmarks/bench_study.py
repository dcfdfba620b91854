"""A study of noise and protections, against one model at a time with open_clip and nothing kept."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import Row
from rmtllmf_lib.model.backbone import Backbone, load_backbone
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.protection.memory import Memory, draw_memory
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.protection.resilience import LAMBDA_PARTS
from rmtllmf_lib.seeds import drawn_seed
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.study import NO_LINK, Study, run_study, study_units
from rmtllmf_lib.study.units import MEMORY, NOISE, ORDER, Bench, Unit, models
from rmtllmf_lib.tasks.base import TASK_NAMES, Split, pinned_sample
from rmtllmf_lib.tasks.sources import load_task
from rmtllmf_lib.training.evaluate import predictions
from rmtllmf_lib.training.heads import Head, build_head
from rmtllmf_lib.training.loading import Schedule, batches
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario, inject_mse

EMBEDDINGS = ("conv1.weight", "class_embedding", "positional_embedding")
Predicted = dict[tuple[str, str, int, int, tuple[str, ...], str], Tensor]  # scenario, protection, k, seed, tasks, task


# A chapter's size: starting the processes, some seconds, is then a small part of it.
NAMES, STEPS, IMAGES, K, SEEDS = TASK_NAMES, 60, 250, 5, 3


def make_suite() -> Suite:
    """Tasks with random vectors: the time does not depend on their values."""
    backbone = load_backbone("tiny")
    tasks = {name: load_task(name, n_train=200, n_test=IMAGES) for name in NAMES}
    heads = {name: build_head(backbone, task) for name, task in tasks.items()}
    generator, size, layout = torch.Generator().manual_seed(0), 0.025 * backbone.weights.rms, backbone.weights.layout
    taus = {}
    for name in tasks:
        values = size * torch.randn(layout.size, generator=generator)
        taus[name] = TaskVector(layout, values, backbone.weights.hash).without("embeddings")
    return Suite(backbone, tasks, heads, taus)


def run() -> list[Row]:
    suite = make_suite()
    study = Study(
        inject_mse("half"), ("unprotected", "rmtllmf", "noise-aware", "control"), seeds=SEEDS, per_class=(K,),
        sizes=(len(NAMES),),
        test_images=IMAGES, realignment=replace(REALIGNMENT, steps=STEPS),
    )  # fmt: skip
    threads, cores = torch.get_num_threads(), min(2, os.cpu_count() or 1)
    torch.set_num_threads(cores)
    try:
        started = time.perf_counter()
        plain = plain_study(study, suite)
        between = time.perf_counter()
        run_study(study, suite, store=_scratch(), workers=cores, progress=False)
        ended = time.perf_counter()
    finally:
        torch.set_num_threads(threads)
    slow, fast = between - started, ended - between
    times = f"{fast:.1f} s, reference {slow:.1f} s"
    rows = [
        Row(f"a study / one model at a time, cores: {cores}", slow / fast, 1.7 if cores == 2 else None, detail=times)
    ]
    found = fast_study(study, suite)
    total = sum(len(part) for part in plain.values())
    differing = sum(int((found[key] != plain[key]).sum()) for key in plain)
    counts = f"{differing} of {total}, after {STEPS} steps of training"
    rows.append(Row("predictions that differ from the plain study's", 100 * differing / total, 0.5, "%", False, counts))
    return rows


def _scratch() -> Store:
    return Store(Path(tempfile.mkdtemp(prefix="rmtllmf-bench-")))


def fast_study(study: Study, suite: Suite) -> Predicted:
    """Predictions of the models that `run_study` scores."""
    bench, predicted = Bench(suite), {}
    for unit in study_units(study, suite):
        shown = unit.scenario.name if unit.scenario else NO_LINK
        for combination, found in models(bench, unit):
            for name in combination:
                images = bench.prepared(name, unit.split, unit.images)
                key = (shown, unit.protection, unit.per_class, unit.seed, combination, name)
                predicted[key] = predictions(suite.backbone, found.weights, images, suite.heads[name])
    return predicted


def plain_study(study: Study, suite: Suite) -> Predicted:
    """As one writes it first: for each model draw the noise, fuse dicts, protect, load, encode each task's images."""
    predicted = {}
    for unit in study_units(study, suite):
        shown = unit.scenario.name if unit.scenario else NO_LINK
        for combination, lam in zip(unit.combinations, unit.lams, strict=True):
            for scenario in study.scenarios if unit.scenario is None else (unit.scenario,):
                model = plain_model(suite, unit, scenario, combination, lam)
            for name in combination:
                split = suite.tasks[name].test
                if unit.images is not None and unit.images < len(split):
                    split = split.subset(pinned_sample(split.labels, unit.images, salt="limit"))
                key = (shown, unit.protection, unit.per_class, unit.seed, combination, name)
                predicted[key] = _logits(suite.backbone, model, split, suite.heads[name]).argmax(1)
    return predicted


def plain_model(
    suite: Suite, unit: Unit, scenario: Scenario, combination: tuple[str, ...], lam: float
) -> torch.nn.Module:
    """The protected image tower of one combination, as a module."""
    base = suite.backbone.model.visual.state_dict()
    taus = list(suite.taus.values())
    received = scenario.receive(taus, suite.backbone.weights, generator=unit.generator(NOISE))
    updates = [
        {key.removeprefix("visual."): value for key, value in tau.state_dict().items()}
        for name, tau in zip(suite.taus, received, strict=True)
        if name in combination
    ]
    memory = None
    if unit.per_class:
        size = suite.backbone.image_size
        memory = draw_memory(suite.tasks, unit.per_class, image_size=size, generator=unit.generator(MEMORY))
        memory = memory.of(combination)
    tower = copy.deepcopy(suite.backbone.model.visual)

    def load(factor: float, reload: bool) -> torch.nn.Module:
        merged = {key: base[key] + factor * sum(update[key] for update in updates) for key in base}
        tower.load_state_dict(merged | ({key: base[key] for key in EMBEDDINGS} if reload else {}))
        return tower

    if unit.protection == "unprotected":
        return load(lam, reload=False)
    if unit.protection == "base":
        return load(0.0, reload=True)
    assert memory is not None
    if unit.protection == "control":
        load(0.0, reload=True)
    elif unit.protection == "rmtllmf":
        load(lam, reload=True)
    else:
        assert unit.protection == "noise-aware"
        grid = sorted(part * lam for part in LAMBDA_PARTS)
        losses = [_memory_loss(suite, load(factor, reload=True), memory) for factor in grid]
        load(grid[losses.index(min(losses))], reload=True)
    return _realigned(suite, unit, tower, memory)


def _logits(backbone: Backbone, tower: torch.nn.Module, split: Split, head: Head) -> Tensor:
    with torch.no_grad():
        parts = [
            head.logit_scale * functional.normalize(tower(images), dim=-1) @ head.weight.T
            for images, _ in batches(backbone, split, batch_size=len(split))
        ]
    return torch.cat(parts)


def _memory_loss(suite: Suite, tower: torch.nn.Module, memory: Memory) -> float:
    losses = [
        functional.cross_entropy(
            _logits(suite.backbone, tower, split, suite.heads[name]), split.labels, reduction="none"
        )
        for name, split in memory.splits.items()
    ]
    return float(torch.cat(losses).mean())


def _realigned(suite: Suite, unit: Unit, tower: torch.nn.Module, memory: Memory) -> torch.nn.Module:
    """AdamW on batches of mixed tasks; each task's images go through its own head."""
    assert unit.recipe is not None
    order = torch.Generator().manual_seed(drawn_seed(unit.generator(ORDER)))
    schedule = Schedule.draw(memory.samples, unit.recipe.steps, unit.recipe.batch_size, order)
    trained = []
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(name not in EMBEDDINGS)
        trained += [parameter] if name not in EMBEDDINGS else []
    optimizer = torch.optim.AdamW(trained, weight_decay=0.0)
    owners = [(name, place) for name, split in memory.splits.items() for place in range(len(split))]
    for step in range(unit.recipe.steps):
        chosen = [owners[index] for index in schedule.indices(step).tolist()]
        images, labels = _pictures(suite, memory, chosen)
        features = functional.normalize(tower(images), dim=-1)
        losses = []
        for name in memory.splits:
            mine = torch.tensor([owner == name for owner, _ in chosen])
            if mine.any():
                logits = suite.heads[name].logit_scale * features[mine] @ suite.heads[name].weight.T
                losses.append(functional.cross_entropy(logits, labels[mine], reduction="sum"))
        optimizer.param_groups[0]["lr"] = unit.recipe.lr_at(step)
        optimizer.zero_grad()
        (sum(losses, torch.zeros(())) / len(chosen)).backward()
        optimizer.step()
    return tower.requires_grad_(False)


def _pictures(suite: Suite, memory: Memory, chosen: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
    parts = [memory.splits[name].subset([place]) for name, place in chosen]
    images = torch.cat([part.inputs for part in parts if isinstance(part.inputs, Tensor)])
    whole = Split(images, torch.cat([part.labels for part in parts]))
    ((pictures, labels),) = batches(suite.backbone, whole, batch_size=len(whole))
    return pictures, labels
