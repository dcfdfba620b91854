"""Reading of tensor files that others may have written: what a file is, and its tensors, without running its code."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rmtllmf_lib.arrays import file_path
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.validated import validated_call

MAX_HEADER = 2**21  # bytes that may describe the tensors of a file, enough for 15,000; raise it for larger models

# The weights in a model's folder, as Hugging Face and open_clip name them; the first that is there counts.
MODEL_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
    "adapter_model.safetensors",  # refused as a model, with what to do about it
)
INDEX = ".index.json"

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

# What other files start with, and what to do about them.
_KNOWN = {
    rb"version https://git-lfs": "a Git LFS pointer, not the file that it stands for: fetch that with `git lfs pull`",
    rb"\s*(<!doctype|<html|<head|<\?xml)": "a web page, so the download failed: get the file itself, perhaps logged in",
    rb'\s*\{.*"weight_map"': "an index of shards, read only as a whole model: expected one file of tensors here",
    rb"\s*[{\[][^\0]{3}": "a JSON text without tensors: give the file of the weights",
    rb"\x1f\x8b\x08": "compressed by gzip: decompress it first",
    rb"BZh\d": "compressed by bzip2: decompress it first",
    rb"\xfd7zXZ": "compressed by xz: decompress it first",
    rb"\x28\xb5\x2f\xfd": "compressed by zstd: decompress it first",
    rb"7z\xbc\xaf|Rar!": "an archive: unpack it and give the file of the weights",
    rb".{257}ustar": "a tar archive: unpack it and give the file of the weights",
    rb"\x89HDF": "an HDF5 file: convert it to safetensors in the program that wrote it",
    rb"GGUF": "a GGUF file of quantised weights: get the original weights as safetensors",
    rb"\x93NUMPY": "a NumPy array: expected the named tensors of a whole model",
}


@validated_call
def require_file(path: str | Path) -> Path:
    """The path, if it is a regular file; an InputError otherwise."""
    path = Path(path)
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
        raise InputError(f"{path} {state}; expected a file of tensors")
    return path


@validated_call
def file_kind(path: Path) -> Literal["safetensors", "pickle"]:
    """Whether a file is safetensors or was written by `torch.save`; an `InputError` says what it is otherwise.

    A safetensors file starts with the length of its header, which may look like a pickle, but its header follows.
    """
    with open(require_file(path), "rb") as file:
        start = file.read(4096)
    if not start:
        raise InputError(f"{path} is empty: get or make it again")
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and header <= path.stat().st_size - 8:
        if header > MAX_HEADER:
            raise InputError(
                f"{path} has a header of {header} bytes: expected at most {MAX_HEADER}, foreign.MAX_HEADER; raise that "
                "if you trust the file"
            )
        return "safetensors"
    if start.startswith(_PICKLE_STARTS):
        return "pickle"
    text = start.removeprefix(b"\xef\xbb\xbf")
    for pattern, what in _KNOWN.items():
        if re.match(pattern, text, flags=re.DOTALL | re.IGNORECASE):
            raise InputError(f"{path} is {what}")
    if (words := text[:60].decode(errors="replace").strip()).isprintable() and "\ufffd" not in words[:50]:
        raise InputError(f"{path} is a text, {words!r}: expected a file of tensors")
    return "safetensors"  # damaged, as reading it will tell


@validated_call
def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; the tensors may be memory-mapped, so copy them.

    Raises
    ------
    InputError
        if there is no such file, it is of another kind, its header is longer than `MAX_HEADER`, or it is corrupt or
        truncated.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})


@validated_call
def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata alone of a safetensors file; errors as in `read_safetensors`."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    path = file_path(path, "path")
    if file_kind(path) == "pickle":
        raise InputError(
            f"{path} is a pickle (torch.save), expected safetensors; a pickle can run code when it is opened. "
            "A plain state dict of a fine-tuned model is imported with rmtllmf_lib.model.checkpoints"
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, RuntimeError, ValueError, TypeError) as error:  # the last three from torch, for odd shapes
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); it is corrupt or truncated, get or make it again"
        ) from error


@validated_call
def read_json(path: str | Path) -> dict[str, Any]:
    """The entries of a JSON file, such as the settings beside the tensors of an adapter.

    Raises
    ------
    InputError
        if there is no such file, it is longer than `MAX_HEADER`, or it holds no JSON object.
    """
    path = require_file(file_path(path, "path"))
    if (size := path.stat().st_size) > MAX_HEADER:
        raise InputError(f"{path} has {size} bytes: expected settings of at most {MAX_HEADER}, foreign.MAX_HEADER")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({type(error).__name__}: {error}): get or make it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}: expected an object with settings by name")
    return content


@validated_call
def model_file(path: str | Path) -> Path:
    """The file of the weights, or the index of its shards, in a model's folder; any other path unchanged."""
    path = file_path(path, "path")
    return next((path / name for name in MODEL_FILES if (path / name).is_file()), path)


@validated_call
def read_foreign(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a model: of a safetensors file, or of a plain state dict that `torch.save` wrote.

    A path that ends in `.index.json` is an index of shards, which lie beside it. The tensors may be memory-mapped, so
    copy them. Neither a state dict nor shards have metadata.

    Raises
    ------
    InputError
        as `read_safetensors`; for pickled objects, which are never created, or a file that unpacks to more than its
        size; for an index that names other files than shards beside it, a shard that is missing, or one that holds
        other tensors than the index says.
    """
    path = file_path(path, "path")
    if path.name.endswith(INDEX):
        return _read_shards(path), {}
    if file_kind(path) == "safetensors":
        return read_safetensors(path)
    try:
        _require_plain_zip(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, InputError):
        raise
    except Exception as error:  # torch raises half a dozen types here, its own and pickle's
        reason = str(error) or type(error).__name__
        if "unsupported" in reason.lower() or "TorchScript" in reason:
            raise InputError(
                f"{path} holds pickled Python objects beside its tensors and is refused, since loading them can run "
                "any code. If you trust it, load it in the program that wrote it and save model.state_dict() alone, "
                "preferably with safetensors.torch.save_file"
            ) from error
        raise InputError(f"{path} is damaged or truncated ({reason.splitlines()[0]}); get it again") from error
    # training scripts wrap the state dict together with the epoch and the optimiser's state
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a state dict; save model.state_dict()")
    for name, tensor in content.items():
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta:
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                raise InputError(f"{path}: {name!r} has shape {tuple(tensor.shape)}, more numbers than the file holds")
    return dict(content), {}


def _read_shards(path: Path) -> dict[str, Tensor]:
    """All tensors of an index `{"weight_map": {tensor: file}}`, each from the file beside it that the index says."""
    owners = read_json(path).get("weight_map")
    if not isinstance(owners, dict) or not owners or not all(isinstance(file, str) for file in owners.values()):
        raise InputError(f"{path} has no weight_map: expected the file of each tensor, by name; download it again")
    files = sorted(set(owners.values()))
    for file in files:  # a name alone, so that an index cannot reach out of its folder
        if Path(file).name != file or not file.endswith((".safetensors", ".bin")):
            raise InputError(f"{path} names {file[:80]!r}: expected shards beside it, *.safetensors or *.bin")
    if missing := [file for file in files if not (path.parent / file).is_file()]:
        raise InputError(f"{path.parent} lacks {', '.join(missing[:4])} of {len(files)} shards: download the rest")
    tensors: dict[str, Tensor] = {}
    for file in files:
        found, _ = read_foreign(path.parent / file)
        wanted = {name for name, owner in owners.items() if owner == file}
        if wanted != found.keys():
            other = sorted(wanted ^ found.keys())
            raise InputError(
                f"{path.parent / file} and {path.name} differ in {len(other)} tensors, such as {other[0][:80]!r}: "
                "they belong to different models; download all of one"
            )
        tensors |= found
    return tensors


def _require_plain_zip(path: Path) -> None:
    """Refuse a zip archive that `torch.save` did not write, or that unpacks to more than it holds."""
    if not zipfile.is_zipfile(path):
        return  # of the older format, or truncated
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if not (described := [entry.file_size for entry in entries if entry.filename.endswith("data.pkl")]):
        raise InputError(f"{path} is a zip archive: unpack it and give the file of the weights")
    size = path.stat().st_size
    if (unpacked := sum(entry.file_size for entry in entries)) > size:
        raise InputError(
            f"{path} unpacks to {unpacked} bytes: expected at most its size of {size}, as torch.save writes"
        )
    if sum(described) > MAX_HEADER:
        raise InputError(
            f"{path} describes its tensors in {sum(described)} bytes: expected at most {MAX_HEADER}, "
            "foreign.MAX_HEADER; raise that if you trust the file"
        )
