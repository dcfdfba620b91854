"""A long computation in parts: each part is stored when it is done, and whoever is there takes the next one.

Processes of one run, a second run of the same, a run after a crash: they all share the work through the store. A part
is claimed with a lock that its process loses when it dies, and is whole or absent on the disk. So nothing is lost but
the parts at work, nothing is done twice, and what comes out does not depend on how many took part.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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

_NICENESS = 10  # about a tenth of the time of a process that does not give way
_PAUSE = 0.05  # s between looks at parts that others are at


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
        Under which `store.table` keeps the parts. Equal configurations are one part.
    build : function of a position in `configs`
        Goes to other processes (cloudpickle) where there are several; must depend on what `configs` tells alone.
    workers : int
        Processes with one thread each, this one among them.
    progress : bool
        A bar with an estimate of the time left, on a terminal only.

    Raises
    ------
    whatever `build` raises; the other processes are stopped then.
    """
    whole_number(workers, "workers")
    keys = [config_key(config) for config in configs]
    first = {key: place for place, key in reversed([*enumerate(keys)])}
    todo = [place for key, place in first.items() if not _folder(store, kind, key).is_dir()]
    todo.sort()
    shown = None if progress and sys.stderr.isatty() else True
    with tqdm(total=len(first), initial=len(first) - len(todo), desc=kind, unit="part", disable=shown) as bar:
        _share(partial(_work, store, kind, configs, keys, todo, build), min(workers, len(todo)), bar)
    with _one_thread():
        tables = {key: store.table(kind, configs[place], partial(build, place)) for key, place in first.items()}
    for key in tables:
        _claim(store, kind, key).unlink(missing_ok=True)
    return [tables[key] for key in keys]


def _folder(store: Store, kind: str, key: str) -> Path:
    return Path(store.root) / kind / key


def _claim(store: Store, kind: str, key: str) -> Path:
    """Lock of who is at a part; the store's own lock would make everybody else wait for it."""
    return Path(store.root) / f".{kind}-claims" / key


def _share(work: Callable[..., None], workers: int, bar: tqdm) -> None:
    """Run `work` here and in `workers - 1` other processes."""
    if workers < 2:
        work(bar=bar)
        return
    # Unlike multiprocessing's, these processes do not run the caller's script again, and they serve the next study too.
    from joblib.externals.loky import get_reusable_executor

    # A process that has grown a lot ends between two jobs, and another takes its place: nobody has to know.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor", UserWarning)
    pool = get_reusable_executor(max_workers=workers - 1, timeout=300, initializer=_give_way)
    try:
        others = [pool.submit(work, parent=os.getpid()) for _ in range(workers - 1)]
        work(bar=bar)
        for other in others:
            other.result()
    except BaseException:
        pool.shutdown(wait=False, kill_workers=True)
        raise


def _give_way() -> None:
    """Let whoever else is at work on this machine go first, such as the run of another study."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICENESS)


def _work(
    store: Store,
    kind: str,
    configs: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    todo: Sequence[int],
    build: Callable[[int], pd.DataFrame],
    *,
    bar: tqdm | None = None,
    parent: int | None = None,
) -> None:
    """Build what is missing and nobody else is at, until nothing is missing."""
    _claim(store, kind, "").mkdir(parents=True, exist_ok=True)
    missing = list(todo)
    with _one_thread():
        while missing:
            built = 0
            for place in missing:
                if parent is not None and os.getppid() != parent:
                    os._exit(1)  # it was killed, and this process must not go on alone
                folder = _folder(store, kind, keys[place])
                if folder.is_dir():
                    continue
                with suppress(Timeout), FileLock(_claim(store, kind, keys[place]), timeout=0):
                    if not folder.is_dir():
                        store.table(kind, configs[place], partial(build, place))
                        built += 1
                _count(bar, store, kind, keys, todo)
            missing = [place for place in missing if not _folder(store, kind, keys[place]).is_dir()]
            if missing and not built:
                time.sleep(_PAUSE)
        _count(bar, store, kind, keys, todo)


def _count(bar: tqdm | None, store: Store, kind: str, keys: Sequence[str], todo: Sequence[int]) -> None:
    """Show how many parts are done, whoever did them."""
    if bar is not None and not bar.disable:
        done = sum(_folder(store, kind, keys[place]).is_dir() for place in todo)
        bar.update(bar.total - len(todo) + done - bar.n)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch: the last bits of a result depend on their number."""
    own = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(own)
