"""Checks of names, paths and generators at the door."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rmtllmf_lib.arrays import file_path, known_names, per_user, torch_generator
from rmtllmf_lib.errors import InputError


def test_names_are_known_and_given_once() -> None:
    assert known_names(iter(["b", "a"]), {"a": 1, "b": 2}, "task") == ("b", "a")
    for names, named in ((["c"], "'c'.*a, b"), (["a", "b", "a"], "'a' is given twice"), ("a", "'a'"), (None, "None")):
        with pytest.raises(InputError, match=named):
            known_names(names, ["a", "b"], "task")


def test_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert file_path("~/x", "out") == Path("/somewhere/x")
    assert file_path("~$x", "out") == Path("~$x")
    for value in ("", 3, None, b"x", "a\0b"):
        with pytest.raises(InputError, match="out is"):
            file_path(value, "out")


def test_generators() -> None:
    generator = torch.Generator()
    assert torch_generator(generator) is generator
    for value in (None, 0, torch.default_generator.get_state()):
        with pytest.raises(InputError, match="generator is"):
            torch_generator(value)


def test_one_number_for_all_users_or_one_for_each() -> None:
    assert per_user(0.5, 3, "mse") == per_user(np.float64(0.5), 3, "mse") == [0.5] * 3
    for each in ([0.1, 1, 0.3], (0.1, 1, 0.3), np.array([0.1, 1, 0.3]), [0.1, np.int64(1), 0.3]):
        assert per_user(each, 3, "mse") == [0.1, 1.0, 0.3]
    assert per_user(0.5, 0, "mse") == []
    with pytest.raises(InputError, match="mse has 2 values for 3 users: expected one number, or one per user"):
        per_user([0.1, 0.2], 3, "mse")
    for bad in (-0.1, [0.1, -0.1], [0.1, "a"], [0.1, float("nan")]):
        with pytest.raises(InputError, match="mse is"):
            per_user(bad, 2, "mse", minimum=0)
