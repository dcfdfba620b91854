"""Drawing the embedded tasks; the digits are real images and not drawn."""

from __future__ import annotations

import math
import os
import time

from benchmarks import Row
from rmtllmf_lib.tasks.embedded.procedural import DRAWN
from rmtllmf_lib.tasks.sources import load_task

WANTED = 10_000  # images per second


def run() -> list[Row]:
    for name in DRAWN:
        load_task(name, n_train=200, n_test=10)  # untimed: fonts, modules, first use of memory
    return [drawing("easy", WANTED), drawing("calibrated", None)]


def drawing(difficulty: str, wanted: int | None) -> Row:
    seconds = math.inf
    for _ in range(3):  # the shortest time counts: what else runs can only slow it down
        started = time.perf_counter()
        tasks = [load_task(name, difficulty=difficulty) for name in DRAWN]
        seconds = min(seconds, time.perf_counter() - started)
    images = sum(len(split) for task in tasks for split in (task.train, task.validation, task.test))
    detail = f"{images} images of {len(tasks)} tasks in {seconds:.1f} s on {os.cpu_count()} cores"
    return Row(f"drawn images per second, {difficulty}, all cores", images / seconds, wanted, "/s", detail=detail)
