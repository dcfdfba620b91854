"""The difficulty of drawn tasks."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.tasks.embedded.difficulty import DEFAULT, DIFFICULTIES, HARDEST, severity
from rmtllmf_lib.tasks.embedded.procedural import DRAWN
from rmtllmf_lib.tasks.sources import load_task, parse_tasks, severities
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.heads import build_head

FEW = {"n_train": 20, "n_test": 20}


@pytest.mark.parametrize(
    ("given", "expected"), [("easy", 0.0), ("hard", 1.0), (0.3, 0.3), ("0.3", 0.3), (2, 2.0), (HARDEST, HARDEST)]
)
def test_names_and_numbers(given: str | float, expected: float) -> None:
    assert severity(given) == expected


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, HARDEST + 0.1, "-1", "nan", "9", "", True, None, [1]])
def test_values_out_of_range(bad: Any) -> None:
    with pytest.raises(InputError, match="difficulty is"):
        severity(bad)


def test_a_close_name_is_suggested() -> None:
    with pytest.raises(InputError, match="'calibrate'.*'calibrated'"):
        severity("calibrate")


# Means of the pixels of the first images, and the fingerprint of the whole, from before there was a difficulty.
def test_easy_draws_the_images_as_they_were() -> None:
    task = load_task("cars", n_train=100, n_test=20, difficulty="easy")
    assert task.fingerprint.startswith("c77a89f1529d")


def test_the_base_recognises_less_the_harder_the_images() -> None:
    backbone = load_backbone("tiny")
    found = []
    for difficulty in (0.0, 1.0, HARDEST):
        tasks = [load_task(name, difficulty=difficulty, n_train=10, n_test=100) for name in DRAWN]
        scores = [accuracy(backbone, backbone.weights, task.test, build_head(backbone, task)) for task in tasks]
        found.append(sum(scores) / len(scores))
    assert found[0] > found[1] + 0.1 > found[2] + 0.2


def test_a_name_is_its_number_and_the_default_has_a_name() -> None:
    by_name = load_task("signs", difficulty="hard", **FEW)
    assert by_name.fingerprint == load_task("signs", difficulty=DIFFICULTIES["hard"], **FEW).fingerprint
    assert load_task("signs", **FEW).fingerprint == load_task("signs", difficulty=DEFAULT, **FEW).fingerprint
    assert by_name.fingerprint != load_task("signs", difficulty="easy", **FEW).fingerprint


@pytest.mark.parametrize(("name", "source"), [("digits", "procedural"), ("pets", "folder"), ("mnist", "torchvision")])
def test_real_images_have_none(name: str, source: str, tmp_path: Any) -> None:
    with pytest.raises(InputError, match="difficulty is 'hard'"):
        load_task(name, source, root=None if source == "procedural" else tmp_path, difficulty="hard")


def test_a_suite_needs_one_drawn_task() -> None:
    both = parse_tasks(["digits", "signs"], "procedural", None)
    assert severities(both, "hard") == {"signs": 1.0}
    assert severities(both[:1], None) == {}
    with pytest.raises(InputError, match="difficulty is 'hard' but no task is drawn"):
        severities(both[:1], "hard")
