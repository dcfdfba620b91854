"""Builds that are killed, compete, or find the disk full."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from artifacts import flip, forbidden, python, run_python
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.storage.store import Store

BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from rmtllmf_lib.storage.store import Store
root, log = Path(sys.argv[1]), Path(sys.argv[2])
def build():
    with log.open("a") as file:
        file.write("built\\n")
    time.sleep(0.5)
    return {"answer": 42}
print("ready", flush=True)
while not (log.parent / "go").exists():
    time.sleep(0.005)
assert Store(root).json("note", {"seed": 1}, build) == {"answer": 42}
"""


def test_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    processes = [python(BUILD_SLOWLY, tmp_path / "store", tmp_path / "log") for _ in range(3)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    assert (tmp_path / "log").read_text() == "built\n"
    assert Store(tmp_path / "store").verify() == []


# The process counts the calls that touch the disk and kills itself, with a real SIGKILL, before call number `stop`.
KILL_AT_CALL = """
import os, signal, sys, shutil
from pathlib import Path
from rmtllmf_lib.storage import atomic, store
stop, calls = int(sys.argv[2]), 0
def counted(function):
    def wrapped(*arguments, **named):
        global calls
        if calls == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return function(*arguments, **named)
    return wrapped
for name in ("fsync", "rename", "replace", "mkdir", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
store._write_json = counted(store._write_json)
store._FORMATS["json"] = store._FORMATS["json"]._replace(write=store._write_json)
value = store.Store(Path(sys.argv[1])).json("note", {"seed": 1}, counted(lambda: list(range(1000))))
print("done", calls)
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_a_build_killed_at_any_step_is_whole_or_absent(tmp_path: Path, damaged: bool) -> None:
    def prepared(name: str) -> Store:
        where = Store(tmp_path / name)
        if damaged:
            where.json("note", {"seed": 1}, lambda: "old")
            flip(where.list()[0].path / "data.json")
        return where

    code, out = run_python(KILL_AT_CALL, prepared("whole").root, -1)
    assert code == 0, out
    steps = int(out.split()[1])
    assert steps >= 10
    outcomes = set()
    for stop in range(steps):
        where = prepared(str(stop))
        code, out = run_python(KILL_AT_CALL, where.root, stop)
        assert code == -signal.SIGKILL, out
        whole = any(entry.bytes > 10 for entry in where.list())
        builds: list[int] = []
        result = where.json("note", {"seed": 1}, lambda seen=builds: seen.append(1) or list(range(1000)))
        assert result == list(range(1000))
        assert whole == (not builds)  # what is under the final name was used as it is
        assert where.verify() == []  # the next build swept up what the dead one left
        outcomes.add(whole)
    assert outcomes == {False, True}


KILL_WHILE_WRITING = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from rmtllmf_lib.storage.store import Store
def build():
    print("building", flush=True)
    return pd.DataFrame({"x": np.random.default_rng(0).standard_normal(4_000_000)})
Store(Path(sys.argv[1])).table("rows", {"seed": 1}, build)
print("done", flush=True)
"""


def test_killed_from_outside_while_the_data_are_being_written(tmp_path: Path) -> None:
    where, small = Store(tmp_path), pd.DataFrame({"x": [1.0]})
    process = python(KILL_WHILE_WRITING, tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "building\n"
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size for path in tmp_path.glob("rows/.tmp-*/data.parquet")):
        assert time.monotonic() < deadline and process.poll() is None
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert where.list() == []
    assert "unfinished" in where.verify()[0].reason
    pd.testing.assert_frame_equal(where.table("rows", {"seed": 1}, lambda: small), small)
    assert where.verify() == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import pandas as pd, torch
from rmtllmf_lib.storage.store import Store, atomic_write
from safetensors.torch import save_file
# The kernel itself refuses to let any file grow beyond 64 KiB.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
where, config = Store(Path(sys.argv[1])), {"seed": 1}
def save():
    with atomic_write(where.root / "vector.safetensors") as path:
        save_file({"w": torch.zeros(100_000)}, path)
for name, attempt in {
    "tensors": lambda: where.tensors("tensors", config, lambda: {"w": torch.zeros(100_000)}),
    "table": lambda: where.table("table", config, lambda: pd.DataFrame({"x": torch.rand(100_000).numpy()})),
    "json": lambda: where.json("json", config, lambda: list(range(100_000))),
    "vector": save,
}.items():
    try:
        attempt()
        raise SystemExit(f"{name} was written")
    except OSError as error:
        print(error)
        assert str(where.root / name) in str(error) and "File too large" in str(error), error
assert where.list() == [] and where.verify() == []
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX limit on the size of files")
def test_a_write_that_the_system_refuses(tmp_path: Path) -> None:
    (tmp_path / "vector.safetensors").write_text("old")
    code, out = run_python(FULL_DISK, tmp_path)
    assert code == 0, out
    assert (tmp_path / "vector.safetensors").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["json", "table", "tensors", "vector.safetensors"]
    assert [path.name for path in tmp_path.glob("*/*") if not path.name.endswith(".lock")] == []


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
        with pytest.raises(OSError, match="No space left on device, so it was not written") as caught:
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
    temporary = tmp_path / "note" / f".tmp-{config_key({'seed': 1})}-{'1' * 32}"
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
