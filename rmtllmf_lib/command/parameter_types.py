"""Types of notebook parameters: parse annotations, convert values, write them as source text."""

from __future__ import annotations

import ast
import json
import math
import re
import typing
from collections.abc import Iterator
from typing import Any

from rmtllmf_lib.errors import InputError

_NAMES = {
    **{type_.__name__: type_ for type_ in (bool, int, float, str, list, tuple, dict)},
    **{"List": list, "Tuple": tuple, "Dict": dict, "Sequence": list, "Mapping": dict, "Any": Any, "any": Any},
    **{name: getattr(typing, name) for name in ("Optional", "Union", "Literal")},
}
# What Python's parser raises for texts that are too long, too deep or no literals.
_UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
_EXAMPLES = {bool: "true or false", int: "2000", float: "0.3 or 1e-3", list: "'[2, 3]'", tuple: "'(2, 3)'"}


def shown_by(default: str) -> str:
    """Name of the type of a default, given as source text; "any" for None and for anything but a literal."""
    try:
        value = ast.literal_eval(default)
    except _UNREADABLE:
        return "any"
    return "any" if value is None else type(value).__name__


def convert(value: Any, annotation: str) -> Any:
    """`value` converted to the type of `annotation`.

    Parameters
    ----------
    value
        A string is taken as it is for a str, else parsed as a number, true/false, None, or a list, tuple or mapping in
        Python or JSON notation (a list also as ``a,b``). Other values are checked strictly: an int is accepted for a
        float and a list for a tuple, a bool for neither.
    annotation
        Source text: bool, int, float, str, list, tuple, dict, Optional, Union (also ``|``), Literal, with their
        subscripts. Any other type ("any", a class of some library) accepts all literals and strings.

    Raises
    ------
    InputError
        if the value is not of that type; the message gives an example.
    """
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    type_ = _type(annotation)
    try:
        adapter = TypeAdapter(type_)
    except (PydanticUserError, TypeError):  # no type that values can have, such as list[...]
        type_, adapter = Any, TypeAdapter(Any)
    for reading in _readings(value) if isinstance(value, str) else (_plain(value),):
        try:
            text = json.dumps(reading)
        except (TypeError, ValueError, RecursionError):  # a type that cannot be written into a cell
            continue
        # JSON mode accepts a list for a tuple; Python mode first, so that a tuple stays one if any type is accepted.
        for validate, form in ((adapter.validate_python, reading), (adapter.validate_json, text)):
            try:
                return validate(form, strict=True)
            except ValidationError:
                continue
    example = _EXAMPLES.get(typing.get_origin(type_) or type_)
    raise InputError(f"expected {annotation}{f' (such as {example})' if example else ''}, found {value!r}")


# What a parameter's comment may end in: "[1 to 64]", "[from 0]", "[up to 1]", "[one of task, weight]".
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_RANGE = re.compile(rf"\[(?:({_NUMBER}) to ({_NUMBER})|from ({_NUMBER})|up to ({_NUMBER})|one of ([^\]]+))\]$")


def check_range(value: Any, help: str) -> None:
    """Refuse a value outside of the range that a parameter's comment ends in.

    Parameters
    ----------
    value
        A number or text, or a list or tuple of them, each of which is checked.
    help : str
        The comment, such as "users, Q [1 to 64]", "drops [from 1]", "share [up to 1]" or "of the noise [one of task,
        weight]"; the ends of a range belong to it. Without one, everything is accepted.

    Raises
    ------
    InputError
        for a value outside; the message names it and the range.
    """
    found = _RANGE.search(help)
    if found is None:
        return
    low, high, least, most, names = found.groups()
    for item in value if isinstance(value, list | tuple) else [value]:
        if names is not None:
            inside = not isinstance(item, str) or item in names.split(", ")
        else:
            number = isinstance(item, int | float) and not isinstance(item, bool)
            inside = not number or float(low or least or "-inf") <= item <= float(high or most or "inf")
        if not inside:
            raise InputError(f"expected {'' if names else 'a number '}{found[0][1:-1]}, found {item!r}")


def source(value: Any) -> str:
    """Python source text of a value that `convert` returned."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{source(name)}: {source(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(source, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(source, value)) + (",)" if len(value) == 1 else ")")
    return repr(value)


def _type(annotation: str) -> Any:
    """The type that an annotation names, read from its syntax tree; no code of it runs."""
    try:
        return _type_of(ast.parse(annotation.strip(), mode="eval").body)
    except _UNREADABLE:
        return Any


def _type_of(node: ast.expr) -> Any:
    """The type of a node; Any for what cannot be checked here, such as a class of some library."""
    match node:
        case ast.Name(name) | ast.Attribute(ast.Name("typing") | ast.Attribute(ast.Name("collections"), "abc"), name):
            return _NAMES.get(name, Any)
        case ast.Constant(None):
            return None
        case ast.Constant(value) if value is ...:
            return ...
        case ast.Constant(str(text)):  # a type in quotes
            return _type(text)
        case ast.BinOp(left, ast.BitOr(), right):
            return typing.Union[_type_of(left), _type_of(right)]  # noqa: UP007 -- built at run time
        case ast.Subscript(name, index) if _type_of(name) is typing.Literal:
            return typing.Literal[ast.literal_eval(index)]
        case ast.Subscript(name, index):
            inner = index.elts if isinstance(index, ast.Tuple) else [index]
            types = [_type_of(item) for item in inner]
            return _type_of(name)[types[0] if len(types) == 1 else tuple(types)]
    return Any


def _readings(text: str) -> Iterator[Any]:
    """Possible meanings of a string, the likeliest first."""
    word = text.strip()
    for parse in (ast.literal_eval, json.loads, lambda word: {"true": True, "false": False}[word.lower()]):
        try:
            value = parse(word)
        except (*_UNREADABLE, KeyError):
            continue
        if not isinstance(value, (str, float)) or isinstance(value, float) and math.isfinite(value):
            yield value  # a quoted string keeps its quotes: it is yielded as it is, below
    yield text
    try:
        yield float(word)  # inf, nan
    except ValueError:
        if not set(word) & set("[](){}'\""):
            yield [part.strip() for part in word.split(",") if part.strip()]


def _plain(value: Any) -> Any:
    """A NumPy scalar as a Python number."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
