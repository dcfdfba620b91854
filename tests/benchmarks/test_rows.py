"""The runner of the benchmarks; the timings themselves are not taken here."""

import json
import time
from pathlib import Path

import pytest

import benchmarks.__main__ as runner
from benchmarks import Row, medians
from benchmarks.bench_fusion import vit_b16

ROWS = [
    Row("fast", 3.0, 2.5, detail="1 s, 3 s"),
    Row("seconds", 70.0, 60, unit="s", at_least=False),
    Row("informs only", 1.0),
    Row("too large", None, 2, detail="needs 6 GiB"),
]


def test_verdicts() -> None:
    assert [row.verdict for row in ROWS] == ["pass", "FAIL", "", "skipped"]
    assert Row("same", 2.5, 2.5).verdict == Row("same", 2.5, 2.5, at_least=False).verdict == "pass"


def test_table_has_every_number() -> None:
    lines = runner.table(ROWS).splitlines()
    assert lines[1].split() == ["fast", "3.00", "×", "≥", "2.5", "×", "pass", "1", "s,", "3", "s"]
    assert lines[2].split() == ["seconds", "70.00", "s", "≤", "60", "s", "FAIL"]
    assert lines[4].split() == ["too", "large", "–", "≥", "2", "×", "skipped", "needs", "6", "GiB"]


def test_medians_take_turns() -> None:
    order: list[str] = []
    seconds = medians({"a": lambda: order.append("a"), "b": lambda: (order.append("b"), time.sleep(0.002))}, repeats=3)
    assert order == ["a", "b"] * 4
    assert 0 <= seconds["a"] < 0.002 <= seconds["b"]


def test_exit_status_and_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    module = type("Module", (), {"run": staticmethod(lambda: ROWS[:1])})
    monkeypatch.setattr(runner.importlib, "import_module", lambda name: module)
    assert runner.main(["fusion", "--json", str(tmp_path / "rows.json")]) == 0
    assert "pass" in capsys.readouterr().out
    assert json.loads((tmp_path / "rows.json").read_text())["rows"][0]["verdict"] == "pass"
    module.run = staticmethod(lambda: ROWS)
    assert runner.main(["fusion"]) == 1
    with pytest.raises(SystemExit):
        runner.main(["nonsense"])
    assert "unknown benchmark nonsense; known are" in capsys.readouterr().err


def test_layout_of_the_real_tower() -> None:
    assert set(vit_b16().groups) == {"embeddings", "attention", "mlp", "norm", "projection"}
