"""What `rmtllmf finetune`, `fuse` and `evaluate` do, as plain functions: names and files in, tables and files out."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open

from rmtllmf_lib.arrays import seed_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.fusion import choose_lambda, fuse, lambda_n
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.tasks.sources import TaskSpec, load_spec, parse_tasks
from rmtllmf_lib.training.evaluate import Prepared, accuracy, prepare
from rmtllmf_lib.training.finetune import Recipe, finetune, recipe_for
from rmtllmf_lib.training.heads import Head, build_head
from rmtllmf_lib.training.suite import require_made_for

log = logging.getLogger(__name__)

COLUMNS = ("task", "head", "classes", "test", "base", "fine_tuned", "fused", "normalized")


@dataclass(frozen=True)
class Models:
    """What the files on the command line hold: task vectors by task, and other points by the name of their file."""

    taus: Mapping[str, TaskVector]
    points: Mapping[str, Weights]


def chosen_recipe(backbone: Backbone, steps: int | None, lr: float | None, batch_size: int | None) -> Recipe:
    """The backbone's recipe with the numbers given in place of its own; the warm-up keeps its share of the steps."""
    recipe = recipe_for(backbone)
    steps = recipe.steps if steps is None else steps
    return replace(
        recipe,
        steps=steps,
        lr=recipe.lr if lr is None else lr,
        batch_size=recipe.batch_size if batch_size is None else batch_size,
        warmup_steps=round(recipe.warmup_steps * steps / recipe.steps),
    )


def finetune_task(
    backbone: Backbone,
    spec: TaskSpec,
    out: Path,
    recipe: Recipe,
    *,
    head: str,
    seed: int,
    n_train: int | None = None,
    device: str = "cpu",
    autocast: str | None = None,
    checkpoint_every: int = 250,
    overwrite: bool = False,
) -> TaskVector:
    """Fine-tune on one task and write ``<out>/<task>.safetensors``.

    To what `finetune.finetune` tells, its `info` adds the source, the number of images, and the accuracy on test images
    before and after. A run that was stopped goes on from ``<out>/.<task>.checkpoint.safetensors``; a vector that is
    there already and was made in the same way is kept.

    Raises
    ------
    InputError
        if a vector is there that was made in another way, and `overwrite` is False; and what `load_task`,
        `build_head` and `finetune` raise.
    """
    seed_number(seed)
    out.mkdir(parents=True, exist_ok=True)  # if that cannot be, it shows now and not after the training
    task = load_spec(spec, backbone.image_size, seed=seed, n_train=n_train)
    settings = {
        "base": backbone.weights.hash,
        "data": task.fingerprint,
        "head": head,
        "recipe": asdict(recipe),
        "seed": seed,
        "autocast": autocast,
    }
    path, key = out / f"{spec.name}.safetensors", config_key(settings)
    if path.exists() and not overwrite:
        kept = TaskVector.load(path)
        if kept.info.get("settings") != key:
            raise InputError(
                f"{path} is there already, made with other settings or other images: choose another folder for the "
                "output, or say --overwrite"
            )
        return kept
    checkpoint = out / f".{spec.name}.checkpoint.safetensors"  # hidden from *.safetensors
    made = build_head(backbone, task, head)
    base = accuracy(backbone, backbone.weights, task.test, made, device=device)
    tau = finetune(
        backbone,
        task,
        made,
        recipe,
        generator=torch.Generator().manual_seed(seed),
        device=device,
        autocast=autocast,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )
    own = accuracy(backbone, backbone.weights + tau, task.test, made, device=device)
    about = {
        "source": spec.source,
        # For `evaluate`. Vectors are there to be sent: an absolute path would tell about the machine.
        "folder": "" if Path(spec.typed).is_absolute() else spec.typed,
        "data_seed": str(seed),
        "n_train": str(n_train or ""),
        "classes": str(len(task.class_names)),
        "train_images": str(len(task.train)),
        "test_images": str(len(task.test)),
        "base_accuracy": f"{base:.6f}",
        "accuracy": f"{own:.6f}",
        "settings": key,
    }
    tau = replace(tau, info={**tau.info, **about})
    tau.save(path)
    checkpoint.unlink(missing_ok=True)
    return tau


def finetuned_table(taus: Iterable[TaskVector]) -> pd.DataFrame:
    """What `finetune_task` noted in its vectors.

    Returns
    -------
    DataFrame with columns task, head, classes, train, test, base, fine_tuned
    """
    rows = [
        (
            tau.info["task"],
            tau.info["head"],
            *(int(tau.info[key]) for key in ("classes", "train_images", "test_images")),
            *(float(tau.info[key]) for key in ("base_accuracy", "accuracy")),
        )
        for tau in taus
    ]
    return pd.DataFrame(rows, columns=["task", "head", "classes", "train", "test", "base", "fine_tuned"])


def read_models(paths: Sequence[Path], base: Weights) -> Models:
    """Task vectors and fused weights of `base` from safetensors files.

    Raises
    ------
    InputError
        if a file is neither, is damaged or belongs to another base, or two vectors are of one task.
    """
    taus: dict[str, TaskVector] = {}
    points: dict[str, Weights] = {}
    for path in paths:
        if _holds_task_vector(path):
            tau = TaskVector.load(path, base)
            name = tau.info.get("task", path.stem)
            if name in taus:
                raise InputError(f"{path} is a second task vector of task {name!r}: give one for each task")
            taus[name] = tau
            continue
        point = Weights.load(path)
        point.layout.require_equal(base.layout, str(path))
        if point.origin != base.hash:
            raise InputError(
                f"{path} was made from another base ({point.origin[:12]}…, expected {base.hash[:12]}…): "
                "name its backbone with --backbone"
            )
        label = str(path) if path.name in points or path.name in COLUMNS else path.name
        if label in points:
            raise InputError(f"{path} is given twice: give each file once")
        points[label] = point
    return Models(taus, points)


def with_means(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a last row "mean" over its rates; counts have none."""
    rates = table.select_dtypes("float").mean()
    counts = {name: "Int64" for name in table.select_dtypes("integer")}  # integers that may be missing
    last = pd.DataFrame([{"task": "mean", "head": "", **rates}], columns=table.columns).astype(counts)
    return pd.concat([table.astype(counts), last], ignore_index=True)


def fuse_files(
    paths: Sequence[Path], base: Weights, out: Path, lam: float | None, rule: str | None
) -> tuple[int, float]:
    """Fuse task vectors, Eq. (6), and write the weights to `out`; return the number of vectors and lambda."""
    models = read_models(paths, base)
    if models.points:
        raise InputError(f"{', '.join(models.points)} hold weights, not task vectors: only vectors can be fused")
    factor = coefficient(len(models.taus), lam, rule)
    fuse(base, list(models.taus.values()), factor).save(out)
    return len(models.taus), factor


def coefficient(n: int, lam: float | None, rule: str | None) -> float:
    """lambda_N: the number given, or that of a rule (default: the published one)."""
    if lam is not None and rule is not None:
        raise InputError(f"lambda is given as the number {lam:g} and by the rule {rule!r}: give one of them")
    if lam is not None:
        return lambda_n(n, "constant", lam)
    return lambda_n(n, rule or "published")


def specs_of(taus: Mapping[str, TaskVector], root: Path | None) -> list[TaskSpec]:
    """Where the tasks of vectors lie, by what the vectors tell of themselves."""
    specs = []
    for name, tau in taus.items():
        if (source := tau.info.get("source")) is None:
            raise InputError(f"the task vector {name!r} does not tell where its images come from: name its --task")
        folder = tau.info.get("folder")
        specs += parse_tasks([f"{source}:{name}={folder}" if folder else f"{source}:{name}"], source, root)
    return specs


def evaluate_models(
    backbone: Backbone,
    models: Models,
    specs: Sequence[TaskSpec],
    *,
    head: str | None = None,
    lam: float | str | None = None,
    rule: str | None = None,
    seed: int = 0,
    n_test: int | None = None,
    device: str = "cpu",
) -> tuple[pd.DataFrame, float | None]:
    """Accuracy of the base, the specialists, the fused model and the given points on the test images of each task.

    Parameters
    ----------
    head : str, optional
        "text" or "prototype" for all tasks; default that of each task's vector, and "text" without one.
    lam : float or "validation", optional
        lambda_N; "validation" chooses the one with the best mean normalised accuracy on the validation images of the
        vectors' tasks. Test images have no part in it.
    rule : str, optional
        Of `lambda_n`; default "published" where `lam` is not given either.
    n_test : int, optional
        Test images of each task, a fixed choice; default all.

    Returns
    -------
    table : DataFrame
        One row a task: task, head, classes, test (images), base, fine_tuned, fused, normalized (fused over
        fine_tuned), and a column for each point; columns that no model fills are left out.
    lam : float or None
        The lambda_N used, if anything was fused.

    Raises
    ------
    InputError
        for a vector that was made for another number of classes than its task has here; where only the images are
        others, a warning tells. And what `load_task`, `build_head` and `fuse` raise.
    """
    tasks, heads = {}, {}
    for spec in specs:
        info = models.taus[spec.name].info if spec.name in models.taus else {}
        # The prototypes of a vector's head are means over the training images that it was trained on.
        n_train = int(info["n_train"]) if info.get("n_train") else None
        tasks[spec.name] = load_spec(
            spec, backbone.image_size, seed=int(info.get("data_seed", seed)), n_train=n_train, n_test=n_test
        )
        if spec.name in models.taus:
            require_made_for(models.taus[spec.name], tasks[spec.name], all_images=n_test is None)
        heads[spec.name] = build_head(backbone, tasks[spec.name], head or info.get("head", "text"))
    factor, fused = None, None
    if not models.taus and (lam is not None or rule is not None):
        raise InputError("lambda says how to fuse task vectors, and none is given: add their files, or leave it out")
    if models.taus:
        vectors = list(models.taus.values())
        if lam == "validation":
            if rule is not None:
                raise InputError(
                    f"lambda is to be chosen on validation images and by the rule {rule!r}: say one of them"
                )
            factor = _validated_lambda(backbone, models.taus, tasks, heads, device)
        else:
            factor = coefficient(len(vectors), None if lam is None else float(lam), rule)
        fused = fuse(backbone.weights, vectors, factor)
    rows = []
    for name, task in tasks.items():
        images = prepare(backbone, task.test, device=device)
        row = {"task": name, "head": heads[name].kind, "classes": len(task.class_names), "test": len(task.test)}

        def score(weights: Weights, images: Prepared = images, made: Head = heads[name]) -> float:
            return accuracy(backbone, weights, images, made)

        scores = {"base": score(backbone.weights)}
        if name in models.taus:
            scores["fine_tuned"] = score(backbone.weights + models.taus[name])
        if fused is not None:
            scores["fused"] = score(fused)
            own = scores.get("fine_tuned", 0.0)
            scores["normalized"] = scores["fused"] / own if own > 0 else math.nan
        rows.append({**row, **scores, **{label: score(point) for label, point in models.points.items()}})
    table = pd.DataFrame(rows)
    order = [name for name in COLUMNS if name in table] + list(models.points)
    return table[order], factor


def _validated_lambda(
    backbone: Backbone,
    taus: Mapping[str, TaskVector],
    tasks: Mapping[str, Task],
    heads: Mapping[str, Head],
    device: str,
) -> float:
    """The lambda with the best mean normalised accuracy on validation images; never looks at test images."""
    images, references = {}, {}
    for name in (name for name in taus if name in tasks):
        if not len(tasks[name].validation):
            continue
        images[name] = prepare(backbone, tasks[name].validation, device=device)
        references[name] = accuracy(backbone, backbone.weights + taus[name], images[name], heads[name])
    usable = [name for name, reference in references.items() if reference > 0]
    if not usable:
        raise InputError(
            "lambda cannot be chosen on validation images: no task has a vector whose own model classifies any of its "
            "validation images; give a number, or a rule"
        )
    if left_out := [name for name in taus if name not in usable]:
        log.warning("lambda is chosen without %s: nothing to measure on their validation images", ", ".join(left_out))

    first, *others = taus.values()
    total, buffer = sum(others, first), backbone.weights.layout.empty()

    def score(lam: float) -> float:
        fused = fuse(backbone.weights, [total], lam, out=buffer)
        parts = [accuracy(backbone, fused, images[name], heads[name]) / references[name] for name in usable]
        return sum(parts) / len(parts)

    return choose_lambda(score)[0]


def _holds_task_vector(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == "rmtllmf-task-vector"
    except (SafetensorError, OSError):
        return False  # whatever it is, reading it as weights tells
