"""Mergers of eight ViT-B/16 task vectors against public implementations, or their published algorithms written out.

FusionBench is compared where it is installed; it is no dependency of this library. Without it the algorithms are
written out here as it runs them: whole singular value decompositions in float32, and descent by Adam. Matrices are
those of one of the twelve blocks, all of which are alike. `bench_merge_files` has the same from files to a file.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks import Row, available_memory, medians
from benchmarks.bench_fusion import vit_b16
from benchmarks.bench_link import USERS, vectors
from benchmarks.cost_figure import merging, save
from rmtllmf_lib.fusion.entries import ties
from rmtllmf_lib.fusion.mergers import merge
from rmtllmf_lib.fusion.quadratic import wudi
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector

BLOCK = "visual.transformer.resblocks.0."
KEEP = 0.2  # of TIES
COMPARED = ("arithmetic", "trimmed-mean", "tsv", "iso-c", "wudi")
SWEEPS = (
    *(("vectors", count, 384) for count in (2, 4, 8, 16)),
    *(("width", 8, width) for width in (96, 192, 384, 768)),
)
STEPS, TIMED = 300, 2  # of Adam in WUDI-Merging, and how many of them are timed
NEEDED = 14 * 2**30  # for the stack of eight vectors that public code makes, and as much again


def one_block() -> list[TaskVector]:
    """The users' vectors of one block: four matrices, norms and biases."""
    return vectors(block(768))


# --- the published algorithms, written out ----------------------------------------------------------------------------


def trimmed_by(stack: Tensor) -> Tensor:
    """Entries (N, d) of at least the k-th value of their user's magnitudes, 0 for the others."""
    size = stack.shape[1]
    magnitudes = stack.abs()
    floors = magnitudes.kthvalue(size - int(KEEP * size) + 1, dim=1, keepdim=True).values
    return stack * (magnitudes >= floors)


def ties_written_out(stack: Tensor) -> Tensor:
    """Trim, elect signs by the sum, mean of those that agree: (N, d)."""
    trimmed = trimmed_by(stack)
    sign = trimmed.sum(0).sign()
    agreed = torch.where((sign > 0) == (trimmed > 0), trimmed, 0.0)
    return agreed.sum(0) / (agreed != 0).sum(0).clamp(min=1)


def tsv_written_out(matrices: Sequence[Tensor]) -> Tensor:
    """The whole singular value decomposition of every user's matrix, and of both stacks of their strongest vectors."""
    count = min(matrices[0].shape) // len(matrices)
    parts = [torch.linalg.svd(matrix, full_matrices=False) for matrix in matrices]
    U = torch.cat([part[0][:, :count] for part in parts], 1)
    s = torch.cat([part[1][:count] for part in parts])
    V = torch.cat([part[2][:count] for part in parts])
    (p, _, q), (v, _, w) = (torch.linalg.svd(each, full_matrices=False) for each in (U, V))
    return torch.linalg.multi_dot((p, q, torch.diag(s), v, w))


def wudi_written_out(stack: Tensor, steps: int) -> Tensor:
    """Descent by Adam from the sum, at a learning rate of 1e-5, on the loss that WUDI-Merging solves."""
    M = torch.nn.Parameter(stack.sum(0))
    descent, sizes = torch.optim.Adam([M], lr=1e-5), stack.square().sum((1, 2))
    for _ in range(steps):
        loss = (((M - stack) @ stack.mT).square().sum((1, 2)) / sizes).sum()
        descent.zero_grad()
        loss.backward()
        descent.step()
    return M.detach()


# --- public implementations -------------------------------------------------------------------------------------------


def public(module: str, function: str) -> Callable[..., Any] | None:
    """A function of a package that may be installed."""
    try:
        return getattr(importlib.import_module(module), function, None)
    except ImportError:
        return None


def run() -> list[Row]:
    save(pd.DataFrame(costs()), merging, "mergers")
    return [*ties_rows(), *tsv_rows(), *wudi_rows()]


def block(width: int) -> Layout:
    """One transformer block of a width, as of ViT-B/16, where it is 768."""
    layout = vit_b16()
    sizes = {n: s for n, s in zip(layout.names, layout.shapes, strict=True) if n.startswith(BLOCK)}
    return Layout.from_shapes({name: tuple(side * width // 768 for side in shape) for name, shape in sizes.items()})


def costs() -> list[dict[str, Any]]:
    """Seconds to merge a block, the least of three; arguments of `cost_figure.merging`."""
    table = []
    for sweep, count, width in SWEEPS:
        taus = vectors(block(width), count)
        for name in COMPARED:
            taken = []
            for _ in range(3):
                start = time.perf_counter()
                merge(name, taus)
                taken.append(time.perf_counter() - start)
            table.append({"sweep": sweep, "vectors": count, "width": width, "merger": name, "seconds": min(taken)})
    return table


def close(ours: Tensor, theirs: Tensor, relative: float) -> float:
    """Relative difference, which must be as small as that."""
    off = float((ours - theirs).norm() / theirs.norm())
    assert off <= relative, f"results differ by {off:.1e}"
    return off


def close_where_decided(ours: Tensor, stack: Tensor) -> float:
    """The same but for entries whose users cancel to rounding: the order of summation elects their sign."""
    trimmed = trimmed_by(stack)
    decided = (trimmed.sum(0).abs() > 1e-6 * trimmed.abs().sum(0)) | ~trimmed.any(0)
    del trimmed  # as large as the stack
    assert (~decided).sum() < 1e-5 * len(decided)
    return close(ours * decided, ties_written_out(stack) * decided, 1e-5)


def row(name: str, seconds: dict[str, float], bound: float, off: float, reference: str = "written out") -> Row:
    detail = f"{seconds['ours']:.2f} s, {reference} {seconds['theirs']:.1f} s; results differ by {off:.0e}"
    return Row(name, seconds["theirs"] / seconds["ours"], bound, detail=detail)


def ties_rows() -> list[Row]:
    name = f"TIES of {USERS} ViT-B/16 vectors / as published"
    memory = available_memory()
    if memory is not None and memory < NEEDED:
        return [Row(name, None, detail=f"needs {NEEDED / 2**30:.0f} GiB of free memory")]
    taus = vectors(vit_b16())
    stack = torch.stack([tau.values for tau in taus])
    taus = [
        TaskVector(tau.layout, values, tau.base_hash, checked=True) for tau, values in zip(taus, stack, strict=True)
    ]
    off = close_where_decided(ties(taus, keep=KEEP).values, stack)
    ways = {"ours": lambda: ties(taus, keep=KEEP), "theirs": lambda: ties_written_out(stack)}
    rows = [row(name, medians(ways, repeats=1), 5, off)]
    module, function = "fusion_bench.method.ties_merging.ties_merging_utils", "ties_merging"
    if (theirs := public(module, function)) is None:
        return [*rows, Row(name.replace("as published", "FusionBench"), None, detail="not installed")]
    ways["theirs"] = lambda: theirs(stack, reset_thresh=100 * KEEP, merge_func="mean")
    return [*rows, row(name.replace("as published", "FusionBench"), medians(ways, repeats=1), 5, off, "FusionBench")]


def tsv_rows() -> list[Row]:
    taus = one_block()
    named = [tau.state_dict() for tau in taus]
    merged = tsv_merge(taus).state_dict()
    matrices = {key: [each[key] for each in named] for key, tensor in merged.items() if tensor.ndim == 2}
    # in float32 the published algorithm differs from itself in float64 by more than ours does
    exact = {key: tsv_written_out([each.double() for each in users]) for key, users in matrices.items()}
    off = max(close(merged[key], tensor, 1e-5) for key, tensor in exact.items())
    theirs = public("fusion_bench.method.task_singular_vector.utils.TSVM_utils", "compute_and_sum_svd_mem_reduction")
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: tsv_merge(taus),
        "theirs": lambda: [tsv_written_out(each) for each in matrices.values()],
    }
    if theirs:
        ways["theirs"] = lambda: theirs(task_vectors=named, accelerator="cpu")
    name = f"TSV-Merge of a ViT-B/16 block, {USERS} users / whole decompositions"
    # The eigenvalues of random matrices lie so close together that float64 and all of them are needed: three quarters
    # of the time are 32 eigendecompositions of 768 × 768, each a third of the others' decomposition in float32.
    return [row(name, medians(ways, 1), 2, off, "FusionBench" if theirs else "written out")]


def wudi_rows() -> list[Row]:
    taus = one_block()
    named = [tau.state_dict() for tau in taus]
    matrices = [torch.stack([each[key] for each in named]) for key, tensor in named[0].items() if tensor.ndim == 2]
    seconds = medians({"ours": lambda: wudi(taus)}, 1)
    start = time.perf_counter()
    for stack in matrices:
        wudi_written_out(stack, TIMED)
    seconds["theirs"] = (time.perf_counter() - start) * STEPS / TIMED
    detail = f"{seconds['ours']:.2f} s, {STEPS} steps of Adam {seconds['theirs']:.0f} s, from {TIMED} of them"
    name = f"WUDI of a ViT-B/16 block, {USERS} users, exactly / by descent"
    return [Row(name, seconds["theirs"] / seconds["ours"], 100, detail=detail)]
