"""Several processes at work on the same parts."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from artifacts import python
from forks import exit_code, forked
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts
from rmtllmf_lib.study.study import run_study
from studies import SHORT, make_suite, require_same

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


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
