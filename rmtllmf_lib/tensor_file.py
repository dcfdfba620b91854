"""Tensors in and out of safetensors files, with clear errors for files that are not what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rmtllmf_lib.errors import InputError

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def is_pickle(path: Path) -> bool:
    """Whether a file starts like one written by `torch.save` or `pickle.dump`."""
    with open(path, "rb") as file:
        return file.read(4).startswith(_PICKLE_STARTS)


def require_file(path: str | Path) -> Path:
    """The path, if it is a file; an InputError otherwise."""
    path = Path(path)
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {state}; expected a file of tensors")
    return path


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; the tensors may be maps of the file, so copy them.

    Raises
    ------
    InputError
        if there is no such file, it is a pickle (whatever it holds), or it is corrupt or truncated.
    """
    path = require_file(path)
    if is_pickle(path):
        raise InputError(
            f"{path} is a pickle (torch.save), expected safetensors; a pickle can run code when it is opened. "
            "A plain state dict of a fine-tuned model is imported with rmtllmf_lib.checkpoints"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); it is corrupt or truncated, get or make it again"
        ) from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file so that it is there whole or not at all."""
    from rmtllmf_lib.store import atomic_write

    with atomic_write(Path(path)) as temporary:
        save_file(dict(tensors), temporary, metadata=dict(metadata))
