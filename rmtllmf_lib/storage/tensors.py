"""Safetensors files whose bytes depend on their content alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from rmtllmf_lib.validated import validated_call


@validated_call
def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with sorted metadata, so that equal content gives equal bytes.

    The writer of safetensors puts the metadata in an order that differs from process to process.
    """
    save_file(dict(tensors), path, dict(metadata) if metadata else None)
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if about := header.get("__metadata__"):
            header["__metadata__"] = dict(sorted(about.items()))
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            if len(text) > size:
                raise RuntimeError(f"the sorted header of {path} has {len(text)} bytes: expected at most {size}")
            file.seek(8)
            file.write(text.ljust(size))
