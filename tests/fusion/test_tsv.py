"""TSV-Merge against a literal transcription of the paper's Algorithm 1, and its properties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergers import LAYOUT, vector, vectors
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.task_vector import TaskVector
from vectors import unhurried

ATOL = 2e-6


def by_the_paper(taus: list[TaskVector]) -> dict[str, np.ndarray]:
    """Full SVDs, stacked, and orthogonalised by a further SVD of each stack; everything else averaged."""
    merged = {}
    for name in LAYOUT.names:
        users = [tau.state_dict()[name].double().numpy() for tau in taus]
        if users[0].ndim != 2:
            merged[name] = np.mean(users, axis=0)
            continue
        k = max(1, min(users[0].shape) // len(users))
        parts = [np.linalg.svd(matrix, full_matrices=False) for matrix in users]
        U = np.concatenate([u[:, :k] for u, _, _ in parts], axis=1)
        V = np.concatenate([vt[:k].T for _, _, vt in parts], axis=1)
        P, _, Qt = np.linalg.svd(U, full_matrices=False)
        R, _, St = np.linalg.svd(V, full_matrices=False)
        merged[name] = (P @ Qt) @ np.diag(np.concatenate([s[:k] for _, s, _ in parts])) @ (R @ St).T
    return merged


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_tsv_is_the_papers_algorithm(count: int) -> None:
    taus = vectors(count, seed=count)
    found = tsv_merge(taus)
    for name, wanted in by_the_paper(taus).items():
        np.testing.assert_allclose(found.state_dict()[name].numpy(), wanted, atol=ATOL, err_msg=name)
    assert found.base_hash == taus[0].base_hash and found.info == {}


def test_what_nobody_changed_stays_as_it_is() -> None:
    """A tensor of zeros of every user, as of frozen embeddings, is merged to zeros and changes nothing else."""
    taus = vectors(3, seed=5)
    (name, *_) = [each for each, shape in zip(LAYOUT.names, LAYOUT.shapes, strict=True) if len(shape) == 2]
    place = slice(LAYOUT.offsets[LAYOUT.names.index(name)], None)
    frozen = []
    for tau in taus:
        values = tau.values.clone()
        values[place][: LAYOUT.sizes[LAYOUT.names.index(name)]] = 0
        frozen.append(TaskVector(LAYOUT, values, tau.base_hash))
    merged, whole = tsv_merge(frozen).state_dict(), tsv_merge(taus).state_dict()
    assert not merged[name].any()
    assert all(torch.equal(merged[other], whole[other]) for other in LAYOUT.names if other != name)


@unhurried
@given(st.integers(0, 99), st.floats(-3, 3).filter(lambda x: abs(x) > 0.01), st.permutations(range(3)))
def test_order_is_free_and_scale_is_carried(seed: int, scale: float, order: list[int]) -> None:
    taus = vectors(3, seed)
    merged = tsv_merge(taus).values
    torch.testing.assert_close(tsv_merge([taus[k] for k in order]).values, merged, atol=ATOL, rtol=0)
    scaled = tsv_merge(
        [scale * tau for tau in taus]
    ).values  # rounded anew, which stacks that are nearly singular amplify
    torch.testing.assert_close(scaled, scale * merged, atol=50 * ATOL, rtol=0)


def test_one_vector_is_its_own_result() -> None:
    (tau,) = vectors(1)
    torch.testing.assert_close(tsv_merge([tau]).values, tau.values, atol=ATOL, rtol=0)


def test_equal_vectors_keep_their_strongest_directions() -> None:
    (tau,) = vectors(1)
    merged = tsv_merge([tau] * 4).state_dict()
    for name, tensor in tau.state_dict().items():
        if tensor.ndim == 2:
            u, s, vt = np.linalg.svd(tensor.double().numpy(), full_matrices=False)
            k = max(1, len(s) // 4)
            tensor = (u[:, :k] * s[:k]) @ vt[:k]
        np.testing.assert_allclose(merged[name].numpy(), tensor, atol=ATOL)


def test_vectors_in_orthogonal_directions_are_added() -> None:
    """Matrices of rank one whose rows and columns do not meet keep their sum; all else is averaged."""
    taus = []
    for k in range(2):
        values = torch.zeros(LAYOUT.size)
        for view in LAYOUT.views(values).values():
            if view.ndim == 2:
                view[k, k] = k + 1.0
            else:
                view.fill_(k)
        taus.append(vector(values))
    merged, total = tsv_merge(taus).state_dict(), (taus[0] + taus[1]).state_dict()
    for name, tensor in total.items():
        torch.testing.assert_close(merged[name], tensor if tensor.ndim == 2 else tensor / 2, atol=ATOL, rtol=0)


def test_a_zero_vector_adds_nothing_and_zeros_stay_zeros() -> None:
    zero, (tau,) = vector(torch.zeros(LAYOUT.size)), vectors(1)
    assert not tsv_merge([zero, zero]).values.any()
    half, full = tsv_merge([tau, zero]).state_dict(), tsv_merge([tau, tau]).state_dict()
    for name, tensor in full.items():
        torch.testing.assert_close(half[name], tensor if tensor.ndim == 2 else tensor / 2, atol=ATOL, rtol=0)


def test_refused() -> None:
    taus = vectors(2)
    with pytest.raises(InputError, match="got no task vector"):
        tsv_merge([])
    other = TaskVector(LAYOUT, taus[1].values, "0" * 64)
    with pytest.raises(InputError, match="task vector 1 belongs to another base"):
        tsv_merge([taus[0], other])
    taus[1].values[3] = float("nan")
    with pytest.raises(InputError, match="task vector 1: .* holds 1 numbers"):
        tsv_merge(taus)
