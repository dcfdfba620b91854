"""Timings as ratios against reference implementations, measured in one run.

`python -m benchmarks` runs every module `bench_*.py` of this folder; each has a function `run() -> list[Row]`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    name : str
        What was measured, against what.
    value : float or None
        The measured ratio (or number of `unit`); None where it could not be measured, for the reason in `detail`.
    bound : float or None
        The target; None for a line that only informs.
    unit : str
    at_least : bool
        Whether the value should be at least the bound; otherwise at most.
    detail : str
        The times behind the ratio.
    """

    name: str
    value: float | None
    bound: float | None = None
    unit: str = "×"
    at_least: bool = True
    detail: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "skipped"
        if self.bound is None:
            return ""
        return "pass" if (self.value >= self.bound if self.at_least else self.value <= self.bound) else "FAIL"


def medians(ways: Mapping[str, Callable[[], Any]], repeats: int = 5) -> dict[str, float]:
    """Median wall time in seconds of each way; they take turns, so that other load on the machine affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # untimed: caches, threads, first use of memory
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def apart(module: str, function: str, *arguments: str) -> dict[str, float]:
    """Result of a function of a benchmark in a process of its own: peaks of memory cannot be taken back."""
    code = f"import json; from {module} import {function}; print(json.dumps({function}(*{arguments!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )  # errors are shown
    found: dict[str, float] = json.loads(done.stdout)
    return found


def resident(field: str) -> float:
    """GB of memory of this process, now ("VmRSS") or at most ("VmHWM"); Linux alone."""
    with open("/proc/self/status", encoding="ascii") as file:
        return int(file.read().split(field + ":")[1].split()[0]) / 2**20


def available_memory() -> int | None:
    """Bytes of memory available without swapping, where the system reports it (Linux)."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
    except OSError:
        return None
    return int(fields["MemAvailable"].split()[0]) * 1024
