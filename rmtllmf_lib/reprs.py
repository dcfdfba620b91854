"""How the library's objects print: one line that says what is inside, whatever its size.

A dataclass prints its fields, and a suite of eight tasks holds millions of numbers and hundreds of class names. A class
with such fields says `__repr__ = short_repr` below them.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence, Set
from typing import Any

_FEW = 4  # numbers or names that are shown one by one
_LONG = 60  # characters of a text or of an object inside another


def short_repr(item: Any) -> str:
    """The name of a dataclass with its fields, in one line; arrays and collections by their size.

    Parameters
    ----------
    item
        An instance of a dataclass.

    Returns
    -------
    str
        ``Uplink(H=complex128 (4, 2), power=[0.0001, 0.0001], noise_floor=1e-15)``: an array of more than four numbers
        is its type and shape, a collection of more than four items their number and the first of them.
    """
    fields = [field.name for field in dataclasses.fields(item) if field.repr]
    shown = ", ".join(f"{name}={_inside(getattr(item, name))}" for name in fields)
    return f"{type(item).__name__}({shown})"


def _inside(value: Any) -> str:
    """What stands for a field's value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        text = repr(value) if _is_flat(value) else ""
        return text if 0 < len(text) <= _LONG else f"{type(value).__name__}(…)"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONG else value[: _LONG - 1] + "…")
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value)
    if hasattr(value, "shape") and hasattr(value, "columns"):
        return f"table of {value.shape[0]} rows and {value.shape[1]} columns"
    if isinstance(value, Mapping | Set):
        names = [str(name) for name in value]
        return f"{len(names)} ({_few(names)})" if names else "{}"
    if isinstance(value, Sequence):
        return _items(value)
    if isinstance(value, numbers.Number):
        return _number(value)
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    text = repr(value)
    return text if len(text) <= _LONG and "\n" not in text else f"{type(value).__name__}(…)"


def _is_flat(value: Any) -> bool:
    """Whether an object holds no other: task vectors and models, which do, take long to describe themselves."""
    return not any(dataclasses.is_dataclass(getattr(value, field.name)) for field in dataclasses.fields(value))


def _array(value: Any) -> str:
    kind = str(value.dtype).removeprefix("torch.")
    if math.prod(value.shape) > _FEW or len(value.shape) > 1 or 0 in value.shape:
        return f"{kind} {tuple(value.shape)}"
    items = value.tolist()
    return _number(items) if not value.shape else f"[{', '.join(map(_number, items))}]"


def _items(value: Sequence[Any]) -> str:
    if isinstance(value, list | tuple) and all(isinstance(item, str | numbers.Number | None) for item in value):
        if len(value) > _FEW:
            return f"{len(value)} ({_few([_number(x) if isinstance(x, float) else str(x) for x in value])})"
        ends = "[]" if isinstance(value, list) else "()"
        return ends[0] + ", ".join(map(_inside, value)) + "," * (ends == "()" and len(value) == 1) + ends[1]
    kind = type(value[0]).__name__ if isinstance(value, list | tuple) and value else "items"
    return f"{len(value)} {kind}"


def _few(names: Sequence[str]) -> str:
    shown = [name if len(name) <= _LONG // 3 else name[: _LONG // 3 - 1] + "…" for name in names[:_FEW]]
    return ", ".join(shown) + ", …" * (len(names) > _FEW)


def _number(value: Any) -> str:
    return repr(value) if isinstance(value, bool | int) else f"{value:.4g}"
