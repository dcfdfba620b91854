"""Items and pieces of long buffers, worked on by several threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from rmtllmf_lib import threads as pieces
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.threads import map_pieces, ordered, single_blas
from rmtllmf_lib.workers import MAX_WORKERS


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(pieces, "PIECE", 10)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_items_taken_a_few_ahead(threads: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item

    results = ordered(work, items())
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) == 3 + threads * (threads > 1)
    assert list(results) == list(range(3, 20))


@pytest.mark.parametrize("length", [1, 10, 11, 95])
def test_pieces_come_in_order_and_cover_the_buffers(threads: int, length: int) -> None:
    buffers = [torch.arange(length), torch.arange(length) + 1000]
    results = map_pieces(lambda piece: (piece[0].tolist(), piece[1].tolist()), buffers)
    assert [x for first, _ in results for x in first] == buffers[0].tolist()
    assert [x for _, second in results for x in second] == buffers[1].tolist()
    assert all(len(first) <= 10 for first, _ in results)


def test_torch_is_held_to_one_thread_and_freed_again(threads: int) -> None:
    seen = map_pieces(lambda piece: (torch.get_num_threads(), threading.get_ident()), [torch.zeros(100)])
    assert {number for number, _ in seen} == {1}
    assert (threading.get_ident() in {thread for _, thread in seen}) == (threads == 1)
    assert torch.get_num_threads() == threads


def blas() -> list[int]:
    """Threads of every library of linear algebra in the process; one that was loaded with one thread keeps it."""
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_linear_algebra_is_held_to_one_thread_and_freed_again() -> None:
    """By whoever leaves last, in whatever order they came, and after errors."""
    with threadpool_limits(3, user_api="blas"):
        free = blas()
        assert 3 in free
        with single_blas:
            assert {number for seen in ordered(lambda _: blas(), range(4), 2) for number in seen} == {1}
        assert blas() == free
        first, second = ExitStack(), ExitStack()
        first.enter_context(single_blas)
        second.enter_context(single_blas)
        first.close()
        assert {*blas()} == {1}
        second.close()
        assert blas() == free
        with pytest.raises(RuntimeError), single_blas:
            raise RuntimeError
        assert blas() == free


def test_a_consumer_of_items_keeps_its_threads() -> None:
    with threadpool_limits(3, user_api="blas"):
        free = blas()
        for _ in ordered(lambda _: None, range(3), 2):
            assert blas() == free


def test_error_of_a_thread_arrives(threads: int) -> None:
    def fail(piece: object) -> None:
        raise RuntimeError("one piece failed")

    with pytest.raises(RuntimeError, match="one piece failed"):
        map_pieces(fail, [torch.zeros(100)])
    assert torch.get_num_threads() == threads


def test_buffers_of_two_lengths_are_a_defect(threads: int) -> None:
    with pytest.raises(ValueError, match="shorter"):
        map_pieces(len, [torch.zeros(100), torch.zeros(20)])


def test_the_environment_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_WORKERS, "2")
    names = set()

    def name(_: int) -> None:
        time.sleep(0.01)
        names.add(threading.current_thread().name)

    assert list(ordered(name, range(20), threads=8)) == [None] * 20 and len(names) == 2
    monkeypatch.setenv(MAX_WORKERS, "many")
    with pytest.raises(InputError, match=f"{MAX_WORKERS} is 'many'"):
        list(ordered(name, range(2), threads=2))
