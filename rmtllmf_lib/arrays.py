"""Checks of numbers, arrays and choices that callers pass in, with NumPy alone."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Hashable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtllmf_lib.errors import InputError

if TYPE_CHECKING:
    import torch

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


def _numbers(value: Any, name: str, kinds: str, expected: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is ragged: expected {expected} in an array") from error
    if array.dtype.kind not in kinds:
        raise InputError(f"{name} has dtype {array.dtype}: expected {expected}")
    once = array[tuple(slice(1) if stride == 0 else slice(None) for stride in array.strides)]  # of what is broadcast
    if not np.isfinite(once).all():
        raise InputError(f"{name} holds NaN or infinity: expected finite numbers")
    return array


def real_array(
    value: ArrayLike, name: str, *, minimum: float | None = None, maximum: float | None = None, positive: bool = False
) -> Real:
    """Finite float64 array.

    Parameters
    ----------
    value : array_like
        Real numbers; complex ones are an error even where their imaginary parts are zero.
    name : str
        Its name in the error message.
    minimum, maximum : float, optional
        Bounds of every number, inclusive.
    positive : bool
        Whether every number must be above zero.

    Raises
    ------
    InputError
        for complex or non-numeric values, NaN, infinity, or a number out of bounds.
    """
    array = _numbers(value, name, "iuf", "real numbers").astype(np.float64)
    if positive and not (array > 0).all():
        raise InputError(f"{name} is {array.min():g} at its smallest: expected positive numbers")
    if minimum is not None and not (array >= minimum).all():
        raise InputError(f"{name} is {array.min():g} at its smallest: expected at least {minimum:g}")
    if maximum is not None and not (array <= maximum).all():
        raise InputError(f"{name} is {array.max():g} at its largest: expected at most {maximum:g}")
    return array


def complex_array(value: ArrayLike, name: str) -> Complex:
    """Finite complex128 array, without a copy where `value` is one; `InputError` where it is not numeric or finite."""
    return _numbers(value, name, "iufc", "real or complex numbers").astype(np.complex128, copy=False)


def instance_of(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    """`value` if it is an instance of `kind`, a class or several; `InputError` that says what it is otherwise."""
    if isinstance(value, kind):
        return value
    kinds = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
    raise InputError(f"{name} is {_described(value)}: expected {kinds}")


def numpy_generator(value: Any, name: str = "rng") -> np.random.Generator:
    """`value` if it is a NumPy generator; `InputError` otherwise, also for a seed."""
    if not isinstance(value, np.random.Generator):
        raise InputError(f"{name} is {_described(value)}: expected a generator, such as numpy.random.default_rng(0)")
    return value


def _described(value: Any) -> str:
    """A simple value itself, the type of any other."""
    simple = value is None or isinstance(value, str | numbers.Number)
    return f"{value!r:.60}" if simple else f"a {type(value).__name__}"


def whole_number(value: Any, name: str, minimum: int = 1, maximum: int | None = None) -> int:
    """Integer from `minimum` to `maximum`, inclusive; `InputError` otherwise, also for a bool."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)
    if not whole or value < minimum or (maximum is not None and value > maximum):
        bounds = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise InputError(f"{name} is {value!r}: expected a whole number {bounds}")
    return int(value)


def seed_number(value: Any, name: str = "seed") -> int:
    """Seed that NumPy's and torch's generators both accept; `InputError` otherwise."""
    return whole_number(value, name, minimum=0, maximum=2**63 - 1)


def real_number(
    value: Any, name: str, *, minimum: float | None = None, maximum: float | None = None, positive: bool = False
) -> float:
    """Finite float from `minimum` to `maximum`, or above zero; `InputError` otherwise, also for a bool."""
    scalar: Any = value.item() if isinstance(value, np.ndarray) and not value.ndim else value
    number = float(scalar) if isinstance(scalar, numbers.Real) and not isinstance(scalar, bool | np.bool_) else math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} is {value!r}: expected a finite number")
    if positive and not number > 0:
        raise InputError(f"{name} is {value!r}: expected a number above 0")
    if minimum is not None and not number >= minimum:
        raise InputError(f"{name} is {value!r}: expected at least {minimum:g}")
    if maximum is not None and not number <= maximum:
        raise InputError(f"{name} is {value!r}: expected at most {maximum:g}")
    return number


def per_user(
    value: Any, users: int, name: str, *, minimum: float | None = None, maximum: float | None = None
) -> list[float]:
    """One finite number for each of so many users, from one for all of them or a list, tuple or array of one each."""
    given: Any = value.tolist() if isinstance(value, np.ndarray) else value
    each = list(given) if isinstance(given, Sequence) else [given] * users
    if len(each) != users:
        raise InputError(f"{name} has {len(each)} values for {users} users: expected one number, or one per user")
    return [real_number(one, name, minimum=minimum, maximum=maximum) for one in each]


def one_of(value: object, choices: Any, name: str) -> Any:
    """`value` if it is among `choices`, a Literal type or an iterable; `InputError` with the nearest one otherwise."""
    known = get_args(choices) or tuple(choices)
    if isinstance(value, Hashable) and value in known:
        return value
    near = get_close_matches(str(value), map(str, known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"{name} is {value!r}: expected {' or '.join(map(repr, known))}{hint}")


def known_names(names: Any, known: Any, what: str) -> tuple[str, ...]:
    """`names` as a tuple; `InputError` for a single text, a name that is not among `known`, or one given twice."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InputError(f"{names!r} is given for names of a {what}: expected a list, such as {list(known)[:2]}")
    chosen = tuple(names)
    for place, name in enumerate(chosen):
        if name not in known:
            raise InputError(f"unknown {what} {name!r}: expected some of {', '.join(known)}")
        if name in chosen[:place]:
            raise InputError(f"{what} {name!r} is given twice: name each once")
    return chosen


def file_path(value: Any, name: str) -> Path:
    """Path with the user's home folder in place of `~`; `InputError` for an empty text, or neither text nor path."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise InputError(f"{name} is {value!r}: expected the path of a file or folder")
    return Path(os.path.expanduser(value))  # Path's own raises for names such as ~$table


def torch_generator(value: Any, name: str = "generator") -> torch.Generator:
    """Generator of torch on the CPU; `InputError` otherwise, also for None, which torch takes for its global one."""
    import torch  # arrays serves the wireless half as well, which does without it

    if not isinstance(value, torch.Generator) or value.device.type != "cpu":
        raise InputError(f"{name} is {value!r}: expected torch.Generator().manual_seed(…), on the CPU")
    return value


def fitted(array: NDArray[Any], shape: tuple[int, ...], name: str, meaning: str) -> NDArray[Any]:
    """`array` broadcast to `shape`, read-only; `InputError` that names both shapes where that is impossible."""
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise InputError(f"{name} has shape {array.shape}: expected {meaning} = {shape}") from None
