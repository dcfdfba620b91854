"""Locks between processes: those who wait say for whom, and no lock file is left behind."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from rmtllmf_lib.validated import validated_call

log = logging.getLogger(__name__)

_LOOK, _SOON, _MINUTE = 1.0, 5.0, 60.0  # s


class Owner(NamedTuple):
    """The process that holds a lock; `parent` is the process that started it."""

    process: int
    parent: int
    host: str

    @property
    def is_stopped(self) -> bool:
        """Whether it is known to be stopped (SIGSTOP, a debugger), on Linux and on this machine."""
        if self.host != platform.node():
            return False
        try:
            status = Path(f"/proc/{self.process}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return status.rpartition(")")[2].split()[0] in ("T", "t")

    def __str__(self) -> str:
        remedy = f", which is stopped: continue it (kill -CONT {self.process}) or end it" if self.is_stopped else ""
        return f"process {self.process} on {self.host}{remedy}"


@validated_call
@contextmanager
def locked(path: Path, what: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path` and remove it afterwards; the lock of a process that dies is free.

    Parameters
    ----------
    what : str
        What the lock protects, for the message of those who wait.
    wait : bool
        Whether to wait for another holder; otherwise a `filelock.Timeout` is raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, patience = FileLock(path), Patience(what)
    while True:
        try:
            lock.acquire(timeout=_LOOK if wait else 0)
            break
        except Timeout:
            if not wait:
                raise
            patience.waits_for([path])
    try:
        if type(lock) is FileLock:  # where a file system lacks locks, the content of the file is the lock
            with suppress(OSError):
                path.write_text(f"{os.getpid()} {os.getppid()} {platform.node()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: those who wait notice, and make a new file
        lock.release()


class Patience:
    """Log whom this process waits for: a stopped process after seconds, another after a minute; then every minute.

    Other processes of the same run are named only if they are stopped.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.restart()

    def restart(self) -> None:
        """Start to wait anew, since something was finished."""
        self._since = time.monotonic()
        self._next = self._since + _SOON

    def waits_for(self, locks: Iterable[Path]) -> None:
        """Log the owners of these lock files, if it is time to do so."""
        now = time.monotonic()
        if now < self._next:
            return
        owners = {owner for owner in map(_owner, locks) if owner}
        long = now - self._since >= _MINUTE
        named = [o for o in owners if o.is_stopped or (long and os.getpid() not in (o.parent, o.process))]
        if named:
            log.warning("waiting for %s from %s", self._what, "; ".join(sorted(map(str, named))))
        self._next = now + (_MINUTE if named else _SOON)


def _owner(path: Path) -> Owner | None:
    try:
        process, parent, host = path.read_text(encoding="utf-8").split(" ", 2)
        return Owner(int(process), int(parent), host)
    except (OSError, ValueError):
        return None
