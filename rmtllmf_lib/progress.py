"""Progress of long work: a bar on a terminal, a log line a minute elsewhere."""

from __future__ import annotations

import io
import logging
import sys
import threading
import weakref
from typing import Any

import tqdm as bars

INTERVAL = 60.0  # seconds between two log lines

log = logging.getLogger(__name__)


class tqdm(bars.tqdm):  # noqa: N801 -- takes the place of tqdm's class of that name
    """`tqdm.tqdm`, except that ``disable=None`` logs a line a minute (level INFO) where standard error is no terminal.

    Notebooks and programs show nothing unless they ask for this logger; the command does.
    """

    def __init__(self, *args: Any, disable: bool | None = False, **options: Any) -> None:
        self._stop = threading.Event()
        self._logs = disable is None and not sys.stderr.isatty()
        if self._logs:
            options |= {
                "file": io.StringIO(),
                "bar_format": "{desc}: {n_fmt} of {total_fmt} {unit}s [{elapsed}<{remaining}]",
            }
        super().__init__(*args, disable=bool(disable), **options)
        if self._logs:
            threading.Thread(target=_report, args=(weakref.ref(self), self._stop), daemon=True).start()

    def display(self, *args: Any, **options: Any) -> None:
        """Draw the bar, if there is one."""
        if not self._logs:
            super().display(*args, **options)

    def close(self) -> None:
        """Remove the bar, or end the log."""
        self._stop.set()
        super().close()


def _report(reference: weakref.ref[tqdm], stop: threading.Event) -> None:
    while not stop.wait(INTERVAL):
        if (bar := reference()) is None:
            return
        log.info("%s", str(bar))  # now: handlers may format later
        del bar
