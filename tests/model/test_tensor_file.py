"""Safetensors files, and files that are none."""

import bz2
import errno
import gzip
import hashlib
import json
import lzma
import os
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from safetensors.torch import save, save_file

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model import foreign, tensor_file
from rmtllmf_lib.model.foreign import read_foreign, read_metadata, read_safetensors
from rmtllmf_lib.model.tensor_file import CHECKSUM, mapped_numbers, read_own, read_sealed, write_own, write_sealed

TENSORS = {"visual.a": torch.arange(6.0).view(2, 3), "visual.b": torch.ones(4)}
HASHES = {"base_hash": "z"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    write_own(path, "kind", TENSORS, HASHES)
    return path


def test_round_trip(file: Path) -> None:
    tensors, metadata = read_own(file, "kind")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert re.fullmatch(r"xxh3_128:[0-9a-f]{32}", metadata.pop(CHECKSUM))
    assert metadata == {"format": "kind", "format_version": "2", **HASHES}
    assert os.listdir(file.parent) == [file.name]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.safetensors does not exist"):
        read_safetensors(tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 8, 40, 200, -1])
def test_truncated(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_safetensors(file)


def test_header_of_nonsense(file: Path) -> None:
    file.write_bytes(b"\x20" + bytes(7) + b"x" * 100)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_safetensors(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.safetensors"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"is a pickle \(torch.save\), expected safetensors; a pickle can run code"):
        read_safetensors(path)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580, 0x010480])
def test_a_header_as_long_as_a_pickle_s_first_bytes(tmp_path: Path, length: int) -> None:
    """A valid file whose first two bytes are those of a pickle of protocol 2 to 5."""
    path, note = tmp_path / "a.safetensors", ""
    for _ in range(2):
        save_file(TENSORS, path, {"note": note})
        note = "x" * (length - int.from_bytes(path.read_bytes()[:8], "little"))
    assert path.read_bytes()[:2] == length.to_bytes(8, "little")[:2] and length & 0xFF == 0x80
    assert torch.equal(read_safetensors(path)[0]["visual.a"], TENSORS["visual.a"])
    path.write_bytes(path.read_bytes()[: length // 2])
    with pytest.raises(InputError):
        read_safetensors(path)


def test_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path)
    assert read_safetensors(path)[1] == {}
    with pytest.raises(InputError, match="format, format_version, base_hash"):
        read_own(path, "kind")


def test_another_kind_or_version(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"'kind' version '2'.*'other' version '2'"):
        read_own(file, "other")
    monkeypatch.setattr(tensor_file, "FORMAT_VERSION", "3")
    with pytest.raises(InputError, match=r"'kind' version '2'.*'kind' version '3'"):
        read_own(file, "kind")


def test_full_disk_keeps_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(path: Path, tensors: object, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_file, "save_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        write_own(file, "kind", TENSORS, HASHES)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_the_checksum_covers_types_shapes_names_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_sealed(path, TENSORS, {"step": "3"})
    assert read_sealed(path)[1]["step"] == "3"
    seal = read_safetensors(path)[1][CHECKSUM]
    others = [
        ({**TENSORS, "visual.b": TENSORS["visual.b"].view(torch.int32)}, {"step": "3"}),  # the same bytes
        ({**TENSORS, "visual.a": TENSORS["visual.a"].view(3, 2)}, {"step": "3"}),
        ({"visual.a": TENSORS["visual.a"], "visual.c": TENSORS["visual.b"]}, {"step": "3"}),
        ({**TENSORS, "visual.c": torch.empty(0)}, {"step": "3"}),
        (TENSORS, {"step": "2"}),
        (TENSORS, {"step": "3", "more": ""}),
        (TENSORS, {}),
    ]
    for tensors, metadata in others:
        save_file(tensors, path, {**metadata, CHECKSUM: seal})
        with pytest.raises(InputError, match="is damaged"):
            read_sealed(path)
    save_file(TENSORS, path, {"step": "3"})
    with pytest.raises(InputError, match="is damaged"):
        read_sealed(path)


def covered(metadata: dict[str, str]) -> bytes:
    """What the checksum covers, written out: the metadata, names, types and shapes, and the numbers in order."""
    described = [["visual.a", "torch.float32", [2, 3]], ["visual.b", "torch.float32", [4]]]
    numbers = np.concatenate([np.arange(6, dtype="<f4"), np.ones(4, dtype="<f4")]).tobytes()
    return json.dumps([sorted([key, value] for key, value in metadata.items()), described]).encode() + numbers


def test_the_checksum_is_that_of_the_whole_content(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.safetensors", TENSORS, {"step": "3", "kind": "x"})
    seal = read_safetensors(tmp_path / "a.safetensors")[1][CHECKSUM]
    assert seal == "xxh3_128:" + xxhash.xxh3_128_hexdigest(covered({"step": "3", "kind": "x"}))


def test_files_that_were_written_with_sha256_are_read_and_checked(tmp_path: Path) -> None:
    path, seal = tmp_path / "a.safetensors", hashlib.sha256(covered({"step": "3"})).hexdigest()
    save_file(TENSORS, path, {"step": "3", CHECKSUM: seal})
    assert read_sealed(path)[1]["step"] == "3"
    for tensors, found in (
        ({**TENSORS, "visual.b": torch.zeros(4)}, seal),
        (TENSORS, f"xxh3_128:{seal[:32]}"),
        (TENSORS, seal.upper()),
        (TENSORS, ""),
    ):
        save_file(tensors, path, {"step": "3", CHECKSUM: found})
        with pytest.raises(InputError, match="is damaged"):
            read_sealed(path)


def test_a_header_that_is_too_long_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({f"n{index}": torch.empty(0) for index in range(40_000)}, path)
    with pytest.raises(InputError, match=str(foreign.MAX_HEADER)):
        read_safetensors(path)


def test_nested_json_is_refused(tmp_path: Path) -> None:
    header = b'{"__metadata__":' + b"[" * 10**5 + b"]" * 10**5 + b"}"
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_safetensors(tmp_path / "a.safetensors")


def test_devices_and_pipes_are_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(InputError, match="not a regular file"):
            read_safetensors(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 605157884\n", "Git LFS pointer"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><title>Virus scan warning</title>", "web page"),
        (b"<html>404</html>", "web page"),
        (b'{\n "metadata": {}, "weight_map": {}}', "index of shards"),
        (b'{"error": "gated repository"}', "JSON"),
        (gzip.compress(b"weights", mtime=0), "gzip"),
        (bz2.compress(b"weights"), "bzip2"),
        (lzma.compress(b"weights"), "xz"),
        (b"Invalid credentials in Authorization header", "Invalid credentials"),
        (b"\x93NUMPY\x01\x00", "NumPy"),
        (b"", "empty"),
    ],
)
def test_files_that_never_were_tensors(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(InputError, match=what):
        read_foreign(tmp_path / "a.bin")


def test_archives(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(__file__, "a.py")
    with pytest.raises(InputError, match="tar archive"):
        read_foreign(tmp_path / "a.tar")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model.safetensors", b"x")
    with pytest.raises(InputError, match="zip archive"):
        read_foreign(tmp_path / "a.zip")


def test_a_file_that_unpacks_to_more_than_its_size_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(10**6)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as plain, zipfile.ZipFile(tmp_path / "b.pt", "w", 8) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(InputError, match="unpacks to 40"):
        read_foreign(tmp_path / "b.pt")


def test_a_tensor_of_more_numbers_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="'x' has shape"):
        read_foreign(tmp_path / "a.pt")


def test_a_description_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(TENSORS, tmp_path / "a.pt")
    assert set(read_foreign(tmp_path / "a.pt")[0]) == set(TENSORS)
    monkeypatch.setattr(foreign, "MAX_HEADER", 100)
    with pytest.raises(InputError, match="MAX_HEADER"):
        read_foreign(tmp_path / "a.pt")


def test_metadata_alone(file: Path) -> None:
    assert read_metadata(file) == read_safetensors(file)[1]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_metadata(file)


@pytest.mark.parametrize("first", [0x7B, 0x5B, 0x1F])
def test_a_truncated_file_is_not_taken_for_another_kind(first: int, tmp_path: Path) -> None:
    """Its first byte, the lowest of the header's length, may be that of a JSON text."""
    (tmp_path / "a.safetensors").write_bytes(bytes([first, 2, 0, 0, 0, 0, 0, 0]) + b'{"x":{"dtype"')
    with pytest.raises(InputError, match="truncated"):
        read_safetensors(tmp_path / "a.safetensors")


def test_numbers_that_do_not_lie_side_by_side_are_not_mapped(tmp_path: Path) -> None:
    path, numbers = tmp_path / "x.safetensors", torch.arange(6.0)
    write_sealed(path, {"a": numbers[:2], "b": numbers[2:].reshape(2, 2).clone()}, {})
    mapped = mapped_numbers(path, read_sealed(path)[0])
    assert mapped is not None and torch.equal(mapped, numbers)
    write_sealed(path, {"a": numbers[:2].half(), "b": numbers[2:].clone()}, {})  # types are sorted by their size
    assert mapped_numbers(path, read_sealed(path)[0]) is None
    content = save({"a": numbers[:2], "b": numbers[2:].clone()})
    path.write_bytes(content.replace(b'"a"', b'"c"'))  # so that c comes before b
    assert mapped_numbers(path, read_safetensors(path)[0]) is None
