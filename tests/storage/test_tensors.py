from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.storage.tensors import save_tensors

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(3).bfloat16(), "c": torch.zeros(0, dtype=torch.int64)}


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    """Twenty keys come in the same order twice by chance in one of 1e18 files."""
    metadata = {f"key {place}": f"value {place}" for place in range(20)}
    for name in range(3):
        save_tensors(tmp_path / str(name), TENSORS, metadata)
    save_tensors(tmp_path / "3", dict(reversed(TENSORS.items())), dict(reversed(metadata.items())))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


texts = st.text(st.characters(exclude_categories=["Cs"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(metadata=st.dictionaries(texts, texts))
def test_any_metadata_come_back(tmp_path: Path, metadata: dict[str, str]) -> None:
    save_tensors(tmp_path / "file", TENSORS, metadata)
    with safe_open(tmp_path / "file", "pt") as file:
        assert (file.metadata() or {}) == metadata
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in TENSORS.items())


def test_entries_of_two_stores_hold_the_same_data(tmp_path: Path) -> None:
    for name in ("one", "other"):
        Store(tmp_path / name).tensors("tau", {}, lambda: TENSORS)
    assert len({path.read_bytes() for path in tmp_path.rglob("data.safetensors")}) == 1
