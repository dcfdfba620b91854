"""A long computation in parts: each part is stored when it is finished, and idle processes take the next one.

The processes of one run, a second run of the same computation and a run after a crash all share the work through the
store. A part is claimed with a file lock, which is released when its process dies, and is written atomically. So only
the parts in progress can be lost, none is computed twice, and the result does not depend on the number of processes.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any

import pandas as pd
import torch
from filelock import Timeout

from rmtllmf_lib.progress import tqdm
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.storage.locks import Patience, locked
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.validated import validated_call
from rmtllmf_lib.workers import allowed

log = logging.getLogger(__name__)

_NICENESS = 10  # gets about a tenth of the time of a process with niceness 0
_PAUSE = 0.05  # s between checks for parts that other processes are building
_PARTING = 10  # s for the other processes to notice that everything is done
_STARTS = 3  # of the other processes, before the main one goes on alone


@validated_call
def build_parts(
    store: Store,
    kind: str,
    configs: Sequence[Mapping[str, Any]],
    build: Callable[[int], pd.DataFrame],
    *,
    workers: int = 1,
    progress: bool = True,
) -> list[pd.DataFrame]:
    """The tables of all parts, from the store or built.

    Parameters
    ----------
    kind, configs
        Kind and configurations of the parts in the store. Equal configurations are one part.
    build : function of an index into `configs`
        Its result must depend on the configuration alone. It is sent to the other processes (cloudpickle).
    workers : int
        Processes with one thread each, including this one; at most `RMTLLMF_MAX_WORKERS`, if that is set.
    progress : bool
        Show a bar with the estimated time left, on a terminal only.

    Raises
    ------
    InputError
        if `workers` or `RMTLLMF_MAX_WORKERS` is not a positive whole number.
    Exception
        whatever `build` raises; the other processes are stopped. A process that dies is none: the others do its part.
    """
    workers = allowed(workers)
    keys = [config_key(config) for config in configs]
    places: dict[str, int] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, place)
    job = _Job(store, kind, configs, build, places)
    todo = job.missing(places)
    shown = None if progress else True  # None: on a terminal only
    with tqdm(total=len(places), initial=len(places) - len(todo), desc=kind, unit="part", disable=shown) as bar:
        _share(job, min(workers, len(todo)), bar)
    with _one_thread():
        tables = {key: job.table(key) for key in places}
    store.tidy()
    return [tables[key] for key in keys]


@dataclass(frozen=True)
class _Job:
    """The parts of a computation; `places` has the key of each distinct one and its first index in `configs`."""

    store: Store
    kind: str
    configs: Sequence[Mapping[str, Any]]
    build: Callable[[int], pd.DataFrame]
    places: Mapping[str, int]

    __repr__ = short_repr

    def table(self, key: str) -> pd.DataFrame:
        """A part, from the store or built."""
        place = self.places[key]
        return self.store.table(self.kind, self.configs[place], partial(self.build, place))

    def done(self, key: str) -> bool:
        return (self.store.root / self.kind / key).is_dir()

    def missing(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if not self.done(key)]

    def work(self, bar: tqdm | None = None, look_after: Callable[[], None] | None = None) -> None:
        """Build the missing parts that no other worker is building, until none is missing.

        The main process passes a bar and a function that it calls before each part and while it waits.
        """
        patience = Patience(f"a part of {self.kind}")
        missing = self.missing(self.places)
        with _one_thread():
            while missing:
                built = finished = 0
                for key in missing:
                    if look_after is not None:
                        look_after()
                    if not self.done(key):
                        with suppress(Timeout), locked(self.store.claim(self.kind, key), self.kind, wait=False):
                            if not self.done(key):
                                self.table(key)
                                built += 1
                    finished += self.done(key)
                    self._show(bar, len(missing) - finished)
                left = self.missing(missing)
                self._show(bar, len(left))
                if len(left) < len(missing):
                    patience.restart()
                elif look_after is not None:
                    patience.waits_for(self.store.claim(self.kind, key) for key in left)
                if left and not built:
                    time.sleep(_PAUSE)
                missing = left

    def _show(self, bar: tqdm | None, missing: int) -> None:
        if bar is not None:
            bar.update(len(self.places) - missing - bar.n)


def _share(job: _Job, workers: int, bar: tqdm) -> None:
    """Work on the parts here and in `workers - 1` other processes, which are started again if one of them dies."""
    # Unlike multiprocessing's, these processes do not re-run the caller's script, and they are reused by later studies.
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    # Loky replaces processes whose memory has grown a lot, which is harmless here.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor", UserWarning)
    pool: Any = None
    others: list[Future[None]] = []
    starts = _STARTS if workers > 1 else 0

    def look_after() -> None:
        nonlocal pool, others, starts
        if failed := [error for other in others if other.done() and (error := other.exception())]:
            if own := [error for error in failed if not isinstance(error, BrokenProcessPool)]:
                raise own[0]
            log.warning("a worker died, perhaps for want of memory: the parts that it had finished are kept")
            others = []
        if not others and starts:
            starts -= 1
            try:
                pool = get_reusable_executor(workers - 1, timeout=300, initializer=_prepare, initargs=(os.getpid(),))
                others = [pool.submit(job.work) for _ in range(workers - 1)]
            except (BrokenProcessPool, OSError) as error:
                log.warning("workers could not be started: %s", error)

    try:
        job.work(bar, look_after)
        starts = 0
        wait(others, timeout=_PARTING)
        look_after()
    except BaseException:
        if pool is not None:
            pool.shutdown(wait=False, kill_workers=True)
        raise


def _prepare(parent: int) -> None:
    """Prepare a worker: lower its priority, in favour of the main process and of other runs, and watch its parent."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICENESS)
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process once its parent is gone, also in the middle of a part, or while it is idle."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: the last bits of a result depend on the number of threads."""
    own = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(own)
