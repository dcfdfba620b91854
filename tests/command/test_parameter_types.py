from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmtllmf_lib.command import parameter_types
from rmtllmf_lib.errors import InputError


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("2000", "int", 2000),
        ("-3", "int", -3),
        ("1e-3", "float", 1e-3),
        ("1", "float", 1.0),
        ("inf", "float", math.inf),
        ("true", "bool", True),
        ("False", "bool", False),
        ("abc", "str", "abc"),
        ("3", "str", "3"),
        ("'quoted'", "str", "'quoted'"),
        ("", "str", ""),
        ("None", "int | None", None),
        ("null", "Optional[int]", None),
        ("5", "Optional[int]", 5),
        ("3", "int | str", 3),
        ("[1, 2]", "list", [1, 2]),
        ("[1, 2]", "tuple", (1, 2)),
        ("(1, 2)", "list[int]", [1, 2]),
        ("[1, 2]", "tuple[float, ...]", (1.0, 2.0)),
        ("2,3", "list[int]", [2, 3]),
        ("mnist, gtsrb", "list[str]", ["mnist", "gtsrb"]),
        ("[true, false]", "list[bool]", [True, False]),
        ('{"a": 1}', "dict[str, float]", {"a": 1.0}),
        ("cpu", "Literal['cpu', 'cuda']", "cpu"),
        ("(1, 2)", "any", (1, 2)),
        ("text", "any", "text"),
        ("folder", "Path", "folder"),
        (1, "float", 1.0),
        ((1, 2), "list[int]", [1, 2]),
        ([1], "tuple[int, ...]", (1,)),
        (np.float64(0.5), "float", 0.5),
        (np.int64(3), "int", 3),
        (None, "float | None", None),
    ],
)
def test_values_become_the_type_of_the_parameter(value: Any, annotation: str, expected: Any) -> None:
    result = parameter_types.convert(value, annotation)
    assert result == expected and type(result) is type(expected)
    if isinstance(expected, (list, tuple)):
        assert list(map(type, result)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("2.5", "int"),
        ("2.0", "int"),
        ("1e3", "int"),
        ("many", "int"),
        ("", "int"),
        ("None", "int"),
        ("true", "int"),
        ("half", "float"),
        ("yes", "bool"),
        ("1", "bool"),
        ("[1, 2.5]", "list[int]"),
        ("[1, [2]", "list[int]"),
        ("[a, [b]", "list[str]"),
        ("(1, 2, 3)", "tuple[int, int]"),
        ("3", "list"),
        ("[1]", "dict"),
        ("tpu", "Literal['cpu', 'cuda']"),
        (True, "int"),
        (True, "float"),
        (1.0, "int"),
        (1, "str"),
        (1, "bool"),
        (None, "int"),
        ({1, 2}, "any"),
        (b"bytes", "any"),
        (1j, "any"),
    ],
)
def test_values_of_another_type_are_refused(value: Any, annotation: str) -> None:
    with pytest.raises(InputError) as caught:
        parameter_types.convert(value, annotation)
    assert f"expected {annotation}" in str(caught.value) and repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "annotation",
    [
        "9**9**9",
        "[x for x in ().__class__.__base__.__subclasses__()]",
        "__import__('pathlib').Path('ran').touch()",
        "Literal[__import__('pathlib').Path('ran').touch()]",
        "list[(lambda: open('ran', 'w'))()]",
        '\'__import__("pathlib").Path("ran").touch()\'',
        "int.__class__",
        "list[...]",
        "int[str]",
        "Optional[int, str]",
        "((((",
        "[" * 9999,
        "int | " * 9999 + "int",
        "np.ndarray",
        "\0",
    ],
)
def test_an_annotation_is_read_and_never_run(annotation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no type that can be checked here accepts any literal."""
    monkeypatch.chdir(tmp_path)
    assert parameter_types.convert("[1, 2]", annotation) == [1, 2]
    assert parameter_types.convert("text", annotation) in ("text", ["text"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("typing.Optional[typing.List['int']]", "[1]", "[1.5]"),
        ("collections.abc.Sequence[Path] | None", "[1]", "1"),
        ("Literal[-1, 'a', None]", "-1", "2"),
        ("'tuple[int, str]'", "(1, 'a')", "(1, 2)"),
        ("Union[int, bool]", "true", "1.5"),
        ("dict[str, list[float]]", '{"a": [1]}', '{"a": 1}'),
    ],
)
def test_types_are_found_in_the_syntax_tree(annotation: str, good: str, bad: str) -> None:
    parameter_types.convert(good, annotation)
    with pytest.raises(InputError):
        parameter_types.convert(bad, annotation)


@pytest.mark.parametrize("value", ["{[]: 1}", "[" * 500 + "]" * 500, "9" * 5000, "{1: {}, {}: 2}"])
def test_values_that_python_cannot_read_are_texts(value: str) -> None:
    assert parameter_types.convert(value, "str") == value
    with pytest.raises(InputError):
        parameter_types.convert(value, "int")
    assert parameter_types.shown_by(value) in ("any", "list")


literals = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
literals = st.recursive(
    literals,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(literals)
def test_what_is_written_into_the_notebook_is_the_value(value: Any) -> None:
    assert repr(eval(parameter_types.source(value))) == repr(value)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(st.floats(allow_nan=False) | st.integers(-(2**40), 2**40) | st.booleans() | st.lists(st.integers()))
def test_the_text_of_a_value_reads_as_the_value(value: Any) -> None:
    assert parameter_types.convert(str(value), type(value).__name__) == value


@pytest.mark.parametrize(
    ("help", "inside", "outside"),
    [
        ("users, Q [1 to 64]", [1, 64, 2.5, [1, 2], (), (64,), None, "auto", True], [0, 65, -1, [3, 0], (1, 65)]),
        ("drops [from 1]", [1, 10**9, float("inf")], [0, -5, 0.999, float("nan")]),
        ("dB [-30 to 60]", [-30, 60.0, [-10, 0]], [-30.5, 61, [0, 99]]),
        ("share [up to 0.5]", [0.5, -7], [0.51, [0.1, 0.6]]),
        ("rate [1e-6 to 1]", [1e-6, 1], [1e-7, 1.01]),
        (
            "noise [one of task, weight]",
            ["task", "weight", ["task"], 3],
            ["Task", "", "task, weight", ["x"]],
        ),
        ("no range", [-1, "x", [None]], []),
        ("[1 to 2] is not at the end", [99], []),
    ],
)
def test_the_range_in_a_comment_is_checked(help: str, inside: list[Any], outside: list[Any]) -> None:
    for value in inside:
        parameter_types.check_range(value, help)
    for value in outside:
        with pytest.raises(InputError, match=r"expected .*(to|from|of) .*, found"):
            parameter_types.check_range(value, help)
