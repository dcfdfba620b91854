"""J Jᵀ of every image against a loop over logits and inputs, and the memory that the Jacobian routines take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import Row, available_memory, medians
from rmtllmf_lib.disentanglement.linearise import Network, along, estimate_gram, gram, network, row
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.model.tower import patchify, read_tower
from rmtllmf_lib.tasks.sources import load_task
from rmtllmf_lib.training.heads import build_head

ROOT = Path(__file__).resolve().parents[1]
IMAGES = 24
NEEDED = 3 * 2**30  # bytes, for a ViT-B/16 in a process of its own
ROUTINES = ("gram", "row", "along", "estimate")


def tiny() -> tuple[Network, Weights]:
    backbone, task = load_backbone("tiny"), load_task("signs", "procedural", seed=0, image_size=32)
    return network(backbone, task.test, build_head(backbone, task), limit=IMAGES), backbone.weights


def vit_b16() -> tuple[Network, Weights]:
    """Random weights of a ViT-B/16's shape, one image, ten classes: memory and time do not depend on the numbers."""
    vision = {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12}
    text = {"context_length": 8, "vocab_size": 10, "width": 64, "heads": 1, "layers": 1}
    model = open_clip.CLIP(512, vision, text, quick_gelu=True).eval().requires_grad_(False)
    generator, weights = torch.Generator().manual_seed(0), Weights.from_module(model)
    patches = patchify(torch.randn(1, 3, 224, 224, generator=generator), 16)
    rows = 100 * functional.normalize(torch.randn(10, 512, generator=generator), dim=-1)
    return Network(read_tower(model.visual), weights.layout, patches, torch.zeros(1, dtype=torch.int64), rows), weights


def loop(net: Network, weights: Weights) -> Tensor:
    """The matrices by one backward pass for each logit of each image, with all gradients of an image in memory."""
    views = weights.state_dict()
    grams = []
    for patches in net.patches.split(1):
        rows = []
        for k in range(net.classes):
            leaves = {name: view.detach().requires_grad_() for name, view in views.items()}
            gradients = torch.autograd.grad(net.differentiable(leaves, patches)[0, k], list(leaves.values()))
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
        jacobian = torch.stack(rows)
        grams.append(jacobian @ jacobian.T)
    return torch.stack(grams)


def routine(name: str, net: Network, weights: Weights) -> Callable[[], object]:
    generator, cotangent = torch.Generator().manual_seed(0), torch.zeros(len(net), net.classes)
    cotangent[0, 0] = 1
    return {
        "gram": lambda: gram(net, weights),
        "row": lambda: row(net, weights, cotangent),
        "along": lambda: along(net, weights, torch.randn(weights.layout.size, generator=generator)),
        "estimate": lambda: estimate_gram(net, weights, 2, generator=generator),
    }[name]


def resident(which: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since the last `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(which)).split()[1])


def measure(name: str) -> dict[str, float]:
    """Memory of a routine on a ViT-B/16 beyond that of the model, and its time; runs in a child process."""
    torch.set_num_threads(1)
    net, weights = vit_b16()
    work = routine(name, net, weights)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before, start = resident("VmRSS"), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return {"extra": resident("VmHWM") - before, "model": weights.values.nbytes, "seconds": seconds}


def memory(name: str) -> Row:
    what = f"{name} of a ViT-B/16, one image, 10 classes: peak memory with the model / the model's own"
    free = available_memory()
    if free is None or free < NEEDED or not Path("/proc/self/clear_refs").exists():
        return Row(what, None, 3, at_least=False, detail="needs Linux and 3 GiB of memory")
    code = f"import json; from benchmarks.bench_disentanglement import measure; print(json.dumps(measure({name!r})))"
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, check=True)
    found = json.loads(child.stdout)
    times = (
        f"model {found['model'] / 2**20:.0f} MiB, beside it {found['extra'] / 2**20:.0f} MiB, {found['seconds']:.1f} s"
    )
    return Row(what, 1 + found["extra"] / found["model"], 3, at_least=False, detail=times)


def speed() -> list[Row]:
    net, weights = tiny()
    expected = loop(net, weights).double().numpy()
    error = float(abs(gram(net, weights) - expected).max() / abs(expected).max())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = medians({"gram": lambda: gram(net, weights), "loop": lambda: loop(net, weights)}, repeats=3)
    finally:
        torch.set_num_threads(threads)
    each = {name: 1e3 * value / IMAGES for name, value in seconds.items()}
    return [
        Row("difference of J Jᵀ from the loop's", 1e6 * error, 10, "ppm", at_least=False),
        Row(
            "J Jᵀ of all images / loop over logits and inputs, 12 classes, 1 core",
            seconds["loop"] / seconds["gram"],
            5,
            detail=f"an image {each['gram']:.1f} ms, reference {each['loop']:.1f} ms",
        ),
    ]


def run() -> list[Row]:
    return [*speed(), *(memory(name) for name in ROUTINES)]
