from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import CONFIG, configs, reordered, typed
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.canonical import config_key

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


@unhurried
@given(configs)
def test_order_of_keys_and_tuples_do_not_change_the_key(config: dict[str, Any]) -> None:
    assert config_key(reordered(config)) == config_key(config)


@unhurried
@given(configs, configs)
def test_keys_are_equal_only_where_the_configs_are(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (config_key(one) == config_key(two)) == (typed(one) == typed(two))


@unhurried
@given(configs)
def test_the_key_survives_json(config: dict[str, Any]) -> None:
    assert config_key(json.loads(json.dumps(config))) == config_key(config)


@unhurried
@given(configs, st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
def test_numbers_that_are_not_finite_are_refused(config: dict[str, Any], odd: float, deep: bool) -> None:
    with pytest.raises(InputError, match="finite"):
        config_key(config | {"x": {"y": [odd]} if deep else odd})


@pytest.mark.parametrize(
    "odd", [{1, 2}, b"bytes", 1j, object(), Path("a"), torch.ones(1), pd.Series([1.0]), lambda: 1, range(3)]
)
def test_other_types_are_refused_and_named(odd: Any) -> None:
    with pytest.raises(InputError, match=rf"config\['x'\]\[0\] is .*of type {type(odd).__name__}"):
        config_key({"x": [odd]})


@pytest.mark.parametrize("odd", [1, None, True, 1.5, ("a",)])
def test_keys_must_be_text(odd: Any) -> None:
    with pytest.raises(InputError, match="keys must be text"):
        config_key({"x": {odd: 1, "1": 2}})


def test_a_config_must_be_a_finite_mapping() -> None:
    with pytest.raises(InputError, match="must be a mapping"):
        config_key([("a", 1)])  # type: ignore[arg-type]
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(InputError, match="contains itself"):
        config_key(loop)


def test_the_key_is_pinned() -> None:
    """A change of the canonical form would orphan everybody's stores: it must be made knowingly."""
    text = '{"lam":0.3,"nested":{"a":null,"b":[true,1,1.5]},"seed":3,"tasks":["mnist","gtsrb"]}'
    assert config_key(CONFIG) == hashlib.sha256(text.encode()).hexdigest()
