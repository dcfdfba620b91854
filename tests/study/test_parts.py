"""Work in parts: each is done once, whoever is there, and nothing that was done is lost."""

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from artifacts import flip, python, run_python
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts

CONFIGS = [{"part": place} for place in range(6)]


def table(place: int) -> pd.DataFrame:
    return pd.DataFrame({"place": [place, place], "square": [place**2, -(place**2)]})


def logged(log: Path) -> Callable[[int], pd.DataFrame]:
    def build(place: int) -> pd.DataFrame:
        with log.open("a") as file:
            file.write(f"{place}\n")
        return table(place)

    return build


def built(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def require_right(tables: list[pd.DataFrame], places: Any = range(6)) -> None:
    pd.testing.assert_frame_equal(pd.concat(tables), pd.concat(map(table, places)))


def test_every_part_is_built_once_and_kept(tmp_path: Path) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    require_right(build_parts(store, "part", CONFIGS, logged(log)))
    assert sorted(built(log)) == [*range(6)]
    require_right(build_parts(store, "part", CONFIGS, logged(log)))
    assert len(built(log)) == 6
    assert [path for path in (tmp_path / "store").glob(".part-claims/*")] == []


def test_equal_parts_are_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    configs = [CONFIGS[1], CONFIGS[2], CONFIGS[1], CONFIGS[1]]
    found = build_parts(Store(tmp_path), "part", configs, lambda place: logged(log)([1, 2, 1, 1][place]))
    require_right(found, (1, 2, 1, 1))
    assert built(log) == [1, 2]


def test_no_part_is_no_work(tmp_path: Path) -> None:
    assert build_parts(Store(tmp_path), "part", [], table) == []


def test_a_run_that_failed_goes_on(tmp_path: Path) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"

    def fail(place: int) -> pd.DataFrame:
        if place == 3:
            raise InputError("the third part is bad")
        return logged(log)(place)

    with pytest.raises(InputError, match="the third part is bad"):
        build_parts(store, "part", CONFIGS, fail)
    assert built(log) == [0, 1, 2]
    require_right(build_parts(store, "part", CONFIGS, logged(log)))
    assert built(log) == [*range(6)]


@pytest.mark.parametrize("file", ["data.parquet", "manifest.json", "config.json"])
def test_a_damaged_part_is_built_again(tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    build_parts(store, "part", CONFIGS, logged(log))
    damaged = next(entry for entry in store.list() if entry.config == {"part": 4})
    flip(damaged.path / file)
    with caplog.at_level(logging.WARNING):
        require_right(build_parts(store, "part", CONFIGS, logged(log)))
    assert built(log)[6:] == [4] and "is damaged" in caplog.text
    assert store.verify() == []


def test_one_thread_inside_and_as_before_outside(tmp_path: Path) -> None:
    own = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = build_parts(
            Store(tmp_path), "part", CONFIGS[:1], lambda _: pd.DataFrame({"n": [torch.get_num_threads()]})
        )
        assert seen[0]["n"].tolist() == [1] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(own)


@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_workers_that_are_none(tmp_path: Path, workers: Any) -> None:
    with pytest.raises(InputError, match="workers is .*: expected a whole number"):
        build_parts(Store(tmp_path), "part", CONFIGS, table, workers=workers)


def test_a_bar_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_parts(Store(tmp_path / "quiet"), "part", CONFIGS, table)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    build_parts(Store(tmp_path / "store"), "part", CONFIGS[:4], table)
    assert "4/4" in capsys.readouterr().err
    build_parts(Store(tmp_path / "store"), "part", CONFIGS, table)  # goes on from what is there
    assert "6/6" in capsys.readouterr().err
    build_parts(Store(tmp_path / "other"), "part", CONFIGS, table, progress=False)
    assert capsys.readouterr().err == ""


# --- several processes ------------------------------------------------------------------------------------------------

SHARED = """
import os, sys, time
from pathlib import Path
import pandas as pd
from rmtllmf_lib.study.parts import build_parts
from rmtllmf_lib.storage.store import Store
root, log, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def build(place):
    with log.open("a") as file:
        file.write(f"{place} {os.getpid()} {os.nice(0)}\\n")
    time.sleep(0.15)
    return pd.DataFrame({"place": [place, place], "square": [place**2, -(place**2)]})
print("ready", flush=True)
while not (log.parent / "go").exists():
    time.sleep(0.005)
tables = build_parts(Store(root), "part", [{"part": place} for place in range(12)], build, workers=workers)
assert pd.concat(tables)["place"].tolist() == sorted([*range(12), *range(12)])
"""


def work(log: Path) -> tuple[list[int], set[int]]:
    """Places in the order in which they were begun, and who did them."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [int(place) for place, _, _ in lines], {int(process) for _, process, _ in lines}


def test_two_runs_share_the_work(tmp_path: Path) -> None:
    runs = [python(SHARED, tmp_path / "store", tmp_path / "log", 1) for _ in range(2)]
    for run in runs:
        assert run.stdout is not None and run.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    for run in runs:
        out, err = run.communicate(timeout=300)
        assert run.returncode == 0, out + err
    places, processes = work(tmp_path / "log")
    assert sorted(places) == [*range(12)] and len(processes) == 2
    assert Store(tmp_path / "store").verify() == []


def test_processes_of_one_run(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    code, out = run_python(SHARED, tmp_path / "store", tmp_path / "log", 2)
    assert code == 0, out
    places, processes = work(tmp_path / "log")
    assert sorted(places) == [*range(12)] and 1 <= len(processes) <= 2
    own, other = os.nice(0), min(os.nice(0) + 10, 19)  # which gives way to all that is not niced
    at_work = {tuple(line.split()[1:]) for line in (tmp_path / "log").read_text().splitlines()}
    assert sorted(int(nice) for _, nice in at_work) in ([own], [other], [own, other])


def test_an_error_elsewhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    bad = SHARED.replace("    time.sleep(0.15)", "    time.sleep(0.15)\n    if place == 7: raise ValueError('seven')")
    code, out = run_python(bad, tmp_path / "store", tmp_path / "log", 2)
    assert code == 1 and "ValueError: seven" in out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_any_step_loses_only_the_part_at_work(tmp_path: Path) -> None:
    code, out = run_python(KILLED, tmp_path)
    assert code == 0, out
    assert int(out.split()[-1]) > 20  # so many places were tried


# Forks children that count their calls that touch the disk and kill themselves, with a real SIGKILL, before call
# number `stop`; then the run is finished here.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import pandas as pd
from rmtllmf_lib.storage import store as module
from rmtllmf_lib.study.parts import build_parts
from rmtllmf_lib.storage.store import Store
root = Path(sys.argv[1])
def frame(place):
    return pd.DataFrame({"place": [place]})
def child(folder, stop):
    calls = 0
    def counted(function):
        def wrapped(*arguments, **named):
            nonlocal calls
            if calls == stop:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            return function(*arguments, **named)
        return wrapped
    for name in ("fsync", "rename", "replace", "mkdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    module._write_json = counted(module._write_json)
    build_parts(Store(folder), "part", [{"part": place} for place in range(3)], counted(frame), progress=False)
    os._exit(0)
stop = 0
while True:
    folder = root / str(stop)
    process = os.fork()
    if process == 0:
        child(folder, stop)
    status = os.waitpid(process, 0)[1]
    done = {entry.config["part"] for entry in Store(folder).list()}
    rebuilt = []
    def again(place):
        rebuilt.append(place)
        return frame(place)
    tables = build_parts(Store(folder), "part", [{"part": place} for place in range(3)], again, progress=False)
    assert pd.concat(tables)["place"].tolist() == [0, 1, 2]
    assert not done & set(rebuilt) and len(rebuilt) == 3 - len(done), (stop, done, rebuilt)
    assert Store(folder).verify() == []
    assert not list(folder.glob(".part-claims/*"))
    shutil.rmtree(folder)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    stop += 1
print(stop)
"""


def test_a_process_whose_parent_died_stops(tmp_path: Path) -> None:
    """It would go on alone otherwise, after the user has killed the run."""
    log = tmp_path / "log"
    (tmp_path / "go").touch()
    run = python(SHARED.replace("0.15", "0.5").replace("range(12)", "range(400)"), tmp_path / "store", log, 2)
    assert run.stdout is not None
    try:
        assert run.stdout.readline() == "ready\n"
        wait_for(lambda: log.exists() and len(work(log)[1]) == 2)
    finally:
        run.kill()
    run.stdout.read()  # ends when the last process that has the pipe is gone
    places, processes = work(log)
    assert len(processes) == 2 and len(places) < 400
    run.communicate()


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
