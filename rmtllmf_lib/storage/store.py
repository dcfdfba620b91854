"""Artifacts on disk: content-addressed, written atomically, locked between processes, verified on every load.

An entry is a folder ``root/<kind>/<key>/`` of three files: ``config.json`` (what was asked for), ``data.<ext>``
(safetensors, parquet or JSON, never a pickle) and ``manifest.json`` (checksum, size, time). The key is the SHA-256 of
the configuration's canonical form, so equal configurations share an entry and different ones never do.

What belongs to an entry in the making lies in ``root/<kind>/.building/``: its lock, its files, and the checkpoint of a
long build. The files are renamed to their final place once everything is on the disk, so under its final name an entry
is either complete or absent. Whatever processes that were killed left there is removed when the store is next used, but
for checkpoints. Damage that happens later is found by the checksum; the damaged entry is set aside and built again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import Timeout

from rmtllmf_lib.arrays import file_path
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.folders import default_root
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.storage.atomic import device_errors, sync
from rmtllmf_lib.storage.canonical import config_key, plain, short
from rmtllmf_lib.storage.locks import locked

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

log = logging.getLogger(__name__)

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ENTRY = re.compile(r"[0-9a-f]{64}")
_SET_ASIDE = ".set-aside"
_BUILDING = ".building"
# Names in that folder begin with a key, but for the temporary folders of checkpoints (see `atomic_write`).
_FILES, _LOCK, _CLAIM, _CHECKPOINT = ".tmp", ".lock", ".claim", ".checkpoint.safetensors"
_IN_BUILDING = re.compile(r"\.?([0-9a-f]{64})(\..+)")
_OLDER = re.compile(r"\.(tmp-|checkpoint-|\.checkpoint-)?[0-9a-f]{64}.*")  # where earlier versions kept them

_swept: set[tuple[int, Path]] = set()  # process and root, of the stores that this process has tidied


@dataclass(frozen=True)
class Entry:
    """One stored artifact; `bytes` is the size of its data file, `created` the time in UTC (ISO 8601)."""

    kind: str
    key: str
    path: Path
    format: str
    bytes: int
    created: str
    config: Mapping[str, Any]

    __repr__ = short_repr


@dataclass(frozen=True)
class Problem:
    """A defect that `Store.verify` found at `path`."""

    kind: str
    key: str
    path: Path
    reason: str


class _BrokenError(Exception):
    """The entry exists but is damaged."""


class _Format(NamedTuple):
    file: str
    write: Callable[[Path, Any], None]
    read: Callable[[Path], Any]


@dataclass(frozen=True)
class Store:
    """A store of artifacts under one root folder, which is created by the first write.

    `tensors`, `table` and `json` return the stored value for `config`. If there is none, they call `build`, store its
    result and return it as read back from the disk, so that the first call returns the same as every later one. If
    several processes ask for the same key at once, one builds and the others wait; a process that dies releases its
    lock.
    """

    root: Path = field(default_factory=default_root)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", file_path(self.root, "root"))

    def tensors(
        self, kind: str, config: Mapping[str, Any], build: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return named tensors on the CPU, stored as safetensors."""
        return self._get(kind, config, build, "safetensors")

    def table(self, kind: str, config: Mapping[str, Any], build: Callable[[], DataFrame]) -> DataFrame:
        """Return a pandas table, stored as parquet (column names must be text)."""
        return self._get(kind, config, build, "parquet")

    def json(self, kind: str, config: Mapping[str, Any], build: Callable[[], Any]) -> Any:
        """Return a value made of JSON's types, without NaN; tuples come back as lists."""
        return self._get(kind, config, build, "json")

    def checkpoint(self, kind: str, config: Mapping[str, Any]) -> Path:
        """Path of a safetensors file from which a long build can resume after it was interrupted.

        Its folder exists while the entry is built; the file is removed once the entry is stored.
        """
        _check_kind(kind)
        return self._building(kind, config_key(config), _CHECKPOINT)

    def claim(self, kind: str, key: str) -> Path:
        """Lock file for those who share the building of many entries; on an entry's own lock others wait."""
        return self._building(kind, key, _CLAIM)

    def list(self) -> Sequence[Entry]:
        """All entries, sorted by kind and key; unreadable ones are skipped with a warning and left to `verify`."""
        entries = []
        for folder in self._entries():
            try:
                entries.append(_inspect(folder, checksum=False))
            except (FileNotFoundError, _BrokenError) as error:
                log.warning("%s is not listed: %s", folder, error)
        return entries

    def verify(self) -> Sequence[Problem]:
        """Read every entry in full; list the damaged ones and what killed builds left behind.

        Nothing is changed: a damaged entry is rebuilt when it is next asked for, and `clear` removes the rest.
        """
        problems = []
        for folder in self._entries():
            try:
                _read(_inspect(folder, checksum=True))
            except _BrokenError as error:
                problems.append(Problem(folder.parent.name, folder.name, folder, str(error)))
            except FileNotFoundError:  # removed by another process in the meantime
                continue
        for kind in self.kinds():
            for key, path in self._unfinished(kind):
                with suppress(Timeout), self._lock(kind, key, wait=False):
                    stored = (self.root / kind / key).is_dir()
                    reason = (
                        "no longer needed: the entry is stored" if stored else "unfinished: its build was interrupted"
                    )
                    problems.append(Problem(kind, key, path, reason))
        return problems

    def clear(self, kind: str | None = None) -> int:
        """Remove all entries, or those of one kind, and return their number.

        Damaged copies and the leftovers of killed builds go too. An entry that another process is building stays, with
        a warning.
        """
        if kind is not None:
            _check_kind(kind)
        removed = 0
        for folder in self._entries(kind):
            try:
                with self._lock(folder.parent.name, folder.name, wait=False):
                    # Rename first: an interrupted removal must not leave half an entry under its final name.
                    doomed = self._building(folder.parent.name, folder.name, _FILES)
                    _remove(doomed)
                    os.rename(folder, doomed)
                    _remove(doomed)
                    removed += 1
            except Timeout:
                log.warning("%s is in use by another process and stays", folder)
            except FileNotFoundError:
                continue
        for name in self.kinds(kind):
            self._sweep(name, checkpoints=True)
            for path in (self.root / name).iterdir():
                if path.name == _SET_ASIDE or _OLDER.fullmatch(path.name):
                    _remove(path)
        return removed

    def tidy(self) -> None:
        """Remove what processes that were killed left behind, but for checkpoints, from which a build can go on."""
        for kind in self.kinds():
            self._sweep(kind)

    def _get(self, kind: str, config: Mapping[str, Any], build: Callable[[], Any], format: str) -> Any:
        _check_kind(kind)
        key = config_key(config)
        folder = self.root / kind / key
        if (here := (os.getpid(), self.root)) not in _swept:
            _swept.add(here)
            self.tidy()
        # A hit needs no lock, so readers do not wait for each other. Anything that looks wrong is checked again under
        # the lock: another process may be writing.
        with suppress(FileNotFoundError, _BrokenError):
            return _load(folder, format)
        with self._lock(kind, key):
            try:
                return _load(folder, format)
            except _BrokenError as error:
                aside = folder.parent / _SET_ASIDE / key
                aside.parent.mkdir(exist_ok=True)
                _remove(aside)  # keep only the latest damaged copy of a key
                os.rename(folder, aside)
                log.warning("%s is damaged (%s): moved to %s and built again", folder, error, aside)
            except FileNotFoundError:
                pass
            self._write(folder, config, build(), format)
            try:
                value = _load(folder, format)
            except _BrokenError as error:
                raise OSError(errno.EIO, f"{error} after it was written; is the disk failing?", str(folder)) from error
            for other, path in self._unfinished(kind):
                if other == key:
                    _remove(path)
            return value

    def _write(self, folder: Path, config: Mapping[str, Any], value: Any, format: str) -> None:
        temporary = self._building(folder.parent.name, folder.name, _FILES)
        data = temporary / _FORMATS[format].file
        try:
            with device_errors(folder, temporary):
                _remove(temporary)  # this process holds the lock, so a process that is gone left it
                temporary.mkdir()
                _FORMATS[format].write(data, value)
                manifest = {
                    "format": format,
                    "sha256": _sha256(data),
                    "bytes": data.stat().st_size,
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                _write_json(temporary / "config.json", plain(config))
                _write_json(temporary / "manifest.json", manifest)
                shutil.copymode(temporary / "manifest.json", data)  # safetensors lets nobody else read its files
                for path in (*temporary.iterdir(), temporary):
                    sync(path)
                os.rename(temporary, folder)
                sync(folder.parent)
        finally:
            with suppress(OSError):
                _remove(temporary)

    def _lock(self, kind: str, key: str, *, wait: bool = True) -> AbstractContextManager[None]:
        return locked(self._building(kind, key, _LOCK), f"{kind} {key[:12]} in {self.root}", wait=wait)

    def _building(self, kind: str, key: str, ending: str) -> Path:
        return self.root / kind / _BUILDING / f"{key}{ending}"

    def _unfinished(self, kind: str, *, locks: bool = False) -> Iterator[tuple[str, Path]]:
        """Key and path of everything in the making, without its locks or with them."""
        for path in sorted((self.root / kind / _BUILDING).glob("*")):
            match = _IN_BUILDING.fullmatch(path.name)
            if match and (locks or match[2] not in (_LOCK, _CLAIM)):
                yield match[1], path

    def _sweep(self, kind: str, *, checkpoints: bool = False) -> None:
        """Remove everything in the making that no living process holds; checkpoints only if they are asked for."""
        for key, path in self._unfinished(kind, locks=True):
            claim = path.name.endswith(_CLAIM)
            lock = path if claim else self._building(kind, key, _LOCK)
            with suppress(Timeout, OSError), locked(lock, "", wait=False):  # which removes the lock
                stored = (self.root / kind / key).is_dir()
                is_checkpoint = path.name.startswith(f"{key}{_CHECKPOINT}")
                if path != lock and (checkpoints or stored or not is_checkpoint):
                    _remove(path)

    def kinds(self, kind: str | None = None) -> tuple[str, ...]:
        """Kinds with an entry, or with files left from one; `kind` restricts the answer to that one."""
        root = self.root
        names = sorted(os.listdir(root)) if root.is_dir() else []
        return tuple(name for name in names if kind in (None, name) and _KIND.fullmatch(name) and _is_ours(root / name))

    def _entries(self, kind: str | None = None) -> Iterator[Path]:
        """Folders of the entries, sorted by kind and key."""
        for name in self.kinds(kind):
            yield from (path for path in sorted((self.root / name).glob("*")) if _ENTRY.fullmatch(path.name))


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds an entry, or something that belonged to one."""
    return folder.is_dir() and any(_ENTRY.fullmatch(name) or name.startswith(".") for name in os.listdir(folder))


def _load(folder: Path, format: str) -> Any:
    entry = _inspect(folder, checksum=True)
    if entry.format != format:
        raise InputError(f"{folder} holds {entry.format}: expected {format}; use another kind or config")
    return _read(entry)


def _inspect(folder: Path, *, checksum: bool) -> Entry:
    """The entry in `folder`; FileNotFoundError if there is none, _BrokenError if it is damaged."""
    folder.lstat()
    manifest = _read_fields(folder / "manifest.json", {"format": str, "sha256": str, "bytes": int, "created": str})
    config = _read_fields(folder / "config.json", {})
    try:
        key = config_key(config)
    except InputError as error:
        raise _BrokenError(f"config.json: {error}") from error
    if key != folder.name:
        raise _BrokenError("config.json does not match the key")
    if manifest["format"] not in _FORMATS:
        raise _BrokenError(f"manifest.json has the unknown format {manifest['format']!r}")
    data = folder / _FORMATS[manifest["format"]].file
    try:
        size = data.stat().st_size
        if size != manifest["bytes"]:
            raise _BrokenError(f"{data.name} has {size} bytes: expected {manifest['bytes']}")
        if checksum and _sha256(data) != manifest["sha256"]:
            raise _BrokenError(f"{data.name} does not match its checksum")
    except FileNotFoundError as error:
        raise _BrokenError(f"{data.name} is missing") from error
    return Entry(folder.parent.name, key, folder, manifest["format"], size, manifest["created"], config)


def _read(entry: Entry) -> Any:
    """The value of an entry; _BrokenError if its data cannot be parsed although the checksum is right."""
    from safetensors import SafetensorError

    file, _, read = _FORMATS[entry.format]
    try:
        return read(entry.path / file)
    except (ValueError, SafetensorError) as error:  # JSONDecodeError and ArrowInvalid are ValueErrors
        raise _BrokenError(f"{file} cannot be read: {error}") from error


def _read_fields(path: Path, fields: Mapping[str, type]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError, NotADirectoryError) as error:
        raise _BrokenError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(value.get(name), type_) for name, type_ in fields.items()):
        raise _BrokenError(f"{path.name} lacks a required field")
    return value


def _check_kind(kind: str) -> None:
    if not _KIND.fullmatch(kind):
        raise InputError(f"kind is {kind!r}: expected lower-case letters, digits, - and _ only, as in 'tau'")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: Any) -> None:
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{short(value)} cannot be stored as JSON ({error}): use JSON's own types") from error
    path.write_text(text, encoding="utf-8")


def _write_tensors(path: Path, value: dict[str, Tensor]) -> None:
    from rmtllmf_lib.storage.tensors import save_tensors  # torch is for those who store tensors

    save_tensors(path, {name: tensor.detach().cpu().contiguous() for name, tensor in value.items()})


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_table(path: Path) -> DataFrame:
    import pandas as pd

    return pd.read_parquet(path, engine="pyarrow")


_FORMATS = {
    "safetensors": _Format("data.safetensors", _write_tensors, _read_tensors),
    "parquet": _Format("data.parquet", lambda path, value: value.to_parquet(path, engine="pyarrow"), _read_table),
    "json": _Format("data.json", _write_json, lambda path: json.loads(path.read_text(encoding="utf-8"))),
}
