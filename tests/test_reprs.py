"""Objects print in one short line, and a notebook shows a table where there is one to look at."""

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from good_arguments import objects
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.wireless.adversary import attack
from rmtllmf_lib.wireless.channel import Uplink
from small import small_backbone, small_head, small_task, small_tau
from tools import house

# Fields of these types may hold any number of items.
LARGE = ("Tensor", "Real", "Complex", "ndarray", "DataFrame", "Mapping", "dict[", "list[", "Sequence", "Weights",
         "Split", "Suite", "Backbone", "Layout", "TaskVector", "frozenset", "tuple[str, ...]",
         "tuple[Scenario")  # fmt: skip


def dataclasses_of_the_library() -> Iterator[type]:
    for module in house.modules():
        if ".chapters" not in module and ".command" not in module:
            for _, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass):
                if cls.__module__ == module and dataclasses.is_dataclass(cls):
                    yield cls


def is_large(cls: type) -> bool:
    return any(any(name in str(each.type) for name in LARGE) for each in dataclasses.fields(cls) if each.repr)


def test_every_class_that_can_hold_much_prints_shortly() -> None:
    large = [cls for cls in dataclasses_of_the_library() if is_large(cls)]
    assert len(large) > 30
    own = (short_repr, Weights.__repr__, TaskVector.__repr__)
    assert [cls.__qualname__ for cls in large if cls.__repr__ not in own and not cls.__name__.startswith("_")] == []


@pytest.mark.parametrize(
    "value", [v for v in objects().values() if dataclasses.is_dataclass(v)], ids=lambda v: type(v).__name__
)
def test_an_object_prints_in_one_line(value: object) -> None:
    text = repr(value)
    assert text.startswith(type(value).__name__.lstrip("_")) or "<" in text
    assert len(text) < 500
    assert "\n" not in text


def test_a_suite_is_a_line_and_a_table() -> None:
    backbone = small_backbone(layers=1)
    names = [f"task {number}" for number in range(8)]
    suite = Suite(
        backbone,
        {name: small_task(name) for name in names},
        {name: small_head() for name in names},
        {name: small_tau(backbone.weights, 1, size=0.02) for name in names[:-1]},
    )
    assert repr(suite) == (
        "Suite(backbone=Backbone(…), tasks=8 (task 0, task 1, task 2, task 3, …), "
        "heads=8 (task 0, task 1, task 2, task 3, …), taus=7 (task 0, task 1, task 2, task 3, …), device='cpu')"
    )
    table = suite.describe()
    assert table.task.tolist() == names
    assert table[["classes", "train", "validation", "test"]].values.tolist() == [[5, 60, 20, 60]] * 8
    assert table.tau_rms.isna().tolist() == [False] * 7 + [True]
    assert table.tau_rms[0] == pytest.approx(0.02, rel=0.01)
    (shown,) = pd.read_html(suite._repr_html_()) if importlib.util.find_spec("lxml") else (table,)
    assert shown.task.tolist() == names


def test_an_uplink_and_its_attack() -> None:
    uplink = Uplink(np.ones((4, 2)), [1e-4, 2e-4], 1e-15)
    assert repr(uplink) == "Uplink(H=complex128 (4, 2), power=[0.0001, 0.0002], noise_floor=1e-15)"
    text = repr(attack(uplink, power=1e-13, kind="sum-rate"))
    assert text.startswith("Attack(noise_cov=complex128 (4, 4), objective=")
    assert len(text) < 160


@dataclass
class Item:
    value: Any
    hidden: int = field(default=0, repr=False)
    __repr__ = short_repr


@dataclass
class Inner:
    inside: Item


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.23456789, "1.235"),
        (True, "True"),
        (12, "12"),
        (None, "None"),
        (3 + 4j, "3+4j"),
        ("a" * 100, "'" + "a" * 59 + "…'"),
        (np.float64(0.1), "0.1"),
        (np.array([]), "float64 (0,)"),
        (np.array([1.5, np.nan]), "[1.5, nan]"),
        (np.zeros((2, 2)), "float64 (2, 2)"),
        (np.array(7), "7"),
        (torch.zeros(5), "float32 (5,)"),
        (torch.tensor([1, 2]), "[1, 2]"),
        ((), "()"),
        (("x",), "('x',)"),
        ([1, 2], "[1, 2]"),
        (tuple(range(9)), "9 (0, 1, 2, 3, …)"),
        (["word " * 9] * 5, "5 (" + "word word word word…, " * 4 + "…)"),
        (tuple(x / 7 for x in range(1, 9)), "8 (0.1429, 0.2857, 0.4286, 0.5714, …)"),
        ([Item(1), Item(2)], "2 Item"),
        ({}, "{}"),
        ({"b": 1, "a": 2}, "2 (b, a)"),
        (frozenset({"one"}), "1 (one)"),
        (pd.DataFrame({"x": [1, 2], "y": 3}), "table of 2 rows and 2 columns"),
        (len, "len"),
        (Item(2), "Item(value=2)"),
        (Item("long " * 20), "Item(…)"),
        (Inner(Item(1)), "Inner(…)"),
        (Item, "Item"),
        (torch.nn.Sequential(torch.nn.Linear(2, 2)), "Sequential(…)"),
    ],
)  # fmt: skip
def test_what_stands_for_a_field(value: object, expected: str) -> None:
    assert repr(Item(value)) == f"Item(value={expected})"
