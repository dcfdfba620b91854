"""Waiting for what another process does."""

import time
from collections.abc import Callable


def wait_for(true: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
