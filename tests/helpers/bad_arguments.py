"""Calls of every public function of the library with one bad argument at a time, and what comes of them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import mkdtemp
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from PIL import Image

from rmtllmf_lib.disentanglement.linearise import first_order, network
from rmtllmf_lib.disentanglement.noisy_logits import linearisation_error, perturb
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.model.fusion import lambda_n
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.protection.memory import draw_memory
from rmtllmf_lib.protection.resilience import Station
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.study import Study, study_units
from rmtllmf_lib.study.units import Bench
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.tasks.folder import read_folder
from rmtllmf_lib.tasks.images import LazyImages, open_rgb
from rmtllmf_lib.tasks.sources import parse_tasks
from rmtllmf_lib.training.evaluate import prepare
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.loading import Schedule
from rmtllmf_lib.training.pretrain import PretrainRecipe
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.digital import Pcm
from rmtllmf_lib.transport.link import Link
from rmtllmf_lib.transport.modulation import Alphabet, Code
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.transport.schemes import Analog
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import sum_rate
from small import generator, small_backbone, small_head, small_split, small_task, small_tau
from tools import house
from vision_files import write_mnist

# What no reader calls: figures and tables of the chapters, the shell of the command, and the brushes of drawn tasks.
LEFT_OUT = ("chapters", "command", "tasks.embedded", "compiled", "validated", "arrays")

SECONDS = 5  # that a call may take

Call = tuple[str, str, str]  # function, argument, what is bad about it


def public_functions() -> dict[str, Callable[..., Any]]:
    """Every public function with a parameter, by the name of its module below the library and its own.

    Dataclasses that check what they are made of count as functions (others are results), and so do the methods of
    classes of which `_objects` has an instance.
    """
    found: dict[str, Callable[..., Any]] = {}
    instances = {type(value): value for value in _objects().values()}
    for module in house.modules():
        short = module.removeprefix("rmtllmf_lib").removeprefix(".")
        if not short or short.startswith(LEFT_OUT):
            continue
        for name, function in inspect.getmembers(importlib.import_module(module), inspect.isfunction):
            if function.__module__ == module and not name.startswith("_") and inspect.signature(function).parameters:
                found[f"{short}.{name}"] = function
        for name, cls in inspect.getmembers(importlib.import_module(module), dataclasses.is_dataclass):
            if not inspect.isclass(cls) or cls.__module__ != module or name.startswith("_"):
                continue
            if hasattr(cls, "__post_init__") or hasattr(cls.__init__, "__wrapped__"):
                found[f"{short}.{name}"] = cls
            for method, _ in inspect.getmembers(cls, callable):
                bound = getattr(instances.get(cls), method, None)
                if not method.startswith("_") and callable(bound) and inspect.signature(bound).parameters:
                    found[f"{short}.{name}.{method}"] = bound
    return found


# --- good values ------------------------------------------------------------------------------------------------------


@cache
def _objects() -> dict[str, Any]:
    """Small objects, by the names that parameters for them have."""
    backbone = small_backbone(layers=1)
    base = backbone.weights
    tasks = {name: small_task(name, seed, n=10) for seed, name in enumerate("ab")}
    heads = {name: small_head(seed) for seed, name in enumerate("ab")}
    taus = {name: small_tau(base, seed, task=name) for seed, name in enumerate("ab", 1)}
    suite = Suite(backbone, tasks, heads, taus)
    images = {name: prepare(backbone, task.test) for name, task in tasks.items()}
    net = network(backbone, small_split(5), small_head())
    memory = draw_memory(tasks, 1, image_size=32, generator=generator())
    recipe = Recipe(steps=1, batch_size=2, lr=1e-4)
    moved = perturb({"a": net}, base, [1e-4, 1e-2], 1, generator=generator())
    uplink = Uplink(np.ones((4, 2)) + 1j * np.arange(8).reshape(4, 2), power=[1.0, 2.0], noise_floor=1.0)
    return {
        "a vector": small_tau(base, 3, task="x"), "a first order": first_order(net, base), "a layout": base.layout,
        "backbone": backbone, "base": base, "weights": base, "fused": base, "start": base, "imported": base,
        "tasks": tasks, "task": tasks["a"], "heads": heads, "head": heads["a"], "taus": [*taus.values()],
        "received": [*taus.values()], "suite": suite, "images": images, "net": net, "networks": {"a": net},
        "memory": memory, "recipe": recipe, "model": first_order(net, base), "layout": base.layout,
        "station": Station(backbone, taus, 0.3, heads, memory, np.eye(2), recipe), "split": small_split(5),
        "perturbed": moved, "table": linearisation_error(moved), "state_dict": backbone.model.state_dict(),
        "tower": backbone.model.visual, "visual": backbone.model.visual, "tensors": {"x": torch.ones(2)},
        "uplink": uplink, "scenario": Scenario("s", 0.1), "scheme": Analog(), "another scheme": Pcm(),
        "direction": torch.ones(base.layout.size),
        "cotangent": torch.ones(5, 5), "numbers": torch.ones(3), "error_cov": np.eye(2),
        "models": {"a": first_order(net, base)}, "own": {"a": [0, 1, 2, 3, 4]}, "info": {"task": "x"},
        "metadata": {"base_hash": "x"}, "cosines": (0.1, 0.2, 0.3), "target": (0.15, 0.2), "grid": [0.1, 0.2],
        "first": [0.1], "second": [0.1], "fraction": 0.5, "level": 0.05, "change": np.zeros((5, 5)), "limit": 5,
        "kinds": ["patch"], "parts": [0.5], "device": "cpu", "autocast": None, "seed": 1, "name": "x", "what": "x",
        "score": float, "generator": torch.Generator, "rng": np.random.default_rng, "noise_cov": np.eye(4),
        "design_cov": np.eye(4), "names": ["a"], "optimizer": "adamw", "correlation": "independent", "scale": "task",
        "config": {"embed_dim": 8,
                   "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
                   "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}},
    }  # fmt: skip


@cache
def _of() -> dict[str, dict[str, Any]]:
    """Arguments of single functions, where those of the parameter's name do not suit."""
    files, base = Path(mkdtemp()), _objects()["base"]
    base.save(files / "base.safetensors")
    (base + _objects()["taus"][0]).save(files / "tuned.safetensors")
    _objects()["taus"][0].save(files / "tau.safetensors")
    tuned = {"path": files / "tuned.safetensors"}
    reading = {"path": files / "base.safetensors"}
    writing = {"path": files / "x.safetensors", "kind": "kind"}
    dof = {"dof": [4, 4]}
    uplink, net = _objects()["uplink"], _objects()["net"]
    letters = Alphabet(np.array([-1.0, 1.0]), np.array([[0], [1]], np.uint8))
    solvable = {"columns": uplink.G[None], "floor": np.array([0.1]), "gap": 1e-3, "limit": 20}
    uncoded = torch.nn.Identity()
    uncoded.k = 3  # bits of a word
    G = uplink.G
    tiny = load_backbone("tiny")
    spec = parse_tasks(["digits"], "procedural", None)[0]
    scenarios = (Scenario("s", 0.1),)
    study = Study(scenarios=scenarios, protections=("unprotected",), seeds=1, sizes=(1,))
    unit, store = study_units(study, _objects()["suite"])[0], Store(files / "store")
    columns = {"protection": ["a", "b"], "normalized": [0.1, 0.2], "seed": [0, 0], "mean": [0.1, 0.2]}
    of_study = {"scenario": "s", "per_class": 1, "n_tasks": 1, "half_width": 0.1, "n": 2}
    table = {"table": pd.DataFrame({**columns, **of_study}), "by": ["protection"], "value": "normalized"}
    fewest = PretrainRecipe(samples=2, pairs=2, batch_size=2)
    picture = Image.new("RGB", (8, 8))
    for part, label in product(("train", "test"), "ab"):
        (files / "photos" / part / label).mkdir(parents=True)
        for index in range(8):
            picture.save(files / "photos" / part / label / f"{index}.png")
    photos = {"root": files / "photos", "folder": files / "photos", "name": "photos"}
    picture_file = {"path": files / "photos" / "train" / "a" / "0.png"}
    write_mnist(files)
    study_file = files / "study.json"
    task_vector = TaskVector(tiny.weights.layout, torch.ones(tiny.weights.layout.size), tiny.weights.hash)
    task_vector.save(files / "taus" / "photos.safetensors")
    users = {"tasks": ["photos"], "source": "folder", "root": str(files / "photos"), "vectors": str(files / "taus")}
    few = {"scenarios": [], "protections": ["base"], "sizes": [1], "seeds": 1}
    study_file.write_text(json.dumps({"suite": users, "study": few}))
    return {
        "adversary.attack": {"power": 0.5, "kind": "sum-rate", "max_iterations": 20},
        "adversary.attacked_cov": {"kind": "sum-rate", "power": 0.5},
        "allocation.allocate": {"eigenvalues": [1.0, 2.0], "power": 0.5},
        "allocation.counted_twice": {"values": [1.0, 2.0]},
        "channel.Uplink": {"H": G, "power": [1.0, 2.0], "noise_floor": 1.0},
        "channel.exponential_correlation": {"coefficient": 0.5},
        "minimax.minimax": solvable,
        "minimax.minimax_sic": solvable,
        "optimality.saddle_margins": {"rate": sum_rate, "power": 0.5},
        "path_loss.PathLoss": {"model": "UMa"},
        "path_loss.cell_db": {"distance_m": [100.0, 200.0], "carrier_hz": 2e9, "line_of_sight": [True, False]},
        "allocation.published_covariance_eigenvalues": {"eigenvalues": [1.0, 2.0], "power": 0.5},
        "receiver.by_rank": {"values": [0.1, 0.2]},
        "simulate.covariance_root": {"C": np.eye(4)},
        "simulate.decide": {"estimates": G, "mse": np.full(4, 0.5)},
        "simulate.receive": {"y": G, "sent": np.eye(2), "symbols": "gaussian"},
        "simulate.sample_cov": {"x": G, "signals": G},
        "atomic.sync": {"path": files},
        "canonical.plain": {"config": {}},
        "canonical.short": {"value": 1},
        "store.Store": {"root": files},
        "tensors.save_tensors": {"path": files / "tensors", "metadata": None},
        "compare.gap": {**table, "by": (), "one": {"protection": "a"}, "other": {"protection": "b"}},
        "compare.surely_above": {"gaps": table["table"]},
        "intervals.over_seeds": table,
        "intervals.agrees": {**table, "errors": 3.0, "expected": 0.1},
        "intervals.require_columns": {**table, "names": ["seed"]},
        "interference.cosine_study": {"scenarios": scenarios, "definitions": ["received"], "seeds": 1, "store": store},
        "interference.effective_vectors": {"definition": "received"},
        "interference.wde_under": {"scenarios": scenarios, "protections": ["base"], "seeds": 1,
                                   "images": 2, "store": store},
        "parts.build_parts": {"store": store, "configs": [{"x": 1}], "build": lambda _: table["table"]},
        "units.models": {"bench": Bench(_objects()["suite"]), "unit": unit},
        "units.run_unit": {"bench": Bench(_objects()["suite"]), "unit": unit},
        "units.specialists": {"bench": Bench(_objects()["suite"]), "images": 2},
        "study.Study": {"scenarios": scenarios, "protections": ["base"], "lr": {}},
        "file.summary": table,
        "file.SuiteSpec": {"backbone": "tiny", "tasks": ["signs"], "head": "text"},
        "file.run_study_file": {"path": study_file, "out": None, "store": store},
        "study.provenance": {},
        "study.run_study": {"study": study, "store": store},
        "study.study_units": {"study": study, "rates": None},
        "study.write_table": {"study": study, "path": files / "table.csv"},
        "file.save_study": {"study": study, "suite": None, "path": files / "study.json"},
        "file.load_study": {"path": study_file},
        "sources.load_spec": {"spec": spec, "n_train": 60, "n_test": 20, "resolution": 32},
        "sources.load_task": {"name": "signs", "n_train": 90, "n_test": 30, "source": "procedural", "root": None},
        "sources.parse_tasks": {"texts": ["digits"], "source": "procedural", "root": None},
        "folder.read_folder": photos,
        "folder.find_folder": photos,
        "folder.holds_task": {"root": files / "photos", "folder": files / "photos"},
        "folder.class_folders": {"split": files / "photos" / "train"},
        "folder.read_classes": {"root": files / "photos", "classes": ["a", "b"]},
        "images.open_rgb": picture_file,
        "images.inspect_file": picture_file,
        "images.inspect_files": {"paths": [picture_file["path"]]},
        "images.to_rgb": {"image": picture},
        "images.resize_image": {"image": picture, "image_size": 4},
        "images.resize_batch": {"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "image_size": 4},
        "images.decode_images": {"images": [picture], "image_size": 4},
        "images.opened": picture_file,
        "images.require_decodable": {"several": [LazyImages([picture_file["path"]], open_rgb)]},
        "images.require_regular": picture_file,
        "vision.read_data_set": {"name": "mnist", "root": files},
        "vision.read_idx": {"path": files / "MNIST" / "raw" / "train-labels-idx1-ubyte", "ndim": 1},
        "assemble.assemble_task": {"raw": read_folder(files / "photos")},
        "base.Split": {"images": small_split(5).images, "labels": small_split(5).labels},
        "base.Split.subset": {"indices": [0, 1]},
        "base.Task": {each.name: getattr(small_task(), each.name) for each in dataclasses.fields(Task)},
        "base.carve_validation": {"labels": [0, 1], "keys": ["a", "b"]},
        "base.pinned_sample": {"labels": [0, 1], "keys": ["a", "b"]},
        "base.require_templates": {"templates": ["a {}."]},
        "base.stratified_counts": {"sizes": [2, 3]},
        "base.validation_count": {"images": 10},
        "combinations.evaluate_combinations": {"split": "test", "lam": lambda_n, "sizes": [2]},
        "evaluate.prepare": {"split": small_split(5)},
        "evaluate.accuracy": {"split": small_split(5)},
        "evaluate.predictions": {"images": _objects()["images"]["a"], "split": small_split(5)},
        "combinations.normalized_accuracy": {"accuracy": [0.4], "reference": [0.5]},
        "finetune.Recipe.lr_at": {"step": 0},
        "finetune.precision": {"device": torch.device("cpu")},
        "finetune.recipe_for": {"backbone": tiny},
        "finetune.finetune": {"checkpoint": None},
        "heads.build_head": {"kind": "prototype"},
        "suite.load_suite": {"backbone": tiny, "names": ["digits"], "vectors": None, "root": None, "head": "prototype",
                             "source": "procedural"},
        "suite.assemble_suite": {"backbone": tiny, "specs": [spec], "taus": {}, "head": "prototype"},
        "combinations.choose_lambdas": {"limit": 5, "grid": [0.1]},
        "loading.Schedule": {"images": 5},
        "loading.training_batches": {"schedule": Schedule(5, 1, 2, 0)},
        "pretrain.PretrainRecipe": {},
        "pretrain.pretrain": {"out": files / "base", "recipe": fewest, "threads": None, "report": str},
        "pretrain.zero_shot_table": {"folder": "tiny"},
        "suite.Suite.accuracies": {"split": "test"},
        "suite.Suite.score": {"split": "test", "models": {"base": base}},
        "suite.Suite.train": {"name": "a"},
        "link.send": {"link": Link(uplink, np.eye(4)), "block": 2**12},
        "schemes.scheme_named": {"scheme": "analog-mmse"},
        "statistics.error_statistics": {"sent": _objects()["taus"]},
        "surrogate.noise_power": {"tau": _objects()["taus"][0]},
        "modulation.bits_of": {"index": torch.ones(3, 2, dtype=torch.int32), "alphabet": letters},
        "modulation.decode": {"code": Code(uncoded, lambda y, **_: ((y > 0).float(), y), lambda y, **_: (y, y)),
                              "logits": torch.ones(2, 3)},
        "modulation.expected_symbols": {"logits": torch.ones(4)},
        "modulation.symbols_of": {"index": torch.ones(3, 2, dtype=torch.int32), "levels": letters.levels},
        "scheme.checked": {"estimate": torch.ones(1, dtype=torch.complex64)},
        "scheme.padded": {"x": torch.ones(3)},
        "scenario.Scenario": {"mse": (0.1, 0.2)},
        "schemes.Analog.detect": {"estimate": torch.ones(1, dtype=torch.complex64)},
        "schemes.Analog.modulate": {"x": torch.ones(3)},
        "digital.Pcm.detect": {"estimate": torch.ones(4, dtype=torch.complex64)},
        "digital.Pcm.modulate": {"x": torch.ones(3)},
        "scenario.from_link": {"name": "x", "scale": "task"},
        "task_vector.Weights": {"values": base.values, "base_hash": None},
        "task_vector.Weights.load": reading,
        "task_vector.Weights.save": writing,
        "task_vector.Weights.load_into": {"module": _objects()["backbone"].model},
        "task_vector.Weights.from_module": {"module": _objects()["backbone"].model},
        "task_vector.TaskVector.load": {**reading, "path": files / "tau.safetensors"},
        "task_vector.TaskVector.save": writing,
        "task_vector.TaskVector.dot": {"other": _objects()["taus"][0]},
        "task_vector.TaskVector": {"values": base.values, "base_hash": base.hash},
        "layout.Layout": {"names": ("visual.a",), "shapes": ((2,),)},
        "layout.Layout.views": {"values": base.values},
        "layout.Layout.flatten": {"state_dict": base.state_dict()},
        "layout.Layout.from_state_dict": {"state_dict": base.state_dict()},
        "layout.Layout.ranges": {"group": "mlp"},
        "layout.Layout.require_equal": {"other": base.layout},
        "backbone.WordTokenizer": {"words": ("a",), "context_length": 3},
        "backbone.Backbone": {"model": _objects()["backbone"].model, "tokenizer": list, "vocabulary": None},
        "memory.Memory": {"splits": {"a": small_split(5)}},
        "resilience.Station": {"received": _objects()["station"].received, "lam": 0.3, "memory": None},
        "resilience.Protection": {"start": list, "title": "x", "freeze": None},
        "first_order.FirstOrder": {"logits": np.ones((1, 2)), "gram": np.eye(2)[None]},
        "first_order.FirstOrder.classes_or_predicted": {"reference": [0, 1, 2, 3, 4]},
        "first_order.FirstOrder.difference_gram": {"reference": [0, 1, 2, 3, 4]},
        "first_order.FirstOrder.difference_norms": {"reference": [0, 1, 2, 3, 4]},
        "first_order.FirstOrder.margins": {"reference": [0, 1, 2, 3, 4]},
        "linearise.Network": {"tower": net.tower, "patches": net.patches, "labels": net.labels, "rows": net.rows},
        "linearise.Network.logits": {"values": base.values},
        "linearise.Network.differentiable": {"weights": base.state_dict(), "patches": None},
        "threads.ordered": {"function": abs, "items": [1, 2]},
        "tower.cut": {"images": torch.zeros(2, 3, 32, 32)},
        "layout.require_finite": {"values": _objects()["base"].values},
        "chi_square_test.critical_value": dof,
        "chi_square_test.power": dof,
        "chi_square_test.statistic": {"change": np.zeros((5, 5))},
        "cosines.noisy_cosines": {"cosines": np.eye(2)},
        "noisy_logits.valid_std": {"limit": float(np.sqrt((_objects()["table"]["error"] ** 2).mean()))},
        "wde.images_of": {"split": "test"},
        "backbone.load_backbone": {"name": "tiny", "weights_file": None},
        "checkpoints.import_task_vectors": {"files": {"a": tuned["path"]}, "out": files / "out", "overwrite": True,
                                            "published_base": None},
        "checkpoints.load_published": tuned,
        "checkpoints.task_vector_from_published": {**tuned, "published_base": None},
        "foreign.file_kind": reading,
        "foreign.require_file": reading,
        "foreign.read_foreign": reading,
        "foreign.read_safetensors": reading,
        "foreign.read_metadata": reading,
        "tensor_file.read_own": {**reading, "kind": "rmtllmf-weights"},
        "tensor_file.read_sealed": reading,
        "tensor_file.write_own": writing,
        "tensor_file.write_sealed": writing,
        "fusion.coefficients": {"lam": 0.3},
        "layout.group_of": {"name": "visual.proj"},
        "layout.listing": {"items": ["a", "b"]},
        "layout.require_float": {"tensor": torch.ones(2)},
        "vector_info.below_current": {"folder": "a"},
        "vector_info.checked_info": {"path": "x"},
        "resilience.protect": {"name": "unprotected"},
        "resilience.protection_named": {"name": "unprotected"},
    }  # fmt: skip


def good(path: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Good arguments for all parameters, or for those without a default where none is known."""
    own, objects, arguments = _of().get(path, _of().get(path.partition(".")[2], {})), _objects(), {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in own or name in objects:
            value = own[name] if name in own else objects[name]
            fresh = value is torch.Generator or value is np.random.default_rng  # whoever draws from it changes it
            arguments[name] = value() if fresh else value
        elif parameter.default is not parameter.empty:
            arguments[name] = parameter.default
        else:
            arguments[name] = _by_annotation(_hints(function).get(name))
    return arguments


def _by_annotation(hint: Any) -> Any:
    if _is_array(hint):
        return np.full(2, 0.5)
    simple = {int: 2, float: 0.5, bool: False, Path: Path("x"), str: "x", torch.Tensor: torch.full((2, 3), 0.5)}
    several = {Sequence[str]: ["a"], tuple[int, ...]: (2, 3), Sequence[TaskVector]: _objects()["taus"]}
    for each in _members(hint):
        if get_origin(each) is Literal:
            return get_args(each)[0]
        if each in simple or each in several:
            return {**simple, **several}[each]
    raise LookupError(f"no good value of {hint}")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        checked = hasattr(function, "__pydantic_fields__")  # its annotations are those of the fields
        return get_type_hints(
            inspect.unwrap(function.__init__ if isinstance(function, type) and not checked else function)
        )
    except NameError as error:  # imported for type checkers alone
        raise LookupError(f"annotations cannot be read: {error}") from error


def _members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone, without their metadata."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    return tuple(m for a in get_args(hint) for m in _members(a)) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_array(hint: Any) -> bool:
    members = _members(hint)
    return {*get_args(ArrayLike)} <= {*members} or any((get_origin(m) or m) is np.ndarray for m in members)


# --- bad values -------------------------------------------------------------------------------------------------------


def bad(hint: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """What is bad, and a value, for a parameter with that annotation whose good value is `value`."""
    members = _members(hint)
    origins = {get_origin(member) or member for member in members}
    if origins & {Any, object}:
        return
    yield "an object of another type", object()
    if type(None) not in members and None not in members:
        yield "None", None
    if _is_array(hint):
        yield "text", "text"
        yield "NaN", np.full(np.shape(value), np.nan) if value is not None else [np.nan]
        return
    if float in members:
        yield "NaN", float("nan")
        yield "below zero", -0.5
        yield "a number as text", "0.5"
        yield "a bool", True
    if int in members:
        yield "negative", -1
        yield "half", 2.5
        yield "a bool", True
    if origins & {Sequence, Iterable, list, tuple}:
        yield "empty", []
        yield "text", "text"
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) and float not in members:
            yield "a single one", value[0]
    if Mapping in origins:
        yield "empty", {}
        yield "a list", [1]
    if str in members and float not in members:
        yield "a number", 2.5  # a whole one could be an open file
    if Literal in origins:
        yield "another choice", "no such"
    if bool in members:
        yield "text", "yes"
    if (
        Path not in origins
        and str not in members
        and any(isinstance(o, type) and o.__module__ != "builtins" for o in origins)
    ):
        yield "a string for an object", "text"


# --- calls ------------------------------------------------------------------------------------------------------------


class TooLongError(Exception):
    """A call takes longer than it may."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault_of(function: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> str | None:
    """What is wrong with the answer to a call whose argument `name` is bad; None for a clear error."""
    try:
        with warnings.catch_warnings(), at_most(SECONDS):
            warnings.simplefilter("ignore")
            answer = function(**arguments)
            if inspect.isgenerator(answer):
                next(answer)
            if isinstance(answer, AbstractContextManager):
                with answer:
                    pass
    except InputError:
        return None
    except TypeError as error:
        return None if f"{name!r}" in str(error) or f"{name} " in str(error) else f"TypeError: {error}"
    except Exception as error:  # any other is what we look for
        return f"{type(error).__name__}: {error}"
    return "accepted"


def faults(path: str, function: Callable[..., Any]) -> dict[Call, str]:
    """What is wrong with the answers of a function to bad arguments; LookupError without good values."""
    usual = good(path, function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**usual)
        except Exception as error:
            raise LookupError(f"good values do not suit: {type(error).__name__}: {error}") from error
    found = {}
    for name, hint in _hints(function).items():
        for kind, value in bad(hint, usual.get(name)) if name in usual else ():
            fault = fault_of(function, {**good(path, function), name: value}, name)
            if fault is not None:
                found[path, name, kind] = fault
    return found
