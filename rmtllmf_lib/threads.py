"""Threads side by side, with torch held to one thread inside each of them.

torch splits each short operation among its threads, which synchronise after every one; where other programs compete
for the cores, synchronisation takes longer than the work. Here each thread has whole items to itself. torch and
compiled code release Python's lock, so the threads do run side by side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from rmtllmf_lib.workers import allowed


class _SingleBlas:
    """The limit is the process's: whoever comes first sets it, and whoever leaves last takes it back."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._limits: list[threadpool_limits] = []  # one while somebody is inside

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limits.append(threadpool_limits(1, user_api="blas"))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limits.pop().restore_original_limits()


# Linear algebra of NumPy and SciPy on one thread, for work that `ordered` shares among threads: two pools of threads on
# the same cores hinder one another. Not for generators, whose caller would be held back while they wait.
single_blas = _SingleBlas()

Item = TypeVar("Item")
Result = TypeVar("Result")

PIECE = 2**22  # entries; several pieces for each thread, so that a slow one does not hold up the end


@contextmanager
def single_threads(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of `allowed` threads, each on one core; on leaving, what has not started is cancelled."""
    own = torch.get_num_threads()
    pool = ThreadPoolExecutor(allowed(threads), initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(own)  # the setting of a thread is also what later threads start with


def ordered(function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None) -> Iterator[Result]:
    """Results of a function of each item, in order, computed by several threads ahead of their use.

    Items are taken from their iterator in the calling thread, at most `threads` of them ahead. Nothing is left running
    when the caller stops early or an item fails.

    Parameters
    ----------
    threads : int, optional
        0: no threads, each result is computed when it is asked for. Default: as many as torch has, where these are
        several.
    """
    if threads is None:
        threads = torch.get_num_threads() if torch.get_num_threads() > 1 else 0
    if threads == 0:
        yield from map(function, items)
        return
    with single_threads(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def map_pieces(function: Callable[[Sequence[Tensor]], Result], buffers: Sequence[Tensor]) -> list[Result]:
    """Results of a function of pieces of long flat buffers, in order; several pieces are shared among threads.

    All buffers are cut at the same places, which do not depend on the number of threads.

    Parameters
    ----------
    function : function of a sequence of tensors
        Gets the same piece of each buffer, views of up to `PIECE` entries.
    buffers : sequence of (n,) tensors
        All of one length.
    """
    pieces = list(zip(*(buffer.split(PIECE) for buffer in buffers), strict=True))
    return list(ordered(function, pieces, None if len(pieces) > 1 else 0))
