"""Frozen dataclasses that check the types and ranges of their fields, by pydantic."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar, dataclass_transform

import numpy as np
import pydantic
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from rmtllmf_lib.arrays import one_of
from rmtllmf_lib.errors import InputError

_Class = TypeVar("_Class", bound=type)

_CONFIG = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid", arbitrary_types_allowed=True)
_WRONG_CALL = ("missing", "missing_argument", "unexpected_keyword_argument", "unexpected_positional_argument")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, pydantic.Field))
def validated(cls: _Class) -> _Class:
    """Make a class a frozen dataclass whose construction checks every field against its annotation.

    Ranges and lengths are annotations as well, `Annotated[int, Field(ge=1)]`; `__post_init__` is left for checks
    across fields. Types are strict: an int is accepted for a float, a list or an array for a tuple, and a NumPy scalar
    for a Python one; nothing else is converted. NaN and infinity are refused.

    Raises
    ------
    InputError
        On construction, for the first field that fails: "<name> is <value>: expected <...>".
    TypeError
        On construction, for a missing or an unknown argument.
    """
    made: Any = pydantic_dataclass(cls, frozen=True, config=_CONFIG)
    construct = made.__init__

    @functools.wraps(construct)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            construct(self, *map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})
        except ValidationError as error:
            _refuse(error, [field.name for field in dataclasses.fields(made)])

    made.__init__ = checked
    return made


def _plain(value: Any) -> Any:
    """Lists and arrays as tuples, NumPy scalars as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return tuple(map(_plain, value)) if type(value) in (list, tuple) else value


def _refuse(error: ValidationError, names: Sequence[str]) -> NoReturn:
    """Raise the error of the first field that failed."""
    first, *others = error.errors(include_url=False)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, Exception):  # raised by __post_init__
        raise cause from None
    field, *inside = first["loc"] or ("",)
    if first["type"] == "missing" and inside:  # of a tuple that is too short
        raise InputError(f"{field} is {first['input']!r}: expected more values") from None
    if first["type"] in _WRONG_CALL:
        raise TypeError(f"{error.title}: {first['msg'].lower()}: {field!r}") from None
    name = (names[field] if isinstance(field, int) else field) + "".join(
        f"[{index}]" for index in inside if isinstance(index, int)
    )
    if first["type"] == "literal_error" and (words := re.findall(r"'([^']*)'", first["ctx"]["expected"])):
        one_of(first["input"], words, name)
    # the members of a union fail one by one
    same = [first, *(other for other in others if other["loc"][:1] == first["loc"][:1])]
    expected = dict.fromkeys(_expectation(each["msg"]) for each in same)
    raise InputError(f"{name} is {first['input']!r}: expected {' or '.join(expected)}") from None


def _expectation(message: str) -> str:
    """What pydantic says the input should be, to follow "expected"."""
    return re.sub(r"^(greater|less) ", r"a number \1 ", re.sub(r"^Input should be |^\w+ should have ", "", message))
