"""Frozen dataclasses that check their fields, and functions that check their arguments."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import pytest
from numpy.typing import ArrayLike
from pydantic import Field, PositiveInt

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.validated import validated, validated_call


@validated
class Plan:
    steps: Annotated[int, Field(ge=1)]
    rate: Annotated[float, Field(gt=0)] = 0.5
    kind: Literal["alpha", "beta"] = "alpha"
    sizes: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)
    limit: Annotated[int, Field(ge=1)] | None = None
    mse: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit > self.steps:
            raise InputError(f"limit is {self.limit}: expected at most steps = {self.steps}")


def test_a_valid_one_is_an_ordinary_frozen_dataclass():
    plan = Plan(np.int64(3), 2, sizes=[1, 2], mse=[1, 0.5])
    assert (plan.rate, type(plan.rate), type(plan.steps), plan.sizes, plan.mse) == (2.0, float, int, (1, 2), (1.0, 0.5))
    assert hash(plan) == hash(pickle.loads(pickle.dumps(plan))) and plan == Plan(**dataclasses.asdict(plan))
    assert dataclasses.replace(plan, steps=4).steps == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.steps = 4
    with pytest.raises(InputError, match="steps is 0"):
        dataclasses.replace(plan, steps=0)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("steps", 0, "steps is 0"),
        ("steps", True, "steps is True"),
        ("steps", 1.0, r"steps is 1\.0"),
        ("steps", "1", "steps is '1'"),
        ("rate", False, "rate is False"),
        ("rate", float("nan"), "rate is nan"),
        ("rate", float("inf"), "rate is inf"),
        ("kind", "alpa", "kind is 'alpa'"),
        ("sizes", [], r"sizes is \(\)"),
        ("sizes", (1, 1.5), r"sizes\[1\] is 1\.5"),
        ("limit", 0, "limit is 0"),
        ("limit", 3, "limit is 3"),
        ("mse", "x", "mse is 'x'"),
    ],
)
def test_the_first_field_that_fails_is_named_with_its_value(field, value, named):
    with pytest.raises(InputError, match=f"{named}: expected"):
        Plan(**{"steps": 2, field: value})


def test_a_positional_argument_has_the_name_of_its_field():
    with pytest.raises(InputError, match="rate is 0: expected a number"):
        Plan(2, 0)


@pytest.mark.parametrize("arguments", [{}, {"steps": 1, "step": 1}])
def test_a_wrong_call_is_a_type_error(arguments):
    with pytest.raises(TypeError, match="step"):
        Plan(**arguments)


@validated_call
def merge(
    taus: Sequence[int],
    lam: float | Sequence[float],
    rule: Literal["mean", "sum"] = "sum",
    *,
    count: PositiveInt | None = None,
    values: ArrayLike = 0.0,
    heads: Mapping[str, str] | None = None,
) -> str:
    return f"{len(taus)} {rule}"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (([1, 2], 0.3), {}),
        (((), 1), {"count": np.int64(2)}),
        (([1], [0.1, 0.2]), {"values": [[1, 2j]]}),
        (({"a": 1}.values(), np.array([0.1])), {"values": np.nan}),  # NaN in arrays is for the function
        (([1], np.array(0.5)), {"heads": {"a": "b"}}),
        ((np.array([1, 2]), np.float32(0.5)), {"rule": "mean"}),
    ],
)
def test_calls_that_fit_their_annotations(arguments, options):
    assert merge(*arguments, **options) == f"{len(arguments[0])} {options.get('rule', 'sum')}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("taus", 1), ("taus", None), ("taus", "12"), ("taus", {1: 2}), ("taus", [1.5]), ("taus", [True]),
        ("lam", float("nan")), ("lam", float("inf")), ("lam", "0.3"), ("lam", True), ("lam", [0.1, None]),
        ("rule", "median"), ("rule", None), ("count", 0), ("count", 2.0), ("count", -1),
        ("values", "text"), ("values", None), ("values", [[1, 2], [3]]), ("values", {}),
        ("heads", {"a": 1}), ("heads", ["a"]),
    ],
)  # fmt: skip
def test_a_call_names_the_argument_that_does_not_fit(name, value):
    with pytest.raises(InputError, match=f"^{name} is .*: expected "):
        merge(**{"taus": [1], "lam": 0.5, name: value})


def test_a_call_with_other_arguments_is_a_type_error():
    for options in ({"lam": 1}, {"taus": [1], "lam": 1, "weight": 2}):
        with pytest.raises(TypeError, match="taus|weight"):
            merge(**options)
