"""A suite: one base, several users' tasks with their heads, and their task vectors.

Every chapter starts from a suite, and the commands use the same functions. Fine-tuning is the expensive part, so task
vectors are stored under everything that decides them: the base, the data, the head, the recipe, the versions of library
and torch. If one of these changes, the vectors are trained again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rmtllmf_lib import __version__
from rmtllmf_lib.arrays import known_names, one_of, seed_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.progress import tqdm
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.tasks.base import SPLITS, TASK_NAMES, Task
from rmtllmf_lib.tasks.embedded.difficulty import severity
from rmtllmf_lib.tasks.sources import TaskSpec, load_spec, parse_tasks, severities
from rmtllmf_lib.training.decoded import with_decoded
from rmtllmf_lib.training.evaluate import accuracy, prepare
from rmtllmf_lib.training.finetune import Recipe, finetune, recipe_for
from rmtllmf_lib.training.heads import Head, build_head
from rmtllmf_lib.training.loading import require_tasks, resolve_device
from rmtllmf_lib.validated import validated_call

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Suite:
    """The users' tasks, heads and task vectors.

    Attributes
    ----------
    backbone : Backbone
    tasks, heads, taus : mappings by task name, in the same order
    device : str
        Device for evaluation, see `loading.resolve_device`.
    """

    backbone: Backbone
    tasks: Mapping[str, Task]
    heads: Mapping[str, Head]
    taus: Mapping[str, TaskVector]
    device: str = "cpu"

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        """The table of `describe`, where a notebook shows a suite."""
        return str(self.describe().to_html(index=False, float_format="{:.3g}".format))

    def describe(self) -> pd.DataFrame:
        """What is in the suite, a row for each task.

        Returns
        -------
        DataFrame with columns task, source, classes, head, the images in train, validation and test, and tau_rms: the
        root mean square of the task vector, NaN for a task without one.
        """
        rows = [
            {
                "task": name,
                "source": task.source,
                "classes": len(task.class_names),
                "head": self.heads[name].kind,
                **{split: len(getattr(task, split)) for split in SPLITS},
                "tau_rms": self.taus[name].rms if name in self.taus else float("nan"),
            }
            for name, task in self.tasks.items()
        ]
        return pd.DataFrame(rows)

    @validated_call
    def fuse(self, names: Sequence[str] | None = None, lam: float = 0.3) -> Weights:
        """The fused weights theta_base + lam · Σ tau of the named tasks (default: all), Eq. (6)."""
        return fuse(self.backbone.weights, [self.taus[name] for name in self.known(names)], lam)

    @validated_call
    def accuracies(self, weights: Weights, split: str = "test", names: Sequence[str] | None = None) -> dict[str, float]:
        """Accuracy of one model on the named tasks (default: all)."""
        one_of(split, SPLITS, "split")
        return {
            name: accuracy(
                self.backbone, weights, getattr(self.tasks[name], split), self.heads[name], device=self.device
            )
            for name in self.known(names)
        }

    @validated_call
    def train(self, name: str, recipe: Recipe, seed: int, **options: Any) -> TaskVector:
        """The task vector of fine-tuning on one of the tasks; `options` as in `finetune`."""
        one_of(name, self.tasks, "task")
        options |= {"generator": torch.Generator().manual_seed(seed_number(seed)), "device": self.device}
        return finetune(self.backbone, self.tasks[name], self.heads[name], recipe, **options)

    @validated_call
    def known(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """The names, by default all; InputError for a task that is not in the suite, or one named twice."""
        return tuple(self.tasks) if names is None else known_names(names, self.tasks, "task")

    @validated_call
    def score(self, models: Mapping[str, Weights], split: str = "test") -> pd.DataFrame:
        """Accuracy of several models on each task.

        Returns
        -------
        DataFrame with columns task, classes, images, one for each model, and fine_tuned: the task's own model, NaN for
        a task without a vector; without the last if there are no vectors.
        """
        one_of(split, SPLITS, "split")
        rows = []
        for name, task in self.tasks.items():
            images = prepare(self.backbone, getattr(task, split), device=self.device)
            own = {"fine_tuned": self.backbone.weights + self.taus[name]} if name in self.taus else {}
            scores = {
                label: accuracy(self.backbone, weights, images, self.heads[name])
                for label, weights in {**models, **own}.items()
            }
            rows.append({"task": name, "classes": len(task.class_names), "images": len(images.split), **scores})
        return pd.DataFrame(rows)


@validated_call
def load_suite(
    backbone: Backbone,
    names: Sequence[str] = TASK_NAMES,
    *,
    source: str = "procedural",
    root: str | Path | None = None,
    head: str = "text",
    vectors: str | Path | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    difficulty: str | float | None = None,
    device: str = "cpu",
    autocast: str | None = None,
    store: Store | None = None,
) -> Suite:
    """A suite of tasks and heads, with task vectors from files or the store, or trained.

    Parameters
    ----------
    names, source, root
        As in `parse_tasks`; a task may name its own source and folder: ``torchvision:mnist``,
        ``folder:pets=photos/pets``.
    head : "text" or "prototype"
    vectors : path, optional
        Folder with a file `<task>.safetensors` for each task, written by `rmtllmf finetune` or `rmtllmf import`.
        Nothing is trained then. A vector that was trained on other images than the task has here gives a warning.
    recipe : Recipe, optional
        Settings of the training; default `recipe_for(backbone)`.
    seed : int
        Seed of the data and of the training. A vector does not depend on the other tasks or their order.
    difficulty : str or float, optional
        Of the drawn tasks, see `procedural_task`; tasks with real images have none.
    device, autocast
        For training and evaluation, see `finetune`.
    store : Store, optional
        Default: the user's. An interrupted training resumes from its checkpoint there.

    Raises
    ------
    InputError
        for no task, a task named twice, two names for the same images; a difficulty where no task is drawn; a vector
        that is missing, of another base or task, the same as another, or made with another head, number of classes,
        seed or difficulty of drawn images; or what `parse_tasks`, `load_spec`, `build_head` and `finetune` raise.
    """
    if not names:
        raise InputError("there is no task: expected at least one")
    seed_number(seed)
    device = str(resolve_device(device))  # stored with the results, so "auto" is resolved first
    specs = parse_tasks(names, source, None if root is None else Path(root))
    if root is not None and all(spec.root is None for spec in specs):
        raise InputError(f"root is {root} but procedural tasks are drawn, not read: leave it out or name a source")
    if vectors is not None and recipe is not None:
        raise InputError("a recipe is for training, and task vectors from files are not trained: leave out one of them")
    drawn = severities(specs, difficulty)
    taus = {} if vectors is None else _read_vectors(Path(vectors).expanduser(), specs, backbone)
    for spec in specs if taus else ():
        settings = {"head": head} | ({"data_seed": str(seed)} if spec.source == "procedural" else {})
        _require_same(taus[spec.name], spec.name, settings)
        made = _severity_of(taus[spec.name])
        if spec.name in drawn and made not in (None, drawn[spec.name]):
            raise InputError(
                f"the task vector of {spec.name!r} was made with difficulty = {made:g}: expected {drawn[spec.name]:g}; "
                "change one of them"
            )
    suite = assemble_suite(backbone, specs, taus, head, seed=seed, difficulty=difficulty, device=device)
    for one, other in combinations(suite.tasks, 2):
        if suite.tasks[one].fingerprint == suite.tasks[other].fingerprint:
            raise InputError(
                f"tasks {one!r} and {other!r} hold the same {suite.tasks[one].what}: expected different "
                "ones, check the root"
            )
    if not taus:
        suite = with_vectors(suite, recipe, seed, autocast=autocast, store=store)
    return suite


@validated_call
def with_vectors(
    suite: Suite,
    recipe: Recipe | None = None,
    seed: int = 0,
    *,
    autocast: str | None = None,
    store: Store | None = None,
) -> Suite:
    """The suite with task vectors from the store, or trained, in place of its own.

    Real images do not depend on a seed, so the users of another seed have the same tasks and heads, and need not read
    their images again.

    Parameters
    ----------
    recipe, autocast, store
        As in `load_suite`.
    seed : int
        Of the training.

    Raises
    ------
    InputError
        as `finetune` does.
    """
    seed_number(seed)
    recipe, store = recipe or recipe_for(suite.backbone), store or Store()
    bar = tqdm(suite.tasks, desc="task vectors", unit="task", disable=None)
    return replace(suite, taus={name: _stored_vector(suite, name, recipe, seed, autocast, store) for name in bar})


@validated_call
def assemble_suite(
    backbone: Backbone,
    specs: Sequence[TaskSpec],
    taus: Mapping[str, TaskVector],
    head: str | None = None,
    *,
    seed: int = 0,
    difficulty: str | float | None = None,
    n_test: int | None = None,
    device: str = "cpu",
) -> Suite:
    """A suite of given task vectors, with the images that each of them was trained on.

    Parameters
    ----------
    taus : mapping
        Task vectors by task; a task may have none. Their metadata, if any, decide the seed, the difficulty and the
        number of images.
    head : "text" or "prototype", optional
        Default: that of the task's vector, and "text" without one.
    seed, difficulty
        Of drawn images, for tasks whose vector does not name one.
    n_test : int, optional
        Test images of each task, a fixed choice; default all.

    Raises
    ------
    InputError
        for a vector made for another number of classes than its task has, or what `load_spec` and `build_head` raise.
        A vector trained on other images is only a warning; with `n_test` that cannot be checked.
    """
    seed_number(seed)
    tasks, heads = {}, {}
    drawn = severities(specs, difficulty)
    for spec in specs:
        tau = taus.get(spec.name)
        info = tau.info if tau else {}
        n_train = int(info["n_train"]) if info.get("n_train") else None  # the prototypes are means over these images
        data_seed = int(info.get("data_seed", seed))
        hard = drawn.get(spec.name)
        if hard is not None and tau is not None and (made := _severity_of(tau)) is not None:
            hard = made
        sizes = {"n_train": n_train, "n_test": n_test}
        task = load_spec(spec, backbone.image_size, seed=data_seed, difficulty=hard, **sizes)
        task = with_decoded(task, backbone.image_size)
        if tau is not None:
            _require_same(tau, spec.name, {"classes": str(len(task.class_names))})
            if n_test is None and info.get("data", task.fingerprint) != task.fingerprint:
                log.warning(
                    "the task vector of %r was trained on other %s than the task has here", spec.name, task.what
                )
        tasks[spec.name] = task
        heads[spec.name] = build_head(backbone, task, head or info.get("head", "text"))
    return Suite(backbone, tasks, heads, taus, device)


def _severity_of(tau: TaskVector) -> float | None:
    """The severity of the drawn images that a vector was trained on; 0 before there were others, None if unknown."""
    return severity(tau.info.get("difficulty") or "0") if "data_seed" in tau.info else None


def _require_same(tau: TaskVector, name: str, settings: Mapping[str, str]) -> None:
    """Check that the vector's metadata, where it has any, match the settings in use."""
    for what, value in settings.items():
        if (found := tau.info.get(what, value)) != value:
            raise InputError(
                f"the task vector of {name!r} was made with {what} = {found}: expected {value}; "
                "change one of them, or name the task that it was made for"
            )


def _read_vectors(folder: Path, specs: Sequence[TaskSpec], backbone: Backbone) -> dict[str, TaskVector]:
    files = {spec.name: folder / f"{spec.name}.safetensors" for spec in specs}
    if missing := [name for name, file in files.items() if not file.is_file()]:
        raise InputError(
            f"{folder} has no {missing[0]}.safetensors: expected a task vector for each of {', '.join(files)}, as "
            f"`rmtllmf finetune` or `rmtllmf import` with --out {folder} and this backbone write them"
        )
    taus: dict[str, TaskVector] = {}
    for name, file in files.items():
        tau = TaskVector.load(file, backbone.weights)
        if (made_for := tau.info.get("task", name)) != name:
            raise InputError(
                f"{file} holds the task vector of {made_for!r}: expected that of {name!r}; rename the file"
            )
        if same := [files[other] for other in taus if taus[other].hash == tau.hash]:
            raise InputError(f"{file} holds the same task vector as {same[0]}: give each task its own")
        taus[name] = replace(tau, info={**tau.info, "task": name})
    return taus


def _stored_vector(
    suite: Suite, name: str, recipe: Recipe, seed: int, autocast: str | None, store: Store
) -> TaskVector:
    """The task vector from the store, or trained and stored; an interrupted training resumes."""
    backbone, task, head = suite.backbone, suite.tasks[name], suite.heads[name]
    config = {
        "base": backbone.weights.hash,
        "task": task.fingerprint,
        "classes": task.class_names,
        "head": head.kind,
        "head_sha256": head.hash,
        "recipe": asdict(recipe),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "versions": {"rmtllmf": __version__, "torch": torch.__version__},
        "device": suite.device,
        "autocast": autocast,
    }

    def train() -> dict[str, torch.Tensor]:
        require_tasks(backbone, [*suite.tasks.values()])  # of all tasks, before the first of them is trained
        checkpoint = store.checkpoint("task-vector", config)
        return {"values": suite.train(name, recipe, seed, checkpoint=checkpoint, autocast=autocast).values}

    values = store.tensors("task-vector", config, train)["values"]
    return TaskVector(backbone.weights.layout, values, backbone.weights.hash, {"task": task.name})
