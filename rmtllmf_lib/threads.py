"""Work on long flat buffers piece by piece, on several threads that do not wait for each other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

_In = TypeVar("_In")
_Out = TypeVar("_Out")

Result = TypeVar("Result")

PIECE = 2**22  # entries; several pieces for each thread, so that a slow one does not hold up the end

_one_at_a_time = threading.Lock()  # the number of threads is a setting of the whole process


def map_pieces(function: Callable[[Sequence[Tensor]], Result], buffers: Sequence[Tensor]) -> list[Result]:
    """Results of a function of pieces of the buffers, in order.

    All buffers are cut at the same places, which do not depend on the number of threads.
    torch would split each of the many short operations among its threads, which then meet after every one; where
    other programs compete for the cores those meetings take longer than the work. Here each thread works through
    whole pieces, with torch held to one thread meanwhile.

    Parameters
    ----------
    function : function of a sequence of tensors
        Gets the same piece of each buffer, views of up to `PIECE` entries.
    buffers : sequence of (n,) tensors
        All of one length.
    """
    pieces = list(zip(*(buffer.split(PIECE) for buffer in buffers), strict=True))
    with _one_at_a_time:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if threads == 1 or len(pieces) == 1:
                return [function(piece) for piece in pieces]
            with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
                return list(pool.map(function, pieces))
        finally:
            torch.set_num_threads(threads)


@contextmanager
def single_threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that compute with one core each; torch releases Python's lock, so they run side by side."""
    own = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(own)  # the setting of a thread is also what later threads start with


def _ahead(make: Callable[[_In], _Out], items: Iterable[_In], threads: int) -> Iterator[_Out]:
    """`map(make, items)`, in order, with `threads` threads at work on the next items."""
    if threads == 0:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[Future[_Out]] = deque()
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Also when the consumer stops early or a worker failed: nothing is left running.
        pool.shutdown(wait=True, cancel_futures=True)
