"""Artifacts on disk: content-addressed, written atomically, locked between processes, verified on every load.

An entry is a folder ``root/<kind>/<key>/`` of three files: ``config.json`` (what was asked for), ``data.<ext>``
(safetensors, parquet or JSON, never a pickle) and ``manifest.json`` (checksum, size, time). The key is the SHA-256 of
the configuration's canonical form, so equal configurations share an entry and different ones never do.

An entry is built in a hidden folder beside its final place and renamed once everything is on the disk: under its final
name it is either complete or absent. Damage that happens later is found by the checksum; the damaged entry is set
aside and built again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.atomic import device_errors, sync
from rmtllmf_lib.storage.canonical import config_key, plain, short

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

log = logging.getLogger(__name__)

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")
# Names in the folder of a kind; the group is the key that they belong to.
_ENTRY = re.compile(r"([0-9a-f]{64})")
_TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{64})-[0-9a-f]{32}")
_CHECKPOINT = re.compile(r"\.?\.checkpoint-([0-9a-f]{64})\..+")  # also its temporary and damaged copies
_ANY = re.compile(r"([0-9a-f]{64}|\..+)")
_SET_ASIDE = ".set-aside"


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


def default_root() -> Path:
    """The store's default folder: ``$RMTLLMF_HOME``, or the user's cache folder if that is unset or empty."""
    if home := os.environ.get("RMTLLMF_HOME"):
        return Path(home).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("rmtllmf")


@dataclass(frozen=True)
class Store:
    """A store of artifacts under one root folder, which is created by the first write.

    `tensors`, `table` and `json` return the stored value for `config`. If there is none, they call `build`, store its
    result and return it as read back from the disk, so that the first call returns the same as every later one. If
    several processes ask for the same key at once, one builds and the others wait; a process that dies releases its
    lock.
    """

    root: Path = field(default_factory=default_root)

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
        return Path(self.root) / kind / f".checkpoint-{config_key(config)}.safetensors"

    def list(self) -> Sequence[Entry]:
        """All entries, sorted by kind and key; unreadable ones are skipped with a warning and left to `verify`."""
        entries = []
        for _, _, folder in self._find(_ENTRY):
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
        for kind, key, folder in self._find(_ENTRY):
            try:
                _read(_inspect(folder, checksum=True))
            except _BrokenError as error:
                problems.append(Problem(kind, key, folder, str(error)))
            except FileNotFoundError:  # removed by another process in the meantime
                continue
        for kind, key, path in self._find(_TEMPORARY, _CHECKPOINT):
            if self._is_free(kind, key):
                stored = (Path(self.root) / kind / key).is_dir()
                reason = "no longer needed: the entry is stored" if stored else "unfinished: its build was interrupted"
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
        for name, key, folder in self._find(_ENTRY, kind=kind):
            try:
                with self._lock(name, key, timeout=0):
                    # Rename first: an interrupted removal must not leave half an entry under its final name.
                    doomed = _temporary_folder(folder)
                    os.rename(folder, doomed)
                    _remove(doomed)
                    removed += 1
            except Timeout:
                log.warning("%s is in use by another process and stays", folder)
            except FileNotFoundError:
                continue
        for name, key, path in self._find(_TEMPORARY, _CHECKPOINT, kind=kind):
            if self._is_free(name, key):
                _remove(path)
        for name in self.kinds(kind):
            _remove(Path(self.root) / name / _SET_ASIDE)
        return removed

    def _get(self, kind: str, config: Mapping[str, Any], build: Callable[[], Any], format: str) -> Any:
        _check_kind(kind)
        key = config_key(config)
        folder = Path(self.root) / kind / key
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
            # This process holds the lock, so other files of this key belong to processes that are gone.
            for _, _, path in self._find(_TEMPORARY, kind=kind, key=key):
                _remove(path)
            self._write(folder, config, build(), format)
            try:
                value = _load(folder, format)
            except _BrokenError as error:
                raise OSError(errno.EIO, f"{error} after it was written; is the disk failing?", str(folder)) from error
            for _, _, path in self._find(_CHECKPOINT, kind=kind, key=key):
                _remove(path)
            return value

    def _write(self, folder: Path, config: Mapping[str, Any], value: Any, format: str) -> None:
        temporary = _temporary_folder(folder)
        data = temporary / _FORMATS[format].file
        try:
            with device_errors(folder, temporary):
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

    def _lock(self, kind: str, key: str, timeout: float = -1) -> FileLock:
        path = Path(self.root) / kind / f".{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, timeout=timeout)

    def _is_free(self, kind: str, key: str) -> bool:
        try:
            with self._lock(kind, key, timeout=0):
                return True
        except Timeout:
            return False

    def kinds(self, kind: str | None = None) -> tuple[str, ...]:
        """Kinds with an entry, or with files left from one; `kind` restricts the answer to that one."""
        return tuple(sorted({name for name, _, _ in self._find(_ANY, kind=kind)}))

    def _find(
        self, *patterns: re.Pattern[str], kind: str | None = None, key: str | None = None
    ) -> Iterator[tuple[str, str, Path]]:
        """Kind, key and path of the store's files that match a pattern, sorted by pattern, kind and name."""
        folders = [path for path in sorted(Path(self.root).glob("*")) if _KIND.fullmatch(path.name)]
        for pattern, folder in product(patterns, folders):
            for path in sorted(folder.glob("*")) if kind in (None, folder.name) else ():
                if (match := pattern.fullmatch(path.name)) and key in (None, match[1]):
                    yield folder.name, match[1], path


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


def _temporary_folder(folder: Path) -> Path:
    return folder.with_name(f".tmp-{folder.name}-{uuid.uuid4().hex}")


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
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in value.items()}, path)


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
