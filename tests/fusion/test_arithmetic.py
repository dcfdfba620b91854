"""Task arithmetic and its coefficient."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from places import ROOT
from rmtllmf_lib import threads as pieces
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion import arithmetic
from rmtllmf_lib.fusion.arithmetic import LAMBDA_GRID, LAMBDA_RULES, choose_lambda, fuse, lambda_n
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from vectors import unhurried

REAL_DATA = Path(os.environ.get("RMTLLMF_REAL_DATA", ROOT.parent / "shared/data/real"))
PUBLISHED = REAL_DATA.parent / "peta"
EPS = float(np.finfo(np.float32).eps)


def case(size: int, count: int, seed: int = 0, scale: float = 1e-3) -> tuple[Weights, list[TaskVector]]:
    generator = torch.Generator().manual_seed(seed)
    layout = Layout(("visual.ln_post.bias", "visual.proj"), ((1,), (size - 1,)))
    base = Weights(layout, torch.randn(size, generator=generator))
    taus = [
        TaskVector(layout, scale * torch.randn(size, generator=generator), base.hash, {"task": f"task{k}"})
        for k in range(count)
    ]
    return base, taus


def reference(base: Weights, taus: list[TaskVector], factors: list[float]) -> torch.Tensor:
    total = sum(factor * tau.values.double() for factor, tau in zip(factors, taus, strict=True))
    return base.values.double() + total


coefficients = st.lists(st.floats(-2, 2), min_size=1, max_size=20)


@unhurried
@given(coefficients, st.integers(2, 300), st.integers(0, 99), st.sampled_from([1e-4, 1.0, 100.0]))
def test_fuse_is_the_plain_sum(factors: list[float], size: int, seed: int, scale: float) -> None:
    base, taus = case(size, len(factors), seed, scale)
    fused = fuse(base, taus, factors)
    terms = [abs(factor) * tau.values.abs() for factor, tau in zip(factors, taus, strict=True)]
    bound = EPS * (base.values.abs() + (len(factors) + 1) * sum(terms)) + 1e-37
    assert ((fused.values.double() - reference(base, taus, factors)).abs() <= bound).all()
    assert fused.base_hash == base.hash


@unhurried
@given(st.permutations(range(5)), st.floats(-2, 2), st.integers(0, 99))
def test_order_of_the_vectors_matters_to_rounding_only(order: list[int], lam: float, seed: int) -> None:
    base, taus = case(50, 5, seed, 1.0)
    straight, turned = fuse(base, taus, lam).values, fuse(base, [taus[k] for k in order], lam).values
    size = base.values.abs() + abs(lam) * sum(tau.values.abs() for tau in taus)
    assert ((straight - turned).abs() <= 8 * EPS * size).all()


def test_small_updates_are_not_lost_to_rounding() -> None:
    """Eight updates, each too small to change the base alone, change it together."""
    layout = Layout(("visual.proj",), ((4,),))
    base = Weights(layout, torch.ones(4))
    taus = [TaskVector(layout, torch.full((4,), EPS / 4), base.hash)] * 8
    assert torch.equal((base + taus[0]).values, base.values)
    assert torch.equal(fuse(base, taus, 1.0).values, torch.full((4,), 1 + 2 * EPS))


def test_one_number_is_the_same_as_one_for_each() -> None:
    base, taus = case(1000, 4)
    wanted = fuse(base, taus, 0.3).values
    for lam in ([0.3] * 4, (0.3,) * 4, np.full(4, 0.3), np.float64(0.3), torch.tensor(0.3, dtype=torch.float64)):
        assert torch.equal(fuse(base, taus, lam).values, wanted)
    assert torch.equal(fuse(base, taus, 0).values, base.values)
    torch.testing.assert_close(fuse(base, taus, 0.3).values, (base + 0.3 * sum(taus)).values)
    torch.testing.assert_close(fuse(base, taus[:1], 1).values, (base + taus[0]).values)


@pytest.mark.parametrize("count", [1, 3, 8, 9, 20])
@pytest.mark.parametrize("same", [False, True])
def test_bits_do_not_depend_on_pieces_blocks_or_threads(
    monkeypatch: pytest.MonkeyPatch, count: int, same: bool
) -> None:
    base, taus = case(100_003, count, scale=0.1)
    factors = [0.3] * count if same else np.linspace(-0.7, 0.9, count).tolist()
    wanted = fuse(base, taus, factors).values
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            for piece in (9_999, 2**15, 2**22):
                for block in (1000, 4097, 2**18):
                    torch.set_num_threads(threads)
                    monkeypatch.setattr(pieces, "PIECE", piece)
                    monkeypatch.setattr(arithmetic, "_BLOCK", block)
                    assert torch.equal(fuse(base, taus, factors).values, wanted), (threads, piece, block)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", range(1, 28))
def test_every_vector_counts_once(count: int) -> None:
    """Powers of two add up without rounding, so a vector left out, or met twice, shows in the bits."""
    layout = Layout(("visual.proj",), ((3,),))
    base = Weights(layout, torch.zeros(3))
    taus = [TaskVector(layout, torch.full((3,), 1.0), base.hash) for _ in range(count)]
    for k in range(count):
        factors = [0.0] * count
        factors[k] = 0.5
        assert torch.equal(fuse(base, taus, factors).values, torch.full((3,), 0.5))
    halves = [2.0**-k for k in range(count)]
    if count <= 24:  # digits of float32
        assert torch.equal(fuse(base, taus, halves).values, torch.full((3,), 2 - 2.0 ** (1 - count)))
    assert torch.equal(fuse(base, taus, 0.5).values, torch.full((3,), count / 2))


def test_up_to_eight_vectors_are_added_as_the_algebra_does() -> None:
    for count in range(1, 9):
        base, taus = case(1000, count, scale=0.1)
        assert torch.equal(fuse(base, taus, 0.3).values, (base + 0.3 * sum(taus)).values)


def test_factors_beyond_float32_are_refused() -> None:
    base, taus = case(10, 2)
    with pytest.raises(InputError, match="that are NaN or infinite"):
        fuse(base, taus, 1e39)
    with pytest.raises(InputError, match="that are NaN or infinite"):
        fuse(base, taus, [1e39, 0.1])


@pytest.mark.parametrize("lam", [0.3, [0.3, 0.2, -0.1]])
def test_many_points_in_one_buffer(lam: float | list[float]) -> None:
    base, taus = case(1000, 3)
    wanted, buffer = fuse(base, taus, lam), base.layout.empty()
    buffer.fill_(math.nan)  # the old content does not matter
    for _ in range(2):
        point = fuse(base, taus, lam, out=buffer)
        assert point.values.data_ptr() == buffer.data_ptr()
        assert torch.equal(point.values, wanted.values) and point.hash == wanted.hash
        assert fuse(base, taus[:1], 0.7, out=buffer).hash == fuse(base, taus[:1], 0.7).hash != wanted.hash


@unhurried
@given(st.integers(1, 8), st.floats(-2, 2), st.integers(0, 99))
def test_a_search_may_sum_the_vectors_once(count: int, lam: float, seed: int) -> None:
    base, taus = case(50, count, seed, 1.0)
    assert torch.equal(fuse(base, [sum(taus)], lam).values, fuse(base, taus, lam).values)


def test_buffers_that_are_refused() -> None:
    base, taus = case(1000, 2)
    half = torch.empty(1000, dtype=torch.float16)
    for bad in (torch.empty(999), half, torch.empty(2000)[::2], torch.empty(1000, requires_grad=True)):
        with pytest.raises(InputError, match="expected a "):
            fuse(base, taus, 0.3, out=bad)
    for taken in (base.values, taus[1].values, taus[0].values.view(2, 500).view(-1)):
        kept = taken.clone()
        with pytest.raises(InputError, match="out is the memory of the base or of a task vector"):
            fuse(base, taus, 0.3, out=taken)
        assert torch.equal(taken, kept)


def test_inputs_stay_as_they_were() -> None:
    base, taus = case(1000, 3)
    before = [base.values.clone(), *(tau.values.clone() for tau in taus)]
    fuse(base, taus, 0.5)
    fuse(base, taus, 0.5, out=base.layout.empty())
    assert all(torch.equal(a, b) for a, b in zip(before, [base.values, *(tau.values for tau in taus)], strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("lam", [[0.3] * 2, [0.3, 0.2], [0.3] * 12])
def test_a_vector_that_was_spoilt_after_it_was_made(bad: float, lam: list[float]) -> None:
    base, taus = case(1000, len(lam))
    taus[1].values[700] = bad
    with pytest.raises(InputError, match="'visual.proj' holds 1 numbers of 999 that are NaN or infinite"):
        fuse(base, taus, lam)


def test_points_of_the_base_can_be_fused_into() -> None:
    base, taus = case(100, 2)
    point = fuse(base, taus[:1], 0.5)
    assert fuse(point, taus[1:], 0.5).base_hash == base.hash
    torch.testing.assert_close(fuse(point, taus[1:], 0.5).values, fuse(base, taus, 0.5).values)


def test_refused() -> None:
    base, taus = case(100, 2)
    other, _ = case(100, 1, seed=7)
    longer, long_taus = case(101, 1)
    with pytest.raises(InputError, match="nothing to fuse: got no task vector"):
        fuse(base, [], 0.3)
    with pytest.raises(InputError, match="the task vector of 'task0' belongs to another base"):
        fuse(other, taus, 0.3)
    with pytest.raises(InputError, match="the layout of the task vector does not match; other shape: 1"):
        fuse(base, [*taus, *long_taus], 0.3)
    with pytest.raises(InputError, match="got 3 coefficients for 2 task vectors"):
        fuse(base, taus, [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="lam is .*nan"):
        fuse(base, taus, [0.1, float("nan")])
    for bad in (float("inf"), "0.3", None, True, 1j, torch.tensor(True)):
        with pytest.raises(InputError, match="lam is .*: expected"):
            fuse(base, taus, bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'visual.ln_post.bias' holds 1 numbers of 1 that are NaN or infinite"):
        fuse(base, [1e20 * taus[0] / taus[0].values[0].abs().item()], 3e30)


# --- lambda -----------------------------------------------------------------------------------------------------


def test_published_table_and_fit() -> None:
    assert [lambda_n(n) for n in range(1, 8)] == [1.0, 0.70, 0.55, 0.50, 0.40, 0.35, 0.30]
    assert lambda_n(8) == pytest.approx(0.28945, abs=1e-5)
    assert lambda_n(np.int64(8)) == lambda_n(8)
    values = [lambda_n(n) for n in range(1, 30)]
    assert values == sorted(values, reverse=True)
    table = [lambda_n(n) for n in range(2, 8)]
    slope, intercept = np.polyfit(np.log(range(2, 8)), np.log(table), 1)
    assert (math.exp(intercept), slope) == pytest.approx((1.149, -0.663), abs=5e-4)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published results are not at {PUBLISHED}")
@pytest.mark.parametrize("n", range(2, 8))
def test_published_table_against_the_data(n: int) -> None:
    single = pd.read_csv(PUBLISHED / "single_task.csv").query("step == 6000 and finetune_mode == 'standard'")
    alone = single.set_index("task").accuracy
    rows = pd.read_csv(PUBLISHED / f"fft_task_addition_num-tasks={n}.csv")
    columns = [f"dataset:{k}" for k in range(n)]
    rows["normalized"] = [np.mean([row[task] / alone[task] for task in row[columns]]) for _, row in rows.iterrows()]
    by_lambda = rows.groupby(rows.scaling_factor.round(2)).normalized.agg(["mean", "size"])
    complete = by_lambda[by_lambda["size"] == math.comb(7, n)]["mean"]
    assert complete.idxmax() == lambda_n(n)


def test_other_rules() -> None:
    assert LAMBDA_RULES == ("published", "inverse", "constant")
    assert [lambda_n(n, "inverse") for n in (1, 2, 8)] == [1, 0.5, 0.125]
    assert lambda_n(5, "constant", 0.3) == 0.3
    assert lambda_n(5, "constant", 0) == 0


def test_inverse_is_the_average_model() -> None:
    base, taus = case(100, 4)
    average = sum((base + tau).values for tau in taus) / 4
    torch.testing.assert_close(fuse(base, taus, lambda_n(4, "inverse")).values, average)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "the number of tasks is 0"),
        ((2.0,), "n is 2.0"),
        ((True,), "n is True"),
        ((2, "best"), "'best'.*'published'"),
        ((2, "constant"), "rule 'constant' with value None"),
        ((2, "published", 0.3), "rule 'published' with value 0.3"),
        ((2, "constant", float("nan")), "value is nan"),
    ],
)
def test_refused_rules(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lambda_n(*arguments)


def test_choose_lambda() -> None:
    seen = []

    def score(lam: float) -> float:
        seen.append(lam)
        return -abs(lam - 0.3)

    lam, table = choose_lambda(score)
    assert lam == 0.3
    assert seen == list(LAMBDA_GRID) == [round(0.05 * k, 2) for k in range(21)]
    assert list(table.columns) == ["lam", "score"]
    assert table.lam.tolist() == seen
    assert table.score.idxmax() == 6


def test_choose_lambda_takes_the_smallest_of_the_best() -> None:
    lam, table = choose_lambda(lambda lam: min(lam, 0.5), [1, 0.5, 0.2, 0.5])
    assert lam == 0.5
    assert table.lam.tolist() == [0.2, 0.5, 1]


@pytest.mark.parametrize(
    ("best", "largest", "smallest"),
    [(0.5, 1.0, 0.05), (1.9, 4.0, 0.05), (9.0, 16.0, 0.05), (50.0, 16.0, 0.05), (0.03, 1.0, 0.003125), (0.0, 1.0, 0.0)],
)
def test_choose_lambda_goes_on_where_the_best_is_the_last(best: float, largest: float, smallest: float) -> None:
    def score(lam: float) -> float:
        return -abs(lam - best)

    lam, table = choose_lambda(score, widen=True)
    assert table.lam.max() == largest and table.lam[1] >= smallest
    assert abs(lam - best) <= 0.2 * best or best > 16
    assert lam == table.lam[table.score.idxmax()]
    assert len(choose_lambda(score)[1]) == 21


def test_choose_lambda_refuses() -> None:
    with pytest.raises(InputError, match="the grid for lambda is empty"):
        choose_lambda(lambda lam: 0.0, [])
    with pytest.raises(InputError, match="grid is .*nan"):
        choose_lambda(lambda lam: 0.0, [0.1, float("nan")])
    with pytest.raises(InputError, match="the score at lambda = 0.2 is nan"):
        choose_lambda(lambda lam: float("nan") if lam == 0.2 else 0.0, [0.1, 0.2])
