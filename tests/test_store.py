from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from rmtllmf_lib import atomic, store
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.store import Store, atomic_write, config_key, default_root

CONFIG = {"seed": 3, "lam": 0.3, "tasks": ("mnist", "gtsrb"), "nested": {"a": None, "b": [True, 1, 1.5]}}


def forbidden() -> Any:
    raise AssertionError("build was called although the entry is there")


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A second interpreter, with the library of this checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(code: str, *arguments: object) -> tuple[int, str]:
    process = python(code, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


# ---------------------------------------------------------------- the three formats


def test_tensors_are_built_once_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    flat = torch.arange(12.0)
    built = {"a": flat[:6].view(2, 3), "b": flat[6:], "odd": torch.eye(3).t()[:, :2], "half": torch.ones(2).bfloat16()}
    first = Store(tmp_path).tensors("tau", CONFIG, lambda: built)
    second = Store(tmp_path).tensors("tau", CONFIG, forbidden)
    assert set(first) == set(second) == set(built)
    for name, tensor in built.items():
        assert second[name].dtype == tensor.dtype
        assert torch.equal(first[name], tensor) and torch.equal(second[name], tensor)


def test_a_table_comes_back_with_its_types_and_index(tmp_path: Path) -> None:
    table = pd.DataFrame({"task": ["mnist", "dtd"], "n": [1, 2], "accuracy": [0.1, math.nan]}, index=[5, 7])
    first = Store(tmp_path).table("rows", CONFIG, lambda: table)
    pd.testing.assert_frame_equal(first, table)
    pd.testing.assert_frame_equal(Store(tmp_path).table("rows", CONFIG, forbidden), table)


@pytest.mark.parametrize("value", [None, 0, "text ✓", [1, [2.5, None]], {"b": True, "a": []}])
def test_json_values_come_back(tmp_path: Path, value: Any) -> None:
    assert Store(tmp_path).json("note", CONFIG, lambda: value) == value
    assert Store(tmp_path).json("note", CONFIG, forbidden) == value


def test_first_and_later_calls_give_the_same_value(tmp_path: Path) -> None:
    first = Store(tmp_path).json("note", CONFIG, lambda: {"pair": (1, 2)})
    assert first == Store(tmp_path).json("note", CONFIG, forbidden) == {"pair": [1, 2]}


@pytest.mark.parametrize("value", [math.nan, {1, 2}, object()])
def test_a_value_that_is_not_json_is_refused_and_leaves_nothing(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match="cannot be kept as JSON"):
        Store(tmp_path).json("note", CONFIG, lambda: value)
    assert Store(tmp_path).list() == [] and Store(tmp_path).verify() == []


def test_an_entry_asked_for_in_another_format_is_an_error(tmp_path: Path) -> None:
    Store(tmp_path).json("note", CONFIG, lambda: 1)
    with pytest.raises(InputError, match="holds json, and parquet was asked for"):
        Store(tmp_path).table("note", CONFIG, forbidden)


@pytest.mark.parametrize("kind", ["", "..", "a/b", ".hidden", "Upper", "tau "])
def test_a_kind_cannot_leave_the_root(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match="cannot be a kind"):
        Store(tmp_path).json(kind, CONFIG, lambda: 1)
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_a_build_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).json("note", CONFIG, lambda: 1 // 0)
    assert Store(tmp_path).verify() == []
    assert Store(tmp_path).json("note", CONFIG, lambda: 2) == 2


# ---------------------------------------------------------------- keys

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text()
scalars |= st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
configs = st.dictionaries(st.text(), values)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


def reordered(value: Any) -> Any:
    """The same configuration, said otherwise: keys in reverse order, lists as tuples."""
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(list(value))}
    return tuple(map(reordered, value)) if isinstance(value, list) else value


def typed(value: Any) -> Any:
    """Equal only for what a key must hold equal: Python says 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))


@unhurried
@given(configs)
def test_order_of_keys_and_tuples_do_not_change_the_key(config: dict[str, Any]) -> None:
    assert config_key(reordered(config)) == config_key(config)


@unhurried
@given(configs, configs)
def test_keys_are_equal_only_where_the_configs_are(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (config_key(one) == config_key(two)) == (typed(one) == typed(two))


@unhurried
@given(configs)
def test_the_key_survives_json(config: dict[str, Any]) -> None:
    assert config_key(json.loads(json.dumps(config))) == config_key(config)


@unhurried
@given(configs, st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
def test_numbers_that_are_not_finite_are_refused(config: dict[str, Any], odd: float, deep: bool) -> None:
    with pytest.raises(InputError, match="finite"):
        config_key(config | {"x": {"y": [odd]} if deep else odd})


@pytest.mark.parametrize(
    "odd", [{1, 2}, b"bytes", 1j, object(), Path("a"), torch.ones(1), pd.Series([1.0]), lambda: 1, range(3)]
)
def test_other_types_are_refused_and_named(odd: Any) -> None:
    with pytest.raises(InputError, match=rf"config\['x'\]\[0\] is .*of type {type(odd).__name__}"):
        config_key({"x": [odd]})


@pytest.mark.parametrize("odd", [1, None, True, 1.5, ("a",)])
def test_keys_must_be_text(odd: Any) -> None:
    with pytest.raises(InputError, match="keys must be text"):
        config_key({"x": {odd: 1, "1": 2}})


def test_a_config_must_be_a_finite_mapping() -> None:
    with pytest.raises(InputError, match="must be a mapping"):
        config_key([("a", 1)])  # type: ignore[arg-type]
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(InputError, match="contains itself"):
        config_key(loop)


def test_the_key_is_pinned() -> None:
    """A change of the canonical form would orphan everybody's stores: it must be made knowingly."""
    text = '{"lam":0.3,"nested":{"a":null,"b":[true,1,1.5]},"seed":3,"tasks":["mnist","gtsrb"]}'
    assert config_key(CONFIG) == hashlib.sha256(text.encode()).hexdigest()


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RMTLLMF_HOME", str(tmp_path))
    assert default_root() == Store().root == tmp_path
    monkeypatch.setenv("RMTLLMF_HOME", "relative")
    assert default_root() == Path.cwd() / "relative"
    monkeypatch.setenv("RMTLLMF_HOME", "")
    assert default_root().is_absolute() and default_root().name == "rmtllmf"


# ---------------------------------------------------------------- damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_manifest(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "pickle"}))


def other_config(path: Path) -> None:
    path.write_text('{"seed": 4}')


def config_of_another_type(path: Path) -> None:
    path.write_text('{"seed": NaN}')


DAMAGE: list[tuple[str, Callable[[Path], None]]] = [
    *((file, damage) for file in ("data", "manifest.json", "config.json") for damage in (truncate, empty, Path.unlink)),
    ("data", flip),
    ("manifest.json", other_manifest),
    ("config.json", other_config),
    ("config.json", config_of_another_type),
]
TENSORS = {"w": torch.arange(100.0)}
TABLE = pd.DataFrame({"x": range(100)})
GETTERS: dict[str, Callable[[Store, Callable[[], Any]], Any]] = {
    "safetensors": lambda where, build: where.tensors("some", CONFIG, build),
    "parquet": lambda where, build: where.table("some", CONFIG, build),
    "json": lambda where, build: where.json("some", CONFIG, build),
}
VALUES = {"safetensors": TENSORS, "parquet": TABLE, "json": [1, 2, 3]}


@pytest.mark.parametrize("format", GETTERS)
@pytest.mark.parametrize(("file", "damage"), DAMAGE)
def test_a_damaged_entry_is_reported_set_aside_and_rebuilt(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    format: str,
    file: str,
    damage: Callable[[Path], None],
) -> None:
    where, get, value = Store(tmp_path), GETTERS[format], VALUES[format]
    get(where, lambda: value)
    (entry,) = where.list()
    damaged = entry.path / (f"data.{format}" if file == "data" else file)
    damage(damaged)
    left = {path.name: path.read_bytes() for path in entry.path.iterdir()}

    (problem,) = where.verify()
    assert (problem.kind, problem.key, problem.path) == ("some", entry.key, entry.path)
    assert damaged.name in problem.reason

    builds: list[int] = []
    with caplog.at_level(logging.WARNING):
        again = get(where, lambda: builds.append(1) or value)
    assert builds == [1] and str(again) == str(value)
    assert "is damaged" in caplog.text and str(entry.path) in caplog.text
    aside = tmp_path / "some" / ".set-aside" / entry.key
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == left
    assert where.verify() == [] and str(get(where, forbidden)) == str(value)


def test_an_entry_moved_to_another_key_is_not_used(tmp_path: Path) -> None:
    where = Store(tmp_path)
    where.json("note", {"seed": 1}, lambda: "one")
    (entry,) = where.list()
    entry.path.rename(entry.path.with_name(config_key({"seed": 2})))
    assert where.json("note", {"seed": 2}, lambda: "two") == "two"


def test_data_that_match_their_checksum_but_cannot_be_parsed_are_rebuilt(tmp_path: Path) -> None:
    where = Store(tmp_path)
    where.table("rows", CONFIG, lambda: TABLE)
    (entry,) = where.list()
    (entry.path / "data.parquet").write_bytes(b"PAR1 but not quite")
    manifest = json.loads((entry.path / "manifest.json").read_text())
    manifest |= {"bytes": 18, "sha256": store._sha256(entry.path / "data.parquet")}
    (entry.path / "manifest.json").write_text(json.dumps(manifest))
    assert "cannot be read" in where.verify()[0].reason
    pd.testing.assert_frame_equal(where.table("rows", CONFIG, lambda: TABLE), TABLE)


def test_twice_damaged_keeps_one_copy(tmp_path: Path) -> None:
    where = Store(tmp_path)
    for _ in range(3):
        where.json("note", CONFIG, lambda: 1)
        truncate(where.list()[0].path / "data.json")
    assert len(list((tmp_path / "note" / ".set-aside").iterdir())) == 1


# ---------------------------------------------------------------- several processes

BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from rmtllmf_lib.store import Store
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
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    assert (tmp_path / "log").read_text() == "built\n"
    assert Store(tmp_path / "store").verify() == []


# The process counts the calls that touch the disk and kills itself, with a real SIGKILL, before call number `stop`.
KILL_AT_CALL = """
import os, signal, sys, shutil
from pathlib import Path
from rmtllmf_lib import atomic, store
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
from rmtllmf_lib.store import Store
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


# ---------------------------------------------------------------- a full disk

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import pandas as pd, torch
from rmtllmf_lib.store import Store, atomic_write
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


# ---------------------------------------------------------------- atomic_write


def test_atomic_write_replaces_only_on_success(tmp_path: Path) -> None:
    final = tmp_path / "folder" / "file.txt"
    with atomic_write(final) as path:
        assert path.parent == final.parent and path.suffix == ".txt"
        path.write_text("one")
        assert not final.exists()
    assert final.read_text() == "one"
    with pytest.raises(KeyboardInterrupt), atomic_write(final) as path:
        path.write_text("two")
        raise KeyboardInterrupt
    assert final.read_text() == "one"
    assert [path.name for path in final.parent.iterdir()] == ["file.txt"]


def test_atomic_write_brings_the_data_to_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = atomic.sync, os.replace
    monkeypatch.setattr(atomic, "sync", lambda path: calls.append(f"sync {path.is_dir()}") or sync(path))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("replace") or replace(*names))
    with atomic_write(tmp_path / "file") as path:
        path.write_text("data")
    assert calls == ["sync False", "replace", "sync True"]


def test_atomic_write_of_nothing_is_a_defect_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError, match="nothing was written"), atomic_write(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "old"


def test_atomic_write_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as path:
        path.write_text("data")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "data"


def test_atomic_write_names_the_final_file_in_errors(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError) as caught, atomic_write(tmp_path / "file.txt") as path:
        path.write_text("x")
        (path / "below").write_text("y")
    assert caught.value.filename == str(tmp_path / "file.txt")
    with pytest.raises(FileNotFoundError) as unrelated, atomic_write(tmp_path / "file.txt"):
        (tmp_path / "input.csv").read_text()
    assert unrelated.value.filename == str(tmp_path / "input.csv")
    assert list(tmp_path.iterdir()) == []


def test_atomic_write_turns_what_safetensors_reports_into_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(PermissionError) as caught, atomic_write(tmp_path / "file"):
        raise SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)")
    assert caught.value.filename == str(tmp_path / "file")
    with pytest.raises(SafetensorError), atomic_write(tmp_path / "file"):
        raise SafetensorError("something else")


# ---------------------------------------------------------------- list, verify, clear


def test_list_tells_what_is_there(tmp_path: Path) -> None:
    where = Store(tmp_path)
    assert where.list() == [] and where.verify() == [] and where.clear() == 0
    where.tensors("tau", CONFIG, lambda: TENSORS)
    where.json("note", {"seed": 1}, lambda: 1)
    (tmp_path / "stray.txt").touch()
    (tmp_path / "tau" / "stray").mkdir()
    note, tau = where.list()
    assert (note.kind, tau.kind, tau.format) == ("note", "tau", "safetensors")
    assert tau.key == config_key(tau.config) == config_key(CONFIG)
    assert tau.bytes == (tau.path / "data.safetensors").stat().st_size > 400
    assert tau.created.endswith("+00:00")


@pytest.mark.parametrize("file", ["manifest.json", "data.json"])
def test_an_unreadable_entry_is_left_out_of_the_list_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    where = Store(tmp_path)
    where.json("note", CONFIG, lambda: 1)
    truncate(where.list()[0].path / file)
    assert where.list() == [] and "is not listed" in caplog.text


def test_clear_one_kind_or_all(tmp_path: Path) -> None:
    where = Store(tmp_path)
    for seed in range(3):
        where.json("note", {"seed": seed}, lambda: 1)
    where.json("other", {}, lambda: 1)
    assert where.clear("nothing") == 0
    assert where.clear("note") == 3
    assert [entry.kind for entry in where.list()] == ["other"]
    assert where.clear() == 1 and where.list() == []
    with pytest.raises(InputError):
        where.clear("../elsewhere")


def test_clear_removes_damaged_entries_and_debris(tmp_path: Path) -> None:
    where = Store(tmp_path)
    where.json("note", CONFIG, lambda: 1)
    flip(where.list()[0].path / "data.json")
    where.json("note", CONFIG, lambda: 1)
    empty(where.list()[0].path / "manifest.json")
    (tmp_path / "note" / f".tmp-{'0' * 64}-{'1' * 32}").mkdir()
    assert len(where.verify()) == 2
    assert where.clear() == 1
    assert [path.name for path in (tmp_path / "note").iterdir() if not path.name.endswith(".lock")] == []


HOLD = """
import sys, time
from pathlib import Path
from rmtllmf_lib.store import Store
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


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=25
)
@given(config=configs, value=values)
def test_any_config_and_value_round_trip(tmp_path: Path, config: dict[str, Any], value: Any) -> None:
    where = Store(tmp_path)
    where.clear()
    assert typed(where.json("note", config, lambda: value)) == typed(value)
    assert typed(where.json("note", reordered(config), forbidden)) == typed(value)
    assert typed(where.list()[0].config) == typed(config)
