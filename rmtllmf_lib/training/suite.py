"""A suite: one base, several users' tasks with their heads, and their task vectors.

Every chapter starts from a suite, and the commands use the same functions. Fine-tuning is the expensive part, so task
vectors are stored under everything that decides them: the base, the data, the head, the recipe, the versions of library
and torch. If one of these changes, the vectors are trained again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from rmtllmf_lib import __version__
from rmtllmf_lib.arrays import known_names, one_of, seed_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.fusion import fuse, lambda_n
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.tasks.base import TASK_NAMES, Task
from rmtllmf_lib.tasks.sources import TaskSpec, load_spec, parse_tasks
from rmtllmf_lib.training.evaluate import SPLITS, accuracy, evaluate_combinations, prepare
from rmtllmf_lib.training.finetune import Recipe, finetune, recipe_for
from rmtllmf_lib.training.heads import Head, build_head
from rmtllmf_lib.training.loading import resolve_device

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

    def fuse(self, names: Sequence[str] | None = None, lam: float = 0.3) -> Weights:
        """The fused weights theta_base + lam · Σ tau of the named tasks (default: all), Eq. (6)."""
        return fuse(self.backbone.weights, [self.taus[name] for name in self._known(names)], lam)

    def accuracies(self, weights: Weights, split: str = "test", names: Sequence[str] | None = None) -> dict[str, float]:
        """Accuracy of one model on the named tasks (default: all)."""
        one_of(split, SPLITS, "split")
        return {
            name: accuracy(
                self.backbone, weights, getattr(self.tasks[name], split), self.heads[name], device=self.device
            )
            for name in self._known(names)
        }

    def _known(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """The names, by default all; InputError for a task that is not in the suite, or one named twice."""
        return tuple(self.tasks) if names is None else known_names(names, self.tasks, "task")

    def single_task_table(self, split: str = "test") -> pd.DataFrame:
        """Zero-shot and fine-tuned accuracy of each task: columns task, classes, images, zero_shot, fine_tuned."""
        return self.score({"zero_shot": self.backbone.weights}, split)

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
    device, autocast
        For training and evaluation, see `finetune`.
    store : Store, optional
        Default: the user's. An interrupted training resumes from its checkpoint there.

    Raises
    ------
    InputError
        for no task, a task named twice, two names for the same images; a vector that is missing, of another base or
        task, the same as another, or made with another head, number of classes or seed of drawn images; or what
        `parse_tasks`, `load_spec`, `build_head` and `finetune` raise.
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
    taus = {} if vectors is None else _read_vectors(Path(vectors).expanduser(), specs, backbone)
    for spec in specs if taus else ():
        drawn = {"data_seed": str(seed)} if spec.source == "procedural" else {}
        _require_same(taus[spec.name], spec.name, {"head": head, **drawn})
    tasks, heads = load_tasks(backbone, specs, taus, head, seed=seed)
    for one, other in combinations(tasks, 2):
        if tasks[one].fingerprint == tasks[other].fingerprint:
            raise InputError(
                f"tasks {one!r} and {other!r} hold the same images: expected different ones, check the root"
            )
    if not taus:
        recipe, store = recipe or recipe_for(backbone), store or Store()
        for name in tqdm(tasks, desc="task vectors", unit="task", disable=None):
            taus[name] = _stored_vector(backbone, tasks[name], heads[name], recipe, seed, store, device, autocast)
    return Suite(backbone, tasks, heads, taus, device)


def load_tasks(
    backbone: Backbone,
    specs: Sequence[TaskSpec],
    taus: Mapping[str, TaskVector],
    head: str | None = None,
    *,
    seed: int = 0,
    n_test: int | None = None,
) -> tuple[dict[str, Task], dict[str, Head]]:
    """The tasks and their heads, with the images that each task's vector was trained on.

    Parameters
    ----------
    taus : mapping
        Task vectors by task; a task may have none. Their metadata, if any, decide the seed and the number of images.
    head : "text" or "prototype", optional
        Default: that of the task's vector, and "text" without one.
    seed : int
        Of drawn images, for tasks whose vector does not name one.
    n_test : int, optional
        Test images of each task, a fixed choice; default all.

    Raises
    ------
    InputError
        for a vector made for another number of classes than its task has, or what `load_spec` and `build_head` raise.
        A vector trained on other images is only a warning; with `n_test` that cannot be checked.
    """
    tasks, heads = {}, {}
    for spec in specs:
        tau = taus.get(spec.name)
        info = tau.info if tau else {}
        n_train = int(info["n_train"]) if info.get("n_train") else None  # the prototypes are means over these images
        data_seed = int(info.get("data_seed", seed))
        task = load_spec(spec, backbone.image_size, seed=data_seed, n_train=n_train, n_test=n_test)
        if tau is not None:
            _require_same(tau, spec.name, {"classes": str(len(task.class_names))})
            if n_test is None and info.get("data", task.fingerprint) != task.fingerprint:
                log.warning("the task vector of %r was trained on other images than the task has here", spec.name)
        tasks[spec.name] = task
        heads[spec.name] = build_head(backbone, task, head or info.get("head", "text"))
    return tasks, heads


def _require_same(tau: TaskVector, name: str, settings: Mapping[str, str]) -> None:
    """Check that the vector's metadata, where it has any, match the settings in use."""
    for what, value in settings.items():
        if (found := tau.info.get(what, value)) != value:
            raise InputError(
                f"the task vector of {name!r} was made with {what} = {found}: expected {value}; "
                "change one of them, or name the task that it was made for"
            )


def choose_lambdas(
    suite: Suite, grid: Sequence[float], *, limit: int | None = None, threads: int = 1
) -> tuple[dict[int, float], pd.DataFrame]:
    """The best lambda_N of a grid for every N, chosen on validation images.

    The score of a lambda is the normalised accuracy of Eq. (6) on the validation images of the fused tasks, averaged
    over all combinations of N tasks. Test images are not used.

    Parameters
    ----------
    grid : sequence of float
    limit : int, optional
        Validation images per task.
    threads : int

    Returns
    -------
    chosen : dict N → lambda_N
    table : DataFrame with columns n_tasks, lam, score

    Raises
    ------
    InputError
        for an empty grid, or fewer than two tasks.
    """
    if not len(grid) or len(suite.taus) < 2:
        raise InputError(
            f"the grid holds {len(grid)} numbers and the suite {len(suite.taus)} tasks: "
            "expected at least one number to try, and two tasks to fuse"
        )
    parts = []
    for lam in sorted(grid):
        rows = evaluate_combinations(
            suite.backbone, suite.taus, suite.tasks, suite.heads, partial(lambda_n, rule="constant", value=lam),
            split="validation", limit=limit, threads=threads, device=suite.device,
        )  # fmt: skip
        scores = rows.groupby("n_tasks", as_index=False).agg(lam=("lam", "first"), score=("normalized", "mean"))
        parts.append(scores)
    table = pd.concat(parts, ignore_index=True)
    best = table.loc[table.groupby("n_tasks")["score"].idxmax()]
    return {int(n): float(lam) for n, lam in zip(best["n_tasks"], best["lam"], strict=True)}, table


def _read_vectors(folder: Path, specs: Sequence[TaskSpec], backbone: Backbone) -> dict[str, TaskVector]:
    files = {spec.name: folder / f"{spec.name}.safetensors" for spec in specs}
    if missing := [name for name, file in files.items() if not file.is_file()]:
        raise InputError(
            f"{folder} has no {missing[0]}.safetensors: expected a task vector for each of {', '.join(files)}, as "
            f"`rmtllmf finetune` or `rmtllmf import` with --out {folder} and this backbone write them"
        )
    taus: dict[str, TaskVector] = {}
    owners: dict[str, str] = {}
    for name, file in files.items():
        tau = TaskVector.load(file, backbone.weights)
        if (made_for := tau.info.get("task", name)) != name:
            raise InputError(
                f"{file} holds the task vector of {made_for!r}: expected that of {name!r}; rename the file"
            )
        if (other := owners.setdefault(tau.hash, name)) != name:
            raise InputError(f"{file} holds the same task vector as {files[other]}: give each task its own")
        taus[name] = replace(tau, info={**tau.info, "task": name})
    return taus


def _stored_vector(
    backbone: Backbone,
    task: Task,
    head: Head,
    recipe: Recipe,
    seed: int,
    store: Store,
    device: str,
    autocast: str | None,
) -> TaskVector:
    """The task vector from the store, or trained and stored; an interrupted training resumes."""
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
        "device": device,
        "autocast": autocast,
    }

    def train() -> dict[str, torch.Tensor]:
        generator, checkpoint = torch.Generator().manual_seed(seed), store.checkpoint("task-vector", config)
        tau = finetune(
            backbone, task, head, recipe, generator=generator, checkpoint=checkpoint, device=device, autocast=autocast
        )
        return {"values": tau.values}

    values = store.tensors("task-vector", config, train)["values"]
    return TaskVector(backbone.weights.layout, values, backbone.weights.hash, {"task": task.name})
