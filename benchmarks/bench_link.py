"""Sending eight ViT-B/16 task vectors over the uplink: time, memory, and against the antennas written out."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import torch

from benchmarks import Row, apart, available_memory, medians, resident
from benchmarks.bench_fusion import vit_b16
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.transport.link import Link, send
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks
from rmtllmf_lib.wireless.simulate import covariance_root, receive

USERS = 8
PARTS = {"pam8": 1_000_000, "pcm": 500_000, "ldpc": 20_000}  # numbers of each user, for schemes that take long
SMALL = 1_000_000  # of each user, for the reference
NEEDED = 6 * 2**30  # bytes: 345 MB for each of 8 vectors, in place, and room for the rest


def vectors(layout: Layout, count: int = USERS) -> list[TaskVector]:
    draws = torch.Generator().manual_seed(0)
    return [
        TaskVector(layout, layout.empty().uniform_(-2e-4, 2e-4, generator=draws), "base", checked=True)
        for _ in range(count)
    ]


def part(size: int) -> list[TaskVector]:
    return vectors(Layout(("visual.proj",), ((size,),)))


def uplink() -> Uplink:
    return draw_uplinks(1, np.random.default_rng(0))[0]


def whole() -> dict[str, float]:
    """Seconds and GB beyond the vectors for the whole tower."""
    link = uplink()
    send(part(1000), Link(link, link.thermal_cov), generator=torch.Generator())  # libraries are loaded
    taus = vectors(vit_b16())
    before, start = resident("VmRSS"), time.perf_counter()
    draws = torch.Generator().manual_seed(1)
    received = send(taus, Link(link, link.thermal_cov), generator=draws, out=[tau.values for tau in taus])
    seconds = time.perf_counter() - start
    table = received.statistics.table
    assert np.allclose(table.variance, table.predicted, rtol=2e-3)
    return {"seconds": seconds, "peak": resident("VmHWM") - before, "before": before}


def by_antennas(taus: list[TaskVector], link: Link) -> np.ndarray:
    """Eq. (2) with NumPy: y at 16 antennas, and each user filtered out of it and then taken from it."""
    draws = np.random.default_rng(0)
    s = np.stack([tau.values.numpy().view(np.complex64) for tau in taus]).astype(np.complex128)
    s /= np.array([tau.rms * np.sqrt(2) for tau in taus])[:, None]
    n = draws.standard_normal((*link.noise_cov.shape[:1], s.shape[1], 2)).view(np.complex128)[..., 0] * np.sqrt(0.5)
    y = link.uplink.G @ s + covariance_root(link.noise_cov) @ n
    return receive(y, link.uplink, link.noise_cov, sent=s)[0]


def run() -> list[Row]:
    return [*tower(), *reference(), *schemes()]


def tower() -> list[Row]:
    name = f"{USERS} ViT-B/16 task vectors over the link, analog"
    memory = available_memory()
    if memory is None or memory < NEEDED:
        return [Row(name, None, detail=f"needs Linux and {NEEDED / 2**30:.0f} GiB of free memory")]
    found = apart("benchmarks.bench_link", "whole")
    size = f"{USERS} × 86,192,640 numbers"
    speed = USERS * 86_192_640 / found["seconds"] / 1e6
    return [
        Row(name, found["seconds"], 60, "s", at_least=False, detail=f"{size}, {speed:.0f} million a second"),
        Row(
            f"{name}: memory beyond the vectors",
            found["peak"],
            4,
            "GB",
            at_least=False,
            detail=f"peak in a process of its own, results in place; the process held {found['before']:.1f} GB",
        ),
    ]


def reference() -> list[Row]:
    taus = part(SMALL)
    drop = uplink()
    link = Link(drop, drop.thermal_cov)
    draws = torch.Generator().manual_seed(0)
    s = np.stack([tau.values.numpy().view(np.complex64) / (tau.rms * np.sqrt(2)) for tau in taus])
    ours = send(taus, link, generator=draws).statistics.table.variance
    theirs = (np.abs(by_antennas(taus, link) - s) ** 2).mean(axis=1)
    assert np.allclose(ours, theirs, rtol=0.03)
    seconds = medians(
        {"link": lambda: send(taus, link, generator=draws), "antennas": lambda: by_antennas(taus, link)}, repeats=3
    )
    return [
        Row(
            "sending with statistics of the errors / antennas written out, without",
            seconds["antennas"] / seconds["link"],
            1.5,
            detail=f"{USERS} × {SMALL:,} numbers: {seconds['link']:.3f} s, reference {seconds['antennas']:.3f} s",
        )
    ]


def schemes() -> list[Row]:
    """Time for the whole tower from a part: it is proportional to the length."""
    drop, rows = uplink(), []
    for scheme, cancellation in (("pam8", "hard"), ("pcm", "genie"), ("pcm", "hard"), ("ldpc", "hard")):
        taus = part(PARTS[scheme])
        link = Link(drop, drop.thermal_cov, cancellation=cancellation)
        draws = torch.Generator().manual_seed(0)
        way = partial(send, taus, link, scheme, generator=draws)
        seconds = medians({"send": way}, repeats=1)["send"] * 86_192_640 / PARTS[scheme]
        detail = f"from {USERS} × {PARTS[scheme]:,} numbers"
        name = f"{USERS} ViT-B/16 task vectors over the link, {scheme}, {cancellation} cancellation"
        rows.append(Row(name, seconds, None, "s", detail=detail))
    return rows
