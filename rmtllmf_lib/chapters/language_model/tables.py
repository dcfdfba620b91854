"""Tables of the chapter on a language model: shipped payloads, drawn tasks, and stored results of the public ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rmtllmf_lib.chapters.send_less.tables import RESULTS, stored
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import ASSETS, Backbone
from rmtllmf_lib.model.layout import GROUPS
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.tasks.grammar_tasks import grammar_task
from rmtllmf_lib.tasks.sources import load_task
from rmtllmf_lib.training.evaluate import accuracy, prepare
from rmtllmf_lib.training.heads import build_head
from rmtllmf_lib.transport.payload_file import read_payload
from rmtllmf_lib.transport.scenario import inject_mse

PAYLOADS = ASSETS / "minilm"
TEST = 100  # test sentences of each public task in the stored results


def settings() -> dict[str, Any]:
    """Return what decided the stored results: the users' recipe ("trained"), the studies, and their one "rate"."""
    made = json.loads((RESULTS / "language_model.json").read_text(encoding="utf-8"))["settings"]
    (rate,) = {study["realignment"]["lr"] for part in made["parts"] for study in part["studies"]}
    return {**made, "rate": rate}


def shipped(base: Weights, folder: Path = PAYLOADS) -> dict[str, TaskVector]:
    """Return the task vectors that the library's payload files stand for, by task.

    Raises
    ------
    InputError
        for a folder without payload files, or files of another base.
    """
    files = sorted(folder.glob("*.payload"))
    if not files:
        raise InputError(f"{folder} has no payload file: run python -m workflow.language_model --payloads")
    return {path.stem: read_payload(path, base) for path in files}


def payload_table(taus: Mapping[str, TaskVector], base: Weights, folder: Path = PAYLOADS) -> pd.DataFrame:
    """Return what a user sends: task, bytes (of its file), part (of a whole vector's), size (norm over the base's)."""
    whole = base.values.nbytes
    rows = []
    for name, tau in taus.items():
        held = (folder / f"{name}.payload").stat().st_size
        rows.append((name, held, held / whole, tau.norm / base.norm))
    return pd.DataFrame(rows, columns=["task", "bytes", "part", "size"])


def shares(base: Weights) -> pd.Series:
    """Return the part of a model's parameters that each group of its layout has."""
    sizes = {group: sum(part.stop - part.start for part in base.layout.ranges(group)) for group in GROUPS}
    return pd.Series(sizes) / base.layout.size


def received_sum(
    taus: Sequence[TaskVector], base: Weights, lam: float, link: str, *, generator: torch.Generator
) -> Weights:
    """Return the base plus lambda times the sum of vectors as a link of the paper delivers them, errors half common."""
    (scenario,) = [each for each in inject_mse("half") if each.name == link]
    arrived = scenario.receive(taus, base, generator=generator)
    return base + lam * sum(arrived[1:], arrived[0])


def drawn_accuracies(backbone: Backbone, tasks: Mapping[str, Task], models: Mapping[str, Weights]) -> pd.DataFrame:
    """Return rows (task, classes, accuracy of each model on the test sentences), with class names for a head."""
    rows = []
    for name, task in tasks.items():
        prepared, head = prepare(backbone, task.test), build_head(backbone, task)
        scores = {label: accuracy(backbone, weights, prepared, head) for label, weights in models.items()}
        rows.append({"task": name, "classes": len(task.class_names), **scores})
    return pd.DataFrame(rows)


def drawn_tasks(names: Sequence[str], sentences: int, seed: int) -> dict[str, Task]:
    """Return drawn text tasks with so many test sentences each."""
    return {name: grammar_task(name, seed=seed, n_test=sentences) for name in names}


def public_accuracies(backbone: Backbone, weights: Weights, data: Path, names: Sequence[str]) -> pd.Series:
    """Return a model's accuracy on the test sentences of public tasks that the stored results count, by task."""
    found = {}
    for name in names:
        task = load_task(name, "folder", root=data / name)
        found[name] = accuracy(backbone, weights, prepare(backbone, task.test, limit=TEST), build_head(backbone, task))
    return pd.Series(found)


def normalised(accuracies: pd.Series, seed: int = 0) -> float:
    """Return the mean over the tasks of accuracy over that of the stored specialist of the same seed."""
    own = stored("language_model_tasks")
    return float((accuracies / own[own["seed"] == seed].set_index("task")["fine_tuned"][accuracies.index]).mean())


def sentence_error(tasks: pd.DataFrame, count: int = TEST) -> float:
    """Return the standard error of a mean over tasks of normalised accuracies, from the number of sentences alone.

    For accuracies like those of the specialists: each has the variance `p (1 - p) / count`.

    Parameters
    ----------
    tasks : DataFrame
        fine_tuned; a row for each task.
    """
    p = tasks["fine_tuned"].to_numpy()
    return float(np.sqrt(np.sum((1 - p) / p / count)) / len(p))


# The methods that both families have: name to protections with and without a memory, and the link.
_METHODS = {
    "no link": (("control", "base"), "no link"),
    "R-MTLLMF, no noise": (("rmtllmf", "unprotected"), "clean"),
    "R-MTLLMF, SR": (("rmtllmf",), "SR"),
    "the answer, SR": (("coded-tsv-realigned", "coded-tsv"), "SR"),
}


def beside(images: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Return the normalised accuracies of both families side by side, for conditions that both have.

    Parameters
    ----------
    images, texts : DataFrame
        Rows of the book's results "the_answer" with "when_the_link_helps", and of "language_model": per_class,
        scenario, protection, lam_rule, mean, half_width.

    Returns
    -------
    DataFrame with columns method, per_class, images, images_half_width, texts, texts_half_width
    """
    found = []
    for method, (protections, link) in _METHODS.items():
        sides = []
        for name, rows in (("images", images), ("texts", texts)):
            own = rows["protection"].isin(protections) & (rows["scenario"] == link)
            own &= (rows["lam_rule"] == "chosen") | rows["protection"].isin(["control", "base"])
            part = rows[own].drop_duplicates(["per_class", "protection"])[["per_class", "mean", "half_width"]]
            sides.append(part.rename(columns={"mean": name, "half_width": f"{name}_half_width"}))
        both = sides[0].merge(sides[1], on="per_class").sort_values("per_class")
        both.insert(0, "method", method)
        found.append(both)
    return pd.concat(found, ignore_index=True)
