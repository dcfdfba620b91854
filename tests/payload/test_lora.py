"""Factors of low-rank adaptation as a payload."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.lora import ALL, ATTENTION, MLP, Lora
from rmtllmf_lib.payload.payload import Payload
from rmtllmf_lib.transport.coded_payload import LADDER, Quantised, quantised
from small import small_backbone, small_tau

BASE = small_backbone(layers=2).weights
BLOCK = "visual.transformer.resblocks.1."


def numbers_of(lora: Lora, seed: int) -> TaskVector:
    """Random factors."""
    layout = lora.numbers_layout(BASE.layout)
    values = 0.1 * torch.randn(layout.size, generator=torch.Generator().manual_seed(seed))
    return TaskVector(layout, values, BASE.origin, {"task": "x"})


def decoded(lora: Lora, numbers: TaskVector) -> TaskVector:
    return lora.decode(lora.encoded(numbers), BASE.layout)


def test_so_many_numbers_are_sent() -> None:
    """Those of the tiny tower, whose four blocks have matrices of 64 by 192, 64, 256 and 256."""
    layout = load_backbone("tiny").weights.layout
    sizes = {
        Lora(4, 4.0): 4 * 4 * (3 * 64 + 64 + 64 + 64 + 4 * 64 + 64 + 64 + 4 * 64),
        Lora(4, 4.0, frozen=True): 4 * 4 * (3 * 64 + 64 + 4 * 64 + 64),
        Lora(4, 4.0, ATTENTION, frozen=True): 4 * 4 * (3 * 64 + 64),
        Lora(4, 4.0, ("q", "v")): 4 * 4 * 2 * (64 + 64),
        Lora(1, 1.0, MLP): 4 * 2 * (64 + 256),
    }
    assert {lora: lora.numbers_layout(layout).size for lora in sizes} == sizes
    assert isinstance(next(iter(sizes)), Payload)


@pytest.mark.parametrize("frozen", [False, True])
def test_decoding_is_the_scaled_product(frozen: bool) -> None:
    lora = Lora(3, 6.0, ("q", "v", "c_fc"), frozen, seed=5)
    numbers = numbers_of(lora, 0)
    factors, tau = numbers.state_dict(), decoded(lora, numbers)
    tensors, start = tau.state_dict(), lora.start(BASE.layout)
    expected = {name: np.zeros(tensor.shape) for name, tensor in tensors.items()}
    for block in range(2):
        name = f"visual.transformer.resblocks.{block}."
        for key, tensor, rows in (
            ("attn.in_proj_weight.q", "attn.in_proj_weight", slice(0, 64)),
            ("attn.in_proj_weight.v", "attn.in_proj_weight", slice(128, 192)),
            ("mlp.c_fc.weight", "mlp.c_fc.weight", slice(0, 256)),
        ):
            A = start[name + key] if frozen else factors[f"{name}{key}.lora_A"]
            B = factors[f"{name}{key}.lora_B"]
            expected[name + tensor][rows] = 2.0 * np.einsum("mr,rn->mn", B.double(), A.double())
    for name, tensor in tensors.items():
        assert np.allclose(tensor, expected[name], atol=1e-6), name
    assert tau.info == {"task": "x"} and tau.base_hash == BASE.origin


def test_the_start_is_uniform_and_depends_on_the_seed_alone() -> None:
    start = Lora(8, 8.0).start(BASE.layout)
    assert all(torch.equal(A, again) for A, again in zip(start.values(), Lora(8, 1.0).start(BASE.layout).values(),
                                                         strict=True))  # fmt: skip
    other = Lora(8, 8.0, seed=1).start(BASE.layout)
    for key, A in start.items():
        bound = 1 / math.sqrt(A.shape[1])
        assert A.abs().max() < bound and A.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not torch.equal(A, other[key])
    assert len({float(A[0, 0]) for A in start.values()}) == len(start)


@pytest.mark.parametrize("lora", [Lora(4, 2.0), Lora(4, 8.0, frozen=True), Lora(2, 2.0, ("k",), frozen=True, seed=3)])
def test_a_vector_of_the_form_survives_encoding(lora: Lora) -> None:
    tau = decoded(lora, numbers_of(lora, 1))
    again = lora.decode(lora.encode(tau), tau.layout)
    assert (again - tau).norm < 1e-5 * tau.norm


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 8), st.integers(0, 5), st.sampled_from([ALL, ATTENTION, MLP, ("q", "v")]))
def test_encoding_is_a_projection(rank: int, seed: int, matrices: tuple[str, ...]) -> None:
    """What is left of a vector is orthogonal to what is sent of it, and a second encoding changes nothing."""
    for frozen in (False, True):
        lora = Lora(rank, 3.0, matrices, frozen)  # type: ignore[arg-type]
        tau = small_tau(BASE, seed)
        sent = lora.decode(lora.encode(tau), tau.layout)
        assert abs(sent.dot(tau - sent)) < 1e-5 * tau.norm * sent.norm
        assert (lora.decode(lora.encode(sent), tau.layout) - sent).norm < 1e-4 * sent.norm


def test_the_sum_of_two_users_is_exact_where_a_is_shared() -> None:
    shared, own = Lora(4, 4.0, frozen=True), Lora(4, 4.0)
    for lora, exact in ((shared, True), (own, False)):
        one, two = numbers_of(lora, 1), numbers_of(lora, 2)
        apart = decoded(lora, one) + decoded(lora, two)
        together = decoded(lora, one + two)
        assert ((together - apart).norm < 1e-6 * apart.norm) == exact
    mean = decoded(shared, (numbers_of(shared, 1) + numbers_of(shared, 2)) / 2)
    taus = [decoded(shared, numbers_of(shared, seed)) for seed in (1, 2)]
    assert (mean - sum(taus, start=0 * mean) / 2).norm < 1e-6 * mean.norm


def test_factors_are_quantised_as_any_payload() -> None:
    lora = Lora(4, 4.0, frozen=True)
    tau = decoded(lora, numbers_of(lora, 1))
    fine, rough = (Quantised(lora, bits).arrived(tau) for bits in (10, 2))
    assert (fine - tau).norm < 0.05 * tau.norm < (rough - tau).norm < tau.norm
    numbers = quantised(lora.encode(tau).numbers, 10, 3.0)
    assert torch.equal(lora.decode(lora.encoded(numbers), tau.layout).values, fine.values)
    assert Quantised(lora, 3).size(BASE.layout) == 3 * lora.numbers_layout(BASE.layout).size
    assert Quantised(lora, 2).size(BASE.layout) < LADDER[1].size(BASE.layout)


def test_another_start_or_layout_is_refused() -> None:
    lora = Lora(4, 4.0, frozen=True)
    encoded = lora.encode(small_tau(BASE, 1))
    with pytest.raises(InputError, match="seed is 1, .* with seed 0"):
        replace(lora, seed=1).decode(encoded, BASE.layout)
    through = replace(encoded, numbers=quantised(encoded.numbers, 4, 3.0))
    with pytest.raises(InputError, match="seed is 1"):
        replace(lora, seed=1).decode(through, BASE.layout)
    with pytest.raises(InputError, match="the payload's numbers"):
        lora.decode(encoded, small_backbone(layers=3).weights.layout)
    with pytest.raises(InputError, match="the payload's numbers"):
        Lora(4, 4.0).decode(encoded, BASE.layout)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "rank is 0"), ({"alpha": 0.0}, "alpha is 0"), ({"matrices": ()}, "matrices is"),
        ({"matrices": ("in_proj", "q")}, "in_proj, or some of its parts"), ({"matrices": ("q", "q")}, "each once"),
        ({"matrices": ("attn",)}, "'attn'.*expected"), ({"seed": -1}, "seed is -1"),
        ({"alpha": math.nan}, "alpha is nan"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(Lora(4, 4.0), **wrong)


def test_a_rank_above_a_matrix_and_other_layouts_are_refused() -> None:
    assert Lora(64, 1.0).slots(BASE.layout)
    with pytest.raises(InputError, match="rank is 65, and .* is a matrix of 192 by 64"):
        Lora(65, 1.0).numbers_layout(BASE.layout)
    flat = Layout(("visual.conv1.weight", "visual.ln_pre.weight"), ((8, 3, 2, 2), (8,)))
    with pytest.raises(InputError, match="no matrix 'in_proj'"):
        Lora(1, 1.0).numbers_layout(flat)
