"""The answer at the size of ViT-B/16: eight users encode their vectors, send them with a code, and are merged."""

from __future__ import annotations

import math
import time

import torch

from benchmarks import Row, apart, available_memory, resident
from benchmarks.bench_fusion import vit_b16
from benchmarks.bench_link import USERS, vectors
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.payload.payload import Encoded
from rmtllmf_lib.transport.coded_payload import Quantised, full_uses, plan, quantised
from rmtllmf_lib.transport.mcs import word_errors

SENT = Quantised(LowRank(48), 2)
MSE = 0.21  # of the paper's worst link
WORDS = 200  # codewords that are really sent and decoded, for the time of all
NEEDED = 8 * 2**30


def whole() -> dict[str, float]:
    """Seconds of each step for all users, GB at most, and channel uses of a user."""
    torch.set_num_threads(1)
    seconds = dict.fromkeys(("encode", "decode", "code", "merge"), 0.0)

    def timed(step: str, start: float) -> None:
        seconds[step] += time.perf_counter() - start

    taus, arrived = vectors(vit_b16()), []
    layout = taus[0].layout
    chosen = plan(MSE, layout, ladder=[SENT])
    assert chosen is not None
    while taus:
        start = time.perf_counter()
        encoded = SENT.payload.encode(taus.pop())  # a user's own vector is not the station's to keep
        numbers = quantised(encoded.numbers, SENT.bits, SENT.clip)
        timed("encode", start)
        start = time.perf_counter()
        arrived.append(SENT.payload.decode(Encoded(numbers, encoded.side), layout))
        timed("decode", start)
    size = SENT.payload.numbers_layout(layout).size
    start = time.perf_counter()
    wrong = word_errors(chosen.mcs, 10 * math.log10(1 / MSE - 1), WORDS, generator=torch.Generator().manual_seed(1))
    timed("code", start)
    assert wrong == 0
    seconds["code"] *= USERS * math.ceil(size / chosen.mcs.scheme(SENT.bits, SENT.clip).reals_per_block) / WORDS
    start = time.perf_counter()
    tsv_merge(arrived)
    timed("merge", start)
    return {**seconds, "peak": resident("VmHWM"), "uses": chosen.uses, "numbers": size}


def run() -> list[Row]:
    name = f"{USERS} ViT-B/16 vectors as rank 48 and 2 bits, coded, merged by TSV"
    memory = available_memory()
    if memory is None or memory < NEEDED:
        return [Row(name, None, detail=f"needs Linux and {NEEDED / 2**30:.0f} GiB of free memory")]
    found = apart("benchmarks.bench_payload", "whole")
    uses = f"{found['numbers']:,.0f} numbers, {found['uses'] / full_uses(vit_b16()):.0%} of the uses of a whole vector"
    steps = ", ".join(f"{step} {found[step]:.0f} s" for step in ("encode", "decode", "merge"))
    return [
        Row(f"{name}: memory", found["peak"], 8, "GB", at_least=False, detail=f"at most; {uses}"),
        Row(f"{name}: time", sum(found[step] for step in ("encode", "decode", "merge")), None, "s", detail=steps),
        Row(f"{name}: LDPC code", found["code"], None, "s", detail=f"all words one by one, from {WORDS} of them"),
    ]
