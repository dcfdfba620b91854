"""Our own tensor files: safetensors with a checksum of everything in them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import torch
import xxhash
from torch import Tensor

from rmtllmf_lib.arrays import file_path
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.foreign import read_safetensors
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.tensors import save_tensors
from rmtllmf_lib.validated import validated_call

log = logging.getLogger(__name__)

FORMAT_VERSION = "2"
UNSEALED_VERSION = "1"  # its hash covers the numbers, but not the metadata

CHECKSUM = "rmtllmf_checksum"
FAST = "xxh3_128:"  # before a checksum of this kind


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


@validated_call
def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Checksum of all that a file holds: `FAST` and 32 hexadecimal digits.

    It covers every entry of the metadata except the checksum itself, and name, type, shape and bytes of every tensor.
    It is XXH3 of 128 bits, which reads as fast as memory does. Whoever changes a file on purpose can make its checksum,
    of whatever kind, so nothing is lost against SHA-256, which takes eight times as long.
    """
    return FAST + _digits(xxhash.xxh3_128(), tensors, metadata)


def _digits(digest: _Digest, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    about = sorted((key, value) for key, value in metadata.items() if key != CHECKSUM)
    ordered = sorted(tensors.items())
    described = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in ordered]
    digest.update(json.dumps([about, described]).encode())
    for _, tensor in ordered:
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@validated_call
def write_sealed(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata as a safetensors file with their `checksum`, atomically."""
    with atomic_write(file_path(path, "path")) as temporary:
        save_tensors(temporary, tensors, {**metadata, CHECKSUM: checksum(tensors, metadata)})


@validated_call
def read_sealed(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file of `write_sealed`; an `InputError` unless they match its checksum."""
    tensors, metadata = read_safetensors(path)
    _require_checksum(path, tensors, metadata)
    return tensors, metadata


def _require_checksum(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    found = metadata.get(CHECKSUM, "")
    fast = found.startswith(FAST)  # others were written before, with SHA-256
    if found != (checksum(tensors, metadata) if fast else _digits(hashlib.sha256(), tensors, metadata)):
        raise InputError(f"{path} is damaged: its content does not match its checksum; get or make it again")


@validated_call
def read_own(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file written by `write_own`; an `InputError` for another kind or version, or damage.

    Files of version 1 are accepted with a warning, since no checksum covers their metadata; whoever reads one compares
    its `hash` with the numbers.
    """
    tensors, metadata = read_safetensors(path)
    if missing := [key for key in ("format", "format_version", "base_hash") if key not in metadata]:
        raise InputError(
            f"{path} lacks the metadata {', '.join(missing)}, so it was not written by this library; "
            "a plain checkpoint is imported with rmtllmf_lib.model.checkpoints"
        )
    found, version = metadata["format"], metadata["format_version"]
    if found != kind or version not in (FORMAT_VERSION, UNSEALED_VERSION):
        raise InputError(f"{path} holds {found!r} version {version!r}, expected {kind!r} version {FORMAT_VERSION!r}")
    if version == FORMAT_VERSION:
        _require_checksum(path, tensors, metadata)
    elif "hash" not in metadata:
        raise InputError(f"{path} lacks the metadata hash; it is damaged, get or make it again")
    else:
        log.warning("%s is of an older version: no checksum covers its metadata; save it again to add one", path)
    return tensors, metadata


@validated_call
def mapped_numbers(path: str | Path, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """The numbers of a safetensors file as one buffer (n,) float32 that stays in the file.

    The system reads a page of it when it is needed, and need not keep it.

    Parameters
    ----------
    tensors : mapping of name to Tensor
        As `read_own` read them from this file; at least one.

    Returns
    -------
    Tensor, or None where the file holds other types, or tensors in another order than that of their names.
    """
    if not tensors:
        raise InputError(f"{path} holds no tensor: expected at least one")
    ordered = [tensor for _, tensor in sorted(tensors.items())]
    places = list(accumulate((tensor.nbytes for tensor in ordered), initial=ordered[0].data_ptr()))
    for tensor, place in zip(ordered, places[:-1], strict=True):
        if tensor.dtype != torch.float32 or tensor.data_ptr() != place:
            return None
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    size = Path(path).stat().st_size
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)[start:].view(torch.float32)


@validated_call
def write_own(path: str | Path, kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata, which hold at least `base_hash`, as a file of ours; see `write_sealed`."""
    write_sealed(path, tensors, {"format": kind, "format_version": FORMAT_VERSION, **metadata})
