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


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(configs, configs, st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
def test_equal_keys_mean_equal_configs(one: dict[str, Any], two: dict[str, Any], odd: float, deep: bool) -> None:
    """The order of keys, tuples for lists and a detour through JSON do not matter; numbers must be finite."""
    key = config_key(one)
    assert config_key(reordered(one)) == config_key(json.loads(json.dumps(one))) == key
    assert (key == config_key(two)) == (typed(one) == typed(two))
    assert key != config_key(one | {"another": two})
    with pytest.raises(InputError, match="finite"):
        config_key(one | {"x": {"y": [odd]} if deep else odd})


@pytest.mark.parametrize(
    "odd", [{1, 2}, b"bytes", 1j, object(), Path("a"), torch.ones(1), pd.Series([1.0]), lambda: 1, range(3)]
)
def test_other_types_are_refused_and_named(odd: Any) -> None:
    with pytest.raises(InputError, match=rf"config\['x'\]\[0\] is .*of type {type(odd).__name__}"):
        config_key({"x": [odd]})


@pytest.mark.parametrize("odd", [1, None, True, 1.5, ("a",)])
def test_keys_must_be_text(odd: Any) -> None:
    with pytest.raises(InputError, match="of type .*keys"):
        config_key({"x": {odd: 1, "1": 2}})


def test_a_config_must_be_a_finite_mapping() -> None:
    with pytest.raises(InputError, match="config is .* of type list"):
        config_key([("a", 1)])  # type: ignore[arg-type]
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(InputError, match="contains itself"):
        config_key(loop)


def test_the_key_is_pinned() -> None:
    """A change of the canonical form would orphan everybody's stores: it must be made knowingly."""
    text = '{"lam":0.3,"nested":{"a":null,"b":[true,1,1.5]},"seed":3,"tasks":["mnist","gtsrb"]}'
    assert config_key(CONFIG) == hashlib.sha256(text.encode()).hexdigest()
