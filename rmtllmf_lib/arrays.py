"""Numbers from outside, checked on the way in: NumPy alone, for the wireless half of the library."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtllmf_lib.errors import InputError

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


def _numbers(value: Any, name: str, kinds: str, expected: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is ragged: expected {expected} in an array") from error
    if array.dtype.kind not in kinds:
        raise InputError(f"{name} has dtype {array.dtype}: expected {expected}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity: expected finite numbers")
    return array


def real_array(value: ArrayLike, name: str, *, minimum: float | None = None, positive: bool = False) -> Real:
    """Finite float64 array.

    Parameters
    ----------
    value : array_like
        Real numbers; complex ones are an error even where their imaginary parts are zero.
    name : str
        What the message calls it.
    minimum : float, optional
        The smallest value that may occur.
    positive : bool
        Whether every number must be above zero.

    Raises
    ------
    InputError
        for complex or non-numeric values, NaN, infinity, or a number that is too small.
    """
    array = _numbers(value, name, "iuf", "real numbers").astype(np.float64)
    if positive and not (array > 0).all():
        raise InputError(f"{name} is {array.min():g} at its smallest: expected positive numbers")
    if minimum is not None and not (array >= minimum).all():
        raise InputError(f"{name} is {array.min():g} at its smallest: expected at least {minimum:g}")
    return array


def complex_array(value: ArrayLike, name: str) -> Complex:
    """Finite complex128 array of real or complex numbers, `value` itself where it is one; `InputError` otherwise."""
    return _numbers(value, name, "iufc", "real or complex numbers").astype(np.complex128, copy=False)


def whole_number(value: Any, name: str, minimum: int = 1) -> int:
    """An int of at least `minimum`; `InputError` otherwise."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < minimum:
        raise InputError(f"{name} is {value!r}: expected a whole number of at least {minimum}")
    return int(value)


def real_number(value: Any, name: str, *, minimum: float | None = None, positive: bool = False) -> float:
    """A finite float; `InputError` for anything else."""
    array = real_array(value, name, minimum=minimum, positive=positive)
    if array.ndim:
        raise InputError(f"{name} has shape {array.shape}: expected one number")
    return float(array)


def fitted(array: NDArray[Any], shape: tuple[int, ...], name: str, meaning: str) -> NDArray[Any]:
    """`array` broadcast to `shape`, read-only; `InputError` that names both shapes where it does not fit."""
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise InputError(f"{name} has shape {array.shape}: expected {meaning} = {shape}") from None
