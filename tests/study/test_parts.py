"""Work in parts: each is built once, by whichever process, and no finished part is lost."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import rmtllmf_lib.storage.store as store_module
import rmtllmf_lib.study.parts as module
from artifacts import flip
from forks import die, exit_code, forked
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts
from rmtllmf_lib.workers import MAX_WORKERS

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
    assert [*(tmp_path / "store").rglob(".building/*")] == []


def test_equal_parts_are_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    configs = [CONFIGS[1], CONFIGS[2], CONFIGS[1], CONFIGS[1]]
    found = build_parts(Store(tmp_path), "part", configs, lambda place: logged(log)([1, 2, 1, 1][place]))
    require_right(found, (1, 2, 1, 1))
    assert built(log) == [1, 2]


def test_no_part_is_no_work(tmp_path: Path) -> None:
    assert build_parts(Store(tmp_path), "part", [], table) == []


def test_a_failed_run_resumes(tmp_path: Path) -> None:
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


def test_one_thread_inside_and_restored_outside(tmp_path: Path) -> None:
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
def test_invalid_numbers_of_workers(tmp_path: Path, workers: Any) -> None:
    with pytest.raises(InputError, match=f"workers is {workers}: expected"):
        build_parts(Store(tmp_path), "part", CONFIGS, table, workers=workers)


def test_a_bar_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_parts(Store(tmp_path / "quiet"), "part", CONFIGS, table)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    build_parts(Store(tmp_path / "store"), "part", CONFIGS[:4], table)
    assert "4/4" in capsys.readouterr().err
    build_parts(Store(tmp_path / "store"), "part", CONFIGS, table)  # resumes
    assert "6/6" in capsys.readouterr().err
    build_parts(Store(tmp_path / "other"), "part", CONFIGS, table, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("bound", ["1", "", "none"])
def test_processes_are_bounded_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "_share", lambda job, workers, bar: asked.append(workers))
    monkeypatch.setenv(MAX_WORKERS, bound)
    if bound == "none":
        with pytest.raises(InputError, match=f"{MAX_WORKERS} is 'none': expected"):
            build_parts(Store(tmp_path), "part", CONFIGS, table, workers=4)
    else:
        require_right(build_parts(Store(tmp_path), "part", CONFIGS, table, workers=4))
        assert asked == [1 if bound else 4]


def test_a_run_killed_at_any_step_loses_only_the_part_in_progress(tmp_path: Path) -> None:
    """A real SIGKILL before each call that touches the disk; then the run is finished here."""
    configs, stop, code = CONFIGS[:2], 0, -signal.SIGKILL
    while code:
        folder = tmp_path / str(stop)
        code = exit_code(forked(killed_run, folder, configs, stop))
        assert code in (0, -signal.SIGKILL)
        done = {entry.config["part"] for entry in Store(folder).list()}
        require_right(build_parts(Store(folder), "part", configs, logged(folder / "log"), progress=False), range(2))
        assert sorted({*built(folder / "log")} | done) == [0, 1]
        assert len(built(folder / "log")) == 2 - len(done), (stop, done)
        assert Store(folder).verify() == []
        assert [*folder.rglob(".building/*")] == []
        stop += 1
    assert stop > 20  # so many places were tried


def killed_run(folder: Path, configs: list[dict[str, int]], stop: int) -> None:
    """Count the calls that touch the disk and die before call number `stop`."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            if calls == stop:
                die()
            calls += 1
            return function(*arguments, **named)

        return wrapped

    for name in ("fsync", "rename", "replace", "mkdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    store_module._write_json = counted(store_module._write_json)
    build_parts(Store(folder), "part", configs, counted(table), progress=False)
