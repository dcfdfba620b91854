"""Payloads: what arrives is the nearest vector of its kind, counts are those of what is sent, and bad input."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.payload.payload import Encoded, Full, Payload
from rmtllmf_lib.payload.signs import Signs
from rmtllmf_lib.payload.sparse import Sparse
from small import small_backbone, small_tau
from vectors import LAYOUT, unhurried, vector

BASE = small_backbone(layers=2).weights
TAU = small_tau(BASE, 1, task="a")
MATRICES = {
    name for name, shape in zip(BASE.layout.names, BASE.layout.shapes, strict=True)
    if len(shape) == 2 and "resblocks" in name
}  # fmt: skip
PAYLOADS = [Full(), LowRank(3), LowRank(64), Sparse(0.1), Sparse(1.0), Signs()]


def round_trip(payload: Payload, tau: TaskVector) -> TaskVector:
    return payload.decode(payload.encode(tau), tau.layout)


@pytest.mark.parametrize("payload", PAYLOADS, ids=str)
def test_counts_are_those_of_what_is_sent_and_a_second_trip_changes_nothing(payload: Payload) -> None:
    before = TAU.values.clone()
    encoded = payload.encode(TAU)
    assert encoded.numbers.layout == payload.numbers_layout(TAU.layout)
    assert encoded.numbers.base_hash == TAU.base_hash and encoded.numbers.info == TAU.info
    once = round_trip(payload, TAU)
    assert once.layout == TAU.layout and once.base_hash == TAU.base_hash and once.info == TAU.info
    torch.testing.assert_close(round_trip(payload, once).values, once.values, atol=1e-6, rtol=1e-4)
    assert torch.equal(TAU.values, before)


def test_the_embedded_tower_sends_as_much_as_the_book_says() -> None:
    layout = load_backbone("tiny").weights.layout
    assert LowRank(4).numbers_layout(layout).size == 16_384 and LowRank(8).numbers_layout(layout).size == 32_768
    assert len(LowRank(4).numbers_layout(layout).names) == 2 * 16


@pytest.mark.parametrize("rank", [1, 3, 64])
def test_low_rank_leaves_the_smallest_error_there_is(rank: int) -> None:
    """The singular values beyond the rank, by NumPy; and nothing but the matrices of the blocks is sent."""
    arrived, sent = round_trip(LowRank(rank), TAU).state_dict(), TAU.state_dict()
    for name, tensor in arrived.items():
        if name not in MATRICES:
            assert not tensor.any(), name
            continue
        beyond = np.linalg.svd(sent[name].double().numpy(), compute_uv=False)[rank:]
        error = float((tensor.double() - sent[name].double()).norm())
        assert error == pytest.approx(math.sqrt((beyond**2).sum()), abs=1e-6 * float(sent[name].norm()))


def test_the_factors_are_balanced() -> None:
    factors = LowRank(5).encode(TAU).numbers.state_dict()
    for name in MATRICES:
        left, right = factors[name + ".left"].double(), factors[name + ".right"].double()
        s = np.linalg.svd(TAU.state_dict()[name].double().numpy(), compute_uv=False)[:5]
        for gram in (left.T @ left, right @ right.T):
            np.testing.assert_allclose(gram.numpy(), np.diag(s), atol=1e-6 * s[0])


@unhurried
@given(st.integers(0, 99), st.integers(1, 3), st.floats(1e-3, 1e3))
def test_matrices_of_low_rank_arrive_whole(seed: int, rank: int, scale: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    thin = scale * torch.randn(3, rank, generator=draws) @ torch.randn(rank, 4, generator=draws)
    values = torch.zeros(LAYOUT.size)
    LAYOUT.views(values)["visual.transformer.resblocks.0.mlp.c_fc.weight"].copy_(thin)
    arrived = round_trip(LowRank(rank), vector(values))
    torch.testing.assert_close(arrived.values, values, atol=1e-4 * scale, rtol=1e-4)


def test_a_zero_vector_stays_zero() -> None:
    for payload in PAYLOADS:
        assert not round_trip(payload, 0 * TAU).values.any(), payload


@unhurried
@given(st.integers(0, 99), st.floats(0.01, 1))
def test_sparse_keeps_the_largest(seed: int, share: float) -> None:
    tau = vector(seed)
    arrived = round_trip(Sparse(share), tau).values
    kept = arrived != 0
    count = math.ceil(share * LAYOUT.size)
    assert int(kept.sum()) == count == Sparse(share).numbers_layout(LAYOUT).size
    assert torch.equal(arrived[kept], tau.values[kept])
    assert count == LAYOUT.size or tau.values[kept].abs().min() >= tau.values[~kept].abs().max()


def test_index_bits_number_all_subsets() -> None:
    layout = Layout(("visual.proj",), ((9,),))
    for count in range(1, 10):
        subsets = len(list(combinations(range(9), count)))
        bits = Sparse(count / 9).side_bits(layout)
        assert 2**bits >= subsets > 2 ** (bits - 1) or subsets == 1 and bits == 0
    many = Layout(("visual.proj",), ((200_000,),))
    entropy = -(0.05 * math.log2(0.05) + 0.95 * math.log2(0.95))
    assert Sparse(0.05).side_bits(many) == pytest.approx(200_000 * entropy, rel=1e-3)


def test_signs_have_the_best_scale_of_each_tensor() -> None:
    encoded = Signs().encode(TAU)
    assert set(encoded.numbers.values.tolist()) == {-1.0, 1.0} and Signs().side_bits(TAU.layout) == 32 * len(
        TAU.layout.names
    )
    arrived, sent = Signs().decode(encoded, TAU.layout).state_dict(), TAU.state_dict()
    for name, tensor in arrived.items():
        signs = torch.where(sent[name] < 0, -1.0, 1.0).double().flatten()
        best = float(torch.linalg.lstsq(signs[:, None], sent[name].double().flatten()[:, None]).solution)
        torch.testing.assert_close(tensor.double().flatten(), best * signs, atol=1e-7, rtol=1e-5)


def test_signs_need_one_bit_of_any_quantiser() -> None:
    encoded = Signs().encode(TAU)
    louder = Encoded(1.5 * encoded.numbers, encoded.side)
    assert torch.equal(Signs().decode(louder, TAU.layout).values, Signs().decode(encoded, TAU.layout).values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRank(0), "rank is 0"),
        (lambda: LowRank(2.0), "rank is 2.0"),  # type: ignore[arg-type]
        (lambda: LowRank(65).encode(TAU), "rank is 65, .*64: expected at most 64"),
        (lambda: LowRank(1).encode(TaskVector(Layout(("visual.proj",), ((4, 4),)), torch.ones(16), "x")), "no matrix"),
        (lambda: Sparse(0.0), "share is 0"),
        (lambda: Sparse(1.5), "share is 1.5"),
    ],
)
def test_bad_payloads(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("payload", PAYLOADS, ids=str)
def test_numbers_of_another_layout_are_refused(payload: Payload) -> None:
    other = small_backbone(layers=1).weights.layout
    with pytest.raises(InputError):
        payload.decode(payload.encode(TAU), other)
    if not isinstance(payload, Full | Signs):
        with pytest.raises(InputError, match="the payload's numbers"):
            Full().decode(payload.encode(TAU), TAU.layout)


def test_numbers_of_another_rank_are_refused() -> None:
    with pytest.raises(InputError, match="left: .*expected"):
        LowRank(2).decode(LowRank(3).encode(TAU), TAU.layout)


@pytest.mark.parametrize("side", [torch.empty(0), torch.zeros(3), torch.full((2,), 9**9)])
def test_bad_side_information_is_refused(side: torch.Tensor) -> None:
    for payload in (Sparse(0.1), Signs()):
        with pytest.raises(InputError, match="side has shape"):
            payload.decode(Encoded(payload.encode(TAU).numbers, side), TAU.layout)
