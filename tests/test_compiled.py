"""Compiled code is kept below the store's folder; whatever happens to its files costs time and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rmtllmf_lib.compiled as module
from artifacts import empty, flip, truncate
from rmtllmf_lib.compiled import compiled


def doubled(x: float) -> float:
    return 2 * x


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Call a compiled function as a new process would; return whether it had to be compiled."""
    monkeypatch.setenv("RMTLLMF_HOME", str(folder))
    function: Any = compiled(doubled)
    assert function(21.0) == 42.0
    return not function.stats.cache_hits


def test_code_is_compiled_once_and_kept_below_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = {*Path(__file__).parent.rglob("*.nb?")}
    assert [run(tmp_path, monkeypatch) for _ in range(3)] == [True, False, False]
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert kept.parent.parent == tmp_path / ".compiled"
    assert {*Path(__file__).parent.rglob("*.nb?")} == beside


@pytest.mark.parametrize("damage", [flip, truncate, empty, lambda path: path.write_bytes(b"x" * 9000)])
def test_damaged_code_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    run(tmp_path, monkeypatch)
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    damage(kept)
    assert run(tmp_path, monkeypatch) and not run(tmp_path, monkeypatch)
    assert [*kept.parent.iterdir()] == [kept]


@pytest.mark.parametrize("what", ["numba", "source"])
def test_code_of_another_version_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    run(tmp_path, monkeypatch)
    with monkeypatch.context() as patch:
        if what == "numba":
            patch.setattr(module.numba, "__version__", "0.0")
        else:
            patch.setattr(module._Locator, "get_source_stamp", lambda self: b"other")
        assert run(tmp_path, monkeypatch)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        assert run(tmp_path, patch)
    (tmp_path / "file").touch()
    assert run(tmp_path / "file", monkeypatch)  # below a file, no folder can be made or read
