"""How many processes or threads may run side by side, apart from threads: it is asked before torch is imported."""

from __future__ import annotations

import os

from rmtllmf_lib.arrays import whole_number

MAX_WORKERS = "RMTLLMF_MAX_WORKERS"  # environment variable: upper bound for the processes or threads of a run


def allowed(workers: int) -> int:
    """Limit a number of processes or threads to that in the environment, so that concurrent runs share the cores."""
    whole_number(workers, "workers")
    if not (text := os.environ.get(MAX_WORKERS)):
        return workers
    return min(workers, whole_number(int(text) if text.isdecimal() else text, MAX_WORKERS))
