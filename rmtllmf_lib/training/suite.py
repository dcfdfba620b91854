"""A suite: one base, several users' tasks with their heads, and the task vectors they trained.

Every chapter starts from one. Fine-tuning is the expensive part, so the vectors are kept in the store, under the hash
of the base, the fingerprint of the data, the head, the recipe and the versions of library and torch: change one of
them and they are trained anew.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from rmtllmf_lib import __version__
from rmtllmf_lib.arrays import seed_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.fusion import fuse, lambda_n
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.tasks.base import TASK_NAMES, Task
from rmtllmf_lib.tasks.sources import TaskSpec, load_spec, parse_tasks
from rmtllmf_lib.training.evaluate import accuracy, evaluate_combinations
from rmtllmf_lib.training.finetune import Recipe, finetune, recipe_for
from rmtllmf_lib.training.heads import Head, build_head
from rmtllmf_lib.training.loading import resolve_device

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Suite:
    """What the users bring to the base station.

    Attributes
    ----------
    backbone : Backbone
    tasks, heads, taus : dicts by task name, in one order
    device : str
        Where models are evaluated, see `loading.resolve_device`.
    """

    backbone: Backbone
    tasks: Mapping[str, Task]
    heads: Mapping[str, Head]
    taus: Mapping[str, TaskVector]
    device: str = "cpu"

    def fuse(self, names: Sequence[str] | None = None, lam: float = 0.3) -> Weights:
        """theta_base + lam · Σ tau over the named tasks (default: all), Eq. (6)."""
        return fuse(self.backbone.weights, [self.taus[name] for name in self._known(names)], lam)

    def accuracies(self, weights: Weights, split: str = "test", names: Sequence[str] | None = None) -> dict[str, float]:
        """Accuracy of one model on the named tasks (default: all)."""
        return {
            name: accuracy(
                self.backbone, weights, getattr(self.tasks[name], split), self.heads[name], device=self.device
            )
            for name in self._known(names)
        }

    def _known(self, names: Sequence[str] | None) -> Sequence[str]:
        """The names, all of them by default; an InputError for a task that the suite does not hold."""
        if missing := [name for name in names or () if name not in self.tasks]:
            raise InputError(f"unknown task {missing[0]!r}: expected some of {', '.join(self.tasks)}")
        return tuple(self.tasks) if names is None else names

    def single_task_table(self, split: str = "test") -> pd.DataFrame:
        """Zero-shot and fine-tuned accuracy of every task on its own images.

        Returns
        -------
        DataFrame with columns task, classes, images, zero_shot, fine_tuned
        """
        base = self.accuracies(self.backbone.weights, split)
        own = {n: self.accuracies(self.backbone.weights + tau, split, [n])[n] for n, tau in self.taus.items()}
        rows = [
            (name, len(task.class_names), len(getattr(task, split)), base[name], own[name])
            for name, task in self.tasks.items()
        ]
        return pd.DataFrame(rows, columns=["task", "classes", "images", "zero_shot", "fine_tuned"])


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
    """Load tasks, build their heads, and take their task vectors from files or the store, or train them.

    Parameters
    ----------
    names, source, root
        As in `load_task`; tasks of another source, or in another folder, are written as in `parse_tasks`:
        ``torchvision:mnist``, ``folder:pets=photos/pets``.
    head : "text" or "prototype"
    vectors : path, optional
        Folder with a file `<task>.safetensors` for each task, as `rmtllmf finetune` and `rmtllmf import` write them.
        Nothing is trained then. A warning tells where one was trained on other images than the task has here.
    recipe : Recipe, optional
        Of the training; default `recipe_for(backbone)`.
    seed : int
        Of the data and, with the task's place in `names` not mattering, of the training.
    device, autocast
        Of training and evaluation, see `finetune`.
    store : Store, optional
        Default: the user's. A run that was stopped goes on from its checkpoint there.

    Raises
    ------
    InputError
        No task, a task named twice, two names for the same images; a vector that is missing, of another base or
        task, the same as another, or made with another head, number of classes or seed of drawn images; or what
        `parse_tasks`, `load_task`, `build_head` and `finetune` raise.
    """
    if not names:
        raise InputError("there is no task: expected at least one")
    seed_number(seed)
    device = str(resolve_device(device))  # what is stored tells where it was computed, not "auto"
    specs = parse_tasks(names, source, None if root is None else Path(root))
    if root is not None and all(spec.root is None for spec in specs):
        raise InputError(f"root is {root} but procedural tasks are drawn, not read; leave it out or name a source")
    if vectors is not None and recipe is not None:
        raise InputError("a recipe is for training, and task vectors from files are not trained: leave out one of them")
    taus = {} if vectors is None else _read_vectors(Path(vectors).expanduser(), specs, backbone)
    # the prototypes of a head are means over the training images that the vector was trained on
    limits = {name: int(tau.info["n_train"]) for name, tau in taus.items() if tau.info.get("n_train")}
    tasks = {
        spec.name: load_spec(spec, backbone.image_size, seed=seed, n_train=limits.get(spec.name)) for spec in specs
    }
    for one, other in combinations(tasks, 2):
        if tasks[one].fingerprint == tasks[other].fingerprint:
            raise InputError(
                f"tasks {one!r} and {other!r} hold the same images: expected different ones, check the root"
            )
    for name, tau in taus.items():
        made = {"head": head} | ({"data_seed": str(seed)} if tasks[name].source == "procedural" else {})
        require_made_for(tau, tasks[name], made)
    heads = {name: build_head(backbone, task, head) for name, task in tasks.items()}
    left = [name for name in tasks if name not in taus]
    for name in tqdm(left, desc="task vectors", unit="task", disable=not (left and sys.stderr.isatty())):
        how = {"device": device, "autocast": autocast}
        taus[name] = _task_vector(
            backbone, tasks[name], heads[name], recipe or recipe_for(backbone), seed, store or Store(), how
        )
    return Suite(backbone, tasks, heads, taus, device)


def choose_lambdas(
    suite: Suite, grid: Sequence[float], *, limit: int | None = None, workers: int = 1
) -> tuple[dict[int, float], pd.DataFrame]:
    """The best lambda_N for every N, on validation images.

    The score of a lambda is the normalised accuracy of Eq. (6) on the validation images of the fused tasks, averaged
    over all combinations of N tasks. Test images are never looked at.

    Parameters
    ----------
    grid : numbers to try
    limit : int, optional
        Validation images per task.
    workers : int
        Threads.

    Returns
    -------
    chosen : dict N → lambda_N
    table : DataFrame with columns n_tasks, lam, score

    Raises
    ------
    InputError
        An empty grid, or fewer than two tasks.
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
            split="validation", limit=limit, workers=workers, device=suite.device,
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


def require_made_for(
    tau: TaskVector, task: Task, settings: Mapping[str, str] | None = None, *, all_images: bool = True
) -> None:
    """What a vector tells of its making must fit the task; one that was imported tells nothing, and fits.

    Parameters
    ----------
    settings : mapping, optional
        What else of its `info` has to be as it is here.
    all_images : bool
        False for a task with some of its images only: then it cannot be seen whether they are the same.

    Raises
    ------
    InputError
        for another number of classes, or another of the settings. Other images are told in a warning.
    """
    for what, value in {"classes": str(len(task.class_names)), **(settings or {})}.items():
        if (found := tau.info.get(what, value)) != value:
            raise InputError(
                f"the task vector of {task.name!r} was made with {what} = {found}, and here there is {value}: "
                "change one of them, or name the task that it was made for"
            )
    if all_images and tau.info.get("data", task.fingerprint) != task.fingerprint:
        log.warning("the task vector of %r was trained on other images than the task has here", task.name)


def _task_vector(
    backbone: Backbone, task: Task, head: Head, recipe: Recipe, seed: int, store: Store, how: Mapping[str, str | None]
) -> TaskVector:
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
        **how,
    }

    def train() -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        tau = finetune(
            backbone, task, head, recipe, generator=generator, checkpoint=store.checkpoint("task-vector", config),
            device=how["device"] or "cpu", autocast=how["autocast"],
        )  # fmt: skip
        return {"values": tau.values}

    values = store.tensors("task-vector", config, train)["values"]
    return TaskVector(backbone.weights.layout, values, backbone.weights.hash, {"task": task.name})
