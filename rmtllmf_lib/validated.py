"""Checks by annotation: of the fields of frozen dataclasses, by pydantic, and of the arguments of functions."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence, ValuesView
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    ParamSpec,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
import pydantic
from numpy.typing import ArrayLike
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from rmtllmf_lib.arrays import one_of
from rmtllmf_lib.errors import InputError

_Class = TypeVar("_Class", bound=type)
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_ARRAY_LIKE = {*get_args(ArrayLike)}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80

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


def validated_call(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Check every argument of a call against its annotation before the function runs.

    Numbers are finite, and neither text nor bool; a whole float is no int. A text or a mapping is no sequence, and
    items are of the annotated type. An array of numbers is a sequence of them. What an annotation does not say (ranges,
    shapes, NaN in arrays) is left to the function.

    Raises
    ------
    InputError
        On the call, for the first argument that does not fit: "<name> is <value>: expected <annotation>".
    TypeError
        On the call, for a missing or an unknown argument.
    """
    signature = inspect.signature(function)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    checked = [name for name, parameter in signature.parameters.items() if parameter.kind not in several]
    hints = functools.cache(lambda: get_type_hints(function, include_extras=True))

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        given = signature.bind(*args, **kwargs).arguments
        for name in checked:
            if name in given and not _fits(given[name], hints().get(name, Any)):
                expected = str(signature.parameters[name].annotation)
                finite = ", finite" if "float" in expected else ""
                raise InputError(f"{name} is {_SHORT.repr(given[name])}: expected {expected}{finite}")
        return function(*args, **kwargs)

    return call


def validated_init(cls: _Class) -> _Class:
    """Check the arguments that a class is made of as `validated_call` does, before checks of its own."""
    cls.__init__ = validated_call(cls.__init__)  # type: ignore[misc]  # mypy takes __init__ for fixed
    return cls


def _fits(value: Any, hint: Any) -> bool:
    if type(value) is hint and hint is not float:  # the usual case first, since this runs on every call
        return True
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):  # of which that of ArrayLike becomes a part
        others = [each for each in args if each not in _ARRAY_LIKE] if _ARRAY_LIKE <= {*args} else args
        return (len(others) < len(args) and _is_numeric(value)) or any(_fits(value, each) for each in others)
    if isinstance(hint, dataclasses.InitVar):
        return _fits(value, hint.type)
    if origin is Annotated:  # with bounds, as in PositiveInt
        bounds = [(getattr(each, "gt", -math.inf), getattr(each, "ge", -math.inf)) for each in args[1:]]
        return _fits(value, args[0]) and all(value > above and value >= least for above, least in bounds)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if hint in (None, type(None)):
        return value is None
    if hint in (float, int):
        scalar = value.item() if getattr(value, "ndim", 1) == 0 else value
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(scalar, kind) and not isinstance(scalar, bool | np.bool_) and math.isfinite(scalar)
    if origin is np.ndarray:  # Real, Complex
        return _is_numeric(value)
    if origin in (Sequence, Iterable, list, tuple):
        return _is_sequence_of(value, origin, args)
    if origin is Mapping:
        pairs = isinstance(value, Mapping) and args
        return bool(pairs) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if origin is Callable:
        return callable(value)
    if hint is Path:
        return isinstance(value, Path)
    return hint is Any or not isinstance(origin, type) or isinstance(value, origin)


def _is_numeric(value: Any) -> bool:
    if value is None or isinstance(value, str | Mapping):
        return False
    try:
        return np.asarray(value).dtype.kind in "biufc"
    except (ValueError, TypeError, RuntimeError):  # ragged, or a tensor that is no array
        return False


def _is_sequence_of(value: Any, origin: Any, args: tuple[Any, ...]) -> bool:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return False
    if not isinstance(value, Sequence | ValuesView):
        return origin is Iterable  # read once, so its items are left alone
    if origin is tuple and args[-1] is not Ellipsis:
        return len(value) == len(args) and all(map(_fits, value, args))
    return all(_fits(item, args[0]) for item in value)
