"""Inner loops compiled by Numba, which keep intermediate results in registers instead of memory.

Compiled code is kept below the store's folder, each file with a checksum: damaged machine code would end the process
without a message. A file that is damaged, or cannot be read or written, costs the time to compile and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator

from rmtllmf_lib.folders import default_root

log = logging.getLogger(__name__)


def compiled(function: Callable[..., Any], *, reorder: bool = False) -> Callable[..., Any]:
    """Compile a function with Numba when it is first called, and keep the result on disk where that is possible.

    The compiled function releases Python's lock and rounds as NumPy does: no contraction, no reordering.

    Parameters
    ----------
    reorder : bool
        Allow sums to be reordered and vectorised; the order is always the same on one machine.
    """
    freely: Any = {"reassoc", "contract", "nsz"} if reorder else False
    made: Any = numba.njit(nogil=True, fastmath=freely)(function)
    with suppress(OSError):  # the source is not a file
        made._cache = _Cache(function)
    return made


class _Locator(UserProvidedCacheLocator):
    """The folder below the store's, made by the first file."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = str(default_root() / ".compiled" / self.get_suitable_cache_subpath(py_file))

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func, py_file)

    def get_disambiguator(self) -> str:
        return ""  # a function that moves within its file replaces its old code


class _Implementation(CompileResultCacheImpl):
    _locator_classes = [_Locator]


class _Files:
    """Files of one function, one for each signature and processor, in place of Numba's index and its unchecked files.

    A file is the SHA-256 of everything that it depends on (version of Numba, source, bytecode) and of its content, then
    the content. So a file that is stale, damaged or being written is not used.
    """

    def __init__(self, folder: Path, name: str, source: bytes) -> None:
        self._folder, self._name, self._source = folder, name, source

    def load(self, key: tuple[Any, ...]) -> Any:
        """The content for a key; None if there is none."""
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        digest, data = content[:32], content[32:]
        return pickle.loads(data) if digest == self._digest(key, data) else None

    def save(self, key: tuple[Any, ...], value: Any) -> None:
        """Write the content for a key."""
        data = pickle.dumps(value)
        self._path(key).write_bytes(self._digest(key, data) + data)

    def _path(self, key: tuple[Any, ...]) -> Path:
        signature, processor, *_ = key
        return self._folder / f"{self._name}.{hashlib.sha256(repr((signature, processor)).encode()).hexdigest()[:16]}"

    def _digest(self, key: tuple[Any, ...], data: bytes) -> bytes:
        return hashlib.sha256(repr((numba.__version__, self._source, key)).encode() + data).digest()


class _Cache(FunctionCache):
    _impl_class = _Implementation

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        source = self._impl.locator.get_source_stamp()
        self._cache_file: Any = _Files(Path(self.cache_path), self._impl.filename_base, source)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function for a signature; None if there is none that is whole."""
        try:
            return super().load_overload(sig, target_context)
        except OSError as error:
            log.info("%s is compiled anew: %s", self._name, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled function, unless the disk is full or read-only."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            log.info("compiled code of %s is not kept: %s", self._name, error)
