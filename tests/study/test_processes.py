"""Several processes at work on the same parts."""

import errno
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

import rmtllmf_lib.study.parts as parts_module
from artifacts import python
from forks import die, exit_code, forked
from rmtllmf_lib.storage import locks
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts
from rmtllmf_lib.study.study import run_study
from studies import SHORT, make_suite, require_same
from waiting import wait_for

CONFIGS = [{"part": place} for place in range(6)]


def work(log: Path) -> tuple[list[int], set[tuple[int, int]]]:
    """Places in the order in which they were begun; processes with their niceness."""
    lines = [[*map(int, line.split())] for line in log.read_text().splitlines()]
    return [place for place, _, _ in lines], {(process, nice) for _, process, nice in lines}


def test_two_runs_share_the_work(tmp_path: Path) -> None:
    def build(place: int) -> pd.DataFrame:
        with (tmp_path / "log").open("a") as file:
            file.write(f"{place} {os.getpid()} 0\n")
        time.sleep(0.2)
        return pd.DataFrame({"place": [place]})

    def run() -> None:
        tables = build_parts(Store(tmp_path / "store"), "part", CONFIGS, build)
        assert pd.concat(tables)["place"].tolist() == [*range(6)]

    runs = [forked(run) for _ in range(2)]
    assert [exit_code(each) for each in runs] == [0, 0]
    places, processes = work(tmp_path / "log")
    assert sorted(places) == [*range(6)] and len(processes) == 2
    assert Store(tmp_path / "store").verify() == []


RUN = """
import os, sys, time
import pandas as pd
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts
def build(place):
    with open(sys.argv[2], "a") as log:
        log.write(f"{place} {os.getpid()} {os.nice(0)}\\n")
    time.sleep(0.3)
    return pd.DataFrame({"place": [place]})
build_parts(Store(sys.argv[1]), "part", [{"part": place} for place in range(400)], build, workers=2)
"""


def test_processes_of_a_run_that_is_killed_stop(tmp_path: Path) -> None:
    """They would work on alone otherwise. And the second process of a run has a lower priority."""
    run = python(RUN, tmp_path / "store", tmp_path / "log")
    assert run.stdout is not None
    try:
        wait_for(lambda: (tmp_path / "log").exists() and len(work(tmp_path / "log")[1]) == 2)
    finally:
        run.kill()
    run.stdout.read()  # ends when the last process that has the pipe is gone
    run.communicate()
    places, processes = work(tmp_path / "log")
    assert len(places) < 400
    own, other = os.nice(0), min(os.nice(0) + 10, 19)
    assert sorted(nice for _, nice in processes) == [own, other]


def test_the_table_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    one, two = (
        run_study(SHORT, make_suite(), store=Store(tmp_path / str(workers)), workers=workers) for workers in (1, 2)
    )
    require_same(one, two)
    assert Store(tmp_path / "2").verify() == []


def test_an_error_in_another_process_is_raised(tmp_path: Path) -> None:
    main, failed = os.getpid(), tmp_path / "failed"

    def fail(place: int) -> pd.DataFrame:
        if os.getpid() != main:
            failed.touch()
            raise ValueError("elsewhere")
        while not failed.exists():  # leaves parts for the other process
            time.sleep(0.02)
        return pd.DataFrame({"place": [place]})

    with pytest.raises(ValueError, match="elsewhere"):
        build_parts(Store(tmp_path / "store"), "part", CONFIGS, fail, workers=2)


@pytest.mark.parametrize("when", ["in a part", "each time", "idle, between two runs", "when all is done"])
def test_a_worker_that_dies_costs_its_part_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    main, others = os.getpid(), tmp_path / "others"
    dies = {"in a part": 1, "each time": 99}.get(when, 0)
    begun: list[int] = []

    def build(place: int) -> pd.DataFrame:
        if os.getpid() == main:
            begun.append(place)
            wanted = 0 if (tmp_path / "first is done").exists() else min(len(begun), dies + 1, 3)
            wait_for(lambda: not wanted or (others.exists() and len(others.read_text().split()) >= wanted))
            time.sleep(0.5)  # the death is noticed
            return pd.DataFrame({"place": [place]})
        with others.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(others.read_text().split()) <= dies:
            die()
        return pd.DataFrame({"place": [place]})

    def run() -> list[int]:
        tables = build_parts(Store(tmp_path / "store"), f"part-{len(CONFIGS)}", CONFIGS, build, workers=2)
        return pd.concat(tables)["place"].tolist()

    if when == "when all is done":
        monkeypatch.setattr(parts_module, "wait", lambda others, timeout: end_worker(tmp_path))
    if when == "idle, between two runs":
        build_parts(Store(tmp_path / "first"), "part", CONFIGS, build, workers=2)
        end_worker(tmp_path)
        (tmp_path / "first is done").touch()
    assert run() == [*range(6)]
    assert Store(tmp_path / "store").verify() == [] and [*tmp_path.rglob(".building/*")] == []
    if dies:
        assert caplog.text.count("a worker died") == min(dies, 3)


def end_worker(folder: Path) -> None:
    for process in {*(folder / "others").read_text().split()}:
        with suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)


def test_workers_that_cannot_be_started_are_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("joblib.externals.loky.get_reusable_executor", refuse)
    tables = build_parts(Store(tmp_path), "part", CONFIGS, lambda place: pd.DataFrame({"p": [place]}), workers=3)
    assert len(tables) == 6 and caplog.text.count("could not be started") == 3


IDLE = """
import os, sys, time
import pandas as pd
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts
def build(place):
    print(os.getpid(), flush=True)
    begun = sys.argv[1] + "/begun"
    if os.getpid() != main:
        open(begun, "w").close()
        time.sleep(float(sys.argv[2]))
    while not os.path.exists(begun):
        time.sleep(0.02)
    return pd.DataFrame({"place": [place]})
main = os.getpid()
build_parts(Store(sys.argv[1]), "part", [{"part": place} for place in range(8)], build, workers=2)
print("done", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "in a long part"])
def test_workers_of_a_killed_run_end_within_seconds(tmp_path: Path, state: str) -> None:
    run = python(IDLE, tmp_path, 0.1 if state == "idle" else 60)
    assert run.stdout is not None
    seen = set()
    for line in run.stdout:
        seen.add(line)
        if "done\n" in seen if state == "idle" else len(seen) == 2:
            break
    run.kill()
    run.wait()
    workers = {int(line) for line in seen - {"done\n"}} - {run.pid}
    assert len(workers) == 1
    wait_for(lambda: not any(map(runs, workers)), seconds=5)
    run.communicate()


def runs(process: int) -> bool:
    """Whether a process exists, and not only its exit status, which nobody asks for."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True)
    return found.stdout.strip()[:1] not in ("", "Z")


def test_a_run_beside_a_stopped_one_says_for_whom_it_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_SOON", 0.1)

    def build(place: int) -> pd.DataFrame:
        (tmp_path / f"{place} begun").touch()
        if place == 1 and os.getpid() != main:
            time.sleep(60)
        return pd.DataFrame({"place": [place]})

    main = os.getpid()
    other = forked(build_parts, Store(tmp_path), "part", CONFIGS[:2], build)
    wait_for((tmp_path / "1 begun").exists)
    os.kill(other, signal.SIGSTOP)

    def end() -> None:
        time.sleep(1)
        os.kill(other, signal.SIGKILL)

    helper = forked(end)
    tables = build_parts(Store(tmp_path), "part", CONFIGS[:3], build)
    assert pd.concat(tables)["place"].tolist() == [0, 1, 2]
    assert [record.getMessage().count(f"process {other} ") for record in caplog.records] == [1]
    assert exit_code(helper) == 0 and exit_code(other) == -signal.SIGKILL
