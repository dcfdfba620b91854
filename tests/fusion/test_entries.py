"""Mergers of single entries, each against a slow transcription of its paper, entry by entry."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mergers import LAYOUT, stacked, vector, vectors
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion import tensors
from rmtllmf_lib.fusion.entries import (
    average,
    breadcrumbs,
    consensus,
    dare,
    dare_ties,
    emr,
    magmax,
    pcb,
    tall,
    ties,
    ties_sum,
)
from small import generator
from vectors import unhurried

Array = NDArray[np.float64]


def close(found: object, wanted: Array, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found.values.numpy(), wanted, atol=atol)  # type: ignore[attr-defined]


def trimmed(users: Array, keep: float) -> Array:
    out = np.zeros_like(users)
    for k, row in enumerate(users):
        for place in sorted(range(len(row)), key=lambda i: -abs(row[i]))[: max(1, round(keep * len(row)))]:
            out[k, place] = row[place]
    return out


def elected(users: Array, mean: bool) -> Array:
    merged = []
    for entry in users.T:
        total = entry.sum()
        agree = [value for value in entry if value * total > 0]
        merged.append(sum(agree) / (len(agree) if mean else 1) if agree else 0.0)
    return np.array(merged)


@pytest.mark.parametrize("keep", [1e-9, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_ties_trims_elects_and_merges(keep: float, count: int) -> None:
    taus = vectors(count, seed=count)
    survivors = trimmed(stacked(taus), keep)
    close(ties(taus, keep=keep), elected(survivors, mean=True))
    close(ties_sum(taus, keep=keep), elected(survivors, mean=False))


def test_ties_trims_the_whole_vector_and_not_each_tensor() -> None:
    values = torch.full((LAYOUT.size,), 0.01)
    LAYOUT.views(values)["visual.proj"].fill_(1.0)
    merged = ties([vector(values)], keep=48 / LAYOUT.size)
    assert merged.values.count_nonzero() == 48 and merged.state_dict()["visual.proj"].all()


def test_dare_drops_a_share_and_keeps_the_expectation() -> None:
    taus = vectors(2)
    users = stacked(taus)
    parts = [dare(taus[:1], drop=0.75, generator=generator(k)).values.numpy() for k in range(200)]
    kept = np.array(parts) != 0
    assert abs(kept.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / kept.size)
    np.testing.assert_allclose(np.where(kept, parts, 0), kept * users[0] * 4, atol=1e-5)
    close(dare(taus, drop=0.0, generator=generator()), users.sum(0))
    again = [dare(taus, drop=0.5, generator=generator(3)).values for _ in range(2)]
    assert torch.equal(*again)
    assert not torch.equal(again[0], dare(taus, drop=0.5, generator=generator(4)).values)


def test_dare_draws_for_every_user_apart() -> None:
    (tau,) = vectors(1)
    merged = dare([tau, tau], drop=0.5, generator=generator()).values / tau.values
    assert {round(float(x)) for x in merged} == {0, 2, 4}


def test_dare_ties_elects_among_what_is_left() -> None:
    taus = vectors(3)
    close(dare_ties(taus, drop=0.0, generator=generator()), elected(stacked(taus), mean=True))
    left = torch.stack([tau.values for tau in taus])
    left = left * (torch.rand(left.shape, generator=generator(2)) >= 0.5) * 2
    close(dare_ties(taus, generator=generator(2)), elected(left.double().numpy(), mean=True))


def test_random_numbers_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    taus = vectors(3)
    wanted = dare(taus, generator=generator()).values
    monkeypatch.setattr("rmtllmf_lib.threads.PIECE", 64)
    assert torch.equal(dare(taus, generator=generator()).values, wanted)


@pytest.mark.parametrize(("smallest", "largest"), [(0.85, 0.01), (0.5, 0.2), (0.0, 0.0), (0.9, 0.0)])
def test_breadcrumbs_ranks_within_tensors(smallest: float, largest: float) -> None:
    taus = vectors(3)
    wanted = np.zeros(LAYOUT.size)
    for user in stacked(taus):
        for start, size in zip(LAYOUT.offsets, LAYOUT.sizes, strict=True):
            order = sorted(range(start, start + size), key=lambda i: abs(user[i]))
            for place in order[int(smallest * size) : size - int(largest * size)]:
                wanted[place] += user[place]
    close(breadcrumbs(taus, smallest=smallest, largest=largest), wanted)


def test_magmax_takes_the_largest_magnitude() -> None:
    taus = vectors(4)
    close(magmax(taus), np.array([max(entry, key=abs) for entry in stacked(taus).T]))


@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_pcb_weighs_by_competition(keep: float) -> None:
    taus = vectors(3)
    users = stacked(taus)
    weights = []
    for user in users:
        unit = (abs(user) - abs(user).min()) / (abs(user).max() - abs(user).min())
        weight = np.exp(len(users) * unit**2) * np.tanh(user * users.sum(0))
        least = np.sort(weight)[-max(1, round(keep * len(user)))]
        weights.append(np.where(weight >= least, (weight - least) / (weight.max() - least), 0))
    total = np.sum(weights, axis=0)
    wanted = np.where(total > 0, np.sum(weights * users, axis=0) / np.where(total > 0, total, 1), 0)
    close(pcb(taus, keep=keep), wanted, atol=2e-5)


def test_pcb_keeps_an_entry_of_each_vector_however_small_the_share() -> None:
    """Of two that are kept, the smaller one gets the weight 0: what is left is the one that matters most."""
    taus = vectors(3)
    found = pcb(taus, keep=1e-9)
    assert 1 <= int(found.values.count_nonzero()) <= len(taus)
    assert torch.equal(found.values, pcb(taus, keep=2 / LAYOUT.size).values)


@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.5])
def test_tall_masks_and_consensus(threshold: float) -> None:
    taus = vectors(4)
    users = stacked(taus)
    total = users.sum(0)
    masks = np.array([abs(user) > threshold * abs(total - user) for user in users])
    close(consensus(taus, threshold=threshold), total * (masks.sum(0) >= 2))
    close(consensus(taus, threshold=threshold, least=4), total * masks.all(0))
    for user in range(4):
        close(tall(taus, task=user, threshold=threshold), total * masks[user])


def test_emr_is_the_papers_for_each_task() -> None:
    taus = vectors(3)
    users = stacked(taus)
    sign = np.sign(users.sum(0))
    largest = np.max(np.where(users * sign > 0, abs(users), 0), axis=0)
    for k, user in enumerate(users):
        masked = np.where(user * sign > 0, sign * largest, 0)
        close(emr(taus, task=k), masked * abs(user).sum() / abs(masked).sum(), atol=1e-5)


@unhurried
@given(st.integers(0, 99), st.integers(1, 6), st.integers(3, 50))
def test_blocks_do_not_matter(seed: int, count: int, block: int) -> None:
    taus = vectors(count, seed)
    wanted = [rule(taus).values for rule in (ties, average, magmax, consensus)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "_BLOCK", block)
        for rule, values in zip((ties, average, magmax, consensus), wanted, strict=True):
            torch.testing.assert_close(rule(taus).values, values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda taus: ties(taus, keep=0.0), "keep is 0"),
        (lambda taus: ties_sum(taus, keep=1.1), "keep is 1.1"),
        (lambda taus: pcb(taus, keep=0.0), "keep is 0"),
        (lambda taus: dare(taus, drop=1.0, generator=generator()), "drop is 1"),
        (lambda taus: dare(taus, drop=-0.1, generator=generator()), "drop is -0.1"),
        (lambda taus: dare(taus, generator=0), "generator is 0"),
        (lambda taus: breadcrumbs(taus, smallest=0.99), "smallest and largest are 0.99 and 0.01"),
        (lambda taus: breadcrumbs(taus, largest=-0.1), "largest is -0.1"),
        (lambda taus: consensus(taus, threshold=-1.0), "threshold is -1"),
        (lambda taus: consensus(taus, least=0), "least is 0"),
        (lambda taus: tall(taus, task=2), "task is 2"),
        (lambda taus: emr(taus, task=-1), "task is -1"),
    ],
)
def test_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(vectors(2))  # type: ignore[operator]
