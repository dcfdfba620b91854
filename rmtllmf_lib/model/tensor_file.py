"""Reading and writing of safetensors files, with clear errors for damaged files and files of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.atomic import atomic_write

FORMAT_VERSION = "1"

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def is_pickle(path: Path) -> bool:
    """Whether a file starts like one written by `torch.save` or `pickle.dump`.

    A safetensors file starts with the length of its header, which may look the same, but its header follows.
    """
    with open(path, "rb") as file:
        start = file.read(9)
    header = int.from_bytes(start[:8], "little")
    if start[8:] == b"{" and header <= path.stat().st_size - 8:
        return False
    return start.startswith(_PICKLE_STARTS)


def require_file(path: str | Path) -> Path:
    """The path, if it is a file; an InputError otherwise."""
    path = Path(path)
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {state}; expected a file of tensors")
    return path


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; the tensors may be memory-mapped, so copy them.

    Raises
    ------
    InputError
        if there is no such file, it is a pickle of any content, or it is corrupt or truncated.
    """
    path = require_file(path)
    if is_pickle(path):
        raise InputError(
            f"{path} is a pickle (torch.save), expected safetensors; a pickle can run code when it is opened. "
            "A plain state dict of a fine-tuned model is imported with rmtllmf_lib.model.checkpoints"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); it is corrupt or truncated, get or make it again"
        ) from error


def read_own(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file written by `write_own`; an InputError for another kind or format version.

    The metadata hold at least `layout_hash`, `hash` and `base_hash`.
    """
    tensors, metadata = read_tensors(path)
    wanted = ("format", "format_version", "layout_hash", "hash", "base_hash")
    missing = [key for key in wanted if key not in metadata]
    if missing:
        raise InputError(
            f"{path} lacks the metadata {', '.join(missing)}, so it was not written by this library; "
            "a plain checkpoint is imported with rmtllmf_lib.model.checkpoints"
        )
    if (metadata["format"], metadata["format_version"]) != (kind, FORMAT_VERSION):
        raise InputError(
            f"{path} holds {metadata['format']} version {metadata['format_version']}, "
            f"expected {kind} version {FORMAT_VERSION}"
        )
    return tensors, metadata


def write_own(path: str | Path, kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata as a safetensors file, atomically."""
    about = {"format": kind, "format_version": FORMAT_VERSION, **metadata}
    with atomic_write(Path(path)) as temporary:
        save_file(dict(tensors), temporary, metadata=about)
