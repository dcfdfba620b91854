from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from forks import die, exit_code, forked
from rmtllmf_lib.storage import atomic
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.store import Store
from waiting import wait_for


def test_atomic_write_replaces_only_on_success(tmp_path: Path) -> None:
    final = tmp_path / "folder" / "file.txt"
    with atomic_write(final) as path:
        assert path.name == "file.txt" and path.parent.parent == final.parent
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


def killed_writer(final: Path) -> None:
    with atomic_write(final) as path:
        path.write_text("half")
        die()


def paused_writer(final: Path) -> None:
    with atomic_write(final) as path:
        path.write_text("new")
        final.with_name("go").touch()
        wait_for(lambda: not final.with_name("go").exists())


@pytest.mark.parametrize("name", ["result.parquet", "other.parquet", "no-ending", f"{'long' * 60}.txt"])
def test_the_next_write_into_a_folder_removes_what_killed_ones_left(tmp_path: Path, name: str) -> None:
    final = tmp_path / "result.parquet"
    assert exit_code(forked(killed_writer, tmp_path / name)) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    (tmp_path / f".{'x' * 9}.{'1' * 32}.tmp").mkdir()  # killed before it was locked
    mine = tmp_path / f".mine.{'2' * 32}.tmp"  # looks the same, but nothing says that it is one
    mine.mkdir()
    (mine / "notes.txt").touch()
    with atomic_write(final) as path:
        assert not left.exists()
        path.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {final.name, mine.name}


def test_a_write_leaves_those_of_living_processes_alone(tmp_path: Path) -> None:
    writer = forked(paused_writer, tmp_path / "file")
    wait_for((tmp_path / "go").exists)
    for name in ("file", "other"):
        with atomic_write(tmp_path / name) as path:
            path.write_text("old")
    (tmp_path / "go").unlink()
    assert exit_code(writer) == 0 and (tmp_path / "file").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "other"}


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


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_atomic_write_leaves_the_permissions_that_files_have(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    for mode in ((tmp_path / "ordinary").stat().st_mode, stat.S_IFREG | 0o640):
        with atomic_write(tmp_path / "vector.safetensors") as path:
            save_file({"w": torch.ones(3)}, path)
        assert (tmp_path / "vector.safetensors").stat().st_mode == mode
        (tmp_path / "vector.safetensors").chmod(0o640)  # the second time, the file's own stay
    Store(tmp_path / "store").tensors("w", {}, lambda: {"w": torch.ones(3)})
    (data,) = (tmp_path / "store").rglob("data.safetensors")
    assert data.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
