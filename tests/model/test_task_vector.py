"""The vector space of differences: its laws, inner products, scalars."""

import operator
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rmtllmf_lib import threads as pieces
from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import GROUPS, Layout
from rmtllmf_lib.model.task_vector import TaskVector, cosine_matrix
from vectors import BASE, SIZE, unhurried, vector

EPS = float(np.finfo(np.float32).eps)

numbers = st.floats(-1e3, 1e3, width=32)
vectors = arrays(np.float32, SIZE, elements=numbers).map(vector)
factors = st.floats(-10, 10)


def close(a: TaskVector, b: TaskVector, size: float) -> bool:
    """Whether two vectors agree to a few roundings of numbers of this size."""
    return (a.values - b.values).abs().max().item() <= 4 * EPS * size + 1e-37


def largest(*taus: TaskVector) -> float:
    return max(tau.values.abs().max().item() for tau in taus)


# --- the vector space -------------------------------------------------------------------------------------------


@unhurried
@given(vectors, vectors, vectors)
def test_addition(a: TaskVector, b: TaskVector, c: TaskVector) -> None:
    assert torch.equal((a + b).values, (b + a).values)
    assert close((a + b) + c, a + (b + c), 3 * largest(a, b, c))
    assert torch.equal((a - b).values, (a + (-b)).values)
    assert not (a - a).values.any()
    assert torch.equal(sum([a, b, c]).values, (a + b + c).values)


@unhurried
@given(vectors, vectors, factors, factors)
def test_scaling(a: TaskVector, b: TaskVector, x: float, y: float) -> None:
    size = 20 * largest(a, b)
    assert close(x * (a + b), x * a + x * b, size)
    assert close((x + y) * a, x * a + y * a, size)
    assert close(x * (y * a), (x * y) * a, 10 * size)
    assert torch.equal((x * a).values, (a * x).values)
    assert torch.equal((1 * a).values, a.values)
    assert torch.equal((-1 * a).values, (-a).values)
    if abs(x) > 1e-3:
        assert close((x * a) / x, a, size)


@unhurried
@given(vectors, vectors, factors)
def test_inner_product(a: TaskVector, b: TaskVector, x: float) -> None:
    reference = a.values.double() @ b.values.double()
    bound = 1e-12 * a.norm * b.norm + 1e-300
    assert abs(a.dot(b) - reference.item()) <= bound
    assert abs(a.dot(b)) <= a.norm * b.norm * (1 + 1e-12)
    assert a.norm == pytest.approx(torch.linalg.vector_norm(a.values.double()).item(), rel=1e-12)
    assert a.rms == pytest.approx(a.norm / SIZE**0.5)
    assert (x * a).norm == pytest.approx(abs(x) * a.norm, rel=1e-5, abs=1e-35)


@unhurried
@given(vectors, st.sets(st.sampled_from(GROUPS), min_size=1))
def test_groups_partition_the_norm(a: TaskVector, groups: set[str]) -> None:
    only, without = a.only(*groups), a.without(*groups)
    assert torch.equal((only + without).values, a.values)
    assert not (only.values * without.values).any()
    assert only.norm**2 + without.norm**2 == pytest.approx(a.norm**2, rel=1e-12)
    assert torch.equal(a.without(*groups).values, a.only(*set(GROUPS) - groups).values)
    assert torch.equal(sum(a.only(group) for group in GROUPS).values, a.values)


def test_groups_by_name() -> None:
    only = vector(torch.ones(SIZE)).only("embeddings", "projection").state_dict()
    assert {name for name, tensor in only.items() if tensor.any()} == {
        "visual.class_embedding",
        "visual.conv1.weight",
        "visual.proj",
    }
    with pytest.raises(InputError, match="'head'.*'embeddings'"):
        vector(1).without("head")


@unhurried
@given(st.lists(vectors.filter(lambda tau: tau.norm > 0), min_size=1, max_size=5))
def test_cosines_against_pairs(taus: list[TaskVector]) -> None:
    cosines = cosine_matrix(taus)
    assert cosines.dtype == np.float64
    for i, a in enumerate(taus):
        for j, b in enumerate(taus):
            x, y = a.values.double(), b.values.double()
            reference = (x / torch.linalg.vector_norm(x)) @ (y / torch.linalg.vector_norm(y))
            assert cosines[i, j] == pytest.approx(reference.item(), abs=1e-12)
    assert np.array_equal(cosines, cosines.T)
    assert np.array_equal(np.diag(cosines), np.ones(len(taus)))
    assert (np.abs(cosines) <= 1).all()


def test_cosines_over_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result depends neither on the cuts of the buffer nor on the number of threads."""
    monkeypatch.setattr(pieces, "PIECE", 2**16)  # two blocks per piece
    layout = Layout(("visual.proj",), ((2**18 + 77,),))
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(layout.size, generator=generator)
    taus = [
        TaskVector(layout, 1e-30 * (common + k * torch.randn(layout.size, generator=generator)), "b") for k in range(4)
    ]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = cosine_matrix(taus)
        torch.set_num_threads(2)
        two = cosine_matrix(taus)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one, two)
    reference = np.corrcoef([1e30 * tau.values.double().numpy() for tau in taus])
    rows = np.stack([tau.values.double().numpy() for tau in taus])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(one, rows @ rows.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one, reference, atol=0.01)


def test_cosine_of_a_zero_vector() -> None:
    with pytest.raises(InputError, match="task vector 1 of 'mnist' is zero and has no direction"):
        cosine_matrix([vector(1), vector(torch.zeros(SIZE), task="mnist")])
    with pytest.raises(InputError, match="at least one task vector"):
        cosine_matrix([])


# --- scalars ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [0.5, np.float64(0.5), np.float32(0.5), np.float16(0.5), Fraction(1, 2)])
def test_kinds_of_real_numbers(half: float) -> None:
    tau = vector(1)
    for result in (half * tau, tau * half, tau / (1 / half)):
        assert isinstance(result, TaskVector)
        assert torch.equal(result.values, 0.5 * tau.values)
    assert torch.equal((np.int64(2) * tau).values, (tau + tau).values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan"), 1j, np.complex64(1), True, np.True_])
def test_numbers_that_do_not_scale(bad: complex) -> None:
    for way in (lambda: bad * vector(1), lambda: vector(1) * bad, lambda: vector(1) / bad):
        with pytest.raises(InputError, match="of a task vector is .*: expected a finite number"):
            way()


def test_division_by_zero_and_overflow() -> None:
    with pytest.raises(InputError, match="cannot be divided by 0"):
        vector(1) / 0
    with pytest.raises(InputError, match="'visual.class_embedding' holds .* NaN or infinite"):
        vector(torch.full((SIZE,), 1e10)) * 1e30


@pytest.mark.parametrize("other", ["x", None, [1.0], np.ones(SIZE), np.ones(()), torch.ones(SIZE), 3, 0.0, False])
@pytest.mark.parametrize("operation", [operator.add, operator.sub])
def test_nothing_else_can_be_added(other: object, operation: Callable) -> None:
    with pytest.raises(TypeError):
        operation(vector(1), other)


@pytest.mark.parametrize("other", ["x", None, [1.0], np.ones(SIZE), torch.ones(SIZE), BASE])
def test_nothing_else_can_be_multiplied(other: object) -> None:
    for way in (lambda: vector(1) * other, lambda: other * vector(1), lambda: vector(1) / other):
        with pytest.raises(TypeError):
            way()
    with pytest.raises(TypeError):
        vector(1) * vector(1)


def test_finite_number() -> None:
    assert real_number(np.float32(0.5), "x") == 0.5
    with pytest.raises(InputError, match="the step is '1'"):
        real_number("1", "the step")
