"""Kill processes of a small study at random moments, run it again, and print what the kill cost.

The rerun must give the table of an undisturbed run bit for bit, apart from the wall times; no temporary file or lock
may be left in the store, and no process of the killed run. Not part of the tests: 120 kills take a quarter of an hour.

    nice python -m tools.try_kills --kills 40
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pandas as pd
import torch
from joblib.externals import loky
from joblib.externals.loky.process_executor import BrokenProcessPool

from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.study import Study, run_study
from rmtllmf_lib.tasks.sources import load_task
from rmtllmf_lib.training.heads import build_head
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from forks import exit_code, forked  # noqa: E402 - the tests' own

TARGETS = ("worker", "parent", "both")
STUDY = Study(
    (Scenario("noisy", 0.1),), ("unprotected", "rmtllmf"), seeds=4, per_class=(1,), test_images=20,
    realignment=replace(REALIGNMENT, steps=2),
)  # fmt: skip


class Expected(NamedTuple):
    """What the undisturbed run gave: its table, the names in its store, its parts and its time."""

    table: pd.DataFrame
    names: set[str]
    parts: int
    seconds: float


def make_suite() -> Suite:
    """Return two users with random task vectors."""
    backbone = load_backbone("tiny")
    tasks = {name: load_task(name, n_train=60, n_test=20) for name in ("signs", "digits")}
    noise = torch.randn(2, backbone.weights.layout.size, generator=torch.Generator().manual_seed(0))
    layout, vectors = backbone.weights.layout, 0.025 * backbone.weights.rms * noise
    taus = {name: TaskVector(layout, tau, backbone.weights.hash) for name, tau in zip(tasks, vectors, strict=True)}
    return Suite(backbone, tasks, {name: build_head(backbone, task) for name, task in tasks.items()}, taus)


class Forks:
    """In place of loky's executor: workers that need no start of Python, so that a kill costs no seconds of imports."""

    def __init__(self, _: int, *, initializer: Callable[[int], None], initargs: tuple[int], **__: object) -> None:
        """Keep what every worker begins with."""
        self._prepare = partial(initializer, *initargs)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Start one worker; the future fails if it dies."""
        future: Future[None] = Future()
        process = forked(lambda: (self._prepare(), work()))

        def watch() -> None:
            if exit_code(process):
                future.set_exception(BrokenProcessPool("a worker died"))
            else:
                future.set_result(None)

        Thread(target=watch, daemon=True).start()
        return future


def start(suite: Suite, root: Path, workers: int) -> int:
    """Run the study in a process of its own, which writes its table beside the store, and return its number."""

    def run() -> None:
        table = run_study(STUDY, suite, store=Store(root), workers=workers, progress=False)
        table.drop(columns="seconds").to_pickle(root.with_suffix(".pickle"))

    return forked(run)


def living() -> dict[int, tuple[int, str]]:
    """Return the parent and the command of every process that is not just an exit status."""
    lines = subprocess.run(["ps", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True).stdout.splitlines()
    fields = [line.split(None, 3) for line in lines]
    return {int(pid): (int(parent), command) for pid, parent, state, command in fields if state[0] != "Z"}


def contents(root: Path) -> set[str]:
    """Return the names of everything in a store."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def kill(target: str, run: int, root: Path, parts: int, delay: float) -> tuple[bool, set[int]]:
    """Kill after so many parts and a delay; return whether that was in time, and the children of the run."""
    while len(stored(root)) < parts:
        if os.waitid(os.P_PID, run, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False, set()
        time.sleep(0.01)
    time.sleep(delay)
    children = {pid: command for pid, (parent, command) in living().items() if parent == run}
    workers = [pid for pid, command in children.items() if "resource_tracker" not in command]
    if run not in living() or not workers:
        return False, set(children)
    for pid in {"worker": workers, "parent": [run], "both": [*workers, run]}[target]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True, set(children)


def stored(root: Path) -> list[Path]:
    """Return the parts of the study in a store."""
    return [*root.glob("study-part/*/data.parquet")]


def seconds_until_gone(processes: set[int]) -> float:
    """Wait for processes to end, a minute at most."""
    begun = time.monotonic()
    while processes & living().keys() and time.monotonic() - begun < 60:
        time.sleep(0.1)
    return time.monotonic() - begun


def attempt(target: str, suite: Suite, moments: random.Random, expected: Expected) -> dict[str, float] | None:
    """Run, kill and run again in a new store; None if the run ended before the kill."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        run = start(suite, root, 2)
        parts = moments.randrange(expected.parts)
        in_time, others = kill(target, run, root, parts, moments.uniform(0, 2 * expected.seconds / expected.parts))
        status = exit_code(run)
        if not in_time:
            return None
        orphans = seconds_until_gone(others)
        litter = len([name for name in contents(root) if ".building/" in name])
        again = exit_code(start(suite, root, 1))
        same = not again and pd.read_pickle(root.with_suffix(".pickle")).equals(expected.table)
        return {
            "failed": again != 0 or status != (0 if target == "worker" else -signal.SIGKILL),
            "different": not same,
            "left": len(contents(root) ^ expected.names),
            "left before the rerun": litter,
            "orphans": orphans,
        }


def main() -> int:
    """Kill each target so many times, print a row for each, and return 1 if anything was lost or left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40, help="of each target; default: %(default)s")
    parser.add_argument("--minutes", type=float, default=60, help="at most, for each target; default: %(default)s")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--spawn", action="store_true", help="start workers as a study does, which takes seconds each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    given = parser.parse_args()
    os.environ.pop("RMTLLMF_MAX_WORKERS", None)
    torch.set_num_threads(1)
    if not given.spawn:
        loky.get_reusable_executor = Forks
    moments, suite, faults = random.Random(given.seed), make_suite(), 0
    with tempfile.TemporaryDirectory() as folder:
        root, begun = Path(folder) / "store", time.monotonic()
        if exit_code(start(suite, root, 2)):
            raise SystemExit("the undisturbed run failed")
        seconds, table = time.monotonic() - begun, pd.read_pickle(root.with_suffix(".pickle"))
        expected = Expected(table, contents(root), len(stored(root)), seconds)
    print(f"undisturbed: {seconds:.1f} s, {expected.parts} parts", flush=True)
    for target in given.targets:
        done: list[dict[str, float]] = []
        until = time.monotonic() + 60 * given.minutes
        while len(done) < given.kills and time.monotonic() < until:
            if found := attempt(target, suite, moments, expected):
                done.append(found)
        if not done:
            raise SystemExit(f"no kill of {target} in {given.minutes:g} minutes")
        rows = pd.DataFrame(done)
        total, longest = rows.sum(), rows["orphans"].max()
        faults += int(total[["failed", "different", "left"]].sum()) + int(longest > 5)
        print(
            f"{target}: {len(rows)} kills; {total['failed']:.0f} runs failed, {total['different']:.0f} tables differ, "
            f"{total['left']:.0f} files left after the rerun ({total['left before the rerun']:.0f} before it), "
            f"processes gone after {longest:.1f} s at most",
            flush=True,
        )
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
