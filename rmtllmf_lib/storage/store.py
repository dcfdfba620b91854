"""Artifacts on disk: content-addressed, written atomically, locked between processes, verified on every load.

An entry lives in ``root/<kind>/<key>/`` and holds three files: ``config.json`` (what was asked for), ``data.<ext>``
(safetensors, parquet or JSON, never a pickle) and ``manifest.json`` (checksum, size, time). The key is the SHA-256 of
the canonical form of the configuration, so the same question finds the same answer and another one never does.

An entry is built in a hidden folder beside its place and renamed when everything is on the disk: under its final name
it is whole or absent. What is damaged later is found by its checksum, set aside and built again.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.atomic import atomic_write, device_errors, sync
from rmtllmf_lib.storage.canonical import config_key, plain, short

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

__all__ = ["Entry", "Problem", "Store", "atomic_write", "config_key", "default_root"]

log = logging.getLogger(__name__)

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")
_KEY = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{64})-[0-9a-f]{32}")
_CHECKPOINT = re.compile(r"\.?\.checkpoint-([0-9a-f]{64})\..+")  # with what is written beside it, or set aside
_SET_ASIDE = ".set-aside"
_OURS = re.compile(rf"{_KEY.pattern}|\..+")  # an entry; or a lock, or what a build leaves


@dataclass(frozen=True)
class Entry:
    """One artifact: its kind, key, folder, format, size of the data in bytes, time of creation (UTC) and config."""

    kind: str
    key: str
    path: Path
    format: str
    bytes: int
    created: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """What `Store.verify` found wrong at `path`."""

    kind: str
    key: str
    path: Path
    reason: str


Entries = list[Entry]  # inside Store, `list` is a method
Problems = list[Problem]


class _BrokenError(Exception):
    """An entry that is there but must not be used."""


class _Format(NamedTuple):
    file: str
    write: Callable[[Path, Any], None]
    read: Callable[[Path], Any]


def default_root() -> Path:
    """Folder of the store: ``$RMTLLMF_HOME``, or the user's cache folder where that is unset or empty."""
    home = os.environ.get("RMTLLMF_HOME")
    if home:
        return Path(home).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("rmtllmf")


@dataclass(frozen=True)
class Store:
    """Artifacts under one root folder; the folder is made when the first one is written.

    The three getters return the stored value for `config`, or call `build`, store what it returns and return that as
    read back from the disk, so the first call and every later one give the same. Of several processes that ask for the
    same key at once, one builds and the others wait; a process that dies releases its lock.
    """

    root: Path = field(default_factory=default_root)

    def tensors(
        self, kind: str, config: Mapping[str, Any], build: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Named tensors, on the CPU, kept as safetensors."""
        return self._get(kind, config, build, "safetensors")

    def table(self, kind: str, config: Mapping[str, Any], build: Callable[[], DataFrame]) -> DataFrame:
        """A pandas table, kept as parquet (column names must be text)."""
        return self._get(kind, config, build, "parquet")

    def json(self, kind: str, config: Mapping[str, Any], build: Callable[[], Any]) -> Any:
        """A value of JSON's types, without NaN; tuples come back as lists."""
        return self._get(kind, config, build, "json")

    def checkpoint(self, kind: str, config: Mapping[str, Any]) -> Path:
        """Where a long build of an entry may keep how far it is, to go on from there after a kill.

        A safetensors file's name; the folder is there while the entry is built. The file goes when the entry is stored.
        """
        _check_kind(kind)
        return Path(self.root) / kind / f".checkpoint-{config_key(config)}.safetensors"

    def list(self) -> Entries:
        """All entries, by kind and key; one that cannot be read is left to `verify`."""
        entries = []
        for kind, folder in self._folders():
            try:
                entries.append(_inspect(kind, folder, checksum=False))
            except (FileNotFoundError, _BrokenError) as error:
                log.warning("%s is not listed: %s", folder, error)
        return entries

    def verify(self) -> Problems:
        """Read every entry in full and name those that are damaged, and what builds that were killed left behind.

        Nothing is changed: a damaged entry is rebuilt when it is next asked for, and `clear` removes the rest.
        """
        problems = []
        for kind, folder in self._folders():
            try:
                entry = _inspect(kind, folder, checksum=True)
                _read(entry)
            except _BrokenError as error:
                problems.append(Problem(kind, folder.name, folder, str(error)))
            except FileNotFoundError:  # removed by another process in the meantime
                continue
        for kind, key, path in (*self._leftovers(_TEMPORARY), *self._leftovers(_CHECKPOINT)):
            if self._is_free(kind, key):
                stopped = "unfinished: the process that built it was stopped"
                done = "no longer needed: the entry is there"
                there = (Path(self.root) / kind / key).is_dir()
                problems.append(Problem(kind, key, path, done if there else stopped))
        return problems

    def clear(self, kind: str | None = None) -> int:
        """Remove all entries (of one kind), what was set aside, and what killed builds left; return the entries' count.

        An entry that another process is building at the moment stays, and a warning says so.
        """
        if kind is not None:
            _check_kind(kind)
        removed = 0
        for name, folder in self._folders(kind):
            try:
                with self._lock(name, folder.name, timeout=0):
                    # Renamed first: a removal that is stopped half-way must not leave half an entry under its name.
                    doomed = _temporary_folder(folder)
                    os.rename(folder, doomed)
                    _remove(doomed)
                    removed += 1
            except Timeout:
                log.warning("%s is in use by another process and stays", folder)
            except FileNotFoundError:
                continue
        for name, key, path in (*self._leftovers(_TEMPORARY, kind), *self._leftovers(_CHECKPOINT, kind)):
            if self._is_free(name, key):
                _remove(path)
        for name in self.kinds(kind):
            _remove(Path(self.root) / name / _SET_ASIDE)
        return removed

    def _get(self, kind: str, config: Mapping[str, Any], build: Callable[[], Any], format: str) -> Any:
        _check_kind(kind)
        key = config_key(config)
        folder = Path(self.root) / kind / key
        # A hit needs no lock, so readers do not wait for each other. Whatever looks wrong is looked at again under the
        # lock: it may be another process at work.
        with suppress(FileNotFoundError, _BrokenError):
            return _load(kind, folder, format)
        with self._lock(kind, key):
            try:
                return _load(kind, folder, format)
            except _BrokenError as error:
                aside = self._set_aside(folder)
                log.warning("%s is damaged (%s): moved to %s and built again", folder, error, aside)
            except FileNotFoundError:
                pass
            # With the lock in hand, what else carries this key belongs to a process that is gone.
            self._remove_leftovers(_TEMPORARY, kind, key)
            self._write(folder, config, build(), format)
            try:
                value = _load(kind, folder, format)
            except _BrokenError as error:
                raise OSError(errno.EIO, f"just written, but {error}; is the disk failing?", str(folder)) from error
            self._remove_leftovers(_CHECKPOINT, kind, key)
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

    def _set_aside(self, folder: Path) -> Path:
        aside = folder.parent / _SET_ASIDE / folder.name
        aside.parent.mkdir(exist_ok=True)
        _remove(aside)  # one damaged copy a key is enough to look into
        os.rename(folder, aside)
        return aside

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
        """What kinds of entries there are, or were; of one kind, that alone."""
        if not Path(self.root).is_dir():
            return ()
        folders = [path for path in Path(self.root).iterdir() if path.is_dir() and _KIND.fullmatch(path.name)]
        names = sorted(path.name for path in folders if any(_OURS.fullmatch(file.name) for file in path.iterdir()))
        return tuple(name for name in names if kind in (None, name))

    def _folders(self, kind: str | None = None) -> Iterator[tuple[str, Path]]:
        for name in self.kinds(kind):
            for path in sorted((Path(self.root) / name).iterdir()):
                if _KEY.fullmatch(path.name):
                    yield name, path

    def _leftovers(self, pattern: re.Pattern[str], kind: str | None = None) -> Iterator[tuple[str, str, Path]]:
        for name in self.kinds(kind):
            for path in sorted((Path(self.root) / name).iterdir()):
                if match := pattern.fullmatch(path.name):
                    yield name, match[1], path

    def _remove_leftovers(self, pattern: re.Pattern[str], kind: str, key: str) -> None:
        for _, other, path in self._leftovers(pattern, kind):
            if other == key:
                _remove(path)


def _load(kind: str, folder: Path, format: str) -> Any:
    entry = _inspect(kind, folder, checksum=True)
    if entry.format != format:
        raise InputError(f"{folder} holds {entry.format}, and {format} was asked for: use another kind or config")
    return _read(entry)


def _inspect(kind: str, folder: Path, *, checksum: bool) -> Entry:
    """The entry in `folder`; FileNotFoundError where there is none, _BrokenError where it must not be used."""
    folder.lstat()
    manifest = _read_fields(folder / "manifest.json", {"format": str, "sha256": str, "bytes": int, "created": str})
    config = _read_fields(folder / "config.json", {})
    try:
        key = config_key(config)
    except InputError as error:
        raise _BrokenError(f"config.json: {error}") from error
    if key != folder.name:
        raise _BrokenError("config.json is not the one that the key was made from")
    if manifest["format"] not in _FORMATS:
        raise _BrokenError(f"manifest.json names an unknown format, {manifest['format']!r}")
    data = folder / _FORMATS[manifest["format"]].file
    try:
        size = data.stat().st_size
        if size != manifest["bytes"]:
            raise _BrokenError(f"{data.name} has {size} bytes, and {manifest['bytes']} were written")
        if checksum and _sha256(data) != manifest["sha256"]:
            raise _BrokenError(f"{data.name} does not match its checksum")
    except FileNotFoundError as error:
        raise _BrokenError(f"{data.name} is missing") from error
    return Entry(kind, key, folder, manifest["format"], size, manifest["created"], config)


def _read(entry: Entry) -> Any:
    """The value of an entry whose checksum is right; _BrokenError if it cannot be parsed all the same."""
    from safetensors import SafetensorError

    file, _, read = _FORMATS[entry.format]
    try:
        return read(entry.path / file)
    except (ValueError, SafetensorError) as error:  # JSONDecodeError and ArrowInvalid are ValueErrors
        raise _BrokenError(f"{file} cannot be read: {error}") from error


def _read_fields(path: Path, fields: Mapping[str, type]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _BrokenError(f"{path.name} is missing") from error
    except (ValueError, NotADirectoryError) as error:
        raise _BrokenError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(value.get(name), type_) for name, type_ in fields.items()):
        raise _BrokenError(f"{path.name} lacks what it must hold")
    return value


def _check_kind(kind: str) -> None:
    if not _KIND.fullmatch(kind):
        raise InputError(f"{kind!r} cannot be a kind of artifact: small letters, digits, - and _ only, as in 'tau'")


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
        raise InputError(f"{short(value)} cannot be kept as JSON ({error}): use its own types, without NaN") from error
    path.write_text(text, encoding="utf-8")


def _write_tensors(path: Path, value: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in value.items()}, path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _write_table(path: Path, value: DataFrame) -> None:
    value.to_parquet(path, engine="pyarrow")


def _read_table(path: Path) -> DataFrame:
    import pandas as pd

    return pd.read_parquet(path, engine="pyarrow")


_FORMATS = {
    "safetensors": _Format("data.safetensors", _write_tensors, _read_tensors),
    "parquet": _Format("data.parquet", _write_table, _read_table),
    "json": _Format("data.json", _write_json, lambda path: json.loads(path.read_text(encoding="utf-8"))),
}
