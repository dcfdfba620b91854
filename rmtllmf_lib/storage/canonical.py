"""The canonical form of a configuration, from which the keys of stored artifacts are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from rmtllmf_lib.errors import InputError


def config_key(config: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of the canonical JSON of `config`.

    The order of keys does not matter, and a tuple equals a list; ``1``, ``1.0`` and ``True`` are three values.

    Parameters
    ----------
    config
        Mapping of text to None, bool, int, finite float, text, or lists, tuples and mappings of these.

    Raises
    ------
    InputError
        for any other type, a key that is not text, NaN or an infinity: every run must compute the same key.
    """
    if not isinstance(config, Mapping):
        raise InputError(f"config is {short(config)} of type {type(config).__name__}: expected a mapping")
    try:
        text = json.dumps(plain(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise InputError("config contains itself, or is nested too deeply: expected a flatter mapping") from None
    return hashlib.sha256(text.encode()).hexdigest()


def plain(config: Any) -> Any:
    """`config` in JSON's own types, with tuples as lists; an `InputError` names the place of any other type."""
    return _plain(config, "config")


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not isfinite(value):
            raise InputError(f"{where} is {value!r}: only finite numbers can be part of a key")
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        if odd := [name for name in value if not isinstance(name, str)]:
            raise InputError(f"{where} has the key {odd[0]!r} of type {type(odd[0]).__name__}: keys must be text")
        return {name: _plain(item, f"{where}[{name!r}]") for name, item in value.items()}
    raise InputError(
        f"{where} is {short(value)} of type {type(value).__name__}: expected None, bool, int, float, text, or lists, "
        "tuples and mappings of these; convert it first, for instance with int(), float(), str() or .tolist()"
    )


def short(value: Any) -> str:
    """`repr` on one line of at most 80 characters, for messages."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"
