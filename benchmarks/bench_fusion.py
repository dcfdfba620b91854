"""Fusing eight task vectors of a ViT-B/16, and their cosine matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks import Row, available_memory, medians
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector, Weights, cosine_matrix

COUNT = 8
LAM = 0.3
NEEDED = 9 * 2**30  # bytes: 345 MB for each of 9 flat buffers, their copies as dicts of tensors, results, temporaries


def vit_b16() -> Layout:
    """Layout of open_clip's ViT-B/16 vision tower: 152 tensors, 86,192,640 numbers."""
    width, layers, out = 768, 12, 512
    norm = {"weight": (width,), "bias": (width,)}
    block = {
        **{f"{ln}.{leaf}": shape for ln in ("ln_1", "ln_2") for leaf, shape in norm.items()},
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
    shapes = {
        "class_embedding": (width,),
        "positional_embedding": (197, width),
        "proj": (width, out),
        "conv1.weight": (width, 3, 16, 16),
        **{f"{ln}.{leaf}": shape for ln in ("ln_pre", "ln_post") for leaf, shape in norm.items()},
        **{f"transformer.resblocks.{i}.{name}": shape for i in range(layers) for name, shape in block.items()},
    }
    layout = Layout.from_shapes({f"visual.{name}": shape for name, shape in shapes.items()})
    assert (len(shapes), layout.size) == (152, 86_192_640)
    return layout


def run() -> list[Row]:
    memory = available_memory()
    if memory is not None and memory < NEEDED:
        why = f"needs {NEEDED / 2**30:.0f} GiB of memory, {memory / 2**30:.1f} are available"
        return [Row("fusing 8 ViT-B/16 task vectors", None, detail=why)]
    layout, generator = vit_b16(), torch.Generator().manual_seed(0)
    base = Weights(layout, layout.empty().uniform_(-0.04, 0.04, generator=generator))
    taus = [
        TaskVector(layout, layout.empty().uniform_(-2e-4, 2e-4, generator=generator), base.hash) for _ in range(COUNT)
    ]
    return [*fusing(base, taus), *cosines(taus)]


def fusing(base: Weights, taus: list[TaskVector]) -> list[Row]:
    # as they come out of separate checkpoints: every tensor has memory of its own
    start, *updates = [{name: x.clone() for name, x in flat.state_dict().items()} for flat in (base, *taus)]
    target = base.layout.empty()
    sums, merged = ({name: torch.empty_like(x) for name, x in start.items()} for _ in range(2))

    def by_tensor() -> dict[str, Tensor]:
        return {name: start[name] + LAM * sum(update[name] for update in updates) for name in start}

    def by_vector() -> dict[str, Tensor]:
        """As published with task arithmetic: sum(vectors), then apply_to(base, lam)."""
        total = updates[0]
        for update in updates[1:]:
            total = {name: total[name] + update[name] for name in total}
        return {name: start[name] + LAM * total[name] for name in start}

    def by_vector_in_place() -> dict[str, Tensor]:
        for name in start:
            torch.add(updates[0][name], updates[1][name], out=sums[name])
        for update in updates[2:]:
            for name in start:
                sums[name].add_(update[name])
        return {name: torch.add(start[name], sums[name], alpha=LAM, out=merged[name]) for name in start}

    fused = fuse(base, taus, LAM).state_dict()
    for reference in (by_tensor, by_vector, by_vector_in_place):
        assert all(torch.allclose(fused[name], x, rtol=0, atol=1e-8) for name, x in reference().items())
    ways = {
        "fuse": lambda: fuse(base, taus, LAM),
        "vector": by_vector,
        "tensor": by_tensor,
        "fuse in place": lambda: fuse(base, taus, LAM, out=target),
        "vector in place": by_vector_in_place,
        "copy": lambda: target.copy_(base.values),
    }
    # Every timed run follows one of the same kind, whose memory it can have again. Memory unused for seconds may
    # cost more than all the arithmetic, and more so for the dicts, which need more of it.
    twice = {name + when: way for name, way in ways.items() for when in (" before", "")}
    seconds = medians(twice, repeats=11)
    size = base.values.nbytes
    # each vector and the base are read once, the result is written once; a copy reads one buffer and writes one
    speed = {"fuse": (COUNT + 2) * size / seconds["fuse in place"], "copy": 2 * size / seconds["copy"]}

    def row(what: str, ours: str, theirs: str, why: str, bound: float | None = None) -> Row:
        times = f"fuse {seconds[ours]:.3f} s, reference {seconds[theirs]:.3f} s"
        name = f"fusing 8 ViT-B/16 task vectors / dicts of tensors, {what}"
        return Row(name, seconds[theirs] / seconds[ours], bound, detail=f"{times}: {why}")

    # The published way moves 26 buffers between memory and processor where 10 are needed, 2.6 times as many; both find
    # new memory for what they write, which costs as much for either and more where memory is slow.
    return [
        row("as published", "fuse", "vector", "sum(vectors), then base + lam * sum, into new memory", 1.7),
        row("both in place", "fuse in place", "vector in place", "the same, into memory at hand"),
        row("tensor by tensor", "fuse", "tensor", "each tensor stays in the cache meanwhile, into new memory"),
        Row(
            "bandwidth of fusing / of copying",
            speed["fuse"] / speed["copy"],
            0.6,
            detail=f"{speed['fuse'] / 1e9:.1f} GB/s (10 × 345 MB), copy {speed['copy'] / 1e9:.1f} GB/s (2 × 345 MB)",
        ),
    ]


def cosines(taus: list[TaskVector]) -> list[Row]:
    pairs = math.comb(COUNT, 2)
    a, b = taus[0].values, taus[1].values

    def pair() -> Tensor:
        x, y = a.double(), b.double()
        return x @ y / (x.norm() * y.norm())

    assert math.isclose(cosine_matrix(taus)[0, 1], pair().item(), abs_tol=1e-12)
    seconds = medians({"gram": lambda: cosine_matrix(taus), "pair": pair}, repeats=3)
    return [
        Row(
            "cosine matrix of 8 ViT-B/16 task vectors / pairwise float64",
            pairs * seconds["pair"] / seconds["gram"],
            20,
            detail=f"matrix {seconds['gram']:.3f} s, a pair {seconds['pair']:.3f} s, {pairs} pairs",
        )
    ]
