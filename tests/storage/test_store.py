from __future__ import annotations

import json
import logging
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from artifacts import CONFIG, configs, empty, flip, forbidden, reordered, truncate, typed, values
from forks import die, exit_code, forked
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.folders import default_root
from rmtllmf_lib.storage import store
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts

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
    with pytest.raises(InputError, match="JSON"):
        Store(tmp_path).json("note", CONFIG, lambda: value)
    assert Store(tmp_path).list() == [] and Store(tmp_path).verify() == []


def test_an_entry_asked_for_in_another_format_is_an_error(tmp_path: Path) -> None:
    Store(tmp_path).json("note", CONFIG, lambda: 1)
    with pytest.raises(InputError, match="json.*parquet"):
        Store(tmp_path).table("note", CONFIG, forbidden)


@pytest.mark.parametrize("kind", ["", "..", "a/b", ".hidden", "Upper", "tau "])
def test_a_kind_cannot_leave_the_root(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match="kind is"):
        Store(tmp_path).json(kind, CONFIG, lambda: 1)
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_a_build_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).json("note", CONFIG, lambda: 1 // 0)
    assert Store(tmp_path).verify() == []
    assert Store(tmp_path).json("note", CONFIG, lambda: 2) == 2


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RMTLLMF_HOME", str(tmp_path))
    assert default_root() == Store().root == tmp_path
    monkeypatch.setenv("RMTLLMF_HOME", "relative")
    assert default_root() == Path.cwd() / "relative"
    monkeypatch.setenv("RMTLLMF_HOME", "")
    assert default_root().is_absolute() and default_root().name == "rmtllmf"


# ---------------------------------------------------------------- damage


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


# ---------------------------------------------------------------- list, verify, clear


def test_list_holds_every_entry(tmp_path: Path) -> None:
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


def test_a_root_may_be_text(tmp_path: Path) -> None:
    where = Store(str(tmp_path))  # type: ignore[arg-type]
    assert where == Store(tmp_path)
    where.json("note", CONFIG, lambda: 1)
    assert where.verify() == [] and len(where.list()) == 1
    assert where.clear() == 1


def test_clear_removes_damaged_entries_and_debris(tmp_path: Path) -> None:
    where = Store(tmp_path)
    where.json("note", CONFIG, lambda: 1)
    flip(where.list()[0].path / "data.json")
    where.json("note", CONFIG, lambda: 1)
    empty(where.list()[0].path / "manifest.json")
    stopped = where.checkpoint("note", {"seed": 9})
    stopped.with_name(f"{'0' * 64}.tmp").mkdir()
    for name in (stopped.name, f"{stopped.name}.damaged", f".{stopped.stem}.{'1' * 32}.tmp"):
        stopped.with_name(name).write_text("half of a training")
    assert len(where.verify()) == 5
    for name in (f".{'0' * 64}.lock", f".tmp-{'0' * 64}-{'1' * 32}", f".checkpoint-{'0' * 64}.safetensors"):
        (tmp_path / "note" / name).write_text("of an earlier version")
    assert where.clear() == 1
    assert [path.name for path in (tmp_path / "note").rglob("*")] == [".building"]


def test_nothing_but_entries_is_left_of_builds(tmp_path: Path) -> None:
    where = Store(tmp_path)
    for seed in range(5):
        where.json("note", {"seed": seed}, lambda: 1)
        where.json("note", {"seed": seed}, forbidden)
    assert {path.name for path in (tmp_path / "note").iterdir()} == {".building", *(e.key for e in where.list())}
    assert [*(tmp_path / "note" / ".building").iterdir()] == []


@pytest.mark.parametrize("later", ["another entry", "an entry that is there", "clear", "a part"])
def test_what_a_killed_process_left_goes_with_the_next_start(tmp_path: Path, later: str) -> None:
    """Even if nobody asks for what it was building. Checkpoints stay, but for `clear`."""
    where, config = Store(tmp_path), {"seed": 1}
    where.json("other", CONFIG, lambda: 0)

    def killed() -> None:
        def build() -> None:
            for ending in (".tmp", ".claim"):
                where.checkpoint("note", config).with_name(f"{config_key(config)}{ending}").touch()
            with atomic_write(where.checkpoint("note", config)) as path:
                path.write_text("one")
            with atomic_write(where.checkpoint("note", config)) as path:
                path.write_text("two")
                die()

        where.json("note", config, build)

    assert exit_code(forked(killed)) == -signal.SIGKILL
    assert len([*tmp_path.glob("note/.building/*")]) == 5
    steps: dict[str, Callable[[], Any]] = {
        "another entry": lambda: where.json("other", {"seed": 2}, lambda: 1),
        "an entry that is there": lambda: where.json("other", CONFIG, forbidden),
        "clear": lambda: where.clear(),
        "a part": lambda: build_parts(where, "part", [{"part": 1}], lambda _: TABLE),
    }
    assert exit_code(forked(steps[later])) == 0  # another process
    kept = [] if later == "clear" else [where.checkpoint("note", config)]
    assert [*tmp_path.glob("*/.building/*")] == kept


@pytest.mark.parametrize("what", ["json", "table", "tensors"])
def test_a_write_costs_the_same_in_a_full_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """No folder of entries is read: counted, since time depends on the machine."""
    where, read = Store(tmp_path), []
    value: Any = {"json": 1, "table": TABLE, "tensors": TENSORS}[what]
    getattr(where, what)("note", {"seed": 0}, lambda: value)
    (entry,) = where.list()
    for name in range(300):
        (entry.path.parent / f"{name:064x}").mkdir()
    for function in ("listdir", "scandir"):
        own = getattr(os, function)
        monkeypatch.setattr(os, function, lambda path=".", own=own: read.append(str(path)) or own(path))
    getattr(where, what)("note", {"seed": 1}, lambda: value)
    assert {Path(path).parts[len(tmp_path.parts) :] for path in read} <= {
        ("note", ".building"), ("note", ".building", f"{config_key({'seed': 1})}.tmp")
    }  # fmt: skip
    assert read


def test_a_checkpoint_lasts_until_the_entry_is_stored(tmp_path: Path) -> None:
    where, other = Store(tmp_path), {"seed": 2}
    mine, others = where.checkpoint("note", CONFIG), where.checkpoint("note", other)

    def build() -> str:
        assert mine.exists() == stopped, "a build that was stopped goes on from its own"
        mine.write_text("so far")
        if not stopped:
            raise KeyboardInterrupt
        return "whole"

    stopped = False
    with pytest.raises(KeyboardInterrupt):
        where.json("note", CONFIG, build)
    others.write_text("of another build")
    stopped = True
    assert where.list() == [] and where.json("note", CONFIG, build) == "whole"
    assert not mine.exists() and others.exists()
    mine.write_text("of a process that was killed before it could remove it")
    assert [problem.reason.split(":")[0] for problem in where.verify()] == ["no longer needed", "unfinished"]
    mine.unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "note.txt").write_text("not the store's")
    assert where.kinds() == ("note",)
    with where._lock("note", config_key(other)):  # while it is built, it is neither told nor removed
        assert Store(tmp_path).verify() == [] and Store(tmp_path).clear("other") == 0
        assert Store(tmp_path).clear() == 1 and others.exists()
    assert len(where.verify()) == 1 and where.clear() == 0 and not others.exists()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=12
)
@given(config=configs, value=values)
def test_any_config_and_value_round_trip(tmp_path: Path, config: dict[str, Any], value: Any) -> None:
    where = Store(tmp_path)
    where.clear()
    assert typed(where.json("note", config, lambda: value)) == typed(value)
    assert typed(where.json("note", reordered(config), forbidden)) == typed(value)
    assert typed(where.list()[0].config) == typed(config)
