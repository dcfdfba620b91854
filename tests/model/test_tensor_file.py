"""Safetensors files, and files that are none."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model import tensor_file
from rmtllmf_lib.model.tensor_file import read_own, read_tensors, write_own

TENSORS = {"visual.a": torch.arange(6.0).view(2, 3), "visual.b": torch.ones(4)}
HASHES = {"layout_hash": "x", "hash": "y", "base_hash": "z"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    write_own(path, "kind", TENSORS, HASHES)
    return path


def test_round_trip(file: Path) -> None:
    tensors, metadata = read_own(file, "kind")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert metadata == {"format": "kind", "format_version": "1", **HASHES}
    assert os.listdir(file.parent) == [file.name]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.safetensors does not exist"):
        read_tensors(tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 8, 40, 200, -1])
def test_truncated(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match="not a whole safetensors file.*corrupt or truncated"):
        read_tensors(file)


def test_header_of_nonsense(file: Path) -> None:
    file.write_bytes(b"\x20" + bytes(7) + b"x" * 100)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_tensors(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.safetensors"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"is a pickle \(torch.save\), expected safetensors; a pickle can run code"):
        read_tensors(path)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580, 0x010480])
def test_a_header_as_long_as_a_pickle_s_first_bytes(tmp_path: Path, length: int) -> None:
    """A valid file whose first two bytes are those of a pickle of protocol 2 to 5."""
    path, note = tmp_path / "a.safetensors", ""
    for _ in range(2):
        save_file(TENSORS, path, {"note": note})
        note = "x" * (length - int.from_bytes(path.read_bytes()[:8], "little"))
    assert path.read_bytes()[:2] == length.to_bytes(8, "little")[:2] and length & 0xFF == 0x80
    assert torch.equal(read_tensors(path)[0]["visual.a"], TENSORS["visual.a"])
    path.write_bytes(path.read_bytes()[: length // 2])
    with pytest.raises(InputError):
        read_tensors(path)


def test_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path)
    assert read_tensors(path)[1] == {}
    with pytest.raises(InputError, match="lacks the metadata format, format_version, layout_hash, hash, base_hash"):
        read_own(path, "kind")


def test_another_kind_or_version(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="holds kind version 1, expected other version 1"):
        read_own(file, "other")
    monkeypatch.setattr(tensor_file, "FORMAT_VERSION", "2")
    with pytest.raises(InputError, match="holds kind version 1, expected kind version 2"):
        read_own(file, "kind")


def test_full_disk_keeps_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_file, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_own(file, "kind", TENSORS, HASHES)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
