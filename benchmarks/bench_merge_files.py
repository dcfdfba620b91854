"""Eight ViT-B/16 task vectors merged from files to a file, against dicts of tensors, mergekit and FusionBench.

Each runs in a process of its own, from its first read to its last write, so that its peak of memory is its own. Ours
compares the checksum of every file, makes one for the result and waits until it is on the disk; the others do none of
this, so for task arithmetic, which is hardly more than reading, there is no bound. mergekit and FusionBench are
compared where they are installed, they are no dependency of this library.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import Row, apart, available_memory, resident
from benchmarks.bench_fusion import LAM, vit_b16
from benchmarks.bench_link import USERS
from benchmarks.bench_mergers import KEEP
from rmtllmf_lib.command.commands import fuse_files
from rmtllmf_lib.model.task_vector import TaskVector, Weights

DISK = 5.2 * 10**9  # bytes of files
REPEATS = {"arithmetic": 5}  # others once
OURS = "ours"


@dataclass(frozen=True)
class Files:
    """The base, the task vectors, and what is to be written."""

    base: Path
    vectors: Sequence[Path]
    out: Path

    @classmethod
    def within(cls, folder: Path, program: str) -> Files:
        return cls(folder / "base.safetensors", sorted(folder.glob("tau*.safetensors")), folder / f"{program}.out")

    def write(self) -> None:
        layout, generator = vit_b16(), torch.Generator().manual_seed(1)
        base = Weights(layout, layout.empty().uniform_(-0.04, 0.04, generator=generator))
        base.save(self.base)
        for place in range(USERS):
            values = layout.empty().uniform_(-2e-4, 2e-4, generator=generator)
            TaskVector(layout, values, base.hash, {"task": f"task{place}"}).save(
                self.base.with_name(f"tau{place}.safetensors")
            )


# --- programs, which are imported before their time is taken ----------------------------------------------------------


def ours(files: Files, merger: str) -> None:
    fuse_files(files.vectors, Weights.load(files.base), files.out, LAM, None, merger)


def dicts(files: Files, _merger: str) -> None:
    """Task arithmetic as published with it: one dict of tensors after the other."""
    total: dict[str, Tensor] = {}
    for path in files.vectors:
        update = load_file(path)
        total = {name: total[name] + update[name] for name in update} if total else update
    start = load_file(files.base)
    save_file({name: start[name] + LAM * total[name] for name in start}, files.out)


def mergekit(files: Files, merger: str) -> None:
    """What `mergekit-pytorch` does with these files. Its TIES trims each tensor alone, and takes the base from both."""
    script = importlib.import_module("mergekit.scripts.merge_raw_pytorch")
    models = [
        {"model": str(path), "parameters": {"weight": 1.0 if merger == "ties" else LAM}} for path in files.vectors
    ]
    if merger == "ties":
        given = {"base_model": str(files.base), "parameters": {"density": KEEP, "lambda": LAM, "normalize": True}}
    else:
        merger, given = "linear", {"parameters": {"normalize": False}}
        models.append({"model": str(files.base), "parameters": {"weight": 1.0}})
    config = script.RawPyTorchMergeConfig.model_validate({"merge_method": merger, "models": models, **given})
    options = importlib.import_module("mergekit.options").MergeOptions()
    tasks = script.plan_flat_merge(config, str(files.out), False, False, options)
    importlib.import_module("mergekit.graph").Executor(tasks, math_device="cpu", storage_device="cpu").execute()


def fusion_bench(files: Files, merger: str) -> None:
    """Files read as dicts of tensors, FusionBench's function of them, and a file of the result."""
    start, updates = load_file(files.base), [load_file(path) for path in files.vectors]
    if merger == "tsv":
        module = importlib.import_module("fusion_bench.method.task_singular_vector.utils.TSVM_utils")
        total = module.compute_and_sum_svd_mem_reduction(task_vectors=updates, accelerator="cpu")
    else:
        module = importlib.import_module("fusion_bench.method.ties_merging.ties_merging_utils")
        flat = torch.stack([torch.cat([update[name].flatten() for name in start]) for update in updates])
        del updates
        merged = module.ties_merging(flat, reset_thresh=100 * KEEP, merge_func="mean")
        parts = merged.split([tensor.numel() for tensor in start.values()])
        total = {name: part.view_as(start[name]) for name, part in zip(start, parts, strict=True)}
    save_file({name: start[name] + LAM * total[name] for name in start}, files.out)


@dataclass(frozen=True)
class Program:
    """A way to merge, the mergers that it has, each with the least ratio to ours, and what it imports."""

    merge: Callable[[Files, str], None]
    bounds: dict[str, float | None]
    modules: tuple[str, ...] = ()
    needed: float = 8e9  # bytes of memory

    @property
    def installed(self) -> bool:
        return all(importlib.util.find_spec(name.partition(".")[0]) for name in self.modules)


PROGRAMS = {
    OURS: Program(ours, dict.fromkeys(("arithmetic", "ties", "tsv"))),
    "dicts of tensors, unchecked": Program(dicts, {"arithmetic": None}),
    "mergekit": Program(
        mergekit, {"arithmetic": None, "ties": 5}, ("mergekit.scripts.merge_raw_pytorch", "mergekit.graph")
    ),
    "FusionBench": Program(
        fusion_bench,
        {"ties": 5, "tsv": None},
        (
            "fusion_bench.method.ties_merging.ties_merging_utils",
            "fusion_bench.method.task_singular_vector.utils.TSVM_utils",
        ),
        needed=21e9,
    ),
}


# --- rows -------------------------------------------------------------------------------------------------------------


def run() -> list[Row]:
    with TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < DISK:
            return [Row("from files to a file", None, detail=f"needs {DISK / 1e9:.1f} GB of disk")]
        Files.within(Path(folder), OURS).write()
        return [row for merger in PROGRAMS[OURS].bounds for row in rows_of(Path(folder), merger)]


def rows_of(folder: Path, merger: str) -> list[Row]:
    """The time of every program that has the merger over ours, taken in turns, and our peak of memory beside theirs."""
    what = f"{merger} of {USERS} ViT-B/16 vectors from files to a file"
    asked = [name for name, program in PROGRAMS.items() if merger in program.bounds]
    free = available_memory() or math.inf
    missing = {name: "not installed" for name in asked if not PROGRAMS[name].installed}
    missing |= {name: "not enough free memory" for name in asked if PROGRAMS[name].needed > free}
    if OURS in missing:
        return [Row(what, None, detail=missing[OURS])]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in asked if name not in missing}
    for _ in range(REPEATS.get(merger, 1)):
        for name, times in found.items():
            times.append(apart("benchmarks.bench_merge_files", "measured", str(folder), merger, name))
    seconds = {name: statistics.median(each["seconds"] for each in times) for name, times in found.items()}
    peak = {name: max(each["peak"] for each in times) for name, times in found.items()}
    rows = []
    for name in asked[1:]:
        if name in found:
            detail = f"{seconds[OURS]:.2f} s, {name} {seconds[name]:.2f} s"
            bound = PROGRAMS[name].bounds[merger]
            rows.append(Row(f"{what} / {name}", seconds[name] / seconds[OURS], bound, detail=detail))
        else:
            rows.append(Row(f"{what} / {name}", None, detail=missing[name]))
    others = "".join(f", {name} {peak[name]:.1f} GB" for name in found if name != OURS)
    own = max(each["own"] for each in found[OURS])
    detail = f"{own:.1f} GB without the pages of the files, which the system may take back{others}"
    return [*rows, Row(f"{what}: memory", peak[OURS], 6, "GB", at_least=False, detail=detail)]


def measured(folder: str, merger: str, name: str) -> dict[str, float]:
    """Seconds of a program, and GB at most with and without what is mapped from files."""
    files, program, own, done = Files.within(Path(folder), name), PROGRAMS[name], [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            own.append(resident("RssAnon"))

    with redirect_stdout(sys.stderr):  # the others report what they do
        for module in program.modules:
            importlib.import_module(module)
        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        program.merge(files, merger)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    return {"seconds": seconds, "peak": resident("VmHWM"), "own": max(own)}
