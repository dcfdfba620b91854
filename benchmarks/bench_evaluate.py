"""Evaluating every combination of eight tasks on 250 images each, against a loop over open_clip models."""

from __future__ import annotations

import copy
import os

import torch
from torch import Tensor

from benchmarks import Row, medians
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.backbone import Backbone, load_backbone
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.tasks.base import TASK_NAMES, Task
from rmtllmf_lib.tasks.sources import load_task
from rmtllmf_lib.training.combinations import evaluate_combinations, task_combinations
from rmtllmf_lib.training.evaluate import predictions, prepare
from rmtllmf_lib.training.heads import Head, build_head
from rmtllmf_lib.training.loading import batches
from rmtllmf_lib.training.suite import Suite

IMAGES, LAM = 250, 0.3
# In multiplications the fast pass saves a quarter (1.32 ×): the last of four blocks computes one token of seventeen but
# for keys and values, and the patches are embedded once for all models. The rest of the gain is memory traffic, which
# depends on the machine: 1.67 was measured with two cores.
LEAST = 1.5
SIZES = (2, 8)  # 28 + 1 of the 247 combinations: 64 of the 1,016 evaluations of a model on a task, a few seconds

Combination = tuple[str, ...]


def plain_loop(
    backbone: Backbone,
    taus: dict[str, TaskVector],
    heads: dict[str, Head],
    tasks: dict[str, Task],
    combinations: list[Combination],
) -> dict[tuple[Combination, str], Tensor]:
    """As one writes it first: merge dicts, load them into the model, encode each task's images as one batch."""
    model = copy.deepcopy(backbone.model)
    base, updates = backbone.weights.state_dict(), {name: tau.state_dict() for name, tau in taus.items()}
    predicted = {}
    with torch.no_grad():
        for combination in combinations:
            lam = 1.0 if len(combination) == 1 else LAM
            merged = {key: base[key] + lam * sum(updates[name][key] for name in combination) for key in base}
            model.load_state_dict(merged, strict=False)
            for name in combination:
                for images, _ in batches(backbone, tasks[name].test, batch_size=IMAGES):
                    features = model.encode_image(images, normalize=True)
                    logits = heads[name].logit_scale * features @ heads[name].weight.T
                    predicted[combination, name] = logits.argmax(1)
    return predicted


def run() -> list[Row]:
    backbone = load_backbone("tiny")
    tasks = {name: load_task(name, n_train=200, n_test=IMAGES) for name in TASK_NAMES}
    heads = {name: build_head(backbone, task) for name, task in tasks.items()}
    # As large as trained ones, whose relative size is .02 to .03, and with the embeddings frozen as theirs are.
    generator, size = torch.Generator().manual_seed(0), 0.025 * backbone.weights.rms
    layout = backbone.weights.layout
    taus = {
        name: TaskVector(layout, size * torch.randn(layout.size, generator=generator), backbone.weights.hash).without(
            "embeddings"
        )
        for name in tasks
    }
    combinations = task_combinations(list(tasks), SIZES)
    singles = [(name,) for name in tasks]  # the table needs the specialists, too

    def plain() -> dict[tuple[Combination, str], Tensor]:
        return plain_loop(backbone, taus, heads, tasks, [*singles, *combinations])

    def fast(threads: int) -> None:
        suite = Suite(backbone, tasks, heads, taus)
        evaluate_combinations(suite, lambda n: LAM, sizes=SIZES, threads=threads, progress=False)

    differing, total = differences(backbone, taus, tasks, heads, plain())
    agreement = f"{differing} of {total} predictions differ"
    rows = [Row("predictions that differ from the plain loop's", float(differing), 0, "", False, agreement)]
    threads = torch.get_num_threads()
    for cores in sorted({1, min(2, os.cpu_count() or 1)}):
        torch.set_num_threads(cores)
        try:
            seconds = medians({"plain": plain, "fast": lambda cores=cores: fast(cores)}, repeats=5)
        finally:
            torch.set_num_threads(threads)
        scale = 1016 / (8 + sum(len(c) for c in combinations))
        rows.append(
            Row(
                f"evaluating combinations / loop over open_clip models, {cores} core{'s'[: cores - 1]}",
                seconds["plain"] / seconds["fast"],
                LEAST if cores == 2 else None,
                detail="measured on pairs and all eight; for all 247, in proportion: "
                f"{scale * seconds['fast']:.0f} s, reference {scale * seconds['plain']:.0f} s",
            )
        )
    return rows


def differences(
    backbone: Backbone,
    taus: dict[str, TaskVector],
    tasks: dict[str, Task],
    heads: dict[str, Head],
    expected: dict[tuple[Combination, str], Tensor],
) -> tuple[int, int]:
    """Number of predictions that differ from the expected ones, and number of all predictions."""
    prepared = {name: prepare(backbone, task.test) for name, task in tasks.items()}
    differing = 0
    for (combination, name), reference in expected.items():
        lam = 1.0 if len(combination) == 1 else LAM
        weights = fuse(backbone.weights, [taus[member] for member in combination], lam)
        differing += int((predictions(backbone, weights, prepared[name], heads[name]) != reference).sum())
    return differing, sum(len(reference) for reference in expected.values())
