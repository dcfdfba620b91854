"""The commands `finetune`, `fuse` and `evaluate` as plain functions: names and files in, tables and files out."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch

from rmtllmf_lib.arrays import seed_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import choose_lambda, fuse, lambda_n
from rmtllmf_lib.fusion.mergers import merge, merger_named
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.foreign import read_metadata, require_file
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.model.vector_info import MAX_DRAWN, below_current
from rmtllmf_lib.protection.memory import draw_memory
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.tasks.sources import NAME, SOURCES, TaskSpec, load_spec, parse_tasks, severities
from rmtllmf_lib.threads import ordered
from rmtllmf_lib.training.decoded import with_decoded
from rmtllmf_lib.training.evaluate import accuracy, prepare
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.heads import build_head
from rmtllmf_lib.training.loading import require_tasks
from rmtllmf_lib.training.merging import merge_suite, training_sample
from rmtllmf_lib.training.suite import Suite

log = logging.getLogger(__name__)


SHOTS = 5  # images of each class from which few-shot coefficients are learnt

_MAX_SEED = 2**63 - 1
_PREFIXES = tuple(f"{source}:" for source in SOURCES)
COLUMNS = ("task", "head", "classes", "test", "base", "fine_tuned", "fused", "normalized")


def specs_typed(texts: Iterable[str], source: str, root: Path | None) -> list[TaskSpec]:
    """The tasks that the user typed: `parse_tasks`, where ``name=path`` or a path is a folder whatever the source."""
    specs = parse_tasks([f"folder:{text}" if _is_folder(text) else text for text in texts], source, root)
    if root is None and any(spec.source == "torchvision" for spec in specs):
        raise InputError("source 'torchvision' reads files: give root, the folder that holds the data")
    for spec in specs:
        if spec.root is not None and not spec.root.is_dir():
            raise InputError(f"{spec.root} is not a folder: expected the data of task {spec.name!r} there")
    return specs


def _is_folder(task: str) -> bool:
    return not task.startswith(_PREFIXES) and ("=" in task or os.sep in task)


def require_files(paths: Iterable[Path]) -> None:
    """Raise an InputError for the first path that is not a file."""
    for path in paths:
        require_file(path)


def prepared(
    backbone: Backbone,
    spec: TaskSpec,
    out: Path,
    recipe: Recipe,
    *,
    head: str,
    seed: int,
    difficulty: str | float | None = None,
    n_train: int | None = None,
    device: str = "cpu",
    autocast: str | None = None,
    checkpoint_every: int = 250,
    overwrite: bool = False,
) -> Callable[[], TaskVector]:
    """Load and check all that fine-tuning on one task needs; return the function that does the work.

    That function writes ``<out>/<task>.safetensors`` and returns the task vector. Its `info` is that
    of `finetune.finetune`, with the source, the numbers of images, and the test accuracy before and after. A run that
    was stopped resumes from ``<out>/.<task>.checkpoint.safetensors``. A vector in the folder that was made with the
    same settings is returned as it is.

    Raises
    ------
    InputError
        if the folder holds a vector made with other settings and `overwrite` is False; and what `load_spec`,
        `build_head` and `finetune` raise.
    """
    seed_number(seed)
    out.mkdir(parents=True, exist_ok=True)  # before the training, in case the folder cannot be made
    difficulties = severities([spec], difficulty)
    task = load_spec(spec, backbone.image_size, seed=seed, difficulty=difficulties.get(spec.name), n_train=n_train)
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
                f"{path} already exists, made with other settings or images: choose another folder for the output, or "
                "give --overwrite"
            )
        return lambda: kept
    require_tasks(backbone, [task])
    task = with_decoded(task, backbone.image_size)
    # class names that the text tower does not know are found at once; a prototype head is a pass over all images
    classifier = build_head(backbone, task, head) if head == "text" else None

    def train() -> TaskVector:
        checkpoint = out / f".{spec.name}.checkpoint.safetensors"  # hidden, so that *.safetensors does not match it
        heads = {spec.name: classifier or build_head(backbone, task, head)}
        suite = Suite(backbone, {spec.name: task}, heads, {}, device)
        (before,) = suite.accuracies(backbone.weights).values()
        options = {"autocast": autocast, "checkpoint": checkpoint, "checkpoint_every": checkpoint_every}
        tau = suite.train(spec.name, recipe, seed, **options)
        (after,) = suite.accuracies(backbone.weights + tau).values()
        about = {
            "source": spec.source,
            # For `evaluate`. Other paths are left out: vectors are sent to others, who would not accept them.
            "folder": spec.typed if below_current(spec.typed) else "",
            "data_seed": str(seed),
            "difficulty": repr(difficulties[spec.name]) if difficulties else "",
            "n_train": str(n_train or ""),
            "classes": str(len(task.class_names)),
            "train_images": str(len(task.train)),
            "test_images": str(len(task.test)),
            "base_accuracy": f"{before:.6f}",
            "accuracy": f"{after:.6f}",
            "settings": key,
        }
        tau = replace(tau, info={**tau.info, **about})
        tau.save(path)
        checkpoint.unlink(missing_ok=True)
        return tau

    return train


def finetuned_table(taus: Iterable[TaskVector]) -> pd.DataFrame:
    """The results of fine-tuning (`prepared`): columns task, head, classes, train, test, base, fine_tuned."""
    types = {"classes": int, "train_images": int, "test_images": int, "base_accuracy": float, "accuracy": float}
    table = pd.DataFrame([tau.info for tau in taus], columns=["task", "head", *types]).astype(types)
    names = {"train_images": "train", "test_images": "test", "base_accuracy": "base", "accuracy": "fine_tuned"}
    return table.rename(columns=names)


def read_models(
    paths: Sequence[Path], base: Weights, *, mapped: bool = False
) -> tuple[dict[str, TaskVector], dict[str, Weights]]:
    """Task vectors of `base`, by task, and weights fused from them, by file name, from safetensors files.

    Parameters
    ----------
    mapped : bool
        Whether task vectors stay in their files, see `TaskVector.load`.

    Raises
    ------
    InputError
        for a file that is neither, is damaged or belongs to another base, and for two vectors of one task.
    """
    taus: dict[str, TaskVector] = {}
    points: dict[str, Weights] = {}

    def read(path: Path) -> TaskVector | Weights:
        if read_metadata(path).get("format") == "rmtllmf-task-vector":
            return TaskVector.load(path, base, mapped=mapped)
        return Weights.load(path)

    # Side by side, since most of the time goes into checksums.
    for path, found in zip(paths, ordered(read, paths), strict=True):
        if isinstance(found, TaskVector):
            name = found.info.get("task", path.stem)
            if not NAME.fullmatch(name):
                raise InputError(f"{path} is of task {name[:80]!r}: expected letters, digits, _ . + - in the name")
            if name in taus:
                raise InputError(f"{path} is a second task vector of task {name!r}: give one for each task")
            taus[name] = found
            continue
        found.layout.require_equal(base.layout, str(path))
        if found.origin != base.hash:
            raise InputError(
                f"{path} was made from another base: expected {base.hash[:12]}…, found {found.origin[:12]}…; "
                "give its backbone with --backbone"
            )
        label = str(path) if path.name in points or path.name in COLUMNS else path.name
        if label in points:
            raise InputError(f"{path} is given twice: give each file once")
        points[label] = found
    return taus, points


def shown(table: pd.DataFrame) -> str:
    """The table as text: rates with three decimals ("-" if missing), and a last row "mean" of the rates alone."""
    last = {**dict.fromkeys(table, ""), "task": "mean", **table.select_dtypes("float").mean()}
    whole = pd.concat([table, pd.DataFrame([last])], ignore_index=True)
    rates = whole.select_dtypes("float").map(lambda rate: "-" if math.isnan(rate) else f"{rate:.3f}")
    return whole.assign(**rates).to_string(index=False)


def fuse_files(
    paths: Sequence[Path],
    base: Weights,
    out: Path,
    lam: float | None,
    rule: str | None,
    merger: str = "arithmetic",
    seed: int = 0,
) -> tuple[int, float]:
    """Fuse task vectors, Eq. (6) or by another merger, into the weights file `out`; return their number and lambda.

    Vectors stay in their files until they are read, most mergers take one tensor of each at a time, and what they need
    beyond the result does not grow with the number of vectors.
    """
    taus, points = read_models(paths, base, mapped=True)
    if points:
        raise InputError(f"{', '.join(points)} hold weights: expected task vectors, which alone can be fused")
    factor = coefficient(len(taus), lam, rule, merger)
    vectors = list(taus.values())
    if merger != "arithmetic":  # `fuse` adds in one pass; a sum made before it differs in its last bits
        vectors = [merge(merger, vectors, generator=torch.Generator().manual_seed(seed))]
    fuse(base, vectors, factor).save(out)
    return len(taus), factor


def require_merger(name: str, of_files: bool = False) -> None:
    """Raise an InputError for an unknown merger, or `of_files` for one that needs images."""
    if of_files and (needs := {*merger_named(name).needs} - {"generator"}):
        raise InputError(
            f"merger {name!r} needs {', '.join(sorted(needs))}, which task vectors alone do not give: "
            f"evaluate it with `rmtllmf evaluate --merger {name}`, or choose another, see --merger list"
        )
    merger_named(name)


def coefficient(n: int, lam: float | str | None, rule: str | None, merger: str = "arithmetic") -> float:
    """Lambda for n task vectors: the given number, or that of a rule (default: what suits the merger)."""
    if lam is not None and rule is not None:
        raise InputError(f"lambda is given as {lam!r} and by the rule {rule!r}: give one of them")
    if lam is None and rule is None:
        return merger_named(merger).suggested_lambda(n)
    return lambda_n(n, str(rule)) if lam is None else lambda_n(n, "constant", float(lam))


def check_claims(taus: Mapping[str, TaskVector], specs: Iterable[TaskSpec]) -> None:
    """Check the numbers of the vectors' metadata that decide how a task is loaded: vectors may come from others."""
    for spec in specs:
        info = taus[spec.name].info if spec.name in taus else {}
        for key, least, most in (("data_seed", 0, _MAX_SEED), ("n_train", 1, most_images(spec))):
            if text := info.get(key):
                number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text[:80]
                whole_number(number, f"{key} in the metadata of task vector {spec.name!r}", least, most)


def most_images(spec: TaskSpec) -> int:
    """Bound of `n_train`: images that are drawn take as much time as asked for, files are as many as there are."""
    return MAX_DRAWN if spec.source == "procedural" else _MAX_SEED


def specs_of(taus: Mapping[str, TaskVector], root: Path | None) -> list[TaskSpec]:
    """The tasks of the vectors, with their sources and folders, from the vectors' metadata."""
    specs = []
    for name, tau in taus.items():
        if (source := tau.info.get("source")) is None:
            raise InputError(f"task vector {name!r} does not say where its images come from: give --task")
        folder = tau.info.get("folder", "")
        if not below_current(folder):
            raise InputError(
                f"task vector {name!r} says that its images are in {folder[:80]!r}: expected a folder below this one "
                f"or --root; if you trust it, give --task folder:{name}={folder[:80]}"
            )
        specs += parse_tasks([f"{source}:{name}={folder}" if folder else f"{source}:{name}"], source, root)
    return specs


def evaluate_suite(
    suite: Suite,
    points: Mapping[str, Weights],
    lam: float | str | None = None,
    rule: str | None = None,
    merger: str = "arithmetic",
    seed: int = 0,
) -> tuple[pd.DataFrame, float | None]:
    """Test accuracy of the base, the fine-tuned models, the fused model and other weights on each task.

    Parameters
    ----------
    suite : Suite
        From `assemble_suite`: its tasks are evaluated, and all its task vectors fused.
    points : mapping of str to Weights
        Other weights, by the name of their column.
    lam : float or "validation", optional
        lambda_N; "validation" chooses the one with the best mean normalised accuracy on the validation images of the
        vectors' tasks. Test images are not used for the choice.
    rule : str, optional
        Of `lambda_n`; default, where `lam` is not given either, what suits the merger.
    merger : str
        See `mergers.merger_named`. What it needs of images, it gets from 256 training images of each task; few-shot
        coefficients from a memory of 5 images of each class. Where it makes a model for each task, "fused" is the
        task's own, as if every image said its task.
    seed : int
        Of what is drawn at random.

    Returns
    -------
    table : DataFrame
        One row for each task: task, head, classes, test (images), base, fine_tuned, fused, normalized (fused over
        fine_tuned), and a column for each file of weights; columns without a model are left out.
    lam : float or None
        The lambda_N used, if anything was fused.

    Raises
    ------
    InputError
        as `fuse` does, and for a lambda without task vectors or given twice.
    """
    taus, base = suite.taus, suite.backbone.weights
    if not taus and (lam is not None or rule is not None):
        raise InputError("lambda says how to fuse task vectors, and none is given: add their files, or leave it out")
    common, factor, merged = {"base": base, **points}, None, {}
    if taus:
        merged = _merged(suite, merger, seed)
        validated = lam == "validation" and rule is None
        grid = merger_named(merger).grid
        factor = _validated_lambda(suite, merged, grid) if validated else coefficient(len(taus), lam, rule, merger)
        if "task" not in merger_named(merger).needs:
            common["fused"] = fuse(base, [next(iter(merged.values()))], factor)
    table = suite.score(common).rename(columns={"images": "test"})
    if factor is not None and "fused" not in common:
        table["fused"] = [
            _scored(suite, name, fuse(base, [merged[name]], factor)) if name in merged else math.nan
            for name in table["task"]
        ]
    table["head"] = [classifier.kind for classifier in suite.heads.values()]
    if taus:
        own = table.get("fine_tuned", pd.Series(math.nan, table.index))
        table["normalized"] = (table["fused"] / own).where(own > 0)
    return table[[name for name in COLUMNS if name in table] + list(points)], factor


def _merged(suite: Suite, merger: str, seed: int) -> dict[str, TaskVector]:
    """The merged vector of each task, the same for all but for mergers that need the task of an image."""
    if merger == "arithmetic":  # in the order of `fuse`; torch's sum over users differs in its last bits
        first, *others = suite.taus.values()
        return dict.fromkeys(suite.taus, sum(others, first))
    splits = training_sample(suite)
    if merger_named(merger).learns == "cross-entropy":
        tasks = {name: suite.tasks[name] for name in suite.taus}
        size, generator = suite.backbone.image_size, torch.Generator().manual_seed(seed)
        splits = dict(draw_memory(tasks, SHOTS, image_size=size, generator=generator).splits)
    return merge_suite(suite, merger, splits, generator=torch.Generator().manual_seed(seed))


def _scored(suite: Suite, name: str, weights: Weights) -> float:
    return accuracy(suite.backbone, weights, suite.tasks[name].test, suite.heads[name], device=suite.device)


def _validated_lambda(suite: Suite, merged: Mapping[str, TaskVector], grid: Sequence[float]) -> float:
    """The lambda with the best mean normalised accuracy on the validation images, also beyond the grid."""
    backbone, taus, heads = suite.backbone, suite.taus, suite.heads
    images = {
        name: prepare(backbone, task.validation, device=suite.device)
        for name, task in suite.tasks.items()
        if name in taus and len(task.validation)
    }
    own = {
        name: value
        for name, split in images.items()
        if (value := accuracy(backbone, backbone.weights + taus[name], split, heads[name])) > 0
    }
    if not own:
        raise InputError(
            "lambda cannot be chosen on validation images: expected at least one task vector whose model classifies "
            "some validation images of its task correctly; give a number, or a rule"
        )
    if left_out := [name for name in taus if name not in own]:
        log.warning("lambda is chosen without %s: no accuracy on validation images to compare", ", ".join(left_out))
    buffer = backbone.weights.layout.empty()
    users: dict[int, list[str]] = {}  # the tasks of each vector: most mergers make one for all of them
    for name in own:
        users.setdefault(id(merged[name]), []).append(name)

    def score(lam: float) -> float:
        total = 0.0
        for names in users.values():
            fused = fuse(backbone.weights, [merged[names[0]]], lam, out=buffer)
            total += sum(accuracy(backbone, fused, images[name], heads[name]) / own[name] for name in names)
        return total / len(own)

    return choose_lambda(score, grid, widen=True)[0]
