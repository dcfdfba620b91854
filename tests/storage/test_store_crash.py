"""Builds that are killed, compete for a key, or run out of disk space."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from artifacts import flip, forbidden, python, run_python
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.storage.store import Store

BUILD_SLOWLY = """
import os, sys, time
from pathlib import Path
from rmtllmf_lib.storage.store import Store
root, log = Path(sys.argv[1]), Path(sys.argv[2])
def build():
    with log.open("a") as file:
        file.write("built\\n")
    time.sleep(0.2)
    return {"answer": 42}
children = []
for _ in range(3):
    children.append(os.fork())
    if children[-1] == 0:
        assert Store(root).json("note", {"seed": 1}, build) == {"answer": 42}
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
"""


def test_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    code, out = run_python(BUILD_SLOWLY, tmp_path / "store", tmp_path / "log")
    assert code == 0, out
    assert (tmp_path / "log").read_text() == "built\n"
    assert Store(tmp_path / "store").verify() == []


# Each forked process counts the calls that touch the disk and kills itself with SIGKILL before call number `stop`.
# There is one more of them for each call, until one reaches the end.
KILL_AT_CALL = """
import os, sys
from pathlib import Path
from rmtllmf_lib.storage import store
calls = 0
def counted(function):
    def wrapped(*arguments, **named):
        global calls
        if calls == stop:
            os.kill(os.getpid(), 9)
        calls += 1
        return function(*arguments, **named)
    return wrapped
def build(root):
    for name in ("fsync", "rename", "replace", "mkdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    store._write_json = counted(store._write_json)
    store._FORMATS["json"] = store._FORMATS["json"]._replace(write=store._write_json)
    store.Store(root).json("note", {"seed": 1}, counted(lambda: list(range(1000))))
    os._exit(0)
for kind in ("absent", "damaged"):
    for stop in range(100):
        root = Path(sys.argv[1], kind, f"{stop:02d}")
        root.mkdir(parents=True)
        if kind == "damaged":
            store.Store(root).json("note", {"seed": 1}, lambda: "old")
            (data,) = root.glob("note/*/data.json")
            data.write_text("odd")
        if (child := os.fork()) == 0:
            build(root)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -9), status
        if status == 0:
            break
"""


def test_a_build_killed_at_any_step_is_whole_or_absent(tmp_path: Path) -> None:
    code, out = run_python(KILL_AT_CALL, tmp_path)
    assert code == 0, out
    for kind in ("absent", "damaged"):
        *killed, last = (Store(root) for root in sorted((tmp_path / kind).iterdir()))
        assert 10 <= len(killed) < 99 and last.json("note", {"seed": 1}, forbidden) == list(range(1000))
        outcomes = set()
        for where in killed:
            whole = any(entry.bytes > 10 for entry in where.list())
            builds: list[int] = []
            result = where.json("note", {"seed": 1}, lambda seen=builds: seen.append(1) or list(range(1000)))
            assert result == list(range(1000))
            assert whole == (not builds)  # an entry under its final name is used as it is
            assert where.verify() == []  # the next build removed what the killed one left
            outcomes.add(whole)
        assert outcomes == {False, True}


KILL_WHILE_WRITING = """
import sys, time
from pathlib import Path
from rmtllmf_lib.storage import store
def write(path, value):
    with path.open("w") as file:
        file.write("[1, 2")
        file.flush()
        print("half", flush=True)
        time.sleep(60)
store._FORMATS["json"] = store._FORMATS["json"]._replace(write=write)
store.Store(Path(sys.argv[1])).json("note", {"seed": 1}, lambda: [1, 2, 3])
"""


def test_killed_from_outside_while_the_data_are_being_written(tmp_path: Path) -> None:
    where = Store(tmp_path)
    process = python(KILL_WHILE_WRITING, tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    assert where.verify() == []  # a build at work is not reported
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert where.list() == []
    assert "unfinished" in where.verify()[0].reason
    assert where.json("note", {"seed": 1}, lambda: "small") == "small"
    assert where.verify() == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX limit on the size of files")
@pytest.mark.parametrize("attempt", ["tensors", "table", "json", "vector"])
def test_a_write_that_the_system_refuses(tmp_path: Path, attempt: str) -> None:
    import resource

    where, config, target = Store(tmp_path), {"seed": 1}, tmp_path / "vector.safetensors"
    target.write_text("old")
    tensors = {"w": torch.rand(100_000)}

    def save() -> None:
        with atomic_write(target) as path:
            save_file(tensors, path)

    attempts: dict[str, Callable[[], Any]] = {
        "tensors": lambda: where.tensors("tensors", config, lambda: tensors),
        "table": lambda: where.table("table", config, lambda: pd.DataFrame({"x": tensors["w"].numpy()})),
        "json": lambda: where.json("json", config, lambda: list(range(100_000))),
        "vector": save,
    }
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # the kernel itself refuses to let any file grow beyond 64 KiB; Python ignores the signal for it
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
        with pytest.raises(OSError, match="File too large") as caught:
            attempts[attempt]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path / attempt) in str(caught.value)
    assert where.list() == [] and where.verify() == [] and target.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {target.name, attempt.replace("vector", target.name)}
    assert {path.name for path in tmp_path.glob("*/*")} <= {".building"}
    assert [*tmp_path.glob("*/.building/*")] == []


@pytest.mark.parametrize("call", ["fsync", "write", "rename"])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    where = Store(tmp_path)
    where.json("note", {"seed": 1}, lambda: "kept")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if call == "write":
            patch.setattr(Path, "write_text", full)
        else:
            patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            where.json("note", {"seed": 2}, lambda: "lost")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "note" / config_key({"seed": 2}))
    assert [entry.config for entry in where.list()] == [{"seed": 1}] and where.verify() == []
    assert where.json("note", {"seed": 1}, forbidden) == "kept"
    assert where.json("note", {"seed": 2}, lambda: "found") == "found"


HOLD = """
import sys, time
from pathlib import Path
from rmtllmf_lib.storage.store import Store
def build():
    print("building", flush=True)
    time.sleep(60)
Store(Path(sys.argv[1])).json("note", {"seed": 1}, build)
"""


def test_a_build_at_work_is_left_alone_and_a_dead_holder_does_not_block(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = Store(tmp_path)
    where.json("note", {"seed": 1}, lambda: "damaged soon")
    flip(where.list()[0].path / "data.json")
    process = python(HOLD, tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "building\n"
    temporary = tmp_path / "note" / ".building" / f"{config_key({'seed': 1})}.tmp"
    temporary.mkdir()  # as if the holder were writing
    (tmp_path / "note" / config_key({"seed": 1})).mkdir()
    assert where.clear() == 0 and "in use by another process" in caplog.text
    assert [problem.path for problem in where.verify()] == [tmp_path / "note" / config_key({"seed": 1})]
    assert temporary.exists()
    process.kill()
    process.communicate()
    started = time.monotonic()
    assert where.json("note", {"seed": 1}, lambda: "new") == "new"
    assert time.monotonic() - started < 5 and not temporary.exists()
