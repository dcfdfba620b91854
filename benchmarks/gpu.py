"""What the paper's scale costs on a GPU: one command, one table, in less than 8 minutes.

    python -m benchmarks.gpu                          # ViT-B/16 on the GPU
    python -m benchmarks.gpu --device cpu --small     # the same steps on a small tower, in less than a minute

On a CPU, everything runs in float32: many have no units for bfloat16.

Weights and images are random, so nothing is downloaded and no accuracy means anything. Beside torch, torchvision and
the scientific packages that images for GPUs hold (NumPy, SciPy, pandas, Numba, safetensors, timm), two wheels are
needed, with what they ask for themselves: `pip install open_clip_torch pydantic`; name a folder for compiled code in
RMTLLMF_HOME. `--json FILE` keeps the rates for `rmtllmf plan --rates FILE`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import Row
from benchmarks.__main__ import machine, table
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.fusion.tensors import nearest_orthonormal, singular_triplets
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.backbone import Backbone, fresh_tower
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.protection.memory import Memory
from rmtllmf_lib.protection.realign import REALIGNMENT, realign
from rmtllmf_lib.tasks.base import CLIP_MEAN, CLIP_STD, Split, Task
from rmtllmf_lib.training.evaluate import accuracy, prepare
from rmtllmf_lib.training.finetune import Recipe, finetune
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import normalize, resolve_device
from rmtllmf_lib.transport.surrogate import surrogate

USERS = 8
LAM = 0.3
CLASSES = 10


@dataclass(frozen=True)
class Size:
    """How much of everything: the tower, and enough of each step for a steady time."""

    image: int
    patch: int
    width: int
    layers: int
    dimension: int
    batch: int
    steps: int
    plain_steps: int
    evaluated: int
    realignment_steps: int
    square: int  # of the matrix product
    copied: int  # bytes of a copy


B16 = Size(224, 16, 768, 12, 512, 128, 40, 12, 2000, 60, 8192, 2**32)
SMALL = Size(32, 8, 64, 3, 32, 32, 10, 10, 200, 4, 512, 2**26)


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    size: Size
    device: torch.device
    backbone: Backbone
    taus: list[TaskVector]
    task: Task
    head: Head

    @property
    def autocast(self) -> str | None:
        """Precision of fast matrix products: bfloat16 on a GPU alone."""
        return "bfloat16" if self.device.type == "cuda" else None

    @property
    def fast(self) -> str:
        return "bf16" if self.autocast else "float32"

    def seconds(self, work: Callable[[], Any], repeats: int = 5) -> float:
        """Shortest time of one call, the device's work included; the first call is not timed."""
        work()
        times = []
        for _ in range(repeats):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        return min(times)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def bench(size: Size, device: torch.device) -> Bench:
    """A random tower, eight random task vectors, and a task of noise."""
    generator = torch.Generator().manual_seed(0)
    vision = {"image_size": size.image, "patch_size": size.patch, "width": size.width, "layers": size.layers}
    vision["head_width"] = min(64, size.width)
    text = {"context_length": 8, "vocab_size": 16, "width": 64, "heads": 2, "layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(size.dimension, vision, text, quick_gelu=True).eval().requires_grad_(False)
    base = Weights.from_module(model)
    backbone = Backbone("random", model, list, size.image, None, base)
    taus = []
    for _ in range(USERS):
        values = base.layout.empty().normal_(0, 2e-4, generator=generator)
        taus.append(TaskVector(base.layout, values, base.hash))
    splits = []
    for count in (4 * size.batch, 0, size.evaluated):
        images = torch.randint(0, 256, (count, 3, size.image, size.image), dtype=torch.uint8, generator=generator)
        splits.append(Split(images, torch.arange(count) % CLASSES))
    names = tuple(f"class {number}" for number in range(CLASSES))
    task = Task("noise", "Noise", names, ("{}",), *splits, "procedural", "noise", CLIP_MEAN, CLIP_STD)
    rows = functional.normalize(torch.randn(CLASSES, size.dimension, generator=generator), dim=-1)
    return Bench(size, device, backbone, taus, task, Head(rows, 100.0, "text", names))


def forward_flops(size: Size) -> float:
    """Operations of one image's forward pass: two a multiplication, in matrix products alone."""
    tokens, width = (size.image // size.patch) ** 2 + 1, size.width
    blocks = size.layers * (2 * 12 * width**2 * tokens + 4 * tokens**2 * width)
    return blocks + 2 * (tokens - 1) * 3 * size.patch**2 * width + 2 * width * size.dimension


# --- the parts of the table -------------------------------------------------------------------------------------------


def chip(b: Bench) -> tuple[list[Row], dict[str, float]]:
    """Matrix products and copies, the bounds of all that follows."""
    n = b.size.square
    dtype = torch.bfloat16 if b.autocast else torch.float32
    x, y = (torch.randn(n, n, device=b.device).to(dtype) for _ in range(2))
    product = torch.empty_like(x)
    rate = 2 * n**3 / b.seconds(lambda: torch.mm(x, y, out=product))
    source = torch.ones(b.size.copied // 4, device=b.device)
    target = torch.empty_like(source)
    copy = 2 * b.size.copied / b.seconds(lambda: target.copy_(source))
    host = b.backbone.weights.values
    into = torch.empty_like(host)
    host_copy = 2 * host.nbytes / b.seconds(lambda: into.copy_(host))
    to_device = host.nbytes / b.seconds(lambda: host.to(b.device, copy=True))
    rows = [
        Row(f"{b.fast} matrix product, {n} × {n}", rate / 1e12, unit="TFLOP/s"),
        Row("copy on the device", copy / 1e9, unit="GB/s", detail="bytes read and written"),
        Row("copy in the host's memory", host_copy / 1e9, unit="GB/s", detail="the same, one tower"),
        Row("weights to the device", to_device / 1e9, unit="GB/s", detail="pageable memory"),
    ]
    return rows, {"matrix_flops": rate, "copy": copy, "host_copy": host_copy, "to_device": to_device}


def training(b: Bench, rate: float) -> tuple[list[Row], dict[str, float]]:
    """Fine-tuning as `rmtllmf finetune` does it, against a plain loop in float32."""
    size = b.size

    def a_step(augment: Any, autocast: str | None) -> float:
        """Seconds a step, between a short run and a long one: start and end drop out."""

        def run(steps: int) -> float:
            recipe = Recipe(steps, size.batch, 1e-5, weight_decay=0.1, clip_norm=1.0, augment=augment)
            start = time.perf_counter()
            finetune(
                b.backbone, b.task, b.head, recipe, generator=torch.Generator().manual_seed(0), progress=False,
                device=str(b.device), autocast=autocast,
            )  # fmt: skip
            b.wait()
            return time.perf_counter() - start

        short = max(2, size.steps // 8)
        run(2)
        return max((run(size.steps) - run(short)) / (size.steps - short), 1e-9)

    if b.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(b.device)
    ours = a_step("none", b.autocast)
    memory = torch.cuda.max_memory_allocated(b.device) / 2**30 if b.device.type == "cuda" else None
    cropped = a_step("crop", b.autocast)
    plain = plain_loop(b)
    flops = 3 * forward_flops(size) * size.batch
    rows = [
        Row(
            f"fine-tuning, batch {size.batch}, {b.fast} / a plain float32 loop", plain / ours,
            3 if b.device.type == "cuda" else None, detail=f"{1e3 * ours:.1f} ms a step, plain {1e3 * plain:.1f} ms",
        ),
        Row(f"  share of the {b.fast} matrix rate", flops / ours / rate, unit="", detail=f"{flops:.2g} operations"),
        Row("  with random crops, images a second", size.batch / cropped, unit="", detail=f"{os.cpu_count()} cores"),
        Row("  memory of the device", memory, unit="GiB", detail="" if memory else "on a GPU only"),
    ]  # fmt: skip
    return rows, {"train_images": size.batch / ours, "cropped_images": size.batch / cropped, "train_gib": memory or 0.0}


def plain_loop(b: Bench) -> float:
    """Seconds a step of a training loop as one writes it first: float32, torch's own AdamW, nothing else."""
    tower = fresh_tower(b.backbone).to(b.device).requires_grad_(True)
    optimizer = torch.optim.AdamW(tower.parameters(), 1e-5, weight_decay=0.1)
    rows = b.head.weight.to(b.device)

    def step(number: int) -> None:
        first = number % 4 * b.size.batch
        chosen = slice(first, first + b.size.batch)
        images, labels = b.task.train.inputs[chosen], b.task.train.labels[chosen].to(b.device)
        features = tower(normalize(images, b.backbone, b.device))  # type: ignore[arg-type]  # a tensor here
        loss = functional.cross_entropy(b.head.logit_scale * functional.normalize(features, dim=-1) @ rows.T, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        loss.item()

    step(0)
    b.wait()
    start = time.perf_counter()
    for number in range(b.size.plain_steps):
        step(number)
    b.wait()
    return (time.perf_counter() - start) / b.size.plain_steps


def evaluation(b: Bench, rate: float) -> tuple[list[Row], dict[str, float]]:
    """Accuracy of a model as studies measure it, in float32; and what bfloat16 would give."""
    model = b.backbone.weights + b.taus[0]
    split = prepare(b.backbone, b.task.test, device=str(b.device))
    seconds = b.seconds(lambda: accuracy(b.backbone, model, split, b.head), repeats=2)
    images = len(b.task.test) / seconds
    tower = fresh_tower(b.backbone, model).to(b.device)
    batch = normalize(b.task.test.inputs[:125], b.backbone, b.device)  # type: ignore[index]  # a tensor here

    @torch.no_grad()
    def half() -> None:
        with torch.autocast(b.device.type, torch.bfloat16, enabled=b.autocast is not None):
            tower(batch)

    rounded = len(batch) / b.seconds(half)
    share = images * forward_flops(b.size) / rate
    rows = [
        Row("evaluation, images a second", images, unit="", detail=f"float32; {share:.2f} of the {b.fast} matrix rate"),
        Row(f"  open_clip's tower in {b.fast}", rounded, unit="", detail="for comparison; not what studies do"),
    ]
    return rows, {"test_images": images}


def merging(b: Bench, copy: float, host_copy: float) -> tuple[list[Row], dict[str, float]]:
    """Fusing and TSV-Merge of eight vectors, in the host's memory, where the library does it, and on the device."""
    base, layout = b.backbone.weights, b.backbone.weights.layout
    target = layout.empty()
    moved = (USERS + 2) * base.values.nbytes  # each vector and the base read once, the result written once
    host = b.seconds(lambda: fuse(base, b.taus, LAM, out=target))
    stack = torch.stack([tau.values for tau in b.taus]).to(b.device)
    start, out, factors = base.values.to(b.device), torch.empty(layout.size, device=b.device), torch.full((USERS,), LAM)
    factors = factors.to(b.device)
    device = b.seconds(lambda: torch.addmv(start, stack.T, factors, out=out))
    reference = fuse(base, b.taus, LAM).values
    error = float((out.cpu() - reference).abs().max())
    began = time.perf_counter()
    merged = tsv_merge(b.taus)
    on_host = time.perf_counter() - began
    on_device = b.seconds(lambda: tsv_on(b, stack), repeats=1)
    found = tsv_on(b, stack)
    apart = float((found.cpu() - merged.values).norm() / merged.values.norm())
    rows = [
        Row("fusing 8 vectors, host: share of its copies", moved / host / host_copy, unit="", detail=f"{host:.3f} s"),
        Row(
            "  on the device: share of its copies", moved / device / copy, 0.7 if b.device.type == "cuda" else None, "",
            detail=f"{1e3 * device:.2f} ms",
        ),
        Row("  largest difference", error, 1e-6, "", at_least=False, detail=f"{error:.1e}, of weights"),
        Row("TSV-Merge of 8 vectors, host", on_host, unit="s", detail=f"{torch.get_num_threads()} threads, float64"),
        Row("  on the device", on_device, unit="s"),
        Row("  relative difference", apart, 1e-4, "", at_least=False, detail=f"{apart:.1e}, of the vector"),
    ]  # fmt: skip
    return rows, {"fuse_s": host, "tsv_s": on_host}


def tsv_on(b: Bench, stack: Tensor) -> Tensor:
    """TSV-Merge on the device, from the same linear algebra: (users, size) to (size,)."""
    layout = b.backbone.weights.layout
    merged = torch.empty(layout.size, device=stack.device)
    users, out = [layout.views(row) for row in stack], layout.views(merged)
    for name in layout.names:
        tensors = torch.stack([user[name] for user in users])
        if tensors.ndim != 3:
            out[name].copy_(tensors.mean(0))
            continue
        count = max(1, min(tensors.shape[1:]) // USERS)
        U, s, V = zip(*(singular_triplets(matrix, count) for matrix in tensors), strict=True)
        left, right = nearest_orthonormal(torch.cat(U, 1)), nearest_orthonormal(torch.cat(V, 1))
        out[name].copy_((left * torch.cat(s)) @ right.T)
    return merged


def realignment(b: Bench) -> tuple[list[Row], dict[str, float]]:
    """Realignment of a fused model on five images of each class of eight tasks."""
    chosen = torch.arange(5 * CLASSES)
    memory = Memory(5, {f"task {user}": b.task.train.subset(chosen) for user in range(USERS)})
    heads = dict.fromkeys(memory.splits, b.head)
    fused = fuse(b.backbone.weights, b.taus, LAM)
    recipe = dataclasses.replace(REALIGNMENT, steps=b.size.realignment_steps)
    times = {}
    for autocast in {None: 0, b.autocast: 0}:
        start = time.perf_counter()
        realign(
            b.backbone, fused, memory, heads, recipe, generator=torch.Generator().manual_seed(0), device=str(b.device),
            autocast=autocast,
        )  # fmt: skip
        b.wait()
        times[autocast] = time.perf_counter() - start
    what = f"{recipe.steps} steps of {recipe.batch_size} images"
    rows = [Row("realignment, float32", times[None], unit="s", detail=what)]
    if b.autocast:
        rows.append(Row("  bf16", times[b.autocast], unit="s", detail="not what studies do"))
    images = recipe.steps * recipe.batch_size
    return rows, {"realigned_images": images / times[None], "rounded_images": images / times[b.autocast]}


def noise(b: Bench) -> tuple[list[Row], dict[str, float]]:
    """The errors of eight received vectors, drawn by the library on the host, and by the device."""
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    surrogate(b.taus, b.backbone.weights, 0.1, generator=generator)
    host = time.perf_counter() - began
    size = b.backbone.weights.layout.size
    out = torch.empty(USERS, size, device=b.device)
    device = b.seconds(lambda: out.normal_())
    bytes_ = out.nbytes
    spread = float(out.double().std()) if b.device.type == "cpu" else float(out.std())
    rows = [
        Row("noise of 8 received vectors, host", host, unit="s", detail="float32, one generator"),
        Row("  on the device", device, unit="s", detail=f"{bytes_ / device / 1e9:.0f} GB/s; deviation {spread:.4f}"),
    ]
    return rows, {"noise_s": host}


def equality(b: Bench) -> tuple[list[Row], dict[str, float]]:
    """The same numbers on the CPU and on the device, in float32 and to rounding."""
    images = b.task.test.subset(torch.arange(8))
    model = b.backbone.weights + b.taus[0]
    logits = {
        where: prepare(b.backbone, images, device=where).logits(model, b.head) for where in ("cpu", str(b.device))
    }
    apart = float((logits["cpu"] - logits[str(b.device)]).abs().max())
    recipe = Recipe(3, 8, 1e-5, weight_decay=0.1, clip_norm=1.0)
    trained = {
        where: finetune(
            b.backbone, b.task, b.head, recipe, generator=torch.Generator().manual_seed(0), device=where, progress=False
        )
        for where in ("cpu", str(b.device))
    }
    gap = (trained["cpu"] - trained[str(b.device)]).norm / trained["cpu"].norm
    # AdamW's first steps are the signs of gradients, and those near 0 may differ
    rows = [
        Row(
            "logits, CPU and device, largest difference", apart, 2e-3, "", at_least=False, detail=f"{apart:.1e}, of 100"
        ),
        Row("task vector of 3 steps, relative difference", gap, 0.05, "", at_least=False, detail=f"{gap:.1e}"),
    ]
    return rows, {}


def run(size: Size, device: torch.device) -> tuple[list[Row], dict[str, float]]:
    """All rows of the table, and the rates by name: images, bytes or operations a second, or seconds."""
    torch.backends.cuda.matmul.allow_tf32 = False  # torch's default, and what equality is about
    b = bench(size, device)
    rows, rates = chip(b)
    parts: list[Callable[[], tuple[list[Row], dict[str, float]]]] = [
        lambda: training(b, rates["matrix_flops"]),
        lambda: evaluation(b, rates["matrix_flops"]),
        lambda: merging(b, rates["copy"], rates["host_copy"]),
        lambda: realignment(b),
        lambda: noise(b),
        lambda: equality(b),
    ]
    for part in parts:
        found, more = part()
        rows += found
        rates |= more
    return rows, rates


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto", help="cuda, cpu or auto, which is a GPU if there is one")
    parser.add_argument("--small", action="store_true", help="a small tower: to see that all steps run")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write rows and rates to a file, too")
    given = parser.parse_args(arguments)
    device = resolve_device(given.device)
    began = time.perf_counter()
    chip_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    about = f"{chip_name}; {machine()}"
    print(about, flush=True)
    rows, rates = run(SMALL if given.small else B16, device)
    print(table(rows))
    seconds = time.perf_counter() - began
    print(f"{seconds:.0f} s in all")
    assert all(math.isfinite(rate) for rate in rates.values())
    if given.json:
        content = {"machine": about, "small": given.small, "rates": rates}
        lines = [{**dataclasses.asdict(row), "verdict": row.verdict} for row in rows]
        given.json.write_text(json.dumps({**content, "rows": lines}, indent=1) + "\n")
    return int(any(row.verdict == "FAIL" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
