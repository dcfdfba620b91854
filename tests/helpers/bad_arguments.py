"""Calls of every public function of the library with one bad argument at a time, and what comes of them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from numpy.typing import ArrayLike

from good_arguments import objects, of_functions
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector
from tools import house

# What no reader calls: figures and tables of the chapters, the shell of the command, and the brushes of drawn tasks.
LEFT_OUT = ("chapters", "command", "tasks.embedded", "compiled", "validated", "arrays", "reprs")

SECONDS = 5  # that a call may take

Call = tuple[str, str, str]  # function, argument, what is bad about it


def public_functions() -> dict[str, Callable[..., Any]]:
    """Every public function with a parameter, by the name of its module below the library and its own.

    Dataclasses that check what they are made of count as functions (others are results), and so do the methods of
    classes of which `_objects` has an instance.
    """
    found: dict[str, Callable[..., Any]] = {}
    instances = {type(value): value for value in objects().values()}
    for module in house.modules():
        short = module.removeprefix("rmtllmf_lib").removeprefix(".")
        if not short or short.startswith(LEFT_OUT):
            continue
        for name, function in inspect.getmembers(importlib.import_module(module), inspect.isfunction):
            if function.__module__ == module and not name.startswith("_") and inspect.signature(function).parameters:
                found[f"{short}.{name}"] = function
        for name, cls in inspect.getmembers(importlib.import_module(module), dataclasses.is_dataclass):
            if not inspect.isclass(cls) or cls.__module__ != module or name.startswith("_"):
                continue
            if hasattr(cls, "__post_init__") or hasattr(cls.__init__, "__wrapped__"):
                found[f"{short}.{name}"] = cls
            for method, _ in inspect.getmembers(cls, callable):
                bound = getattr(instances.get(cls), method, None)
                if not method.startswith("_") and callable(bound) and inspect.signature(bound).parameters:
                    found[f"{short}.{name}.{method}"] = bound
    return found


# --- good values ------------------------------------------------------------------------------------------------------


def good(path: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Good arguments for all parameters, or for those without a default where none is known."""
    own, shared, arguments = of_functions().get(path, of_functions().get(path.partition(".")[2], {})), objects(), {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in own or name in shared:
            value = own[name] if name in own else shared[name]
            fresh = value is torch.Generator or value is np.random.default_rng  # whoever draws from it changes it
            arguments[name] = value() if fresh else value
        elif parameter.default is not parameter.empty:
            arguments[name] = parameter.default
        else:
            arguments[name] = _by_annotation(_hints(function).get(name))
    return arguments


def _by_annotation(hint: Any) -> Any:
    if _is_array(hint):
        return np.full(2, 0.5)
    simple = {int: 2, float: 0.5, bool: False, Path: Path("x"), str: "x", torch.Tensor: torch.full((2, 3), 0.5)}
    several = {Sequence[str]: ["a"], tuple[int, ...]: (2, 3), Sequence[TaskVector]: objects()["taus"]}
    for each in _members(hint):
        if get_origin(each) is Literal:
            return get_args(each)[0]
        if each in simple or each in several:
            return {**simple, **several}[each]
    raise LookupError(f"no good value of {hint}")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        checked = hasattr(function, "__pydantic_fields__")  # its annotations are those of the fields
        return get_type_hints(
            inspect.unwrap(function.__init__ if isinstance(function, type) and not checked else function)
        )
    except NameError as error:  # imported for type checkers alone
        raise LookupError(f"annotations cannot be read: {error}") from error


def _members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone, without their metadata."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    return tuple(m for a in get_args(hint) for m in _members(a)) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_array(hint: Any) -> bool:
    members = _members(hint)
    return {*get_args(ArrayLike)} <= {*members} or any((get_origin(m) or m) is np.ndarray for m in members)


# --- bad values -------------------------------------------------------------------------------------------------------


def bad(hint: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """What is bad, and a value, for a parameter with that annotation whose good value is `value`."""
    members = _members(hint)
    origins = {get_origin(member) or member for member in members}
    if origins & {Any, object}:
        return
    yield "an object of another type", object()
    if type(None) not in members and None not in members:
        yield "None", None
    if _is_array(hint):
        yield "text", "text"
        yield "NaN", np.full(np.shape(value), np.nan) if value is not None else [np.nan]
        return
    if float in members:
        yield "NaN", float("nan")
        yield "below zero", -0.5
        yield "a number as text", "0.5"
        yield "a bool", True
    if int in members:
        yield "negative", -1
        yield "half", 2.5
        yield "a bool", True
    if origins & {Sequence, Iterable, list, tuple}:
        yield "empty", []
        yield "text", "text"
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) and float not in members:
            yield "a single one", value[0]
    if Mapping in origins:
        yield "empty", {}
        yield "a list", [1]
    if str in members and float not in members:
        yield "a number", 2.5  # a whole one could be an open file
    if Literal in origins:
        yield "another choice", "no such"
    if bool in members:
        yield "text", "yes"
    if (
        Path not in origins
        and str not in members
        and any(isinstance(o, type) and o.__module__ != "builtins" for o in origins)
    ):
        yield "a string for an object", "text"


# --- calls ------------------------------------------------------------------------------------------------------------


class TooLongError(Exception):
    """A call takes longer than it may."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault_of(function: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> str | None:
    """What is wrong with the answer to a call whose argument `name` is bad; None for a clear error."""
    try:
        with warnings.catch_warnings(), at_most(SECONDS):
            warnings.simplefilter("ignore")
            answer = function(**arguments)
            if inspect.isgenerator(answer):
                next(answer)
            if isinstance(answer, AbstractContextManager):
                with answer:
                    pass
    except InputError:
        return None
    except TypeError as error:
        return None if f"{name!r}" in str(error) or f"{name} " in str(error) else f"TypeError: {error}"
    except Exception as error:  # any other is what we look for
        return f"{type(error).__name__}: {error}"
    return "accepted"


def faults(path: str, function: Callable[..., Any]) -> dict[Call, str]:
    """What is wrong with the answers of a function to bad arguments; LookupError without good values."""
    usual = good(path, function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**usual)
        except Exception as error:
            raise LookupError(f"good values do not suit: {type(error).__name__}: {error}") from error
    found = {}
    for name, hint in _hints(function).items():
        for kind, value in bad(hint, usual.get(name)) if name in usual else ():
            fault = fault_of(function, {**good(path, function), name: value}, name)
            if fault is not None:
                found[path, name, kind] = fault
    return found
