"""Locks that leave no file behind, and tell those who wait for whom they wait."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout

from forks import die, exit_code, forked
from rmtllmf_lib.storage import locks
from rmtllmf_lib.storage.locks import Patience, locked
from waiting import wait_for


def hold(path: Path, seconds: float = 60) -> None:
    with locked(path, "something"):
        time.sleep(seconds)


def held_by(process: int, path: Path) -> bool:
    return path.exists() and path.read_text().startswith(f"{process} ")


def test_a_lock_excludes_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    with locked(path, "something"):
        with pytest.raises(Timeout), locked(path, "something", wait=False):
            raise AssertionError("held twice")
        assert path.exists()
    assert not path.exists()
    with pytest.raises(KeyboardInterrupt), locked(path, "something"):
        raise KeyboardInterrupt
    assert not path.exists()


def test_many_who_wait_hold_it_one_by_one(tmp_path: Path) -> None:
    """The file is removed and made again each time, so a lock on an old one must not count."""

    def work() -> None:
        for _ in range(10):
            with locked(tmp_path / "lock", "a counter"):
                count = int((tmp_path / "count").read_text())
                time.sleep(0.001)
                (tmp_path / "count").write_text(str(count + 1))

    (tmp_path / "count").write_text("0")
    assert [exit_code(process) for process in [forked(work) for _ in range(4)]] == [0] * 4
    assert (tmp_path / "count").read_text() == "40"
    assert {path.name for path in tmp_path.iterdir()} == {"count"}


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    def killed() -> None:
        with locked(tmp_path / "lock", "something"):
            die()

    assert exit_code(forked(killed)) == -signal.SIGKILL and (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", "something", wait=False):
        pass
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("state", ["stopped", "at work"])
def test_who_waits_for_a_stopped_process_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(locks, "_SOON", 0.1)
    monkeypatch.setattr(locks, "_LOOK", 0.1)
    holder = forked(hold, tmp_path / "lock", 60 if state == "stopped" else 1)
    try:
        wait_for(lambda: held_by(holder, tmp_path / "lock"))
        if state == "stopped":
            os.kill(holder, signal.SIGSTOP)
            alarm = forked(later, holder)
        with caplog.at_level(logging.WARNING), locked(tmp_path / "lock", "the table"):
            pass
        messages = [record.getMessage() for record in caplog.records]
        if state == "stopped":
            assert len(messages) == 1 and f"process {holder} " in messages[0] and "the table" in messages[0]
            exit_code(alarm)
        else:
            assert messages == []
    finally:
        os.kill(holder, signal.SIGKILL)
        exit_code(holder)


def later(holder: int) -> None:
    time.sleep(1)
    os.kill(holder, signal.SIGKILL)


def test_who_waits_for_long_says_so_every_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(locks.time, "monotonic", lambda: now)
    (tmp_path / "lock").write_text("12 11 elsewhere")
    (tmp_path / "own").write_text(f"13 {os.getpid()} elsewhere")  # a worker of this process
    (tmp_path / "odd").write_text("")
    patience, said = Patience("a part"), []
    for now in range(0, 200, 5):  # noqa: B007
        patience.waits_for(tmp_path / name for name in ("lock", "own", "odd", "gone"))
        said += [now for _ in caplog.records]
        assert all("process 12 on elsewhere" in record.getMessage() for record in caplog.records)
        assert not any("13" in record.getMessage() for record in caplog.records)
        caplog.clear()
    assert said == [60, 120, 180]
    patience.restart()
    for now in range(200, 255, 5):  # noqa: B007
        patience.waits_for([tmp_path / "lock"])
    assert caplog.records == []


def test_an_owner_on_another_machine_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    own: Any = locks.Owner(os.getpid(), 1, "elsewhere")
    assert not own.is_stopped and not own._replace(process=2**30).is_stopped
