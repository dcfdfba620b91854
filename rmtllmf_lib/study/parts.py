"""A long computation in parts: each part is stored when it is finished, and idle processes take the next one.

The processes of one run, a second run of the same computation and a run after a crash all share the work through the
store. A part is claimed with a file lock, which is released when its process dies, and is written atomically. So only
the parts in progress can be lost, none is computed twice, and the result does not depend on the number of processes.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from rmtllmf_lib.arrays import whole_number
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.storage.store import Store

MAX_WORKERS = "RMTLLMF_MAX_WORKERS"  # environment variable: upper bound for the processes of a run

_NICENESS = 10  # gets about a tenth of the time of a process with niceness 0
_PAUSE = 0.05  # s between checks for parts that other processes are building


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
        whatever `build` raises; the other processes are stopped.
    """
    workers = _allowed(whole_number(workers, "workers"))
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


def _allowed(workers: int) -> int:
    """Limit the number of processes to that in the environment, so that concurrent runs can share the cores."""
    if not (text := os.environ.get(MAX_WORKERS)):
        return workers
    return min(workers, whole_number(int(text) if text.isdecimal() else text, MAX_WORKERS))


@dataclass(frozen=True)
class _Job:
    """The parts of a computation; `places` has the key of each distinct one and its first index in `configs`."""

    store: Store
    kind: str
    configs: Sequence[Mapping[str, Any]]
    build: Callable[[int], pd.DataFrame]
    places: Mapping[str, int]

    def table(self, key: str) -> pd.DataFrame:
        """A part, from the store or built."""
        place = self.places[key]
        return self.store.table(self.kind, self.configs[place], partial(self.build, place))

    def done(self, key: str) -> bool:
        return (Path(self.store.root) / self.kind / key).is_dir()

    def missing(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if not self.done(key)]

    def work(self, bar: tqdm | None = None, look_after: Callable[[], None] = lambda: None) -> None:
        """Build the missing parts that no other worker is building, until none is missing.

        `look_after` is called before each part and while this worker waits.
        """
        patience = Patience(f"a part of {self.kind}")
        missing = self.missing(self.places)
        with _one_thread():
            while missing:
                built = 0
                for place, key in enumerate(missing):
                    look_after()
                    claim = self.store.claim(self.kind, key)
                    with suppress(Timeout), locked(claim, self.kind, wait=False):
                        if not self.done(key):
                            self.table(key)
                            built += 1
                            if bar is not None:
                                bar.update(len(self.places) - len(missing) + place)
                left = self.missing(missing)
                if bar is not None:
                    bar.update(len(self.places) - len(left) - bar.n)
                if len(left) < len(missing):
                    patience.restart()
                elif bar is not None:
                    patience.waits_for(self.store.claim(self.kind, key) for key in left)
                if left and not built:
                    time.sleep(_PAUSE)
                missing = left


def _give_way() -> None:
    """Lower the priority of this process, in favour of the main process and of other runs on this machine."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICENESS)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: the last bits of a result depend on the number of threads."""
    own = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(own)
