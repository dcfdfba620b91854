"""Progress away from a terminal: log lines, and only there where they are asked for."""

from __future__ import annotations

import gc
import sys
import threading
import time

import pytest

from rmtllmf_lib import progress


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.02)


def test_long_work_is_logged_even_within_one_step(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("INFO", logger="rmtllmf_lib.progress"):
        with progress.tqdm(total=3, desc="study", unit="part", disable=None) as bar:
            time.sleep(0.2)
            assert not bar.disable
            bar.update(2)
            time.sleep(0.2)
        lines = len(caplog.messages)
        time.sleep(0.1)
    assert caplog.messages[0].startswith("study: 0 of 3 parts [") and caplog.messages[-1].startswith("study: 2 of 3")
    assert len(caplog.messages) == lines > 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("disable", [True, False])
def test_whoever_disables_or_asks_for_a_bar_gets_no_log(
    disable: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("INFO"):
        assert [*progress.tqdm(range(3), disable=disable)] == [0, 1, 2]
        time.sleep(0.1)
    assert caplog.messages == [] and ("3/3" in capsys.readouterr().err) != disable


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert [*progress.tqdm(range(3), disable=None)] == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err


def test_an_abandoned_bar_ends_its_thread() -> None:
    before = threading.active_count()
    next(iter(progress.tqdm(range(3), disable=None)))
    gc.collect()
    time.sleep(0.2)
    assert threading.active_count() <= before
